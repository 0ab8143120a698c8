"""Figures that several commands draw: training curves, predictions, depth maps."""
