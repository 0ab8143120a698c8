"""Quantities that every part of the simulation shares. Units: metres, seconds, hertz."""

SPEED_OF_SOUND = 343.0  # dry air at 20 degrees Celsius
SAMPLE_RATE = 44_100
FRAMES = 20_000  # frames per recording, as BatVision V2 has them
