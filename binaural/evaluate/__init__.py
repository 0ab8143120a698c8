"""Metrics of networks: over a data set, per image, of two networks compared, and with ears muted."""

from binaural.evaluate.measuring import ConstantPredictor, evaluate, mean_depth, predict

__all__ = ["ConstantPredictor", "evaluate", "mean_depth", "predict"]
