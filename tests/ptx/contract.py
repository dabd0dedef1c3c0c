"""The contract of every op (tests/ops/table.py), on compiled Triton kernels."""

from __future__ import annotations

import contextlib
from unittest import mock

import torch
from triton import knobs

from bench.ops import temporal_mlp as bench_temporal_mlp
from posekernels import _dispatch, _eight_bits_triton, ops
from posekernels.eight_bits import quantise, reference
from posekernels.ops.strided_feed_forward import triton as strided_feed_forward
from posekernels.testing import BUDGET, assert_within_budget
from tests.ops import table, test_denoise
from tests.ops.test_hierarchy_block import LIMBS, parameters
from tests.ptx.device import gpu

DTYPES = {
    "float32": torch.float32,
    "tf32": torch.float32,  # as PyTorch's own setting allows
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
# Where not all: what the Triton kernels of an op refuse by design.
_ONLY = {
    "denoise": ("float32", "tf32"),
    "encoder_layer": (
        "float32",
        "bfloat16",
        "float16",
    ),  # a gradient that is 0 but for rounding, of which TF32 has more
    "temporal_mlp": ("float32", "bfloat16", "float16"),  # likewise
}
_ONLY_CUDA = dict.fromkeys(
    ("encoder_layer", "temporal_mlp", "temporal_mlp_forecast"), ("float32", "bfloat16", "float16")
) | {"denoise": _ONLY["denoise"]}
# For sm_90 those that show what compilers make of it: wgmma of each kind of number, A in registers and not, stmatrix;
# and of nvcc, which makes no wgmma of these sources, two that it compiles within seconds, with products and without.
HOPPER = [
    ("strided_feed_forward", "tf32", "triton"),
    ("strided_feed_forward", "bfloat16", "triton"),
    ("temporal_attention", "bfloat16", "triton"),
    ("encoder_layer", "bfloat16", "triton"),
    ("norm_activation", "float32", "cuda"),
    ("strided_temporal_conv", "bfloat16", "cuda"),
]
_NO_PRODUCTS = {
    "annotated_norm",
    "best_hypothesis",
    "dropout",
    "merge_hypotheses",
    "norm_activation",
    "procrustes",
    "relative_encoding",
    "sample_hypotheses",
}
# CUDA kernels that multiply whole tiles, of which they have filled a part, and throw away what comes of the rest.
_WHOLE_TILES = {"temporal_mlp", "temporal_mlp_forecast"}


def cases(backend: str) -> list[tuple[str, str, str]]:
    """Every op with every dtype that its kernels take; TF32 where there are products."""
    found = [name for name in table.OPS if backend in _dispatch.OPS.get(name, {})]
    only = _ONLY if backend == "triton" else _ONLY_CUDA
    return [
        (op, dtype, backend)
        for op in found
        for dtype in only.get(op, DTYPES)
        if dtype != "tf32" or op not in _NO_PRODUCTS
    ]


def check(op: str, dtype: str, backend: str = "triton", *, gradients: bool = True, **options) -> str:
    """What ran, in words; options as ``Device`` takes them.

    Raises:
        AssertionError: a kernel's answer is wrong, or a launch is at fault.
    """
    torch.set_num_threads(1)
    options.setdefault("strict", backend != "cuda" or op not in _WHOLE_TILES)
    with contextlib.ExitStack() as stack:
        device = stack.enter_context(gpu(**options))
        stack.enter_context(mock.patch.object(table, "device_of", lambda backend: "cpu"))
        if dtype == "tf32":
            stack.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
            torch.set_float32_matmul_precision("high")
            # It has float16's mantissa, cut off instead of rounded.
            stack.enter_context(mock.patch.dict(BUDGET, {torch.float32: BUDGET[torch.float16]}))
        if device.architecture == 90:  # small problems in the tiles of large ones, which have wgmma
            stack.enter_context(mock.patch.object(strided_feed_forward, "_MANY", 0))
        found = table.OPS[op]
        table.check(found, found.make(table.Choices()), backend, DTYPES[dtype], gradients=gradients)
    kernels = {launch.kernel.name for launch in device.launches}
    total = sum(int(launch.counts.rows[:, 0].sum()) for launch in device.launches)
    hopper = sum(any(op.startswith("wgmma.mma") for op in launch.kernel.ops) for launch in device.launches)
    with_wgmma = f", {hopper} launches with wgmma" if hopper else ""
    return f"{len(kernels)} kernels, {len(device.launches)} launches, {total} instructions of warps{with_wgmma}"


def tested(op: str, dtype: str, backend: str) -> str:
    """``check`` as the tests run it: of float16 inference alone, as Triton takes seconds for each kernel."""
    return check(op, dtype, backend, gradients=(dtype, backend) != ("float16", "triton"))


def denoiser(matrices: str, backend: str) -> None:
    """A chain of three steps with drawn noise, a timestep a pose, matrices of 16 bits; state and poses are float32.

    Raises:
        AssertionError: the kernel's answer is wrong, or a launch is at fault.
    """
    torch.set_num_threads(1)
    x, weights, _ = test_denoise.network(5, 17, 16, 2, 1, 3, 5, 5)
    shifts = torch.randn(3, 5, 1, 16, generator=torch.Generator().manual_seed(1))
    given, options = (shifts, test_denoise.COEFFICIENTS), {"seed": 7, "trajectory": True}
    want = ops.denoise_loop(x, weights, *given, **options, backend="reference")
    with gpu(strict=True) as device:
        got = ops.denoise_loop(x, weights.rounded(DTYPES[matrices]), *given, **options, backend=backend)
    assert len(device.launches) == 1
    for g, w in zip(got, want, strict=True):
        assert_within_budget(g, w.double(), bound=1e-2)


def stack(backend: str) -> int:
    """How many launches a stack of three blocks of PKD takes, of 66 coordinates by 50 slots.

    Raises:
        AssertionError: the kernel's answer is wrong, or a launch is at fault.
    """
    torch.set_num_threads(1)
    case = next(case for case in bench_temporal_mlp.CASES if case.size.startswith("B=32 66x50 N=4 "))
    given = {name: t[:2] if name == "x" else t[:3] for name, t in case.make().items()}
    want = case.call({name: t.double() for name, t in given.items()}, "reference")
    with gpu(strict=backend != "cuda") as device:
        assert_within_budget(case.call({n: t.bfloat16() for n, t in given.items()}, backend), want, bound=2e-2)
    return len(device.launches)


def few_rows(dtype: str) -> None:
    """A strided convolution of one row, whose depths blocks of CUDA C++ share.

    Raises:
        AssertionError: the kernels' answer is wrong, or a launch is at fault.
    """
    torch.set_num_threads(1)
    g = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(shape, generator=g).to(DTYPES[dtype]) for shape in ((1, 3, 200), (70, 200, 3)))
    want = ops.strided_temporal_conv([x.double()], [weight.double()], backend="reference")
    with gpu(strict=True) as device:
        got = ops.strided_temporal_conv([x], [weight], backend="cuda")
    assert [launch.grid for launch in device.launches] == [(4, 1, 1), (2, 16, 1)]
    assert_within_budget(got[0], want[0])


def shared_hidden() -> None:
    """A block of HTNet: two poses in a tile, channels in two blocks, hidden ones that programs share, the last fewer.

    Raises:
        AssertionError: the kernels' answer is wrong, or a launch is at fault.
    """
    torch.set_num_threads(1)
    x, weights = torch.randn(2, 17, 72, generator=torch.Generator().manual_seed(0)), parameters(17, 24, 70, 300)
    x, weights = x.bfloat16(), [w.bfloat16() for w in weights]
    options = {"limbs": LIMBS[17], "heads": 2}
    want = ops.hierarchy_block(x.double(), [w.double() for w in weights], **options, backend="reference")
    with gpu(strict=True) as device:
        got = ops.hierarchy_block(x, weights, **options, backend="triton")
    assert [launch.grid for launch in device.launches[:3]] == [(1, 2, 1), (1, 2, 2), (2, 1, 1)]
    assert_within_budget(got, want)


def eight_bits(dtype: str) -> int:
    """Products of e4m3 on sm_90, tiles ragged on every side; how many of their launches have wgmma.

    Raises:
        AssertionError: the kernel's answer is wrong, or a launch is at fault.
    """
    torch.set_num_threads(1)
    g = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(shape, generator=g) for shape in ((70, 304), (144, 304), (144,)))
    x, bias, (weight, scale) = x.to(DTYPES[dtype]), bias.to(DTYPES[dtype]), quantise(weight)
    want = [reference(x, weight, scale, b) for b in (bias, None)]
    with gpu(architecture=90, strict=True) as device:
        got = [_eight_bits_triton.product(x, weight, scale, b) for b in (bias, None)]
    for g, w in zip(got, want, strict=True):
        assert_within_budget(g, w.double())
    return sum(any(op.startswith("wgmma.mma") for op in launch.kernel.ops) for launch in device.launches)


def _attention():
    q = torch.zeros(32769, 1, 2, 4)  # 65,538 heads
    return ops.temporal_attention(q, q, q, backend="triton")


def _attention_training():
    q = torch.zeros(32769, 1, 2, 4, requires_grad=True)
    return ops.temporal_attention(q, q, q, backend="triton").sum().backward()


def _norm_activation():
    x, weight = torch.zeros(65536 * 32 + 1, 1, requires_grad=True), torch.ones(1)
    return ops.norm_activation(x, weight, weight, backend="triton")[0].sum().backward()


LARGE = {f.__name__.strip("_"): f for f in (_attention, _attention_training, _norm_activation)}


def grids(name: str) -> list[tuple[int, int, int]]:
    """Of the launches of a problem with more blocks than fit along y, which do not run.

    Raises:
        PtxError: a launch that a GPU would refuse.
    """
    with gpu(dry=True) as device:
        LARGE[name]()
    return [launch.grid for launch in device.launches]


def compiled_for_seeds() -> list[int]:
    """How many kernels Triton had compiled after each of some dropouts that differ in their seeds."""
    compiled, counts = [], []
    with gpu(dry=True), mock.patch.object(knobs.runtime, "jit_cache_hook", lambda **kernel: compiled.append(kernel)):
        for seed in (5, 16, 2**62, torch.tensor(7)):
            ops.dropout(torch.ones(64), 0.25, seed=seed, backend="triton")
            counts.append(len(compiled))
    return counts
