"""``graph_conv`` in CUDA C++: emulated on the CPU thread by thread, and as it is where there is a GPU."""

import pytest
import torch

from posekernels.ops.graph_conv import cuda, reference
from posekernels.testing import ODD_SHAPES, TF32_BUDGET, assert_within_budget, guarded
from tests.cuda_emulation import cuda_device
from tests.ops.test_graph_conv_triton import OPTIONS, inputs, smooth

NAMES = ("x", "weight", "adjacency", "bias", "modulation", "scale", "shift")
SHAPES = [s for s in ODD_SHAPES if s[1] * s[2] * s[3] <= 33 * 65 * 47]
device = cuda_device("graph_conv")


def run(module, tensors, activation):
    """y and the gradient of every input, from the raw functions of ``module``."""
    g = {n: tensors.get(n) for n in (*NAMES, "residual")}
    keep = activation != "none" or g["scale"] is not None
    y, h = module.graph_conv(*g.values(), activation, keep)
    grad = torch.linspace(-1, 2, y.numel(), dtype=torch.float64).reshape(y.shape).to(y.device, y.dtype)
    needs = [g[n] is not None for n in NAMES]
    grads = module.graph_conv_backward(grad, h, *(g[n] for n in NAMES), activation, needs)
    return {"y": y} | dict(zip((n for n, need in zip(NAMES, needs) if need), grads, strict=True))


def compare(device, shape, options, dtype, bound=None, strided=False):
    activation, K, full = smooth(options[0], dtype), *options[1:]
    tensors = inputs(*shape, K, full, dtype)
    want = run(reference, {n: t.double() for n, t in tensors.items()}, activation)
    got = run(cuda, {n: guarded(t.to(device), strided=strided) for n, t in tensors.items()}, activation)
    for name in want:
        assert_within_budget(got[name], want[name], bound=bound, what=f"{name} of {shape} {activation} K={K}")


@pytest.mark.parametrize("case", range(len(SHAPES)), ids=[str(s) for s in SHAPES])
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16], ids=["float32", "float16", "bfloat16"]
)
def test_result_and_gradients(device, case, dtype):
    compare(device, SHAPES[case], OPTIONS[case % len(OPTIONS)], dtype, strided=case % 2 == 1)


def test_tf32_only_where_pytorch_allows_it(device):
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        compare(device, (9, 17, 40, 70), ("gelu", 2, True), torch.float32, bound=TF32_BUDGET)
        with pytest.raises(AssertionError, match="exceeds"):
            compare(device, (9, 17, 40, 70), ("gelu", 2, True), torch.float32)
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_broken_pose_leaves_its_neighbours_alone(device, dtype):
    tensors = inputs(7, 17, 5, 20, 2, True, dtype)
    tensors["x"][3, 4, 2] = float("nan")
    want = run(reference, {n: t.double() for n, t in tensors.items()}, "relu")
    got = run(cuda, {n: t.to(device) for n, t in tensors.items()}, "relu")
    for name in ("y", "x"):
        assert_within_budget(got[name], want[name], what=name)


def test_same_inputs_same_bits(device):
    tensors = {n: t.to(device) for n, t in inputs(9, 17, 12, 24, 2, True, torch.float32).items()}
    first, second = (run(cuda, tensors, "gelu") for _ in range(2))
    for name in first:
        assert torch.equal(first[name], second[name]), name
