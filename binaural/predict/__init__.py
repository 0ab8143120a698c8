"""From recordings to depth maps, pictures and point clouds."""
