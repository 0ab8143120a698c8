"""Pictures of what networks hear and see."""
