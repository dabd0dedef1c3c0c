"""Which units a run of the benchmark measures, in which order, and about how long they take."""

from __future__ import annotations

from collections.abc import Iterator

from bench.cases import ModelCase, OpCase, model_cases, op_cases
from bench.suite import COMPILED, COMPILED_GRAPH, PRECISIONS, NetworkUnit, OpUnit, TrainingUnit, Unit

QUICK_FLOPS = 350e9  # a quick run leaves larger units out
PARTS = ("op", "inference", "training")
EXPORT, COMPILE, AUTOTUNE, MEMORY = 6.0, 20.0, 60.0, 0.5  # seconds of one contender, about: two CPU cores
OF_AN_OP = 0.1  # of these, to compile an op and not a network
RATE, CALL = 80e9, 1e-3  # of eager PyTorch on two cores: FLOP/s, and seconds that even a small unit takes


def _precisions(dtypes, only: list[str] | None, device: str) -> list[str]:
    """The names of the precisions that a case is measured in."""
    named = ["float32", *(["tf32"] if device.startswith("cuda") else []), *(str(d).split(".")[1] for d in dtypes)]
    return only or named


def of_op(case: OpCase, device: str, only: list[str] | None = None) -> Iterator[Unit]:
    for name in _precisions(case.dtypes, only, device):
        for backward in (False, True) if case.gradients else (False,):
            yield OpUnit(case, backward, PRECISIONS[name], device)


def of_network(
    case: ModelCase, device: str, only: list[str] | None = None, batches: list[int] | None = None
) -> Iterator[Unit]:
    for batch in batches or case.batches:
        for name in _precisions(case.dtypes, only, device):
            yield NetworkUnit(case, batch, PRECISIONS[name], device)
    for batch in () if batches else case.memory_only:
        yield NetworkUnit(case, batch, PRECISIONS["float32"], device, timed=False)


def units(
    device: str,
    *,
    ops: list[str] | None = None,
    networks: list[str] | None = None,
    parts: list[str] | None = None,
    precisions: list[str] | None = None,
    batches: list[int] | None = None,
    quick: bool = False,
) -> list[Unit]:
    """Everything, or what is asked for: ops by name, networks by name, and parts of ``PARTS``."""
    parts, found = parts or PARTS, []
    if "op" in parts and (ops or not networks):
        for case in op_cases():
            if case.counted_only or (case.gpu_only and not device.startswith("cuda")):
                continue
            if not ops or case.op in ops:
                found += of_op(case, device, precisions) if case.quick or not quick else ()
    for case in model_cases() if networks or not ops else ():
        if networks and case.model not in networks:
            continue
        if "inference" in parts:
            found += of_network(case, device, precisions, batches)
        if "training" in parts and case.training_batch:
            found += [
                TrainingUnit(case, PRECISIONS[name], device)
                for name in precisions or ["float32"]
                if name in ("float32", "tf32")
            ]
    if not quick:
        return found
    kept, seen = [], set()
    for unit in found:  # of a network: its smallest batch, in float32
        key = (unit.what, unit.pass_) if unit.network else unit.group
        if key not in seen and unit.timed and unit.flops <= QUICK_FLOPS:
            seen.add(key)
            kept.append(unit)
    return kept


def find(group: tuple[str, ...], device: str) -> Unit:
    """The unit that ``Unit.group`` came from, in another process."""
    what, size, pass_, name = group
    missing: list[str] = []
    for case in op_cases(missing):
        if (case.op, case.size) == (what, size):
            return OpUnit(case, pass_ == "forward+backward", PRECISIONS[name], device)
    for case in model_cases(missing):
        unit, _, batch = size.partition("=")
        if (case.model, case.unit) == (what, unit) and batch.isdigit():
            batch = int(batch)
            if pass_ == "training":
                return TrainingUnit(case, PRECISIONS[name], device, batch)
            return NetworkUnit(case, batch, PRECISIONS[name], device)
    why = f" ({missing[0]})" if missing else ""
    raise ValueError(f"no such unit of the benchmark: {' '.join(group)}{why}")


def seconds(unit: Unit, ways: list[str], budget: float, memory: bool) -> float:
    """About how long a unit takes on two CPU cores, from its operations alone."""
    compiling = 1.0 if unit.network else OF_AN_OP
    once = {
        "onnxruntime": EXPORT,
        "openvino": EXPORT,
        "torch.compile": COMPILE * compiling,
        "max-autotune": AUTOTUNE * compiling,
        COMPILED_GRAPH: COMPILE * compiling,
    }
    fixed = sum(once.get(w, 0) for w in ways)
    ours = sum(w in ("eager", "auto") for w in ways)
    call = CALL + unit.flops / RATE
    held = MEMORY * ours + call * ours if memory else 0
    if not unit.timed:  # one call of the kernels
        return MEMORY + 0.3 * call
    running = [w for w in ways if w not in ("triton", "cuda") or unit.device != "cpu"]
    share = sum(1.0 if w in ("eager", *COMPILED) else 0.4 for w in running)  # of eager's time, roughly
    one_round = share * call + 0.06 * len(running)
    rounds = max(3, min(15, budget / one_round))
    exact = 4 * call if unit.pass_ != "training" else 1.0
    return fixed + exact + 2 * share * call + rounds * one_round + held


def minutes(seconds: float) -> str:
    """``9 min 30 s``."""
    return f"{round(seconds) // 60} min {round(seconds) % 60} s"
