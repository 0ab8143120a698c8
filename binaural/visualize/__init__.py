"""Pictures of what a trained network predicts and of how its attention matches the two ears."""
