"""Simulated echoes, depth maps and pictures of random rooms, in the layout of BatVision V2.

`python -m binaural.simulate` is the command; `simulate_dataset` the same as a function.
"""

from binaural.simulate.dataset import simulate_dataset

__all__ = ["simulate_dataset"]
