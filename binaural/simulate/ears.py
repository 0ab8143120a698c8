"""The two ears: measured head-related impulse responses of a KEMAR dummy head (see kemar.md)."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.spatial import cKDTree

from binaural.simulate.scene import Floats

RESPONSES = Path(__file__).with_name("kemar.npz")
BLOCK = 1024  # samples that are summed at a time


class Ears:
    """Turns arrivals of sound (when, how strong, from where) into two ear signals.

    Attributes: directions [D, 3] unit vectors in sensor axes; response [2, D, T], ears in the order left,
    right; onset [2, D] samples from the arrival at the middle of the head to the start of the response.
    """

    def __init__(self) -> None:
        with np.load(RESPONSES, allow_pickle=False) as kemar:
            azimuth, elevation = np.deg2rad(kemar["angles"].astype(np.float64)).T
            left = kemar["shape"].astype(np.float32) * np.float32(kemar["scale"])
            onset = kemar["onset"].astype(np.int64)
            lead = int(kemar["lead"])
        self.directions = np.stack(
            [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)],
            axis=1,
        )
        # Nearest measured direction of every whole degree, elevation by azimuth: looking up 40,000 arrivals
        # is ten times as fast as searching the tree for them.
        up, around = np.deg2rad(np.meshgrid(np.arange(-90, 91), np.arange(-180, 180), indexing="ij"))
        grid = np.stack([np.cos(up) * np.cos(around), np.cos(up) * np.sin(around), np.sin(up)], axis=-1)
        self._nearest = cKDTree(self.directions).query(grid)[1]
        # Nothing was measured below -40 degrees, and straight down all azimuths are equally near: take the
        # one ahead, where sound from the floor below is equal in both ears.
        self._nearest[0] = self._nearest[1, 180]
        mirrored = self.nearest(self.directions * [1, -1, 1])
        # Counted from the arrival of sound from straight ahead.
        onset -= onset[self.nearest(np.array([[1.0, 0.0, 0.0]]))] + lead
        self.onset = np.stack([onset, onset[mirrored]])
        self.response = np.stack([left, left[mirrored]])

    def nearest(self, directions: Floats) -> NDArray[np.int64]:
        """Index of the measured direction nearest to directions [N, 3] (sensor axes), to half a degree."""
        forward, left, up = directions.T
        elevation = np.rad2deg(np.arctan2(up, np.hypot(forward, left)))
        azimuth = np.rad2deg(np.arctan2(left, forward))
        return self._nearest[np.rint(elevation).astype(int) + 90, (np.rint(azimuth).astype(int) + 180) % 360]

    def hear(
        self, delay: NDArray[np.int64], amplitude: Floats, directions: Floats, frames: int
    ) -> NDArray[np.float32]:
        """Impulse responses at the ears, [2, frames].

        Args:
            delay: [K] samples until each arrival reaches the middle of the head; the ears hear it up to
                0.3 ms earlier or 0.4 ms later, depending on where it comes from.
            amplitude: [K] sound pressures.
            directions: [K, 3] where each arrival comes from, in sensor axes.
            frames: length of the result; what arrives later is dropped.
        """
        nearest = self.nearest(directions)
        taps = self.response.shape[2]
        ears = np.empty((2, frames), np.float32)
        for ear, (onset, response) in enumerate(zip(self.onset, self.response, strict=True)):
            # Arrivals are summed per (onset, direction) before any response is applied, so the cost is one
            # sparse product plus one pass over taps, not a convolution for each of the directions.
            begin = delay + onset[nearest]
            kept = (begin >= 0) & (begin < frames)
            binned = coo_array(
                (amplitude[kept].astype(np.float32), (begin[kept], nearest[kept])),
                shape=(frames, len(onset)),
            ).tocsr()
            # Row n of spread holds what begins at n, column t of it is due t samples later: one sum along the
            # skewed rows puts all in their places. Block by block, so that it stays in the cache.
            spread = np.zeros((taps + BLOCK, taps), np.float32)
            row, column = spread.strides
            for start in range(0, frames, BLOCK):
                count = min(BLOCK, frames - start)
                spread[:taps] = spread[BLOCK:].copy()  # the rows before this block still sound
                spread[taps : taps + count] = binned[start : start + count] @ response
                skewed = np.lib.stride_tricks.as_strided(
                    spread[taps:], (count, taps), (row, column - row), writeable=False
                )
                ears[ear, start : start + count] = skewed.sum(axis=1)
        return ears


@cache
def kemar() -> Ears:
    """The ears, read once per process."""
    return Ears()
