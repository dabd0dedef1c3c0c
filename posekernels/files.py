"""How everything here is written to disk: aside, then renamed, so that a file is whole or absent; and the cache."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path

import torch


def cache_folder() -> Path | None:
    """The user's folder for what is kept between runs; None where ``POSEKERNELS_CACHE`` is ``off``.

    ``POSEKERNELS_CACHE``, else ``XDG_CACHE_HOME``/posekernels, else ~/.cache/posekernels.
    """
    named = os.environ.get("POSEKERNELS_CACHE")
    if named:
        return None if named == "off" else Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "posekernels"


def check_writable(out: Path, source: str | None = None, option: str = "-o") -> None:
    """Raises ValueError, naming ``option``, unless a file can be written there, and is not the one that is read."""
    folder = out.parent
    try:  # whatever the folder's rights say: what counts is whether it can be done
        if source is not None and out.exists() and Path(source).exists() and out.samefile(source):
            raise ValueError(f"{option} {out}: would overwrite the input")
        if not folder.is_dir():
            raise ValueError(f"{option} {out}: there is no folder {folder}")
        if out.is_dir():
            raise ValueError(f"{option} {out}: cannot be written (it is a folder)")
        aside = _aside(out)
        aside.touch()
        aside.unlink()
    except OSError as error:
        raise ValueError(f"{option} {out}: cannot be written ({error.strerror})") from error


def _aside(path: Path) -> Path:
    """Beside ``path``, of the same suffix, with a name that is hardly longer, and nobody else's."""
    return path.with_name(f".{path.stem[:80]}-aside-{os.getpid()}{path.suffix}")


def left_aside(folder: Path) -> list[Path]:
    """Files that ``write_aside`` left in a folder because its process was killed."""
    found = [(path, re.fullmatch(r"\..+-aside-(\d+)", path.stem)) for path in folder.glob(".*-aside-*")]
    return [path for path, made in found if made and not Path(f"/proc/{made[1]}").exists()]


def save_checkpoint(state, path: str | Path) -> None:
    """``torch.save``, whole or not at all; a full disk is an OSError that names ``path``."""
    failure = None

    class Told(io.FileIO):
        """PyTorch's writer swallows what went wrong while it wrote."""

        def write(self, data):
            nonlocal failure
            try:
                left = memoryview(data).cast("B")
                while left:
                    left = left[super().write(left) :]
                return len(data)
            except OSError as error:
                failure = error
                raise

    with write_aside(path) as aside:
        try:
            with Told(aside, "w") as file:
                torch.save(state, file)
        except Exception:
            if failure is not None:
                raise failure from None
            raise


@contextlib.contextmanager
def write_aside(path: str | Path) -> Iterator[Path]:
    """A path beside ``path``, of the same suffix, to write to.

    It takes ``path``'s place when the block ends well, else it is removed and ``path`` is as it was, also where the
    power fails: what was written is on the disk before the name is. An OSError, of a full disk say, names ``path``.
    """
    path = Path(path)
    aside = _aside(path)
    try:
        aside.touch()
        mode = aside.stat().st_mode
        yield aside
        aside.chmod(mode)  # some writers, safetensors for one, leave a file that only its owner can read
        with open(aside, "rb+") as written:
            os.fsync(written)  # a file system may write the new name first; some milliseconds, once for each file
        os.replace(aside, path)
    except OSError as error:
        if error.filename in (None, str(aside)):
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
