"""Which backend runs an op, and why.

Every op is a table of kernels, one per backend. ``auto`` takes the first one that is here and accepts the
arguments, in the order the op's table is written. A backend that the caller names is used or refused, never swapped.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from . import _first_use
from .checks import check_choice
from .prepared import explain_network

BACKENDS = ("reference", "cpu", "triton", "cuda")
_log = logging.getLogger("posekernels")


class BackendError(RuntimeError):
    """A backend was named that is missing here or cannot take these arguments."""


def _never(*_args) -> None:
    return None


@dataclass(frozen=True)
class Kernel:
    """One implementation of one op.

    Args:
        run: the implementation, or ``"module:function"``, imported on first use. Takes the raw op's arguments
            without the trailing ``backend``.
        missing: why the backend is not on this machine (built without, no device), or None when it is.
        refuses: given the same arguments as ``run``: why it cannot take them, or None.
        keeps: ``run`` takes ``derived``, a ``Network``'s ``made``.
    """

    run: Callable | str
    missing: Callable[[], str | None] = _never
    refuses: Callable[..., str | None] = _never
    keeps: bool = False

    def __call__(self, *args, **options):
        run = self.run
        if isinstance(run, str):
            module, function = run.split(":")
            run = getattr(importlib.import_module(module), function)
            object.__setattr__(self, "run", run)
        return run(*args, **options)


OPS: dict[str, dict[str, Kernel]] = {}
_named = (
    threading.local()
)  # .backend: what ``use_backend`` named in this thread. torch.compile cannot trace a ContextVar
_logged: set[tuple[str, str]] = set()


def _check_name(backend: str, source: str) -> str:
    check_choice(source, "backend", backend, ("auto", *BACKENDS))
    return backend


@contextlib.contextmanager
def use_backend(backend: str) -> Iterator[None]:
    """Run every op inside the ``with`` block, in this thread, on ``backend`` (``"auto"`` for the fastest that applies).

    Raises:
        ValueError: an unknown name.
        BackendError: from an op inside, when the backend cannot run it. Nothing falls back.
    """
    previous, _named.backend = getattr(_named, "backend", None), _check_name(backend, "use_backend")
    try:
        yield
    finally:
        _named.backend = previous


def requested(backend: str | None) -> str:
    """The backend that is asked for: argument, else ``use_backend``, else ``POSEKERNELS_BACKEND``, else auto."""
    if backend is not None:
        return _check_name(backend, "backend")
    named = getattr(_named, "backend", None)
    if named is not None:
        return named
    return _check_name(os.environ.get("POSEKERNELS_BACKEND", "auto"), "POSEKERNELS_BACKEND")


def _why_not(kernel: Kernel, args: tuple) -> str | None:
    return kernel.missing() or kernel.refuses(*args)


def _passed_over(op: str, name: str, args: tuple) -> str | None:
    """Why ``auto`` leaves a kernel alone that could run, or None."""
    if name == "triton" and triton_interpreted():
        return "Triton's interpreter is for tests; name it to use it"
    key = _first_use.key_of(op, name, args) if name in ("triton", "cuda") else None
    verdict = None if key is None else _first_use.verdict_on(key)
    if verdict not in (None, _first_use.GOOD):
        return f"its first use on this card was wrong: {verdict}; name it to use it"
    return None


def resolve(
    op: str, backend: str, args: tuple, kernels: dict[str, Kernel] | None = None
) -> Kernel | _first_use.FirstUse:
    """The kernel that runs ``op`` on ``args``; see the module's first lines for the rule.

    Args:
        kernels: of an op that has no entry in ``OPS``.

    Raises:
        BackendError: the named backend cannot; says why.
    """
    kernels = OPS[op] if kernels is None else kernels
    if backend != "auto":
        kernel = kernels.get(backend)
        reason = "the op has no such backend" if kernel is None else _why_not(kernel, args)
        if reason is not None:
            have = ", ".join(kernels)
            raise BackendError(f"{op}: backend {backend!r} was named but cannot run: {reason} (the op has: {have})")
        return kernel
    for name, kernel in kernels.items():
        reason = _passed_over(op, name, args) or _why_not(kernel, args)
        if reason is None:
            key = _first_use.key_of(op, name, args) if name in ("triton", "cuda") else None
            if key is not None and _first_use.verdict_on(key) is None:
                return _first_use.FirstUse(key, kernel, kernels["reference"])
            return kernel
        if (op, name) not in _logged:
            _logged.add((op, name))
            _log.info("%s: auto passes %s over: %s", op, name, reason)
    raise AssertionError(f"{op}: the reference refused")  # it has neither `missing` nor `refuses`


def explain(op: str | torch.nn.Module, *args) -> str:
    """One line per backend of ``op``: whether it would run on ``args`` (the raw op's), and why not.

    Without ``args`` only what the machine lacks is told. Of a network: a line for every part of it that one op can run,
    whether it does now, and why it is called module by module where it does not.
    """
    if isinstance(op, torch.nn.Module):
        return explain_network(op)
    if op not in OPS:
        raise ValueError(f"explain: no op named {op!r}; ops are {', '.join(OPS)}")
    lines, chosen = [], False
    for name, kernel in OPS[op].items():
        reason = _why_not(kernel, args) if args else kernel.missing()
        passed_over = _passed_over(op, name, args)
        if reason is None and passed_over:
            lines.append(f"{name:<10} named  {passed_over}")
        elif reason is None:
            lines.append(f"{name:<10} yes{'' if chosen or not args else '    chosen'}")
            chosen = True
        else:
            lines.append(f"{name:<10} no     {reason}")
    return "\n".join(lines)


def triton_interpreted() -> bool:
    """Whether Triton kernels run in its interpreter: on the CPU, tensors of any device, slowly."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@functools.cache
def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def no_triton() -> str | None:
    """Why Triton cannot run on this machine, or None."""
    if not _installed("triton"):
        return "the package triton is not installed"
    if triton_interpreted() or torch.cuda.is_available():
        return None
    return "no CUDA device (TRITON_INTERPRET=1 runs Triton's interpreter on the CPU)"


def tensors_in(arguments) -> Iterator[Tensor]:
    """The tensors among a raw op's arguments, those in lists too."""
    for argument in arguments:
        if isinstance(argument, Tensor):
            yield argument
        elif isinstance(argument, (list, tuple)):
            yield from tensors_in(argument)


def not_for_triton(*arguments) -> str | None:
    """Why our Triton kernels cannot take these arguments of a raw op, or None."""
    for tensor in tensors_in(arguments):
        if tensor.dtype == torch.float64:
            return "has no float64"
        if tensor.dtype == torch.bfloat16 and triton_interpreted():
            return "Triton's interpreter miscomputes bfloat16"
    return None if triton_interpreted() else not_on("cuda", *tensors_in(arguments))


def not_on(kind: str, *tensors: Tensor | None) -> str | None:
    """Why tensors are not all on device ``kind``, or None."""
    for tensor in tensors:
        if tensor is not None and tensor.device.type != kind:
            return f"needs tensors on {kind}, got one on {tensor.device}"
    return None
