"""Records that may be too many for memory: appended to a file, read back by their numbers; arrays in pieces."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import BinaryIO

import numpy as np

PIECE = 8192  # records that are looked at at once
CUT = 16384  # frames, of arrays that are worked through piece by piece


def cuts(count: int, longest: int | None = None) -> list[slice]:
    """Rows 0 to ``count``, so many at a time (``CUT``) that what is made of them takes little memory."""
    longest = longest or CUT
    return [slice(start, min(count, start + longest)) for start in range(0, count, longest)]


class Rows:
    """Records of one dtype in a file; memory does not grow with their number.

    Args:
        file: open to read and write, unbuffered. dtype: of a record.
        start: where the records begin in the file. A last one that is cut off, by what ended its writer, is dropped.
    """

    def __init__(self, file: BinaryIO, dtype: np.dtype, start: int = 0):
        self.file, self.dtype, self.start = file, dtype, start
        self.count = max(0, os.fstat(file.fileno()).st_size - start) // dtype.itemsize
        self.cut(self.count)

    @classmethod
    def nameless(cls, dtype: np.dtype, folder: Path) -> Rows:
        """In a file of ``folder`` that goes with the process, however that ends."""
        return cls(tempfile.TemporaryFile(buffering=0, dir=folder), dtype)

    def __len__(self) -> int:
        return self.count

    def cut(self, count: int) -> None:
        """Keep the first ``count`` records."""
        self.count = count
        self.file.truncate(self.start + count * self.dtype.itemsize)
        self.file.seek(0, os.SEEK_END)

    def append(self, records: np.ndarray) -> None:
        """[N] records, all of them or, where that fails, none.

        Raises:
            OSError: the disk is full, say.
        """
        left = memoryview(np.ascontiguousarray(records, self.dtype)).cast("B") if len(records) else b""
        try:
            while left:
                left = left[self.file.write(left) :]
        except BaseException:
            self.cut(self.count)
            raise
        self.count += len(records)

    def __getitem__(self, numbers: slice | np.ndarray) -> np.ndarray:
        """Records by number, in memory of their own."""
        if isinstance(numbers, slice):
            numbers = np.arange(*numbers.indices(self.count))
        found = np.empty(len(numbers), self.dtype)
        for at in range(0, len(numbers), PIECE):
            some = numbers[at : at + PIECE]
            first, last = int(some.min()), int(some.max())
            # a map for each piece: what it has touched leaves memory with it
            where = self.start + first * self.dtype.itemsize
            mapped = np.memmap(self.file, self.dtype, "r", where, (last - first + 1,))
            found[at : at + PIECE] = mapped[some - first]
        return found
