"""Reading files that nobody vouches for: ``.npz``, ``.npy``, ``.pkl``, JSON and checkpoints.

Published data sets are NumPy archives of pickled dictionaries, and checkpoints are pickles too. Both go through
``unpickle``, which builds arrays, tensors, dicts, lists, tuples, strings and numbers and nothing else. No file unpacks
to more than ``MOST_BYTES`` unless the caller allows it, and what a header announces is held against what is there
before memory is taken.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TextIO

import numpy as np
import torch
from torch import Tensor

from .files import write_aside
from .unpickle import ARRAYS, MOST_BYTES, TENSORS, Refused, Unpickler, resolved


class DataError(ValueError):
    """A file or argument that cannot be used: names it, what came, and what was expected, in one line."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or does not fit the network. The network is left as it was."""


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def check_file(path: Path, wanted: str) -> None:
    """Raises DataError where there is no such file, or nothing in it."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: an empty file, expected {wanted}")


def _gib(size: int) -> str:
    return f"{size / 2**30:.3g} GiB"


def _too_large(what: str, size: int, most: int) -> DataError:
    return DataError(
        f"{what}: unpacks to {_gib(size)}, more than the {_gib(most)} that are read (most=... allows more)"
    )


def _unpickle(stream: BinaryIO, size: int, what: str, most: int = MOST_BYTES):
    try:
        return resolved(Unpickler(stream, size, ARRAYS, most=most).load())
    except Refused as error:
        raise DataError(
            f"{what}: refused, nothing in it was run: it holds {error}; only arrays, dicts, lists, tuples, strings and "
            "numbers are read"
        ) from error
    except Exception as error:  # a broken pickle raises nearly every kind there is
        raise DataError(f"{what}: not a readable pickle ({_first_line(error)}); is the file complete?") from error


def read_pickle(path: str | Path, most: int = MOST_BYTES):
    """What a ``.pkl`` file holds (Python 2 pickles are read as latin-1).

    Args:
        path: of the file.
        most: bytes that may be made of it.
    Raises:
        DataError: missing, truncated, or holding anything but arrays, dicts, lists, tuples, strings and numbers.
    """
    path = Path(path)
    check_file(path, "a pickle")
    with path.open("rb") as stream:
        return _unpickle(stream, path.stat().st_size, str(path), most)


def _header(stream: BinaryIO, size: int) -> tuple[tuple[int, ...], bool, np.dtype]:
    """(shape, Fortran's order, dtype) of the array at ``stream``, which holds ``size`` bytes; numbers are all there."""
    fmt = np.lib.format
    version = fmt.read_magic(stream)
    header = {(1, 0): fmt.read_array_header_1_0, (2, 0): fmt.read_array_header_2_0}.get(version)
    if header is None:
        raise ValueError(f"version {version} of the format")
    shape, fortran, dtype = header(stream)
    wanted = math.prod(shape) * dtype.itemsize
    if dtype != np.dtype(object) and wanted > size:
        raise ValueError(f"its header announces {wanted:,} bytes, {size:,} are there")
    return shape, fortran, dtype


def _npy(stream: BinaryIO, size: int, what: str, most: int):
    """The array at ``stream``, which holds ``size`` bytes from the first of its header on."""
    shape, fortran, dtype = _header(stream, size)
    if dtype == np.dtype(object):  # NumPy writes such an array as one pickle after the header
        value = _unpickle(stream, size, what, most)
        return value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value
    if dtype.hasobject or dtype.fields:
        raise ValueError(f"arrays of type {dtype}")
    data = np.empty(math.prod(shape) * dtype.itemsize, np.uint8)
    if stream.readinto(data) != len(data):
        raise ValueError("it ends before its array does")
    array = data.view(dtype) if dtype.itemsize else np.empty(math.prod(shape), dtype)
    return array.astype(dtype.newbyteorder("="), copy=False).reshape(shape, order="F" if fortran else "C")


def read_npy(path: str | Path, most: int = MOST_BYTES) -> np.ndarray:
    """The array of a ``.npy`` file.

    Raises:
        DataError: missing, another kind of file, truncated, or an object array that is no data.
    """
    path = Path(path)
    check_file(path, "a .npy array")
    size = path.stat().st_size
    if size > most:
        raise _too_large(str(path), size, most)
    try:
        with path.open("rb") as stream:
            return np.asarray(_npy(stream, size, str(path), most))
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{path}: not a readable .npy file ({_first_line(error)}); is it complete?") from error


def _members(archive: zipfile.ZipFile, what: str, most: int) -> dict[str, zipfile.ZipInfo]:
    """{name: member} of a zip that does not unpack to more than ``most`` bytes.

    Stored or deflated, as NumPy and PyTorch write them: ``zipfile`` unpacks what is compressed in another way to any
    size, whatever the header announces.
    """
    members = {info.filename: info for info in archive.infolist()}
    for name, info in members.items():
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(f"{what} [{name}]: compressed in a way that neither NumPy nor PyTorch writes")
    size = sum(info.file_size for info in members.values())
    if size > most:
        raise _too_large(what, size, most)
    return members


def read_npz(path: str | Path, *required: str, most: int = MOST_BYTES) -> dict[str, object]:
    """The arrays of an ``.npz`` archive by name; a 0-d object array comes as the object it holds.

    Args:
        path: of the archive.
        required: keys that must be there.
        most: bytes that it may unpack to.
    Raises:
        DataError: missing, not an archive, truncated, too large, a key absent, or pickled objects that are not data.
    """
    path = Path(path)
    check_file(path, "an .npz archive")
    try:
        with zipfile.ZipFile(path) as archive:
            members = {n: info for n, info in _members(archive, str(path), most).items() if n.endswith(".npy")}
            missing = [k for k in required if f"{k}.npy" not in members]
            if missing:
                has = ", ".join(n.removesuffix(".npy") for n in members) or "nothing"
                raise DataError(f"{path}: expected the key {missing[0]!r}, the archive has {has}")
            found = {}
            for name, info in members.items():
                with archive.open(info) as stream:
                    found[name.removesuffix(".npy")] = _npy(stream, info.file_size, f"{path} [{name}]", most)
            return found
    except DataError:
        raise
    except Exception as error:  # zipfile, zlib, struct and numpy each raise their own
        raise DataError(f"{path}: not a readable .npz archive ({_first_line(error)}); is it complete?") from error


def names_in(path: str | Path) -> list[str]:
    """The keys of an ``.npz`` archive, without reading what they hold.

    Raises:
        DataError: missing, or not an archive.
    """
    check_file(Path(path), "an .npz archive")
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path}: not a readable .npz archive ({_first_line(error)}); is it complete?") from error


@contextlib.contextmanager
def open_npz(path: str | Path, most: int = MOST_BYTES) -> Iterator[OpenNpz]:
    """An ``.npz`` of which only some is read.

    Raises:
        DataError: as ``read_npz``, also for what is read of it.
    """
    check_file(Path(path), "an .npz archive")
    try:
        with zipfile.ZipFile(path) as archive:
            yield OpenNpz(archive, _members(archive, str(path), most), str(path), most)
    except DataError:
        raise
    except Exception as error:  # zipfile, zlib, struct and numpy each raise their own
        raise DataError(f"{path}: not a readable .npz archive ({_first_line(error)}); is it complete?") from error


@dataclass
class OpenNpz:
    """The arrays of an archive, by name: ``archive[name]`` is a whole one."""

    archive: zipfile.ZipFile
    members: dict[str, zipfile.ZipInfo]
    path: str
    most: int

    def __contains__(self, name: str) -> bool:
        return f"{name}.npy" in self.members

    def __iter__(self) -> Iterator[str]:
        return (name.removesuffix(".npy") for name in self.members if name.endswith(".npy"))

    def __getitem__(self, name: str):
        info = self.members[f"{name}.npy"]
        with self.archive.open(info) as stream:
            return _npy(stream, info.file_size, f"{self.path} [{name}]", self.most)

    def shape(self, name: str) -> tuple[int, ...]:
        info = self.members[f"{name}.npy"]
        with self.archive.open(info) as stream:
            return _header(stream, info.file_size)[0]

    def rows(self, name: str, width: tuple[int, ...], count: int = 8192) -> Iterator[np.ndarray]:
        """[up to ``count``, *width] float32: an array of such rows, whatever it has before them, piece by piece."""
        info = self.members[f"{name}.npy"]
        with self.archive.open(info) as stream:
            shape, fortran, dtype = _header(stream, info.file_size)
            if dtype != np.dtype("<f4") or fortran or shape[len(shape) - len(width) :] != width:
                raise ValueError(f"{name}: expected rows of {list(width)} float32, got {list(shape)} of {dtype}")
            left, each = math.prod(shape[: len(shape) - len(width)]), math.prod(width) * dtype.itemsize
            while left:
                some = min(left, count)
                yield np.frombuffer(stream.read(some * each), dtype).reshape(some, *width)
                left -= some


def write_npz(path: str | Path, **arrays) -> None:
    """Write a compressed ``.npz`` of arrays and dictionaries; aside first, then renamed: it is whole or absent."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_aside(path) as aside, open(aside, "wb") as stream:
        np.savez_compressed(stream, **arrays)


def read_json(path: str | Path, most: int = MOST_BYTES):
    """What a JSON file holds, in UTF-8, -16 or -32, with a byte-order mark or without.

    Raises:
        DataError: missing, too large, not JSON, or nested too deeply.
    """
    path = Path(path)
    check_file(path, "JSON")
    if path.stat().st_size > most:
        raise _too_large(str(path), path.stat().st_size, most)
    try:
        return json.loads(path.read_bytes())
    except RecursionError as error:
        raise DataError(f"{path}: nested too deeply to be read") from error
    except ValueError as error:
        raise DataError(f"{path}: not a readable JSON file ({_first_line(error)})") from error


@contextlib.contextmanager
def open_json(
    path: str | Path, most: int = MOST_BYTES, hook: Callable[[dict], object] | None = None
) -> Iterator[OpenJson]:
    """A JSON file that is read on the way, for what takes only some of it.

    Args:
        hook: what to make of each object.
    Raises:
        DataError: as ``read_json``, also for what is read of it; a ValueError of the block.
    """
    path = Path(path)
    check_file(path, "JSON")
    if path.stat().st_size > most:
        raise _too_large(str(path), path.stat().st_size, most)
    try:
        with path.open("rb") as file:
            encoding = json.detect_encoding(file.read(4))
        with path.open(encoding=encoding, errors="surrogatepass", newline="") as file:
            yield OpenJson(file, hook)
    except DataError:
        raise
    except RecursionError as error:
        raise DataError(f"{path}: nested too deeply to be read") from error
    except ValueError as error:
        raise DataError(f"{path}: not a readable JSON file ({_first_line(error)})") from error


class OpenJson:
    """A place in JSON text, which goes on over it. Where it is at a value, that is to be taken in one of these ways:
    ``value`` or ``skip`` at any, ``items`` at a list, which stops at each of its values, ``names`` at an object.
    """

    def __init__(self, file: TextIO, hook: Callable[[dict], object] | None = None):
        self.file, self.text, self.at = file, "", 0
        self.decode = json.JSONDecoder(object_hook=hook).raw_decode

    def peek(self) -> str:
        """The next character that is no space; "" at the end."""
        while True:
            self.at = _SPACE.match(self.text, self.at).end()
            if self.at < len(self.text) or not self._more():
                return self.text[self.at : self.at + 1]

    def value(self):
        """The whole value."""
        self.peek()
        while True:
            try:
                found, end = self.decode(self.text, self.at)
            except ValueError:
                if self._more():  # perhaps it only goes on
                    continue
                raise
            long, last = end - self.at, end + 2 >= len(self.text)
            if last and self._more():  # so may a number: of one cut behind ".", "e" or "e-", these are not taken
                continue
            self.at += long
            return found

    def items(self) -> Iterator[None]:
        """Stops at each value of a list."""
        self._take("[")
        if self.peek() == "]":
            self.at += 1
            return
        while True:
            yield
            if self._take(",]") == "]":
                return

    def names(self) -> Iterator[str]:
        """The names in an object; stops at the value of each."""
        self._take("{")
        if self.peek() == "}":
            self.at += 1
            return
        while True:
            if self.peek() != '"':
                raise ValueError("a name is not in quotes")
            key = self.value()
            self._take(":")
            yield key
            if self._take(",}") == "}":
                return

    def pieces(self, count: int = 64) -> Iterator[list]:
        """The values of a list, up to ``count`` at a time; of an empty one, an empty piece."""
        some, last = [], None
        for _ in self.items():
            some.append(self.value())
            if len(some) == count:
                yield (last := some)
                some = []
        if some or last is None:
            yield some

    def skip(self) -> None:
        """Goes on behind the value, of which no more than a part is in memory."""
        first = self.peek()
        parts = self.items() if first == "[" else self.names() if first == "{" else None
        if parts is None:
            self.value()
        else:
            for _ in parts:
                self.value()

    def end(self) -> None:
        """Raises ValueError where the text goes on."""
        if self.peek():
            raise ValueError(f"{self.peek()!r} after its end")

    def _more(self) -> bool:
        """Reads on; whether there was anything."""
        some = self.file.read(max(1 << 20, len(self.text) - self.at))
        self.text, self.at = self.text[self.at :] + some, 0
        return bool(some)

    def _take(self, wanted: str) -> str:
        found = self.peek()
        if not found or found not in wanted:
            raise ValueError(f"expected {' or '.join(wanted)}, got {found or 'the end'}")
        self.at += 1
        return found


_SPACE = re.compile(r"[ \t\n\r]*")


# -- checkpoints -----------------------------------------------------------------------------------------------------
def read_checkpoint(path: str | Path, most: int = MOST_BYTES) -> dict | list:
    """Read a file written by ``torch.save``, of today or before PyTorch 1.6: tensors, arrays and plain containers only.
    Of a ``.safetensors`` file its tensors by name.

    An OrderedDict comes as a dict, a parameter as a tensor, a pickled random state as None.

    Args:
        path: of the file.
        most: bytes that it may unpack to.
    Raises:
        CheckpointError: missing, truncated, too large, or holding anything else.
    """
    path, instead = Path(path), ""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint file")
    if path.suffix == ".safetensors":
        return read_safetensors(path)[0]
    try:
        with path.open("rb") as stream:
            read = _zipped if stream.read(4) == b"PK\x03\x04" else _legacy
            stream.seek(0)
            return read(stream, path, most)
    except DataError as error:
        raise CheckpointError(str(error)) from error
    except Refused as error:
        why = f"it holds {error}, which is refused"
        instead = "; where it was made, torch.save(model.state_dict(), FILE) writes one"
    except Exception as error:  # zip, pickle and torch each raise their own kinds: all mean "not a checkpoint"
        why = "truncated, empty or another kind of file"
        of_reader = isinstance(error, LookupError) or "unpack" in str(error)  # they tell of code, not of the file
        why += "" if of_reader else f": {_first_line(error)}"
    raise CheckpointError(f"{path}: not a checkpoint of tensors, arrays and plain containers ({why}){instead}")


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors by name, the file's own notes).

    Raises:
        CheckpointError: not such a file, or a damaged one.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({str(error).splitlines()[0]})") from error


def _storage_id(kind, storage_type, key, _location, count, *_view) -> tuple[torch.dtype, str, int]:
    """(dtype, key, numbers) of a persistent id, which stands for a storage."""
    dtype = getattr(storage_type, "storage", None)
    if kind != "storage" or dtype is None or type(key) is not str or type(count) is not int or count < 0:
        raise Refused("a reference outside the file that is no storage")
    return dtype, key, count


def _zipped(stream: BinaryIO, path: Path, most: int):
    with zipfile.ZipFile(stream) as archive:
        members = _members(archive, str(path), most)
        (pickled,) = (name for name in members if name.endswith("/data.pkl") and name.count("/") == 1)
        folder = pickled.removesuffix("data.pkl")
        if members.get(f"{folder}byteorder") and archive.read(f"{folder}byteorder") != b"little":
            raise Refused("numbers in another byte order than this machine's")
        storages: dict[str, Tensor] = {}

        def storage(*pid) -> Tensor:
            dtype, key, count = _storage_id(*pid)
            if key not in storages:
                member = members[f"{folder}data/{key}"]
                with archive.open(member) as opened:
                    data = bytearray(opened.read(member.file_size))  # and no more, whatever it would unpack to
                storages[key] = torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)
            found = storages[key].view(dtype)
            if count > found.numel():
                raise Refused(f"a storage of {count:,} numbers, of which {found.numel():,} are there")
            return found

        with archive.open(pickled) as opened:
            return resolved(Unpickler(opened, members[pickled].file_size, TENSORS, storage, most).load())


def _legacy(stream: BinaryIO, path: Path, most: int):
    """Before PyTorch 1.6: pickles of a number, a version, the machine, the content and the storages' keys."""
    size = os.fstat(stream.fileno()).st_size
    storages: dict[str, Tensor] = {}
    if size > most:
        raise _too_large(str(path), size, most)
    announced = 0

    def storage(*pid) -> Tensor:
        nonlocal announced
        dtype, key, count = _storage_id(*pid)
        if any(part is not None for part in pid[5:]):
            raise Refused("a view of another storage")
        if key not in storages:
            announced += count * dtype.itemsize
            if announced > size:
                raise EOFError(f"{announced:,} bytes of numbers are announced, the file has {size:,}")
            storages[key] = torch.empty(count, dtype=dtype)
        return storages[key]

    def load():
        return Unpickler(stream, size - stream.tell(), TENSORS, storage, most).load()

    if load() != 0x1950A86A20F9469CFC6C:
        raise ValueError("it is no file of torch.save")
    load(), load()
    content, keys = load(), load()
    if not isinstance(keys, list) or not all(type(key) is str for key in keys) or set(keys) != storages.keys():
        raise EOFError("its numbers are not those of its tensors")
    for key in keys:
        (count,) = np.frombuffer(stream.read(8), "<i8")
        into = storages[key]
        data = stream.read(into.numel() * into.itemsize)
        if count != into.numel() or len(data) < into.numel() * into.itemsize:
            raise EOFError("its numbers are not all there")
        if data:
            into.copy_(torch.frombuffer(bytearray(data), dtype=into.dtype))
    return resolved(content)
