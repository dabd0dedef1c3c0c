"""Where the published programs keep their files: looked in where a command line names none."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

DATA = ("data", "dataset", "datasets")
CHECKPOINTS = ("checkpoint",)
CONFIGS = ("configs",)


def find_data(wanted: Iterable[str]) -> Path | None:
    """The first of ``DATA`` here that holds one of the files or folders wanted."""
    wanted = list(wanted)
    return next((Path(folder) for folder in DATA if any((Path(folder) / name).exists() for name in wanted)), None)


def find_file(name: str | Path, folders: Iterable[str | Path | None]) -> Path:
    """The file of that name: here, else in the first of ``folders`` that has it; ``name`` itself where nothing is."""
    places = [Path(name), *(Path(folder) / name for folder in folders if folder)]
    return next((place for place in places if place.is_file()), Path(name))
