"""How everything here is written to disk: aside, then renamed, so that a file is whole or absent."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def check_writable(out: Path, source: str | None = None, option: str = "-o") -> None:
    """Raises ValueError, naming ``option``, unless a file can be written there, and is not the one that is read."""
    if source is not None and out.exists() and Path(source).exists() and out.samefile(source):
        raise ValueError(f"{option} {out}: would overwrite the input")
    folder = out.parent
    if not folder.is_dir():
        raise ValueError(f"{option} {out}: there is no folder {folder}")
    if out.is_dir() or not os.access(folder, os.W_OK):
        raise ValueError(f"{option} {out}: cannot be written{' (it is a folder)' if out.is_dir() else ''}")


@contextlib.contextmanager
def write_aside(path: str | Path) -> Iterator[Path]:
    """A path beside ``path``, of the same suffix, to write to.

    It takes ``path``'s place when the block ends well, else it is removed and ``path`` is as it was.
    """
    path = Path(path)
    aside = path.with_name(f".{path.stem}-{os.getpid()}{path.suffix}")
    try:
        aside.touch()
        mode = aside.stat().st_mode
        yield aside
        aside.chmod(mode)  # some writers, safetensors for one, leave a file that only its owner can read
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
