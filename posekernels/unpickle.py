"""Reading pickles that nobody vouches for.

A pickle may run any code. Here arrays, tensors, dicts, lists, tuples, strings and numbers are built, by code of this
file alone; every other name in a pickle is refused before anything is called. Neither NumPy's nor PyTorch's own
constructors are handed what the file says: with those a file can ask for an array of objects at addresses of its
choice. What a pickle can cost is bounded too: no opcode reads past the end of the file, a memo index allocates nothing,
keys are plain (hashing deep tuples overflows the stack) and not of one hash by the thousand (such a dict takes hours),
nothing that a file nests is put into words (a tuple of itself twice, 40 times over, is endless as text), and there may
be only so many opcodes and so many bytes made, those of lists, marks and memos too.
"""

from __future__ import annotations

import pickle
import re
import struct
from collections.abc import Callable, Iterable
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

MOST_BYTES = 2 << 30  # that a file may unpack to, unless the caller allows more
MOST_READS = 40_000_000  # some 15 s; an opcode reads two or three times
DEEPEST = 50
MOST_TUPLES = 10_000  # that are keys: numbers in tuples can be chosen so that all have one hash
_MARK, _CONTAINER, _MEMO = 160, 72, 112  # bytes that an opcode of one or two makes at most
_PLAIN = (type(None), bool, int, float, complex, str, bytes)


class Refused(pickle.UnpicklingError):
    """What a pickle asked for that is not data."""


# -- arrays ----------------------------------------------------------------------------------------------------------
class _Dtype:
    """A dtype as a pickle describes it: a type code, then a byte order as state."""

    __slots__ = ("dtype",)

    def __init__(self, code, *_align_copy):
        code = _text(code)
        if not re.fullmatch(r"[<>=|]?([biufc](1|2|4|8|16)|[SU]\d{1,4}|O\d?)", code):
            raise Refused(f"arrays of type {code!r}")
        self.dtype = np.dtype(object) if "O" in code else np.dtype(code)

    def __setstate__(self, state):
        _version, order, *described = state[:5]
        if any(part is not None for part in described):  # fields, sub-arrays: none in data sets
            raise Refused("structured arrays")
        if _text(order) in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(_text(order))


def _text(value) -> str:
    """A short text, which Python 2 may have written as bytes."""
    if not isinstance(value, (str, bytes)):
        raise Refused(f"{type(value).__name__.lstrip('_')} where a text belongs")
    return value.decode("ascii") if isinstance(value, bytes) else value


def _raw(data) -> bytes:
    """Array bytes: Python 2 wrote a byte string, which latin-1 brings back as text."""
    if not isinstance(data, (str, bytes, bytearray)):
        raise Refused(f"an array made of {type(data).__name__.lstrip('_')}")
    return data.encode("latin-1") if isinstance(data, str) else bytes(data)


def _array(data, dtype: _Dtype, shape, fortran) -> np.ndarray:
    """An array of numbers or text, from its bytes."""
    if not isinstance(dtype, _Dtype) or dtype.dtype.hasobject:
        raise Refused("an array without a type, or bytes as objects")
    flat = np.frombuffer(_raw(data), dtype.dtype).astype(dtype.dtype.newbyteorder("="))  # a copy, and writable
    return _shaped(flat, shape, fortran)


def _objects(data, shape, fortran) -> np.ndarray:
    """An array of the objects in a list, which are still to be resolved."""
    if not isinstance(data, list):
        raise Refused("an array of objects that is no list")
    return _shaped(_object_array(data), shape, fortran)


def _object_array(entries: Iterable) -> np.ndarray:
    """[entries]: one by one, for NumPy would broadcast lists of lists."""
    entries = list(entries)
    flat = np.empty(len(entries), object)
    for i, entry in enumerate(entries):
        flat[i] = entry
    return flat


def _shaped(flat: np.ndarray, shape, fortran) -> np.ndarray:
    shape = shape if isinstance(shape, tuple) else (shape,)
    return flat.reshape(shape, order="F" if fortran in (True, 1, "F") else "C")


class _Array:
    """An array between ``_reconstruct`` and its state.

    It stays around an array of objects, which are thus never nested in each other directly: NumPy frees a deep chain
    of them by recursion, and overflows the stack.
    """

    __slots__ = ("value",)

    def __setstate__(self, state):
        if not hasattr(self, "value"):
            _version, shape, dtype, fortran, data = state
            of_objects = isinstance(dtype, _Dtype) and dtype.dtype.hasobject
            self.value = _objects(data, shape, fortran) if of_objects else _array(data, dtype, shape, fortran)


class _Nothing:
    """Stands for an object of a published checkpoint that nobody needs, a random state: reads as None."""

    __slots__ = ()

    def __setstate__(self, _state):
        pass


# -- tensors ---------------------------------------------------------------------------------------------------------
STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "ShortStorage": torch.int16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "BoolStorage": torch.bool,
}


def _counts(values) -> tuple[int, ...]:
    if not isinstance(values, (tuple, list)) or not all(type(v) is int and 0 <= v < 1 << 62 for v in values):
        raise Refused("a tensor whose sizes are no numbers")
    return tuple(values)


def _tensor(storage, offset, size, stride, *_gradient_hooks_metadata) -> Tensor:
    """A view of ``storage``, a 1-D tensor. Nothing outside of it is reached."""
    if not isinstance(storage, Tensor):
        raise Refused("a tensor without a storage")
    (offset,), size, stride = _counts([offset]), _counts(size), _counts(stride)
    if len(size) != len(stride) or len(size) > 64:
        raise Refused("a tensor whose sizes and strides do not belong together")
    count = 1
    for n in size:
        count *= n
    last = offset + sum((n - 1) * s for n, s in zip(size, stride)) if count else offset - 1
    if count > storage.numel() or last >= storage.numel():
        raise Refused("a tensor that reaches past its storage")
    return storage.as_strided(size, stride, offset)


# -- names -----------------------------------------------------------------------------------------------------------
def _encode(text, encoding="latin1") -> bytes:
    if _text(encoding) not in ("latin1", "latin-1"):
        raise Refused(f"text encoded as {encoding!r}")
    return text.encode("latin-1")


def _ordered(pairs=()) -> dict:
    """Of a list of pairs, the keys as plain as those of any dict."""
    if not isinstance(pairs, (list, tuple)) or not all(isinstance(p, (list, tuple)) and len(p) == 2 for p in pairs):
        raise Refused("an OrderedDict that is not made of pairs")
    if _check_keys(key for key, _ in pairs) > MOST_TUPLES:
        raise Refused(f"more than {MOST_TUPLES:,} keys that are tuples")
    return dict(pairs)


def _check_keys(keys: Iterable) -> int:
    """How many of them are tuples.

    Of what is plain, complex numbers are refused, and integers beyond 64 bits: there are few that share a hash.
    """
    tuples = 0
    for key in keys:
        tuples += type(key) is tuple
        for part in key if type(key) is tuple else (key,):
            if isinstance(part, complex | np.complexfloating) or not (
                type(part) in _PLAIN or isinstance(part, np.generic)
            ):
                raise Refused(f"a key of type {type(key).__name__.lstrip('_')}")
            if type(part) is int and not -(2**64) < part < 2**64:
                raise Refused("a key that is an integer of more than 64 bits")
    return tuples


def _device(kind, index: int | None = None) -> str:
    if index is not None and type(index) is not int:
        raise Refused("a device whose number is no number")
    return _text(kind) if index is None else f"{_text(kind)}:{index}"


class _Name:
    """A name that a pickle may pass on, or call with what it likes: ``make`` decides what comes of it.

    ``storage``: the dtype of the numbers, of the name of one of PyTorch's storages.
    """

    __slots__ = ("_make", "storage")

    def __init__(self, make: Callable | None = None, storage: torch.dtype | None = None):
        self._make, self.storage = make, storage

    def __call__(self, *args):
        if self._make is None:
            raise Refused("a call of a name that only describes")
        return self._make(*args)

    def __setstate__(self, _state):
        raise Refused("the state of a name")


ARRAYS = {
    ("numpy", "ndarray"): _Name(),
    ("numpy", "dtype"): _Name(_Dtype),
    ("_codecs", "encode"): _Name(_encode),
    ("__builtin__", "bytes"): _Name(lambda: b""),  # how protocols 0 to 2 write b""
}
for _core in ("numpy.core", "numpy._core"):  # NumPy 1 and 2
    ARRAYS[f"{_core}.multiarray", "_reconstruct"] = _Name(lambda *_type_shape_code: _Array())
    ARRAYS[f"{_core}.multiarray", "scalar"] = _Name(lambda dtype, data: _array(data, dtype, (), False)[()])
    ARRAYS[f"{_core}.numeric", "_frombuffer"] = _Name(_array)

TENSORS = ARRAYS | {
    ("collections", "OrderedDict"): _Name(_ordered),
    ("torch", "Size"): _Name(_counts),
    ("torch._utils", "_rebuild_tensor"): _Name(_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): _Name(_tensor),
    ("torch._utils", "_rebuild_parameter"): _Name(lambda data, *_gradient_hooks: data),
    ("torch._utils", "_rebuild_parameter_with_state"): _Name(lambda data, *_gradient_hooks_state: data),
    ("torch", "device"): _Name(_device),
    **{("torch", name): _Name(storage=dtype) for name, dtype in STORAGES.items()},
}
for _random in ("_pickle.__randomstate_ctor", "_pickle.__bit_generator_ctor", "_pickle.__generator_ctor"):
    _module, _, _name = f"numpy.random.{_random}".rpartition(".")
    TENSORS[_module, _name] = _Name(lambda *_args: _Nothing())
for _module, _name in (("_mt19937", "MT19937"), ("_pcg64", "PCG64"), ("mtrand", "RandomState")):
    TENSORS[f"numpy.random.{_module}", _name] = _Name(lambda *_args: _Nothing())


# -- the machine -----------------------------------------------------------------------------------------------------
class _Stream:
    """What the unpickler reads from: it counts, and refuses to read more than there is."""

    def __init__(self, stream: BinaryIO, size: int):
        self.stream, self.left, self.calls = stream, size, 0

    def _count(self, n: int) -> None:
        self.calls += 1
        self.left -= n
        if self.calls > MOST_READS:
            raise Refused("more opcodes than any data needs")

    def read(self, n: int) -> bytes:
        if n > self.left:
            raise EOFError(f"{n:,} bytes are announced, {max(self.left, 0):,} are left")
        self._count(n)
        return self.stream.read(n)

    def readline(self) -> bytes:
        line = self.stream.readline(max(self.left, 0))
        self._count(len(line))
        return line


_STATED = (_Dtype, _Array, _Nothing, _Name)  # what a state may be given to, each by code of this file
_PICKLE = pickle._Unpickler  # the one in Python: its memo is a dict, and its opcodes are a table
_LEFT_OUT = [
    "OBJ",
    "INST",
    "EXT1",
    "EXT2",
    "EXT4",
    "EMPTY_SET",
    "ADDITEMS",
    "FROZENSET",
    "NEXT_BUFFER",
    "READONLY_BUFFER",
    "NEWOBJ",
    "NEWOBJ_EX",
]


def _size(made) -> int:
    """Bytes of what a name has made, about; a tensor is a view of what the file holds."""
    made = getattr(made, "value", made)
    if isinstance(made, np.ndarray):
        return 64 + made.nbytes
    return 64 + 8 * len(made) if isinstance(made, (dict, tuple, str, bytes)) else 64


class Unpickler(_PICKLE):
    """A pickle's content, stand-ins for arrays still in it: ``resolved`` replaces them.

    Args:
        stream: binary, at the pickle. size: bytes that it may read.
        names: {(module, name): what stands for it}, ``ARRAYS`` or ``TENSORS``.
        storage: what a reference outside the pickle means: the arguments of a persistent id -> a 1-D tensor.
        most: bytes that may be made of it.
    """

    dispatch = {code: run for code, run in _PICKLE.dispatch.items()}

    def __init__(
        self, stream: BinaryIO, size: int, names: dict, storage: Callable | None = None, most: int = MOST_BYTES
    ):
        self._stream = _Stream(stream, size)
        super().__init__(self._stream, encoding="latin1")
        self._names, self._storage, self._left, self._most = names, storage, most, most
        self._tuples = 0

    def _takes(self, size: int) -> None:
        """Count bytes that were made."""
        self._left -= size
        if self._left < 0:
            raise Refused(f"more than {self._most / 2**30:.3g} GiB")

    def _made(self, thing) -> None:
        """Count what a name has made: one long string could be encoded a million times."""
        self._takes(_size(thing))
        if type(thing) is dict:  # of pairs, whose keys were checked
            self._count_tuples(sum(type(key) is tuple for key in thing))

    def _count_tuples(self, count: int) -> None:
        self._tuples += count
        if self._tuples > MOST_TUPLES:
            raise Refused(f"more than {MOST_TUPLES:,} keys that are tuples")

    def load_frame(self):
        self._stream.read(8)  # frames only announce what follows

    def load_bytearray8(self):
        (count,) = struct.unpack("<Q", self._stream.read(8))
        self.append(bytearray(self._stream.read(count)))

    def find_class(self, module, name):
        if (module, name) not in self._names:
            raise Refused(f"the name {module}.{name}")
        return self._names[module, name]

    def persistent_load(self, pid):
        if self._storage is None or not isinstance(pid, tuple):
            raise Refused("a reference outside the file")
        return self._storage(*pid)

    def load_reduce(self):
        args = self.stack.pop()
        call = self.stack[-1]
        if type(call) is not _Name or type(args) is not tuple:
            raise Refused(f"a call of {type(call).__name__.lstrip('_')}")
        self.stack[-1] = call(*args)
        self._made(self.stack[-1])

    def load_build(self):
        state = self.stack.pop()
        if isinstance(self.stack[-1], dict):  # an OrderedDict's attributes: PyTorch's _metadata, which nobody reads
            return
        if type(self.stack[-1]) not in _STATED:
            raise Refused(f"the state of {type(self.stack[-1]).__name__.lstrip('_')}")
        self.stack[-1].__setstate__(state)
        self._made(self.stack[-1])

    def load_dict(self):
        items = self.pop_mark()
        self._count_tuples(_check_keys(items[::2]))
        self.append({items[i]: items[i + 1] for i in range(0, len(items), 2)})

    def load_setitem(self):
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def load_setitems(self):
        self._set(self.pop_mark())

    def _set(self, items) -> None:
        if type(self.stack[-1]) is not dict:
            raise Refused(f"items of {type(self.stack[-1]).__name__.lstrip('_')}")
        self._count_tuples(_check_keys(items[::2]))
        for i in range(0, len(items), 2):
            self.stack[-1][items[i]] = items[i + 1]

    def _append(self, values) -> None:
        if type(self.stack[-1]) is not list:
            raise Refused(f"entries of {type(self.stack[-1]).__name__.lstrip('_')}")
        self.stack[-1].extend(values)

    def load_append(self):
        value = self.stack.pop()
        self._append([value])

    def load_appends(self):
        self._append(self.pop_mark())

    def load_unknown(self):
        raise Refused("an opcode that no data needs")


for _opcode in _LEFT_OUT:
    Unpickler.dispatch[getattr(pickle, _opcode)[0]] = Unpickler.load_unknown
for _opcode in ["FRAME", "BYTEARRAY8", "REDUCE", "BUILD", "DICT", "SETITEM", "SETITEMS", "APPEND", "APPENDS"]:
    Unpickler.dispatch[getattr(pickle, _opcode)[0]] = getattr(Unpickler, f"load_{_opcode.lower()}")


def _counted(run: Callable, size: int) -> Callable:
    """An opcode that takes a byte or two of the file, and ``size`` of memory."""

    def load(self):
        self._takes(size)
        run(self)

    return load


_COSTS = {
    _MARK: ["MARK"],
    _CONTAINER: ["EMPTY_LIST", "EMPTY_DICT", "LIST", "DICT", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"],
    _MEMO: ["PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"],
}
for _cost, _opcodes in _COSTS.items():
    for _opcode in _opcodes:
        _code = getattr(pickle, _opcode)[0]
        Unpickler.dispatch[_code] = _counted(Unpickler.dispatch[_code], _cost)


def resolved(value, seen: dict | None = None, depth: int = 0):
    """Replace the stand-ins by what they stand for; refuse every type that is not data.

    ``seen`` keeps what an object became by its id, so that one used many times is walked once and stays one.
    """
    if type(value) in _PLAIN or isinstance(value, np.generic) or type(value) is Tensor:
        return value
    if type(value) is _Nothing:
        return None
    seen = {} if seen is None else seen
    if id(value) in seen:
        return seen[id(value)]
    if depth > DEEPEST:
        raise Refused(f"objects nested deeper than {DEEPEST}")

    def inner(entry):
        return resolved(entry, seen, depth + 1)

    if isinstance(value, _Array):
        if not hasattr(value, "value"):
            raise Refused("an array without content")
        result = inner(value.value)
    elif isinstance(value, np.ndarray) and value.dtype == np.dtype(object):
        result = _object_array(inner(entry) for entry in value.flat).reshape(value.shape)
    elif isinstance(value, np.ndarray):
        result = value
    elif type(value) is dict:
        result = {inner(k): inner(v) for k, v in value.items()}
    elif type(value) in (list, tuple):
        result = type(value)(map(inner, value))
    else:
        raise Refused(f"an object of type {type(value).__name__.lstrip('_')}")
    seen[id(value)] = result
    return result
