"""One copy of a data set for all processes of a machine: its clips end to end in a file that they map."""

from __future__ import annotations

import ctypes
import gc
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .clips import LiftingData

FIELDS = ("keypoints", "positions")


@dataclass
class Laid:
    """A data set whose arrays lie in a file: ``data`` without them, and for each field where and of what shape."""

    data: LiftingData
    path: str
    fields: dict[str, tuple[int, tuple[int, ...]]]
    lengths: list[int]


def load_once(load: Callable[[], LiftingData], place) -> LiftingData:
    """What ``load`` gives, in every process; clips are read by one of a machine, and share their memory.

    Args:
        place: a ``train.place.Place``. Data of another kind is loaded by each process.
    Raises:
        Exception: what ``load`` raises, in every process. OSError: no room for the file.
    """
    if place.world == 1:
        return load()
    local = int(os.environ.get("LOCAL_RANK", 0))
    data = laid = failure = None
    if local == 0:
        try:
            data = load()
            laid = lay(data) if isinstance(data, LiftingData) else None
        except Exception as error:  # the others must not wait for ever
            failure = error
    if laid is not None:
        data = None
        gc.collect()
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc keeps what is freed, here twice the data set
        if trim:
            trim(0)
    laid, failure = place.gather((laid, failure))[place.rank - local]  # of this machine's first process
    if failure is not None:
        raise failure
    if laid is None:
        return data if local == 0 else load()
    try:
        found = taken_up(laid)
    finally:
        place.gather(None)  # everybody has it open
        if local == 0:
            Path(laid.path).unlink(missing_ok=True)
    return found


def lay(data: LiftingData) -> Laid:
    """Write the clips' arrays end to end, training first; in a folder of temporary files."""
    clips = [*data.train, *data.test]
    with tempfile.NamedTemporaryFile(prefix="posekernels-", delete=False) as file:
        try:
            fields, at = {}, 0
            for name in FIELDS:
                arrays = [getattr(clip, name) for clip in clips]
                if any(a is None or a.dtype != np.float32 or a.shape[1:] != arrays[0].shape[1:] for a in arrays):
                    continue  # of clips without truth, say: they go with the clips
                fields[name] = at, arrays[0].shape[1:]
                for array in arrays:
                    file.write(np.ascontiguousarray(array).tobytes())
                at = file.tell()
        except OSError:
            Path(file.name).unlink(missing_ok=True)
            raise
    bare = [replace(clip, **dict.fromkeys(fields)) for clip in clips]
    lengths, count = [len(clip.keypoints) for clip in clips], len(data.train)
    return Laid(replace(data, train=bare[:count], test=bare[count:]), file.name, fields, lengths)


def taken_up(laid: Laid) -> LiftingData:
    """The data set with its arrays mapped from the file: pages in memory once, whoever reads them."""
    ends = np.cumsum(laid.lengths)
    clips = [replace(clip) for clip in (*laid.data.train, *laid.data.test)]
    for name, (at, shape) in laid.fields.items():
        whole = np.memmap(laid.path, np.float32, "c", at, (int(ends[-1]), *shape)).view(np.ndarray)
        for clip, end, length in zip(clips, ends.tolist(), laid.lengths):
            setattr(clip, name, whole[end - length : end])
    count = len(laid.data.train)
    return replace(laid.data, train=clips[:count], test=clips[count:])


def end_to_end(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays [T, ...] joined; no copy where they lie one after the other in memory already."""
    first = arrays[0]
    at = first.ctypes.data
    for array in arrays:
        if (
            array.base is None
            or array.base is not first.base
            or array.ctypes.data != at
            or not array.flags.c_contiguous
        ):
            return np.concatenate(arrays)
        at += array.nbytes
    shape = (sum(len(a) for a in arrays), *first.shape[1:])
    return np.lib.stride_tricks.as_strided(first, shape, first.strides)
