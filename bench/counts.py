"""``python -m bench.counts``: what the GPU kernels execute, counted on a CPU; no time is measured.

Runs the compiled kernels (PTX of sm_80, Triton's and nvcc's) in the tests' executor (tests/ptx, so it needs a
checkout) at the sizes of ``bench/ops`` and ``bench/models``, and counts: instructions by kind, work of the matrix
units, global memory in sectors of 32 bytes, turns of the banks of shared memory, barriers. ptxas gives registers and
spills, and with them the occupancy. A roofline of an H200 turns the counts into a lower bound of time. Writes
``bench/results/counts.md`` and ``counts.json``. Names of ops or networks count only those, and keep the rows of the
others; ``--backend`` those of one kind of kernels.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest import mock

import torch

from bench.cases import model_cases, op_cases
from posekernels import _dispatch, use_backend
from posekernels.aot import _tool
from posekernels.cli import Parser, run_cli
from posekernels.eight_bits import quantise
from posekernels.files import write_aside

RESULTS = Path(__file__).parent / "results"
MOST = 16_000_000  # instructions of warps in a launch; more would take minutes here
FLOPS = 1e9  # and no larger case

# An H200, as data sheets and others' measurements have it.
BYTES_PER_S, LAUNCH_S, PROCESSORS, CLOCK = 4.3e12, 3e-6, 132, 1.7e9
# Of the matrix units; float32 as TF32, e4m3 twice bfloat16.
FLOPS_PER_S = {"bfloat16": 790e12, "float32": 400e12, "float8_e4m3fn": 1580e12}
ISSUED_PER_CLOCK, BANK_TURNS_PER_CLOCK = 4, 1  # by a processor
CACHE_BYTES_PER_CLOCK = 5120  # of the second level, all processors
# What a processor of sm_90 holds at once, and in which units registers and shared memory are given out.
MOST_WARPS, MOST_BLOCKS, REGISTERS, SHARED = 64, 32, 65536, 228 * 1024
REGISTERS_OF_A_WARP, SHARED_OF_A_BLOCK = 256, 1024

BACKENDS = ("triton", "cuda")
# Products in FP8 that are counted: rows, depth, columns. MixSTE's projections and the Strided Transformer's hidden
# layer, each at 243 frames.
EIGHT_BITS = ((243 * 17, 512, 1536), (243, 256, 512))
KINDS = (
    ("mma", r"mma|ldmatrix|wgmma\.mma_async"),
    ("global", r"(ld|st|atom|red)\.global|cp\.async\.c[ag]"),
    ("shared", r"(ld|st)\.shared"),
    (
        "float",
        r"(add|sub|mul|fma|mad|div|max|min|neg|abs|ex2|lg2|sqrt|rcp|rsqrt|copysign)\..*f(16|32|64)|cvt\..*f(16|32)",
    ),
    ("shuffle", r"shfl|redux|vote"),
    ("barrier", r"bar|cp\.async\.(commit|wait)|wgmma|fence"),
    ("branch", r"bra|ret|setp|selp|.*\.pred"),
    ("integer", r""),
)


@dataclasses.dataclass(frozen=True)
class Row:
    """What one call of an op, or of a network, launches; seconds are bounds, not times."""

    what: str
    size: str
    precision: str
    launches: int
    instructions: int
    kinds: dict[str, int]
    matrix_flops: float
    useful_flops: float
    distinct_bytes: int
    cache_bytes: int
    least_bytes: float
    bank_turns: int
    bank_turns_least: int
    barriers: int
    registers: int
    spills: int
    shared: int
    least_s: float
    ours_s: float
    bound_by: str
    backend: str = "triton"
    occupancy: float | None = None  # of the launch that executes most; None: counted before it was told
    graph_s: float | None = None  # as ours_s, where one CUDA graph launches all; None likewise


def kind_of(op: str) -> str:
    return next(kind for kind, pattern in KINDS if re.match(pattern, op))


def matrix_flops(op: str) -> int:
    """Of one instruction of a warp."""
    shape = re.match(r"(?:wg)?mma\..*?m(\d+)n(\d+)k(\d+)", op)
    if shape is None:
        return 0
    return 2 * int(shape[1]) * int(shape[2]) * int(shape[3]) // (4 if op.startswith("wgmma") else 1)  # by four warps


def width(op: str) -> int:
    """Bytes that a lane moves."""
    if op.startswith("ldmatrix"):
        return 4 * int(re.search(r"\.x(\d)", op)[1])
    many = re.search(r"\.v(\d)", op)
    return int(re.search(r"[busf](\d+)$", op)[1]) // 8 * (int(many[1]) if many else 1)


def resources(kernel, cache: dict[str, dict[str, tuple[int, int]]]) -> tuple[int, int]:
    """(registers, bytes spilled) of a thread of a kernel, by ptxas."""
    from tests.ptx import nvcc

    text = kernel.module.text
    if text not in cache:
        target = re.search(r"\.target\s+(sm_\w+)", text)[1]
        beside = Path((nvcc.compiler() or ("",))[0]).with_name("ptxas")  # Triton's may be older than nvcc, and refuse
        ptxas = str(beside) if "NVVM Compiler" in text and beside.is_file() else None
        ptxas = ptxas or _tool(
            "ptxas" if target == "sm_80" else "ptxas-blackwell"
        )  # as Triton, whose PTX is newer there
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "kernel.ptx").write_text(text)
            command = [ptxas, "-v", f"-arch={target}", "kernel.ptx", "-o", "kernel.cubin"]
            said = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stderr
        cache[text] = {}
        for part in said.split("Compiling entry function ")[1:]:  # 'name' for 'sm_80'
            spills = sum(map(int, re.findall(r"(\d+) bytes spill stores", part)))
            cache[text][part.split("'")[1]] = int(re.search(r"Used (\d+) registers", part)[1]), spills
    return cache[text][kernel.name]


def occupancy(threads: int, registers: int, shared: int) -> float:
    """Warps that a processor of sm_90 holds of a kernel, by the most it can."""
    warps = -(-threads // 32)
    of_a_warp = -(-registers * 32 // REGISTERS_OF_A_WARP) * REGISTERS_OF_A_WARP
    blocks = min(
        MOST_BLOCKS,
        MOST_WARPS // warps,
        REGISTERS // (of_a_warp * warps),
        SHARED // (shared + SHARED_OF_A_BLOCK),
    )
    return blocks * warps / MOST_WARPS


def row(
    what: str, size: str, precision: str, launches, flops: float, least_bytes: float, cache: dict, backend="triton"
) -> Row:
    """The sums over launches, and the bounds."""
    kinds: collections.Counter[str] = collections.Counter()
    issued = ours = 0.0
    graph = LAUNCH_S
    distinct = moved = 0
    turns = turns_least = barriers = registers = spills = shared = 0
    by: collections.Counter[str] = collections.Counter()
    most, occupied = 0, 0.0
    for launch in launches:
        own = collections.Counter()
        mma = sectors = banked = 0
        for op, (warps, lanes, sector, turn) in zip(launch.kernel.ops, launch.counts.rows.tolist()):
            own[kind_of(op)] += warps
            mma += warps * matrix_flops(op)
            sectors += sector
            banked += turn
            if turn:
                turns_least += -(-lanes * width(op) // 128)
        kinds += own
        issued, moved, turns = issued + mma, moved + 32 * sectors, turns + banked
        distinct += launch.counts.distinct_bytes
        barriers += launch.counts.barriers
        used, held = resources(launch.kernel, cache), launch.kernel.shared_bytes(launch.shared)
        registers, spills, shared = max(registers, used[0]), max(spills, used[1]), max(shared, held)
        if sum(own.values()) > most:
            most, occupied = sum(own.values()), occupancy(launch.threads, used[0], held)
        blocks = launch.grid[0] * launch.grid[1] * launch.grid[2]
        busy = min(1.0, blocks / PROCESSORS)  # a block runs on one processor
        needs = {
            "matrix units": mma / (FLOPS_PER_S[precision] * busy),
            "memory": launch.counts.distinct_bytes / BYTES_PER_S,
            "cache": 32 * sectors / (CACHE_BYTES_PER_CLOCK * CLOCK),
            "instructions": sum(own.values()) / (PROCESSORS * busy * ISSUED_PER_CLOCK * CLOCK),
            "shared memory": banked / (PROCESSORS * busy * BANK_TURNS_PER_CLOCK * CLOCK),
        }
        graph += max(needs.values())
        needs["launch"] = LAUNCH_S
        longest = max(needs, key=needs.get)
        by[longest] += needs[longest]
        ours += max(needs.values())
    graph = min(ours, graph)  # a launch alone may hide its work
    least = max(flops / FLOPS_PER_S[precision], least_bytes / BYTES_PER_S, LAUNCH_S)
    bound_by = by.most_common(1)[0][0] if by else ""
    return Row(
        what, size, precision, len(launches), sum(kinds.values()), dict(kinds), issued, flops, distinct, moved,
        least_bytes, turns, turns_least, barriers, registers, spills, shared, least, ours, bound_by, backend, occupied,
        graph,
    )  # fmt: skip


def _moved(i: dict, dtype: torch.dtype, kept: Sequence[str] = ()) -> dict:
    return {
        name: t.to(dtype) if torch.is_tensor(t) and t.is_floating_point() and name not in kept else t
        for name, t in i.items()
    }


def count(names: list[str], backends: Sequence[str] = BACKENDS) -> Iterator[Row]:
    """A row for each op case and network that is small enough, in float32 (as TF32) and bfloat16: Triton's kernels,
    and of ops nvcc's. Products in FP8 as sm_90, as older cards have none."""
    from posekernels import _eight_bits_triton, _triton
    from tests.ptx import nvcc, program
    from tests.ptx.device import gpu

    program.FUEL = MOST
    cache: dict[str, tuple[int, int]] = {}
    sized_for_it = mock.patch.object(_triton, "_multiprocessors", lambda device: PROCESSORS)

    def add(what, size, precision, run, flops, least_bytes, backend="triton", **options) -> Iterator[Row]:
        # sums are cut for as many processors as the bounds are made for
        with sized_for_it, gpu(count_memory=True, strict=backend != "cuda", **options) as device:
            products = torch.backends.cuda.matmul
            before, products.fp32_precision = products.fp32_precision, "tf32"
            try:
                with torch.no_grad():
                    run()
            except (program.PtxError, RuntimeError) as error:
                if "does not end" not in str(error) and "cannot run" not in str(error):
                    raise
                print(f"{what} {size} {precision} {backend}: left out: {str(error).splitlines()[0]}", flush=True)
                return
            finally:
                products.fp32_precision = before
        made = row(what, size, precision, device.launches, flops, least_bytes, cache, backend)
        print(f"{what} {size} {precision} {backend}: {made.instructions} instructions", flush=True)
        yield made

    for case in op_cases():
        if (names and case.op not in names) or case.gpu_only or case.flops > FLOPS:
            continue
        for precision in ("float32", "bfloat16"):
            dtype = getattr(torch, precision)
            given = _moved(case.make(), dtype, case.float32)
            for backend in [b for b in backends if b in _dispatch.OPS[case.op]]:
                if backend == "cuda" and nvcc.compiler() is None:
                    continue
                run = functools.partial(case.call, given, backend)
                yield from add(case.op, case.size, precision, run, case.flops, case.bytes(dtype.itemsize), backend)
    for rows, depth, columns in EIGHT_BITS if "triton" in backends and (not names or "fp8" in names) else ():
        x, (weight, scale) = torch.randn(rows, depth), quantise(torch.randn(columns, depth))
        run = functools.partial(_eight_bits_triton.product, x.bfloat16(), weight, scale, None)
        least = rows * (depth + 4 + 2 * columns) + columns * (depth + 4)
        size = f"rows={rows} {depth}->{columns}"
        yield from add("fp8", size, "float8_e4m3fn", run, 2.0 * rows * depth * columns, least, architecture=90)
    for case in model_cases() if "triton" in backends else ():
        batch = case.batches[0]
        if (names and case.model not in names) or case.flops(batch) > FLOPS:
            continue
        net, inputs = case.make().eval(), case.inputs(batch)

        def run(case=case, net=net, inputs=inputs):
            with use_backend("triton"):
                case.run(net, inputs) if case.run else net(*inputs)

        weights = 4 * sum(p.numel() for p in net.parameters())
        yield from add(case.model, f"{case.unit}={batch}", "float32", run, case.flops(batch), weights)


_COLUMNS = [
    "",
    "size",
    "",
    "kernels",
    "launches",
    "instructions",
    "mma, float, integer %",
    "useful of issued mma",
    "distinct MB, of least",
    "read again",
    "bank conflicts",
    "barriers",
    "registers",
    "spilled",
    "shared KiB",
    "occupancy",
    "least µs",
    "ours µs",
    "in a graph µs",
    "bound by",
]
_HEAD = (
    f"""# What the GPU kernels execute

**Counted, not timed.** Made by `python -m bench.counts` on a CPU: Triton's kernels and those of `csrc`, compiled for
sm_80 (`fp8`: for sm_90), run in the executor of `tests/ptx`. Instructions are a warp's, of PTX, before ptxas schedules
them; registers, spills: ptxas's.

- *useful of issued mma*: the op's own work, of what the matrix units are asked to do (padding of tiles, matrices that
  are read as dense, what is computed again).
- *distinct MB*: global memory touched at all in each launch, and that by what the op must move once; *read again*: what
  the second-level cache serves in sectors of 32 bytes, by the distinct bytes; *bank conflicts*: turns of shared
  memory's banks, by the fewest that would do.
- *occupancy*: warps that a processor of an H200 can hold at once, by the most that it ever can, of the launch that
  executes most; registers, shared memory and blocks limit it.
- *least* and *ours* are bounds for an H200 by its data sheet: {BYTES_PER_S / 1e12:g} TB/s, in bfloat16
  {FLOPS_PER_S["bfloat16"] / 1e12:g} TFLOP/s, in TF32 {FLOPS_PER_S["float32"] / 1e12:g}, {PROCESSORS} processors at
  {CLOCK / 1e9:g} GHz, {LAUNCH_S * 1e6:g} µs a launch; a processor issues {ISSUED_PER_CLOCK} instructions a clock, its
  banks take a turn a clock, the second-level cache gives {CACHE_BYTES_PER_CLOCK} bytes a clock. *least*: what the op
  needs in any form, in one launch. *ours*: launch by launch, the longest of what these kernels ask of each unit, on as
  many processors as there are blocks. *in a graph*: the same where all launches are one CUDA graph
  (`posekernels.graphed`, which takes every network here): one launch, then what the kernels need. A card takes longer
  than all three.
- Launches of PyTorch's own between ours (the projections of `transformer_block` and `encoder_layer`) are not counted;
  *least* of a network knows of its weights alone.
""".splitlines()
    + [""]
)


def page(rows: list[Row]) -> str:
    lines = [*_HEAD, "| " + " | ".join(_COLUMNS) + " |", "|---|---|---|---" + "|---:" * (len(_COLUMNS) - 5) + "|---|"]
    for r in rows:
        share = " ".join(f"{100 * r.kinds.get(k, 0) / max(r.instructions, 1):.0f}" for k in ("mma", "float", "integer"))
        graph = r.ours_s if r.launches == 1 else r.graph_s
        useful = f"{min(r.useful_flops / r.matrix_flops, 1):.0%}" if r.matrix_flops else ""
        cells = [
            r.what,
            r.size,
            "tf32" if r.precision == "float32" else r.precision,
            "CUDA C++" if r.backend == "cuda" else "Triton",
            r.launches,
            f"{r.instructions:,}",
            share,
            useful,
            f"{r.distinct_bytes / 1e6:.2f}, {r.distinct_bytes / max(r.least_bytes, 1):.1f}",
            f"{r.cache_bytes / max(r.distinct_bytes, 1):.1f}",
            f"{r.bank_turns / r.bank_turns_least:.1f}" if r.bank_turns else "",
            f"{r.barriers:,}",
            r.registers,
            r.spills,
            f"{r.shared / 1024:.0f}",
            "" if r.occupancy is None else f"{r.occupancy:.0%}",
            f"{r.least_s * 1e6:.1f}",
            f"{r.ours_s * 1e6:.1f}",
            "" if graph is None else f"{graph * 1e6:.1f}",
            r.bound_by,
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def kept(rows: list[Row], names: list[str], backends: Sequence[str]) -> list[Row]:
    """Those that a count of these leaves as they are."""
    return [r for r in rows if (names and r.what not in names) or r.backend not in backends]


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="python -m bench.counts", description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="*", help="ops or networks; default: all")
    parser.add_argument("--backend", choices=BACKENDS, action="append", help="of these kernels; default: both")
    args = parser.parse_args(argv)
    names, backends = args.name, args.backend or BACKENDS
    os.environ.pop("TRITON_INTERPRET", None)
    torch.set_num_threads(1)
    table = RESULTS / "counts.json"
    old = [Row(**r) for r in json.loads(table.read_text())] if table.is_file() else []
    rows = kept(old, names, backends)
    for found in count(names, backends):
        rows = sorted([*rows, found], key=lambda r: (r.what, r.backend != "triton"))
        texts = {table: json.dumps([dataclasses.asdict(r) for r in rows], indent=1), RESULTS / "counts.md": page(rows)}
        for path, text in texts.items():
            with write_aside(path) as aside:
                aside.write_text(text + "\n" * (path == table))
    print(f"wrote {table.with_suffix('.md')}")
    return 0


if __name__ == "__main__":
    run_cli(main)
