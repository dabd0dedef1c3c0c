"""Data sets: file formats, windows, and the built-in motion."""

from posekernels.archive import DataError

from .clips import Clip, LiftingData
from .h36m import load_h36m
from .humaneva import load_humaneva
from .motion import load_starter

__all__ = ["Clip", "DataError", "LiftingData", "load_h36m", "load_humaneva", "load_starter"]
