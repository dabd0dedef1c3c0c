"""Motion without tremor: Savitzky-Golay for a whole clip, One-Euro for frames as they come."""

from __future__ import annotations

import math

import numpy as np


def savitzky_golay(motion: np.ndarray, window: int, order: int = 2) -> np.ndarray:
    """Each frame replaced by the middle of a polynomial fitted to the frames around it.

    Near the ends the first or last whole window's polynomial is read off-centre, so that ends neither lag nor stick.

    Args:
        motion: [T, ...], finite. window: frames, odd; a clip shorter than it is fitted as a whole.
        order: of the polynomial.
    Returns:
        [T, ...] in the dtype of ``motion``; itself for a window of at most ``order`` + 1 frames.
    Raises:
        ValueError: an even or non-positive window.
    """
    if window < 1 or window % 2 == 0:
        raise ValueError(f"savitzky_golay: window must be odd and positive, got {window}")
    frames = len(motion)
    window = min(window, frames - (frames + 1) % 2)
    if window <= order + 1:
        return motion
    half = window // 2
    powers = np.arange(-half, half + 1)[:, None] ** np.arange(order + 1)  # [window, order + 1]
    fit = powers @ np.linalg.pinv(powers)  # [window, window]: samples -> the polynomial at every sample
    flat = motion.reshape(frames, -1).astype(np.float64)
    smooth = np.empty_like(flat)
    around = np.lib.stride_tricks.sliding_window_view(flat, window, axis=0)  # [T - window + 1, N, window]
    smooth[half : frames - half] = around @ fit[half]
    smooth[:half] = fit[:half] @ flat[:window]
    smooth[frames - half :] = fit[half + 1 :] @ flat[-window:]
    return smooth.reshape(motion.shape).astype(motion.dtype)


class OneEuro:
    """A low-pass filter whose cut-off rises with speed: still joints hold still, quick ones do not lag.

    Source: Casiez et al., CHI 2012.

    Args:
        fps: frames per second. cutoff: Hz at rest. beta: Hz gained per unit of speed (metres per second).
        speed_cutoff: Hz, of the speed's own filter.
    """

    def __init__(self, fps: float, cutoff: float = 1.5, beta: float = 3.0, speed_cutoff: float = 1.0):
        self.fps, self.cutoff, self.beta, self.speed_cutoff = fps, cutoff, beta, speed_cutoff
        self.value: np.ndarray | None = None
        self.speed = np.zeros(())

    def _weight(self, cutoff):
        rate = 2 * math.pi * cutoff / self.fps
        return rate / (rate + 1)

    def __call__(self, value: np.ndarray) -> np.ndarray:
        """The next frame, filtered; the same shape each time."""
        if self.value is None:
            self.value, self.speed = value.astype(np.float64), np.zeros(value.shape)
        else:
            speed = (value - self.value) * self.fps
            self.speed = self.speed + self._weight(self.speed_cutoff) * (speed - self.speed)
            weight = self._weight(self.cutoff + self.beta * np.abs(self.speed))
            self.value = self.value + weight * (value - self.value)
        return self.value.astype(value.dtype)
