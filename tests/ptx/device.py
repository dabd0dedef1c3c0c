"""A GPU that this machine does not have, of sm_80 or sm_90: Triton compiles for it, ``program.py`` runs what comes out.

Triton defines kernels for its interpreter or for the compiler: ``TRITON_INTERPRET`` must be unset in the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import struct
from collections.abc import Callable, Iterator
from unittest import mock

import numpy as np
import torch
import triton
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from posekernels import _adapters, _cuda, _dispatch, _native

from . import nvcc, program

ARCHITECTURE = 80
_POISON = 0xFFB7  # NaN in bfloat16, float16 and, twice, in float32
_SCALARS = {"i1": 1, "i8": 1, "i16": 2, "i32": 4, "i64": 8, "u1": 1, "u8": 1, "u16": 2, "u32": 4, "u64": 8}


@dataclasses.dataclass
class Launch:
    """One launch that ran."""

    kernel: program.Kernel
    grid: tuple[int, int, int]
    threads: int
    shared: int
    counts: program.Counts | None  # None: it was not run


Span = tuple[int, int, int, int]


def span(tensor: Tensor) -> Span:
    """Addresses of the first element of a tensor that has some and past the last, and of its storage; its bytes."""
    last = sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride()))
    begin, storage = _data_ptr(tensor), tensor.untyped_storage()
    return begin, begin + (last + 1) * tensor.element_size(), storage.data_ptr(), storage.nbytes()


_data_ptr = Tensor.data_ptr


class Memory:
    """Which bytes of the tensors made by ``torch.empty`` and its kin have a value.

    They are made full of one pattern. A word that differs was written by PyTorch; what kernels write they report.
    """

    def __init__(self):
        self._fresh: dict[int, tuple[StorageWeakRef, np.ndarray]] = {}

    def poison(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if type(tensor) is not Tensor or tensor.device.type != "cpu" or not storage.nbytes():
            return
        content = _bytes(storage.data_ptr(), storage.nbytes())
        content[:] = _pattern(len(content))
        self._fresh[storage.data_ptr()] = StorageWeakRef(storage), np.zeros(len(content), np.uint8)

    def written(self, storage: int, size: int) -> np.ndarray | None:
        """[size] uint8, 255 where a byte of the storage there has a value; None: everywhere."""
        reference, written = self._fresh.get(storage, (None, None))
        if reference is None:
            return None
        if reference.expired() or len(written) != size:
            del self._fresh[storage]
            return None
        content = _bytes(storage, size)
        differs = content != _pattern(len(content))
        starts = np.arange(0, len(content), 4)  # by words: one byte may be the pattern's by chance
        written[np.repeat(np.logical_or.reduceat(differs, starts), 4)[: len(content)]] = 255
        return written

    def buffers(self, spans: list[Span]) -> list[program.Buffer]:
        """What a kernel that is given these tensors may touch."""
        found: list[program.Buffer] = []
        for begin, end, storage, size in sorted(spans):
            if found and begin < found[-1].base + found[-1].size:
                end, begin = max(end, found[-1].base + found[-1].size), found.pop().base
            written = self.written(storage, size)
            at = begin - storage
            found.append(
                program.Buffer(begin, end - begin, None if written is None else written[at : at + end - begin])
            )
        return found


def _pattern(size: int) -> np.ndarray:
    return np.frombuffer(_POISON.to_bytes(2, "little") * (size // 2 + 1), np.uint8)[:size]


def _bytes(address: int, size: int) -> np.ndarray:
    return np.frombuffer((ctypes.c_uint8 * size).from_address(address), np.uint8)


def _flat(types, values) -> Iterator[tuple[str, object]]:
    for kind, value in zip(types, values):
        if isinstance(kind, tuple):
            yield from _flat(kind, value)
        else:
            yield kind, value


class Device:
    """What ran, and the memory it ran in.

    Args:
        change: PTX text -> PTX text, before it is run: how a test breaks a kernel.
        count_memory: sectors and turns of banks are counted too.
        dry: launches are held against their limits, and not run.
        strict: a kernel must not even read shared memory that nobody wrote; else it reads NaN.
        architecture: 80 or 90, what kernels are compiled for.
    """

    def __init__(
        self,
        change: Callable[[str], str] | None = None,
        count_memory: bool = False,
        dry: bool = False,
        strict: bool = True,
        architecture: int = ARCHITECTURE,
    ):
        self.architecture = architecture
        self.memory, self.launches = Memory(), list[Launch]()
        self.change, self.count_memory, self.dry, self.strict = change, count_memory, dry, strict

    def kernel(self, name: str, text: str) -> program.Kernel:
        return program.module(text if self.change is None else self.change(text)).kernels[name]

    def run(self, kernel: program.Kernel, grid, threads: int, parameters: bytes, spans: list[Span], shared: int):
        if self.dry:
            kernel.check_limits(grid, threads, parameters, shared)
            counts = None
        else:
            buffers = self.memory.buffers(spans)
            options = {"count_memory": self.count_memory, "strict": self.strict}
            counts = kernel.launch(grid, threads, parameters, buffers, shared, **options)
        self.launches.append(Launch(kernel, grid, threads, shared, counts))


class _Launcher:
    """Triton's side of a launch: packs the arguments."""

    def __init__(self, source, metadata):
        self._types, self._metadata = tuple(source.signature.values()), metadata

    def __call__(self, x, y, z, stream, function, packed, launch_metadata, enter, leave, *arguments):
        kernel, values, spans = _active().kernel(*function), [], []
        for kind, value in _flat(self._types, arguments):
            if kind == "constexpr":
                continue
            if kind[0] == "*":
                if value.numel():
                    spans.append(span(value))
                values.append(struct.pack("<Q", value.data_ptr()))
            elif kind in _SCALARS:
                size = _SCALARS[kind]
                values.append((int(value) & (1 << 8 * size) - 1).to_bytes(size, "little"))
            elif kind in ("fp32", "f32", "fp64"):
                values.append(struct.pack("<d" if kind == "fp64" else "<f", value))
            else:
                raise NotImplementedError(f"{kernel.name}: an argument of type {kind}")
        block = bytearray(kernel.parameter_bytes)  # Triton adds pointers of its own at the end, which are null here
        for (at, size), value in zip(kernel.parameters.values(), values):
            assert len(value) == size, f"{kernel.name}: {len(value)} bytes for a parameter of {size}"
            block[at : at + size] = value
        meta = self._metadata
        _active().run(kernel, (x, y, z), 32 * meta.num_warps, bytes(block), spans, meta.shared)


class _Utilities:
    """What Triton asks of the driver's library."""

    def get_device_properties(self, device) -> dict[str, int]:
        return {
            "max_shared_mem": program.MOST_SHARED[_active().architecture],
            "multiprocessor_count": 108,
            "warpSize": 32,
        }

    def load_binary(self, name: str, text: bytes, shared: int, device):
        return object(), (name, text.decode()), 0, 0, program.MOST_THREADS

    def unload_module(self, module) -> None:
        pass


class _Driver:
    launcher_cls = _Launcher

    def __init__(self):
        self.utils = _Utilities()

    def get_current_target(self):
        return GPUTarget("cuda", _active().architecture, 32)

    def get_current_device(self) -> int:
        return _active().architecture - ARCHITECTURE  # Triton keeps what it has compiled for a device by its number

    def set_current_device(self, device) -> None:
        pass

    def get_current_stream(self, device=None) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def map_python_to_cpp_type(self, kind: str) -> str:
        return kind


def _keep_ptx(backend=None, stages=None, options=None, language=None, capability=None):
    """Triton's hook on its stages: the binary is the PTX itself, ptxas is not asked."""
    if stages is None:
        return "ptx", "ptx"
    stages["cubin"] = lambda text, metadata: text.encode()
    return None


_devices: list[Device] = []


def _active() -> Device:
    return _devices[-1]


@contextlib.contextmanager
def _cuda_kernels(device: Device) -> Iterator[None]:
    """CUDA C++ kernels are given addresses: they may touch every tensor that was asked for its own, and still lives."""
    known: dict[int, tuple[Span, StorageWeakRef]] = {}

    def asked(tensor: Tensor) -> int:
        if tensor.device.type == "cpu" and tensor.numel():
            known[_data_ptr(tensor)] = span(tensor), StorageWeakRef(tensor.untyped_storage())
        return _data_ptr(tensor)

    def run(kernel, grid, threads, parameters, shared) -> None:
        for begin in [begin for begin, (_, storage) in known.items() if storage.expired()]:
            del known[begin]
        device.run(kernel, grid, threads, parameters, [place for place, _ in known.values()], shared)

    module = nvcc.Module(run, device.architecture, device.change)
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(Tensor, "data_ptr", asked))
        stack.enter_context(mock.patch.object(_adapters, "_begins", asked))
        stack.enter_context(mock.patch.object(_cuda, "not_on", lambda kind, *tensors: None))
        stack.enter_context(mock.patch.object(_native, "cuda", lambda: module))
        yield


@contextlib.contextmanager
def gpu(**options) -> Iterator[Device]:
    """Inside, the Triton kernels of ``posekernels`` run as compiled, on CPU tensors. Options as ``Device`` takes them.

    Raises:
        RuntimeError: ``TRITON_INTERPRET`` is set, or Triton is too old to be asked for PTX alone.
    """
    if os.environ.get("TRITON_INTERPRET") == "1":
        raise RuntimeError("kernels are defined for Triton's interpreter here: unset TRITON_INTERPRET")
    hook = "add_stages_inspection_hook"
    if not hasattr(triton.knobs.runtime, hook):
        raise RuntimeError(f"triton {triton.__version__} has no {hook}, expected 3.6 or later")
    device = Device(**options)

    def watched(allocate):
        def wrapped(*args, **kwargs):
            made = allocate(*args, **kwargs)
            device.memory.poison(made)
            return made

        return wrapped

    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        for owner, names in ((torch, ("empty", "empty_like", "empty_strided")), (Tensor, ("new_empty",))):
            for name in names:
                enter(mock.patch.object(owner, name, watched(getattr(owner, name))))
        enter(mock.patch.object(triton.knobs.runtime, hook, _keep_ptx))
        enter(mock.patch.object(_dispatch, "not_on", lambda kind, *tensors: None))
        for kernels in _dispatch.OPS.values():
            for name in {"triton", "cuda"} & kernels.keys():
                here = dataclasses.replace(kernels[name], missing=lambda: None)
                enter(mock.patch.dict(kernels, {name: here}))
        enter(_cuda_kernels(device))
        _devices.append(device)
        stack.callback(_devices.remove, device)
        previous = driver._active
        driver.set_active(_Driver())
        stack.callback(setattr, driver, "_active", previous)
        yield device
