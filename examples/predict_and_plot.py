"""Predict depth from a stereo WAV file with a trained network, and draw it.

python examples/predict_and_plot.py runs/simulated-binaural/best recording.wav depth.png
"""

import sys
from pathlib import Path

import torch

from binaural.checkpoint import load_checkpoint
from binaural.evaluate import predict
from binaural.pictures.depth_map import draw_depth
from binaural.predict.recordings import read_input

folder, recording, picture = sys.argv[1:]
device = torch.device("cpu")
checkpoint = load_checkpoint(folder, device)
inputs, faults = read_input(Path(recording), checkpoint.input)  # [channels, frequency, time]
for fault in faults:
    print(f"{recording}: {fault}")
depth = predict(checkpoint.network, inputs[None], device=device)[0, 0]  # [H, W], metres
print(f"depth {depth.min():.2f} to {depth.max():.2f} m, median {depth.median():.2f} m")
draw_depth(Path(picture), depth.numpy(), recording, farthest=checkpoint.input.max_depth)
