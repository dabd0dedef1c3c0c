"""``graph_conv`` on Triton: in its interpreter where there is no GPU, compiled where there is one."""

import pytest
import torch

from posekernels import BackendError, explain, use_backend
from posekernels.ops import graph_conv
from posekernels.testing import ODD_SHAPES, TF32_BUDGET, assert_within_budget, guarded, require

# Small enough for the interpreter; the activation, K and the optional arguments go round with them.
SHAPES = [s for s in ODD_SHAPES if s[1] * s[2] * s[3] <= 33 * 65 * 47] + [(2, 17, 272, 20)]
OPTIONS = [("none", 1, True), ("relu", 2, True), ("gelu", 3, False), ("gelu", 2, True), ("none", 3, False)]


def inputs(B, J, Cin, Cout, K, full, dtype, seed=0):
    g = torch.Generator().manual_seed(seed)

    def randn(*shape, scale=1.0):
        return (scale * torch.randn(*shape, generator=g)).to(dtype)

    found = {
        "x": randn(B, J, Cin),
        "weight": randn(K, Cin, Cout, scale=Cin**-0.5),
        "adjacency": randn(K, J, J, scale=J**-0.5),
        "bias": randn(Cout),
    }
    if K > 1:  # the diagonal as a matrix of its own: an element-wise scale in the kernels
        found["adjacency"][0] = torch.diag(randn(J))
    if full:
        found |= {"modulation": randn(J, Cout), "scale": randn(Cout), "shift": randn(Cout)}
        found["residual"] = randn(B, J, Cout)
    return found


def run(tensors, activation, backend):
    """y and the gradient of every input, under a fixed upstream gradient."""
    leaves = {n: t.detach().requires_grad_() for n, t in tensors.items()}
    y = graph_conv(**leaves, activation=activation, backend=backend)
    upstream = torch.linspace(-1, 2, y.numel(), dtype=torch.float64).reshape(y.shape)
    y.backward(upstream.to(y.device, y.dtype))
    return {"y": y.detach()} | {n: t.grad for n, t in leaves.items()}


def smooth(activation, dtype):
    """gelu for relu in bfloat16: a gradient that jumps where h was rounded across 0 has no meaningful error bound."""
    return "gelu" if activation == "relu" and dtype == torch.bfloat16 else activation


def dtypes():
    return [torch.float32, torch.float16] + ([torch.bfloat16] if torch.cuda.is_available() else [])


@pytest.mark.parametrize("case", range(len(SHAPES)), ids=[str(s) for s in SHAPES])
@pytest.mark.parametrize("dtype", dtypes())
def test_result_and_gradients(case, dtype):
    device = require("graph_conv", "triton")
    activation, K, full = OPTIONS[case % len(OPTIONS)]
    activation = smooth(activation, dtype)
    tensors = inputs(*SHAPES[case], K, full, dtype)
    want = run({n: t.double() for n, t in tensors.items()}, activation, "reference")
    strided = case % 2 == 1
    got = run({n: guarded(t.to(device), strided=strided) for n, t in tensors.items()}, activation, "triton")
    assert got.keys() == want.keys()
    for name in want:
        assert_within_budget(got[name], want[name], what=f"{name} of {SHAPES[case]} {activation} K={K}")


@pytest.mark.filterwarnings("ignore:invalid value encountered")  # NumPy's, from the interpreter
def test_a_broken_pose_leaves_its_neighbours_alone():
    device = require("graph_conv", "triton")
    tensors = inputs(7, 17, 5, 20, 2, True, torch.float32)
    tensors["x"][3, 4, 2] = float("nan")
    tensors["x"][5, 1, 0] = float("inf")
    want = run(tensors, "relu", "reference")
    got = run({n: t.to(device) for n, t in tensors.items()}, "relu", "triton")
    for name in ("y", "x"):
        for pose in range(7):
            if pose == 5:  # infinite: becomes infinite or NaN, not always where the reference does
                assert name == "x" or not got[name][pose].isfinite().all()
            else:
                assert_within_budget(got[name][pose], want[name][pose], what=f"{name} of pose {pose}")


def test_only_the_gradients_that_are_asked_for():
    device = require("graph_conv", "triton")
    tensors = inputs(3, 17, 8, 16, 2, True, torch.float32)
    want = run({n: t.double() for n, t in tensors.items()}, "gelu", "reference")
    for name in tensors:
        given = {n: t.detach().to(device).requires_grad_(n == name) for n, t in tensors.items()}
        y = graph_conv(**given, activation="gelu", backend="triton")
        upstream = torch.linspace(-1, 2, y.numel(), dtype=torch.float64).reshape(y.shape)
        y.backward(upstream.to(y.device, y.dtype))
        assert [n for n, t in given.items() if t.grad is not None] == [name]
        assert_within_budget(given[name].grad, want[name], what=name)


def test_float64_is_refused_and_auto_leaves_the_interpreter_alone():
    device = require("graph_conv", "triton")
    tensors = {n: t.to(device) for n, t in inputs(2, 5, 3, 4, 1, False, torch.float64).items()}
    with use_backend("triton"), pytest.raises(BackendError, match="float64"):
        graph_conv(**tensors)
    if device == "cpu":
        assert "interpreter is for tests" in explain("graph_conv")


@pytest.mark.gpu
def test_tf32_only_where_pytorch_allows_it():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    tensors = inputs(64, 17, 96, 96, 2, True, torch.float32)
    want = run({n: t.double() for n, t in tensors.items()}, "gelu", "reference")
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        got = run({n: t.cuda() for n, t in tensors.items()}, "gelu", "triton")
    finally:
        torch.set_float32_matmul_precision(before)
    for name in want:
        assert_within_budget(got[name], want[name], bound=TF32_BUDGET, what=name)
