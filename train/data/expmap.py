"""Text files of exponential maps (one frame a row, comma-separated) to joint positions, cached in a binary form.

A file's positions are kept under the digest of its bytes, so a changed file is read anew and a renamed one is not. An
index remembers which digest a file had when its size, times and inode were last seen, so that an unchanged file is not
read at all. ``POSEKERNELS_CACHE`` names the folder; ``off`` turns the cache off.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from pathlib import Path

import numpy as np
import torch

from posekernels.archive import DataError
from posekernels.files import cache_folder, write_aside
from posekernels.pose.kinematics import Body, forward_kinematics

CACHE_FORMAT = 1  # part of every key: raise it when what is kept changes
_log = logging.getLogger("posekernels")


def read_rows(path: str | Path, columns: int) -> np.ndarray:
    """[n, columns] float32, every number finite.

    Raises:
        DataError: names the file and the line (from 1), what came and what was expected.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    data = path.read_bytes()
    if not data.strip():
        raise DataError(f"{path}: the file is empty; expected rows of {columns} numbers")
    try:
        rows = np.loadtxt(data.decode("ascii").splitlines(), np.float32, delimiter=",", comments=None, ndmin=2)
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(_first_problem(path, data, columns) or f"{path}: not readable as numbers ({error})") from None
    if rows.shape[1] != columns or not np.isfinite(rows).all():
        raise DataError(_first_problem(path, data, columns) or f"{path}: expected {columns} finite numbers a row")
    return rows


def _first_problem(path: Path, data: bytes, columns: int) -> str | None:
    """What is wrong in the first line that is wrong."""
    for number, line in enumerate(data.decode("ascii", "replace").splitlines(), 1):
        if not line.strip():
            continue
        cells = line.split(",")
        if len(cells) != columns:
            joints, rest = divmod(len(cells) - 3, 3)
            other = f", those of a skeleton of {joints} joints" if rest == 0 and joints > 0 else ""
            return (
                f"{path}:{number}: {len(cells)} columns{other}; expected {columns} "
                f"(3 + 3 x {(columns - 3) // 3} joints)"
            )
        for column, cell in enumerate(cells, 1):
            try:
                value = float(cell)
            except ValueError:
                return f"{path}:{number}: column {column} is {cell.strip()[:20]!r}; expected a number"
            if not np.isfinite(np.float32(value)):
                return f"{path}:{number}: column {column} is {cell.strip()[:20]}; expected a finite number"
    return None


class PositionCache:
    """Reads text files as positions, through the cache. Use as a context: the index is written at the end.

    Args:
        body: the skeleton with its bone lengths.
        kind: tells skeletons and options apart in the keys ("cmu", "cmu-true-scale").
    """

    def __init__(self, body: Body, kind: str):
        self.body, self.kind, self.folder = body, f"{kind}-{CACHE_FORMAT}", cache_folder()
        self.index: dict[str, list] = {}
        self._changed = False

    def __enter__(self) -> PositionCache:
        if self.folder:
            try:
                index = json.loads((self.folder / "index.json").read_text())
                self.index = index if isinstance(index, dict) else {}
            except (OSError, ValueError):  # absent or damaged: files are then read and hashed again
                pass
        return self

    def __exit__(self, *_) -> None:
        if self._changed and self.folder:
            self._write("index.json", json.dumps(self.index).encode())

    def _write(self, name: str, data: bytes) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with write_aside(self.folder / name) as aside:
                aside.write_bytes(data)
        except OSError as error:
            _log.warning("%s: cannot write the cache (%s); text will be parsed again", self.folder, error.strerror)
            self.folder = None

    def positions(self, path: str | Path) -> np.ndarray:
        """[n, J, 3] float32 metres of every row; read-only.

        Raises:
            DataError: as ``read_rows``.
        """
        path = Path(path)
        if not self.folder:
            return self._compute(path)
        try:
            stat = path.stat()
        except OSError:
            raise DataError(f"{path}: no such file") from None
        seen = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
        key, digest = str(path.absolute()), None
        entry = self.index.get(key)
        if isinstance(entry, list) and entry[:-1] == seen and re.fullmatch(r"[0-9a-f]{32}", str(entry[-1])):
            digest = entry[-1]
        if digest is None:
            digest = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
            self.index[key] = [*seen, digest]
            self._changed = True
        kept = self.folder / f"{self.kind}-{digest}.npy"
        try:
            return np.load(kept, mmap_mode="r")
        except (OSError, ValueError, EOFError):  # absent or damaged
            positions = self._compute(path)
            self._save(kept.name, positions)
            return positions

    def _compute(self, path: Path) -> np.ndarray:
        rows = read_rows(path, self.body.columns)
        positions = forward_kinematics(torch.from_numpy(rows), self.body) / 1000
        return positions.numpy()

    def _save(self, name: str, positions: np.ndarray) -> None:
        import io

        buffer = io.BytesIO()
        np.save(buffer, positions)
        self._write(name, buffer.getvalue())


def numbered_files(folder: Path, action: str) -> list[tuple[int, Path]]:
    """(k, path) of ``action_k.txt`` in ``folder``, by number. Published: 1..count of the entries."""
    pattern = re.compile(rf"{re.escape(action)}_(\d+)\.txt")
    found = [(int(m[1]), p) for p in folder.iterdir() if (m := pattern.fullmatch(p.name))]
    return sorted(found)
