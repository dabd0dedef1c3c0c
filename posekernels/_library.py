"""The one ``torch.library`` namespace, ``posekernels``; the table of an op's kernels; the ladder every call climbs.

A raw op ``posekernels::_NAME`` takes the op's tensors and options and, last, the name of a backend. Its only
implementation asks ``_dispatch`` which kernel that is, so compiled graphs and eager calls choose alike.

``register`` makes the table from the op's folder. A call of the ``Op`` that it returns takes the first rung that holds:

1. The reference in plain sight: where it is named, where it is the only one that takes the arguments, and where
   ``torch.func``, forward-mode differentiation or (with gradients) ``torch.jit.trace`` looks on. It is plain PyTorch,
   so it exports and is differentiated by PyTorch, any number of times, which computes nothing twice.
2. The op's ``gradient`` where one is wanted. A gradient that is to be differentiated itself (``create_graph``) runs
   the reference: of every op, on every backend.
3. The kernel; by way of the raw op where something records or watches (``torch.compile``, a dispatch mode, a profiler,
   a tensor subclass). Raw ops carry no gradient: an ``autograd.Function`` around them costs 6 microseconds a call where
   ``torch.library.register_autograd`` costs 14.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from . import _cuda, _dispatch, _native
from ._dispatch import Kernel
from ._dropout import seed_tensor
from ._network import Network
from ._recompute import recomputed
from .prepared import Pass, captured, looked_at

LIB = torch.library.Library("posekernels", "DEF")
_PLAIN = frozenset({Tensor, nn.Parameter, type(None), int, float, bool, str})


def _plain(args) -> bool:
    """Whether these are tensors of PyTorch's own classes whose memory is what it says, and numbers."""
    for value in args:
        kind = type(value)
        if kind in _PLAIN:
            if isinstance(value, Tensor) and value.is_neg():
                return False
        elif not (kind in (list, tuple) and _plain(value)):
            return False
    return True


def wants_gradient(args) -> bool:
    """Whether a gradient is recorded with respect to one of these, or to one in a list among them."""
    return torch.is_grad_enabled() and any([t.requires_grad for t in _dispatch.tensors_in(args)])


def _flat(args) -> tuple[list[Tensor | None], Callable[[tuple], list]]:
    """The tensors among a raw op's arguments one after the other, and what puts others in their places."""
    tensors: list[Tensor | None] = []
    places: list[int | None] = []  # of each argument: tensors in its list, 0 for one tensor, None for no tensor
    for value in args:
        if value is None or isinstance(value, Tensor):
            places.append(0)
            tensors.append(value)
        elif isinstance(value, (list, tuple)) and any(isinstance(t, Tensor) for t in value):
            places.append(len(value))
            tensors.extend(value)
        else:
            places.append(None)

    def placed(others: tuple) -> list:
        found, first = [], 0
        for value, count in zip(args, places):
            if count is None:
                found.append(value)
            elif count == 0:
                found.append(others[first])
                first += 1
            else:
                found.append(list(others[first : first + count]))
                first += count
        return found

    return tensors, placed


class Op:
    """A raw op with its kernels. Called with the raw op's arguments, it climbs the ladder above.

    Args:
        name: the raw op is ``posekernels::_{name}``.
        raw: that op.
        kernels: its table, the reference last.
        reference: what runs in plain sight.
    """

    def __init__(self, name: str, raw: Callable, kernels: dict[str, Kernel], reference: Callable):
        self.name, self.raw, self.kernels, self.reference = name, raw, kernels, reference
        self._backward = name.endswith("_backward")
        self._traceable = "?[]" not in str(raw._schema)
        names = [a.name for a in raw._schema.arguments if "Tensor" in str(a.type)]
        self._seed = [a.name for a in raw._schema.arguments].index("seed") if "seed" in names else None
        # Called as the op is, where a gradient is wanted: ``apply`` of an ``autograd.Function``, or ``recomputed``.
        # Without one it is the reference that is differentiated: that is what the gradients' own ops want.
        self.gradient: Callable | None = None

    def __call__(self, *args, backend: str, network: Network | None = None):
        """The raw op's results.

        Args:
            args: the raw op's, without the backend.
            network: whose weights are among ``args``: a kernel that keeps its own form of them keeps it there.
        """
        if backend == "reference":
            return self.reference(*args)
        compiling = torch.compiler.is_compiling()
        if not compiling:
            kernel = _dispatch.resolve(self.name, backend, args)
            looking = self._looked_at(args)
            if looking is not None and backend != "auto":
                raise _dispatch.BackendError(
                    f"{self.name}: {looking} runs the reference, but backend {backend!r} was named: "
                    "name 'reference' or 'auto'"
                )
            if looking is not None or kernel is self.kernels["reference"]:
                return self.reference(*args)
        if wants_gradient(args):
            if self.gradient is not None:
                return self.gradient(*args, backend)
            if not compiling:
                return self.reference(*args)
        if compiling or captured() or torch.autograd._profiler_enabled():
            return self._raw(args, backend)
        if not _plain(args if network is None else args[:1]):
            return self._raw(args, backend)
        if network is not None and kernel.keeps:
            return kernel(*args, derived=network.made)
        if not self._backward:
            return kernel(*args)
        with Pass("backward"):
            return kernel(*args)

    def _raw(self, args, backend: str):
        """The raw op, which takes the seed of a dropout mask as a tensor."""
        if self._seed is not None:
            args = list(args)
            args[self._seed] = seed_tensor(args[self._seed], args[0].device)
        return self.raw(*args, backend)

    def _looked_at(self, args) -> str | None:
        """As ``looked_at``; and what ``torch.jit.trace`` cannot record: a gradient of ours, lists with None in them."""
        unrecorded = torch.jit.is_tracing() and (not self._traceable or wants_gradient(args))
        return looked_at() or ("torch.jit.trace" if unrecorded else None)

    def takes_reference(self, *args, backend: str) -> bool:
        """Whether a call with these takes the first rung; ``args`` may be those that kernels look at alone."""
        if backend == "reference":
            return True
        if torch.compiler.is_compiling():
            return False
        return (
            self._looked_at(args) is not None
            or _dispatch.resolve(self.name, backend, args) is self.kernels["reference"]
        )

    def run(self, *args, backend: str):
        """The last rung alone, in a training pass: for what is differentiated by its caller."""
        if torch.compiler.is_compiling() or captured() or not _plain(args) or torch.autograd._profiler_enabled():
            return self._raw(args, backend)
        with Pass("forward"):
            return _dispatch.resolve(self.name, backend, args)(*args)

    def recomputed(self, *args):
        """A ``gradient`` that runs the reference again. The last of ``args`` is the backend."""
        *args, backend = args
        tensors, placed = _flat(args)

        def as_results(made):
            return made if isinstance(made, Tensor) else tuple(made)

        return recomputed(
            lambda *others: as_results(self.run(*placed(others), backend=backend)),
            lambda *others: as_results(self.reference(*placed(others))),
            tensors,
        )


def _kernels(package, name, order, needs, refuses, keeps) -> Iterator[tuple[str, Kernel]]:
    """See ``register``."""
    folder = Path(sys.modules[package].__path__[0])
    for backend in order:
        if not (folder / f"{backend}.py").is_file():
            continue
        if backend == "cpu":
            own = importlib.import_module(f"{package}.cpu")
            missing = partial(_native.no_cpu, *needs.get("cpu", (name,)))
            usual = getattr(own, "refuses_backward", own.refuses) if name.endswith("_backward") else own.refuses
        elif backend == "triton":
            missing, usual = _dispatch.no_triton, _dispatch.not_for_triton
        else:
            missing, usual = partial(_native.no_cuda, *needs.get("cuda", (f"{name}_cuda",))), _cuda.refuses
        kept = backend in keeps
        yield backend, Kernel(f"{package}.{backend}:{name}", missing, refuses.get(backend, usual), keeps=kept)


def register(
    package: str,
    name: str,
    schema: str,
    fake: Callable,
    *,
    order: tuple[str, ...] = ("cpu", "triton", "cuda"),
    needs: dict[str, tuple[str, ...]] | None = None,
    refuses: dict[str, Callable[..., str | None]] | None = None,
    keeps: tuple[str, ...] = (),
    in_memory_as: Callable | None = None,
) -> Op:
    """Define ``posekernels::_{name}``, whose kernels lie in the op's folder.

    ``reference.py`` is always there; ``cpu.py``, ``triton.py`` and ``cuda.py`` where the op has them. Each holds a
    function of the raw op's name that takes its arguments without the backend; the last two are imported on first use.

    Args:
        package: the op's package, ``__name__``.
        name: the op's name.
        schema: its arguments and results, the last argument being ``str backend``.
        fake: shapes and dtypes of the results, from the same arguments.
        order: in which ``auto`` looks; the reference comes last.
        needs: backend -> the compiled functions without which it is missing: ``name`` ("cpu"), ``name_cuda`` ("cuda").
        refuses: backend -> why it cannot take the arguments, or None, in place of the usual rule: of the CPU
            ``refuses`` or ``refuses_backward`` in ``cpu.py``, of Triton ``not_for_triton``, of CUDA ``_cuda.refuses``.
        keeps: backends whose function takes ``derived``, a ``Network``'s ``made``.
        in_memory_as: what the raw op makes of the reference's result, where strides are part of the promise.
    """
    reference = getattr(importlib.import_module(f"{package}.reference"), name)
    kernels = dict(_kernels(package, name, order, needs or {}, refuses or {}, keeps))
    kernels["reference"] = Kernel(in_memory_as or reference)
    _dispatch.OPS[name] = kernels

    def run(*args):
        return _dispatch.resolve(name, args[-1], args[:-1])(*args[:-1])

    LIB.define(f"_{name}{schema}")
    LIB.impl(f"_{name}", run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"posekernels::_{name}", fake, lib=LIB)
    return Op(name, getattr(torch.ops.posekernels, f"_{name}").default, kernels, reference)
