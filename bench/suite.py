"""Units of the benchmark: one op, network or training iteration at one size, and every way to compute it.

A unit is checked against float64 first; only what passes is timed, all ways turn by turn.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property

import torch
from torch import Tensor

import posekernels
from bench import peers
from bench.cases import ModelCase, OpCase, as_trained
from bench.measure import Device, interleaved
from posekernels import _dispatch

GRAPH = "auto, graph"  # on a GPU: the kernels as the replay of a CUDA graph
COMPILED = {"torch.compile": None, "max-autotune": "max-autotune"}  # the modes
COMPILED_GRAPH = "torch.compile, graph"  # on a GPU: it captures a CUDA graph itself
COMPILED[COMPILED_GRAPH] = "reduce-overhead"
CHAIN = 10  # a network is a chain of ops: its error may be this many times an op's


@dataclass(frozen=True)
class Precision:
    """How numbers are held and multiplied; ``bound`` on an op's relative error against float64."""

    name: str
    dtype: torch.dtype
    bound: float

    @contextlib.contextmanager
    def applied(self):
        products = torch.backends.cuda.matmul
        before, products.fp32_precision = products.fp32_precision, "tf32" if self.name == "tf32" else "ieee"
        try:
            yield
        finally:
            products.fp32_precision = before

    @property
    def size(self) -> int:
        """Bytes of an element."""
        return self.dtype.itemsize


PRECISIONS = {
    p.name: p
    for p in (
        Precision("float32", torch.float32, 1e-5),
        Precision("tf32", torch.float32, 1e-3),
        Precision("bfloat16", torch.bfloat16, 1e-2),
        Precision("float16", torch.float16, 1e-2),
    )
}


@dataclass
class Row:
    """One line of the table. Times in microseconds; ``rejected`` says why a row has none; ``run`` when it was made.

    ``peak_mb``: the most memory that the call held beyond the network, its weights and inputs (``bench.memory``).
    """

    what: str
    size: str
    pass_: str
    dtype: str
    contender: str
    error: float | None = None
    median_us: float | None = None
    low_us: float | None = None
    high_us: float | None = None
    host_us: float | None = None
    gflops: float | None = None
    gbytes: float | None = None
    of_peak: float | None = None
    vs_eager: float | None = None
    peak_mb: float | None = None
    rejected: str = ""
    run: str = ""

    def dict(self) -> dict:
        return asdict(self)

    @property
    def group(self) -> tuple[str, str, str, str]:
        """What the contenders of one unit share."""
        return self.what, self.size, self.pass_, self.dtype


def relative_error(got, want) -> float:
    """Largest norm-wise relative error over a tuple of tensors."""
    got, want = (t if isinstance(t, tuple) else (t,) for t in (got, want))
    worst = 0.0
    for g, w in zip(got, want, strict=True):
        w = w.double()
        scale = w.norm().item()
        error = (g.to(w.device).double() - w).norm().item()
        if not error <= float("inf"):  # NaN
            return float("inf")
        worst = max(worst, error / scale if scale else error)
    return worst


def _in_way(way: str, net, run):
    """What is timed of ``run(net)``: compiled by PyTorch, as it is, or with the backend of ours that ``way`` names."""
    if way in COMPILED:
        return peers.compiled(net, run, COMPILED[way])
    if way == "eager":
        return peers.eager(lambda: run(net))

    def named():
        with posekernels.use_backend(way):
            return run(net)

    return named


def _cast(value, dtype: torch.dtype, device: str):
    if not isinstance(value, Tensor):
        return value
    return value.to(device, dtype) if value.is_floating_point() else value.to(device)


class Unit(ABC):
    """One group of rows. ``ways`` lists what it can be computed with; ``build`` makes one of them, not yet called.

    Attributes:
        what, size, pass_: for the table. precision, device: what it runs in and on.
        flops, bytes: of the whole unit; bytes may be None.
        network: the case of a network, None for an op.
        timed: False when only the memory of the kernels is measured.
    """

    what: str
    size: str
    pass_: str
    flops: float
    bytes: float | None = None
    network: ModelCase | None = None
    timed = True

    def __init__(self, precision: Precision, device: str):
        self.precision, self.device = precision, device

    @property
    def group(self) -> tuple[str, str, str, str]:
        return self.what, self.size, self.pass_, self.precision.name

    def __str__(self) -> str:
        return "  ".join(self.group)

    @abstractmethod
    def ways(self, backends: list[str], compiled: list[str]) -> list[str]: ...

    @abstractmethod
    def build(self, way: str) -> Callable:
        """Raises BackendError or ``peers.Unavailable`` (here or when called) for what cannot run."""

    @abstractmethod
    def want(self):
        """The result in float64, from the reference."""

    def error(self, way: str, call: Callable, want) -> float | None:
        """Relative error of one call; None where there is nothing to compare."""
        return relative_error(call(), want)

    @property
    def bound(self) -> float:
        return self.precision.bound * (CHAIN if self.network else 1)


class OpUnit(Unit):
    """An op, forward or forward and backward."""

    def __init__(self, case: OpCase, backward: bool, precision: Precision, device: str):
        super().__init__(precision, device)
        self.case, self.backward = case, backward
        self.what, self.size = case.op, case.size
        self.pass_ = "forward+backward" if backward else "forward"
        factor = 3 if backward else 1
        self.flops, self.bytes = factor * case.flops, factor * case.bytes(precision.size)

    def ways(self, backends, compiled):
        named = [b for b in _dispatch.OPS[self.case.op] if b != "reference"]
        graph = [GRAPH] if self.device.startswith("cuda") and not (self.backward or backends) else []
        compiled = compiled if self.case.compiles else []
        return ["eager", *(backends or ["auto", *named]), *graph, *self.case.peers, *compiled]

    def inputs(self) -> dict:
        return {n: _cast(v, self.precision.dtype, self.device) for n, v in self.case.make().items()}

    def bound_to(self, function: Callable, values: dict) -> Callable:
        if not self.backward:

            def forward():
                with torch.no_grad():
                    return function(values)

            return forward
        leaves = [values[n].requires_grad_() for n in self.case.gradients]

        def both():
            y = function(values)
            first = y[0] if isinstance(y, tuple) else y
            return torch.autograd.grad(first, leaves, torch.ones_like(first))

        return both

    def build(self, way):
        values, case = self.inputs(), self.case
        if way in case.peers:
            return self.bound_to(case.peers[way], values)
        backend = "reference" if way in ("eager", *COMPILED) else way
        call = self.bound_to(lambda i: case.call(i, backend), values)
        if way in COMPILED:
            return peers.compiled(call, lambda fast: fast(), COMPILED[way])
        return peers.eager(call) if way == "eager" else call

    def want(self):
        # On the rounded values that the contender sees, so that rounding the inputs is not counted against it.
        values = {
            n: v.double() if isinstance(v, Tensor) and v.is_floating_point() else v for n, v in self.inputs().items()
        }
        return self.bound_to(lambda i: self.case.call(i, "reference"), values)()

    def error(self, way, call, want):
        got = call()
        return None if way in self.case.unchecked else relative_error(got, want)


class NetworkUnit(Unit):
    """A network, or what is done with one, in inference."""

    pass_ = "inference"

    def __init__(self, case: ModelCase, batch: int, precision: Precision, device: str, timed: bool = True):
        super().__init__(precision, device)
        self.network, self.batch, self.timed = case, batch, timed
        self.what, self.size = case.model, f"{case.unit}={batch}"
        self.flops = case.flops(batch)

    @cached_property
    def bytes(self) -> float:
        """Of its weights, which are read at least once; frames are few beside them."""
        return sum(p.nbytes for p in self.network.make().to(self.precision.dtype).parameters())

    def ways(self, backends, compiled):
        case = self.network
        if not self.timed:
            return ["auto"]
        onnx = [*peers.SESSIONS] if case.run is None or case.session else []
        graph = [GRAPH] if self.device.startswith("cuda") and not backends else []
        return ["eager", *(backends or ["auto"]), *graph, *(compiled if case.run is None or case.plain else []), *onnx]

    def run(self, net, inputs):
        return (self.network.run or (lambda net, inputs: net(*inputs)))(net, inputs)

    def made(self, dtype: torch.dtype):
        torch.manual_seed(0)
        net = as_trained(self.network.make()).eval().to(self.device, dtype)
        return net, tuple(_cast(t, dtype, self.device) for t in self.network.inputs(self.batch))

    def build(self, way):
        case, (net, inputs) = self.network, self.made(self.precision.dtype)
        threads = torch.get_num_threads()
        if way in peers.SESSIONS and case.session:
            return case.session(net, inputs, lambda example, part=net: peers.session(way, part, example, threads))
        if way in peers.SESSIONS:
            session = peers.session(way, net, inputs, threads)
            return lambda: session(*inputs)
        backend = "reference" if way in ("eager", *COMPILED) else way
        run = case.plain if case.plain and backend == "reference" else self.run

        def on(net):
            with torch.no_grad():
                return run(net, inputs)

        return _in_way(way, net, on)

    def _chosen(self, entries: int) -> list[int]:
        """Which entries of the batch are compared with float64."""
        some = self.network.checked
        if some is None or entries <= some:
            return list(range(entries))
        return [*range(some // 2), *range(entries - some // 2, entries)]

    def want(self):
        net, inputs = self.made(torch.float64)
        if self.network.checked is not None:
            inputs = tuple(t[self._chosen(self.batch)] for t in inputs)
        with torch.no_grad(), posekernels.use_backend("reference"):
            return self.run(net, inputs)

    def error(self, way, call, want):
        got = call()
        return relative_error(got if self.network.checked is None else got[self._chosen(self.batch)], want)


class TrainingUnit(Unit):
    """One training iteration: for each loss a forward pass, a backward pass and a step of Adam.

    Checked by the gradients of the first loss, at a small batch.
    """

    pass_ = "training"

    def __init__(self, case: ModelCase, precision: Precision, device: str, batch: int | None = None):
        super().__init__(precision, device)
        self.network, self.batch = case, batch or case.training_batch
        self.what, self.size = case.model, f"{case.unit}={self.batch}"
        self.flops = 3 * len(case.losses) * case.flops(self.batch)

    def ways(self, backends, compiled):
        return ["eager", *(backends or ["auto"]), *compiled]

    def made(self, batch: int, dtype: torch.dtype):
        torch.manual_seed(0)
        net = self.network.make().train().to(self.device, dtype)
        return net, tuple(_cast(t, dtype, self.device) for t in self.network.inputs(batch))

    def build(self, way):
        net, inputs = self.made(self.batch, self.precision.dtype)
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-4, fused=True)

        def steps(net):
            for function in self.network.losses:
                optimizer.zero_grad(set_to_none=True)
                function(net, inputs).backward()
                optimizer.step()

        return _in_way(way, net, steps)

    def gradients(self, backend: str, dtype: torch.dtype) -> Tensor:
        net, inputs = self.made(min(self.batch, 8), dtype)
        with posekernels.use_backend(backend):
            self.network.losses[0](net, inputs).backward()
        return torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])

    def want(self):
        return None if self.network.unchecked_training else self.gradients("reference", torch.float64)

    def error(self, way, call, want):
        if self.device != "cpu":
            call()  # the gradients below are others': let what fails here fail before it is timed
        if want is None:
            return None
        backend = "reference" if way in ("eager", *COMPILED) else way
        return relative_error(self.gradients(backend, self.precision.dtype), want)


def captured(unit: Unit) -> Callable:
    """``auto`` as the replay of a CUDA graph."""
    try:
        return Device(unit.device).graphed(unit.build("auto"))
    except RuntimeError as error:
        raise peers.Unavailable(f"CUDA graph: {str(error).splitlines()[0]}") from error


def said(error: Exception) -> str:
    """Why a row has no time, in one line."""
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    if isinstance(error, (posekernels.BackendError, peers.Unavailable, TypeError, ValueError)):
        return first.split("cannot run: ")[-1].split(" (the op has")[0]
    return first if type(error).__name__ in first else f"{type(error).__name__}: {first}"


def prepare(unit: Unit, ways: list[str]) -> tuple[dict[str, Row], dict[str, Callable]]:
    """A row for every way; and the calls of those that run and are right. None does once a card is lost to a way."""
    rows, calls = {}, {}
    if not unit.timed:
        return rows, calls
    if any(way in COMPILED for way in ways):
        torch._dynamo.reset()  # once for all ways: it also forgets what other modes have compiled
    want = unit.want()
    for way in ways:
        row = rows[way] = Row(*unit.group, way)
        try:
            call = captured(unit) if way == GRAPH else unit.build(way)
            row.error = unit.error(way, call, want)
            Device(unit.device).synchronize()  # else a GPU's errors are another's
        except Exception as error:  # out of memory, or a kernel that the card refuses: the others still run
            row.rejected = said(error)
            if Device(unit.device).lost():
                return rows, {}
            continue
        if row.error is not None and row.error > unit.bound:
            row.rejected = f"error {row.error:.1e} > {unit.bound:.0e}"
            continue
        calls[way] = call
    return rows, calls


def measured(unit: Unit, ways: list[str], budget: float, peak, memory: Callable | None) -> list[Row]:
    """The unit's rows.

    Args:
        budget: seconds for the timing, roughly.
        peak: (FLOP/s, bytes/s) of this machine in the unit's precision.
        memory: (unit, way) -> megabytes, or None to leave it out.
    """
    with unit.precision.applied():
        rows, calls = prepare(unit, ways)
        if calls:
            try:
                timings = interleaved(calls, Device(unit.device), budget)
            except Exception as error:  # what ran once need not run twice: memory, or a card that is lost
                timings = {}
                for way in calls:
                    rows[way].rejected = f"while all were timed: {said(error)}"
            base = timings.get("eager")
            for name, t in timings.items():
                row = rows[name]
                row.median_us, row.low_us, row.high_us, row.host_us = (
                    1e6 * v for v in (t.median, t.low, t.high, t.host)
                )
                row.gflops = unit.flops / t.median / 1e9
                row.gbytes = unit.bytes / t.median / 1e9 if unit.bytes else None
                row.of_peak = max(unit.flops / peak[0], (unit.bytes or 0) / peak[1]) / t.median
                row.vs_eager = base.median / t.median if base else None
        for way in ("eager", "auto") if memory else ():
            if way in calls or (way in ways and not unit.timed):
                row = rows.setdefault(way, Row(*unit.group, way))
                row.peak_mb = memory(unit, way)
        for row in rows.values():
            if row.median_us is None and not row.rejected:
                row.rejected = "not timed: only its memory is measured"
    return list(rows.values())
