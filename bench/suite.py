"""Rows of the benchmark: correctness against float64 first, a figure only for what passes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

import posekernels
from posekernels import _dispatch

from . import peers
from .cases import ModelCase, OpCase
from .measure import Device, interleaved

BUDGET = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 1e-2, torch.float16: 1e-2}
TF32_BUDGET = 1e-3


@dataclass
class Row:
    """One line of the table. Times in microseconds; ``rejected`` says why a row has none."""

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

    def dict(self) -> dict:
        return asdict(self)


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


def _cast(inputs: dict, dtype: torch.dtype, device: str) -> dict:
    def cast(value):
        if not isinstance(value, Tensor):
            return value
        return value.to(device, dtype) if value.is_floating_point() else value.to(device)

    return {name: cast(value) for name, value in inputs.items()}


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _fill(rows: dict[str, Row], calls: dict[str, Callable], device: Device, budget: float, flops, bytes_, peak) -> None:
    """Time what is left in ``calls`` and write it into ``rows``."""
    if not calls:
        return
    timings = interleaved(calls, device, budget)
    base = timings.get("eager")
    for name, t in timings.items():
        row = rows[name]
        row.median_us, row.low_us, row.high_us, row.host_us = (1e6 * v for v in (t.median, t.low, t.high, t.host))
        row.gflops = flops / t.median / 1e9
        row.gbytes = bytes_ / t.median / 1e9 if bytes_ else None
        row.of_peak = max(flops / peak[0], (bytes_ or 0) / peak[1]) / t.median
        row.vs_eager = base.median / t.median if base else None


def op_rows(
    case: OpCase,
    device: Device,
    dtype: torch.dtype,
    peak,
    backends: list[str] | None = None,
    compile_: bool = True,
    budget: float = 2.0,
) -> Iterator[Row]:
    """Forward, then forward + backward, of one op: every backend and peer."""
    inputs = _cast(case.make(), dtype, device.name)
    # float64 on the values that the contender sees, so that rounding the inputs is not counted against it
    exact = {n: v.double() if isinstance(v, Tensor) and v.is_floating_point() else v for n, v in inputs.items()}
    want_backends = backends or [b for b in _dispatch.OPS[case.op] if b != "reference"]

    contenders: dict[str, Callable[[dict], Tensor]] = {"eager": lambda i: case.call(i, "reference")}
    contenders |= {b: (lambda i, b=b: case.call(i, b)) for b in want_backends}
    contenders |= {name: peer for name, peer in case.peers.items()}
    for backward in (False, True) if case.gradients else (False,):
        rows, calls = {}, {}
        pass_ = "forward+backward" if backward else "forward"

        def bound(function, values, backward=backward):
            if not backward:

                def forward():
                    with torch.no_grad():
                        return function(values)

                return forward
            leaves = [values[n].requires_grad_() for n in case.gradients]

            def both():
                y = function(values)
                first = y[0] if isinstance(y, tuple) else y
                return torch.autograd.grad(first, leaves, torch.ones_like(first))

            return both

        with posekernels.use_backend("reference"):
            want = bound(lambda i: case.call(i, "reference"), dict(exact))()
        ways = dict(contenders)
        if compile_:
            ways["torch.compile"] = None
        for name, function in ways.items():
            row = rows[name] = Row(case.op, case.size, pass_, _name(dtype), name)
            values = {n: v.detach().clone() if isinstance(v, Tensor) else v for n, v in inputs.items()}
            try:
                if function is None:
                    call = peers.compiled(bound(lambda i: case.call(i, "reference"), values))
                else:
                    call = bound(function, values)
                row.error = relative_error(call(), want)
            except (posekernels.BackendError, peers.Unavailable, TypeError, ValueError) as error:
                row.rejected = str(error).splitlines()[0]
                continue
            if row.error > BUDGET[dtype]:
                row.rejected = f"error {row.error:.1e} > {BUDGET[dtype]:.0e}"
                continue
            calls[name] = call
        factor = 3 if backward else 1
        _fill(rows, calls, device, budget, factor * case.flops, factor * case.bytes(inputs_size(dtype)), peak)
        yield from rows.values()


def inputs_size(dtype: torch.dtype) -> int:
    return torch.empty(0, dtype=dtype).element_size()


def model_rows(
    case: ModelCase,
    batch: int,
    device: Device,
    dtype: torch.dtype,
    peak,
    ways: list[str],
    budget: float = 4.0,
) -> Iterator[Row]:
    """Inference of one network at one batch: kernels ("auto"), eager, ``torch.compile``, ONNX Runtime."""
    torch.manual_seed(0)
    net = case.make().eval()
    inputs = tuple(t.to(device.name) for t in case.inputs(batch))
    run = case.run or (lambda net, inputs: net(*inputs))
    with torch.no_grad(), posekernels.use_backend("reference"):
        exact = copy.deepcopy(net).double().to(device.name)
        want = run(exact, tuple(t.double() if t.is_floating_point() else t for t in inputs))
        del exact
    net = net.to(device.name, dtype)
    cast = tuple(t.to(dtype) if t.is_floating_point() else t for t in inputs)

    def call():
        with torch.no_grad():
            return run(net, cast)

    rows, calls = {}, {}
    for way in ways:
        row = rows[way] = Row(case.model, f"B={batch}", "inference", _name(dtype), way)
        try:
            if way == "eager":
                contender = peers.eager(call)
            elif way == "torch.compile":
                contender = peers.compiled(call)
            elif way == "max-autotune":
                contender = peers.compiled(call, "max-autotune")
            elif way == "onnxruntime":
                contender = peers.onnxruntime(net, cast, torch.get_num_threads())
            else:

                def contender(backend=way):
                    with posekernels.use_backend(backend):
                        return call()

            row.error = relative_error(contender(), want)
        except (posekernels.BackendError, peers.Unavailable) as error:
            row.rejected = str(error).splitlines()[0]
            continue
        bound = 10 * BUDGET[dtype]  # a network is a chain of ops
        if row.error > bound:
            row.rejected = f"error {row.error:.1e} > {bound:.0e}"
            continue
        calls[way] = contender
    _fill(rows, calls, device, budget, case.flops(batch), None, peak)
    yield from rows.values()


def training_rows(case: ModelCase, device: Device, peak, ways: list[str], budget: float = 4.0) -> Iterator[Row]:
    """One training step (forward, backward, Adam) of one network."""
    batch = case.training_batch
    if batch is None:
        return
    torch.manual_seed(0)
    first = case.make().train().to(device.name)
    inputs = tuple(t.to(device.name) for t in case.inputs(batch))
    run = case.run or (lambda net, inputs: net(*inputs))
    rows, calls = {}, {}
    for way in ways:
        if way not in ("eager", "auto", "cpu", "triton", "cuda"):
            continue
        backend = "reference" if way == "eager" else way
        net = copy.deepcopy(first)
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-4)

        def step(net=net, optimizer=optimizer, backend=backend):
            with posekernels.use_backend(backend):
                optimizer.zero_grad(set_to_none=True)
                loss = case.loss(run(net, inputs))
                loss.backward()
                optimizer.step()
            return loss

        row = rows[way] = Row(case.model, f"B={batch}", "training step", "float32", way)
        try:
            step()
        except posekernels.BackendError as error:
            row.rejected = str(error).splitlines()[0]
            continue
        calls[way] = step
    _fill(rows, calls, device, budget, 3 * case.flops(batch), None, peak)
    yield from rows.values()
