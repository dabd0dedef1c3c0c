"""Reading ``.npz``, ``.pkl`` and checkpoint files that hold pickled objects, without trusting them.

Published data sets are NumPy archives of pickled dictionaries, and a pickle may run any code. Here only arrays, dicts,
lists, tuples, strings and numbers are built, by code of this file; every other name in a pickle is refused before
anything is called. NumPy's own unpickling is not used either: its ``__setstate__`` takes item sizes and flags from the
file. Checkpoints are read by PyTorch's own restricted unpickler.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from pathlib import Path

import numpy as np
import torch

from ._files import write_aside


class DataError(ValueError):
    """A file or argument that cannot be used: names it, what came, and what was expected, in one line."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or does not fit the network. The network is left as it was."""


_PLAIN = (type(None), bool, int, float, complex, str, bytes)


class _Refused(pickle.UnpicklingError):
    """What a pickle asked for that is not data."""


class _Dtype:
    """A dtype as a pickle describes it: a type code, then a byte order as state."""

    __slots__ = ("dtype",)

    def __init__(self, code, *_align_copy):
        code = code.decode("ascii") if isinstance(code, bytes) else code
        if not isinstance(code, str) or not re.fullmatch(r"[<>=|]?([biufc](1|2|4|8|16)|[SU]\d+|O\d?)", code):
            raise _Refused(f"arrays of type {code!r}")
        self.dtype = np.dtype(object) if "O" in code else np.dtype(code)

    def __setstate__(self, state):
        _version, order, *described = state[:5]
        if any(part is not None for part in described):  # fields, sub-arrays: none in data sets
            raise _Refused("structured arrays")
        order = order.decode("ascii") if isinstance(order, bytes) else order
        if order in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(order)


def _raw(data) -> bytes:
    """Array bytes: Python 2 wrote a byte string, which latin-1 brings back as text."""
    return data.encode("latin-1") if isinstance(data, str) else bytes(data)


def _array(data, dtype: _Dtype, shape, fortran) -> np.ndarray:
    """An array from its bytes, or from a list of objects (which are still to be resolved)."""
    if not isinstance(dtype, _Dtype):
        raise _Refused("an array without a type")
    shape = tuple(shape) if isinstance(shape, tuple) else (shape,)
    order = "F" if fortran in (True, 1, "F") else "C"
    if dtype.dtype.hasobject:
        flat = np.empty(len(data), object)
        for i, entry in enumerate(data):  # one by one: NumPy would broadcast lists of lists
            flat[i] = entry
    else:
        flat = np.frombuffer(_raw(data), dtype.dtype).astype(dtype.dtype.newbyteorder("="))  # a copy, and writable
    return flat.reshape(shape, order=order)


class _Array:
    """An array between ``_reconstruct`` and its state."""

    __slots__ = ("value",)

    def __setstate__(self, state):
        if not hasattr(self, "value"):
            _version, shape, dtype, fortran, data = state
            self.value = _array(data, dtype, shape, fortran)


class _Callable:
    """A name that a pickle may call. Instances have no attributes that its BUILD opcode could overwrite."""

    __slots__ = ()


class _Reconstruct(_Callable):
    def __call__(self, *_type_shape_code):
        return _Array()


class _FromBuffer(_Callable):
    def __call__(self, data, dtype, shape, order):
        return _array(data, dtype, shape, order)


class _Scalar(_Callable):
    def __call__(self, dtype, data):
        return _array(data, dtype, (), False)[()]


class _MakeDtype(_Callable):
    def __call__(self, *args):
        return _Dtype(*args)


class _Encode(_Callable):
    def __call__(self, text, encoding="latin1"):
        if encoding not in ("latin1", "latin-1"):
            raise _Refused(f"text encoded as {encoding!r}")
        return text.encode("latin-1")


class _EmptyBytes(_Callable):
    def __call__(self):
        return b""


class _Name(_Callable):
    """``numpy.ndarray``, which pickles only pass on."""


_ALLOWED = {("numpy", "ndarray"): _Name(), ("numpy", "dtype"): _MakeDtype(), ("_codecs", "encode"): _Encode()}
_ALLOWED["__builtin__", "bytes"] = _EmptyBytes()  # how protocols 0 to 2 write b""
for _core in ("numpy.core", "numpy._core"):  # NumPy 1 and 2
    _ALLOWED[f"{_core}.multiarray", "_reconstruct"] = _Reconstruct()
    _ALLOWED[f"{_core}.multiarray", "scalar"] = _Scalar()
    _ALLOWED[f"{_core}.numeric", "_frombuffer"] = _FromBuffer()


class _Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) not in _ALLOWED:
            raise _Refused(f"the name {module}.{name}")
        return _ALLOWED[module, name]

    def persistent_load(self, _pid):
        raise _Refused("a reference outside the file")


def _resolve(value, seen: dict | None = None, depth: int = 0):
    """Replace the stand-ins by what they stand for; refuse every type that is not data.

    ``seen`` keeps what an object became by its id, so that one used many times is walked once and stays one.
    """
    if type(value) in _PLAIN or isinstance(value, np.generic):
        return value
    seen = {} if seen is None else seen
    if id(value) in seen:
        return seen[id(value)]
    if depth > 50:
        raise _Refused("objects nested deeper than 50")

    def inner(entry):
        return _resolve(entry, seen, depth + 1)

    if isinstance(value, _Array):
        if not hasattr(value, "value"):
            raise _Refused("an array without content")
        result = inner(value.value)
    elif isinstance(value, np.ndarray) and value.dtype == np.dtype(object):
        result = np.empty(value.shape, object)
        for index in np.ndindex(value.shape):
            result[index] = inner(value[index])
    elif isinstance(value, np.ndarray):
        result = value
    elif type(value) is dict:
        result = {inner(k): inner(v) for k, v in value.items()}
    elif type(value) in (list, tuple):
        result = type(value)(map(inner, value))
    else:
        raise _Refused(f"an object of type {type(value).__name__.lstrip('_')}")
    seen[id(value)] = result
    return result


def _unpickle(stream, what: str):
    try:
        return _resolve(_Unpickler(stream, encoding="latin1").load())
    except _Refused as error:
        raise DataError(
            f"{what}: refused, nothing in it was run: it holds {error}; only arrays, dicts, lists, tuples, strings and "
            "numbers are read"
        ) from error
    except Exception as error:  # a broken pickle raises nearly every kind there is
        raise DataError(f"{what}: not a readable pickle ({_first_line(error)}); is the file complete?") from error


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def read_pickle(path: str | Path):
    """What a ``.pkl`` file holds (Python 2 pickles are read as latin-1).

    Raises:
        DataError: missing, truncated, or holding anything but arrays, dicts, lists, tuples, strings and numbers.
    """
    path = Path(path)
    _check_file(path)
    with path.open("rb") as stream:
        return _unpickle(stream, str(path))


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise DataError(f"{path}: no such file")


def _member(archive: zipfile.ZipFile, name: str, what: str):
    fmt = np.lib.format
    with archive.open(name) as stream:
        version = fmt.read_magic(stream)
        header = {(1, 0): fmt.read_array_header_1_0, (2, 0): fmt.read_array_header_2_0}.get(version)
        dtype = header(stream)[2] if header else np.dtype("V")
        if dtype == np.dtype(object):  # NumPy writes such an array as one pickle after the header
            value = _unpickle(stream, what)
            return value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value
    with archive.open(name) as stream:
        return fmt.read_array(stream, allow_pickle=False)


def read_npz(path: str | Path, *required: str) -> dict[str, object]:
    """The arrays of an ``.npz`` archive by name; a 0-d object array comes as the object it holds.

    Args:
        path: of the archive.
        required: keys that must be there.
    Raises:
        DataError: missing, not an archive, truncated, a key absent, or pickled objects that are not data.
    """
    path = Path(path)
    _check_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            names = [n for n in archive.namelist() if n.endswith(".npy")]
            missing = [k for k in required if f"{k}.npy" not in names]
            if missing:
                has = ", ".join(n.removesuffix(".npy") for n in names) or "nothing"
                raise DataError(f"{path}: expected the key {missing[0]!r}, the archive has {has}")
            return {n.removesuffix(".npy"): _member(archive, n, f"{path} [{n}]") for n in names}
    except DataError:
        raise
    except Exception as error:  # zipfile, zlib, struct and numpy each raise their own
        raise DataError(f"{path}: not a readable .npz archive ({_first_line(error)}); is it complete?") from error


def write_npz(path: str | Path, **arrays) -> None:
    """Write a compressed ``.npz`` of arrays and dictionaries; aside first, then renamed: it is whole or absent."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_aside(path) as aside, open(aside, "wb") as stream:
        np.savez_compressed(stream, **arrays)


# -- checkpoints -----------------------------------------------------------------------------------------------------
class _Ignored:
    """Stands for an object of a published checkpoint that nobody needs: takes any arguments and state, does nothing."""

    def __init__(self, *_args):
        pass

    def __setstate__(self, _state):
        pass


def _safe_globals() -> list:
    """What published checkpoints hold beside tensors: NumPy arrays and scalars, and a pickled NumPy random state.

    The random state is replaced by nothing. NumPy 1 and 2 name their modules differently; both are met.
    """
    ignored = ["_pickle.__randomstate_ctor", "_pickle.__bit_generator_ctor", "_pickle.__generator_ctor"]
    ignored += ["_mt19937.MT19937", "_pcg64.PCG64", "mtrand.RandomState"]
    found = [(_Ignored, f"numpy.random.{name}") for name in ignored]
    for core in ("numpy.core.multiarray", "numpy._core.multiarray"):
        found += [
            (np._core.multiarray._reconstruct, f"{core}._reconstruct"),
            (np._core.multiarray.scalar, f"{core}.scalar"),
        ]
    return [*found, np.ndarray, np.dtype, *(type(np.dtype(kind)) for kind in "?bBhHiIlLqQefd")]


def read_checkpoint(path: str | Path) -> dict | list:
    """Read a file written by ``torch.save``: tensors, arrays and plain containers only (``weights_only=True``).

    Raises:
        CheckpointError: missing, truncated, or holding anything else.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint file")
    try:
        with torch.serialization.safe_globals(_safe_globals()), warnings.catch_warnings(action="ignore"):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and torch each raise their own kinds: all mean "not a checkpoint"
        refused = re.search(r"GLOBAL (\S+)", str(error))
        why = f"holds {refused[1]}, which is refused" if refused else "truncated, empty or another kind of file"
        raise CheckpointError(f"{path}: not a checkpoint of tensors, arrays and plain containers ({why})") from error
