"""``graph_conv``: the reference is its own definition, the C++ kernels follow it on every shape and option.

Triton has a file of its own beside this one.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from posekernels import BackendError, explain, ops, use_backend
from posekernels.ops import graph_conv
from posekernels.testing import ODD_SHAPES, assert_within_budget, guarded, require
from tests.native import printed_by

OPTIONS = [("none", 1, True), ("relu", 2, True), ("gelu", 3, False), ("gelu", 2, True), ("none", 3, False)]
GRADIENTS = ("x", "weight", "adjacency", "bias", "modulation", "scale", "shift", "residual")


def inputs(B, J, Cin, Cout, K, full, dtype=torch.float32, seed=0):
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


def as_written(x, weight, adjacency, bias, modulation=None, scale=None, shift=None, residual=None, activation="none"):
    """The formula of the docstring, one joint at a time."""
    rows = []
    for i in range(x.shape[1]):
        h = 0
        for k in range(weight.shape[0]):
            for j in range(x.shape[1]):
                product = x[:, j] @ weight[k]
                h = h + adjacency[k, i, j] * (product if modulation is None else modulation[j] * product)
        h = h + bias
        h = h if scale is None else scale * h + shift
        h = {"none": h, "relu": h.clamp(min=0), "gelu": F.gelu(h)}[activation]
        rows.append(h if residual is None else h + residual[:, i])
    return torch.stack(rows, 1)


def run(tensors, activation, backend, wanted=GRADIENTS):
    """y and the gradients that are wanted, under a fixed upstream gradient."""
    leaves = {n: t.detach().requires_grad_(n in wanted) for n, t in tensors.items()}
    y = graph_conv(**leaves, activation=activation, backend=backend)
    upstream = torch.linspace(-1, 2, y.numel(), dtype=torch.float64).reshape(y.shape).to(y.dtype)
    y.backward(upstream)
    return {"y": y.detach()} | {n: t.grad for n, t in leaves.items() if t.grad is not None}


def double(tensors):
    return {n: t.detach().double() for n, t in tensors.items()}


def compare(tensors, activation, backend, strided=False):
    want = run(double(tensors), activation, "reference")
    got = run({n: guarded(t, strided=strided) for n, t in tensors.items()}, activation, backend)
    assert got.keys() == want.keys()
    for name in want:
        assert_within_budget(got[name], want[name], what=name)


@pytest.mark.parametrize("activation,K,full", OPTIONS)
def test_the_reference_is_the_formula(activation, K, full):
    tensors = double(inputs(3, 5, 4, 6, K, full))
    got = graph_conv(**tensors, activation=activation, backend="reference")
    torch.testing.assert_close(got, as_written(**tensors, activation=activation), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("case", range(len(ODD_SHAPES)), ids=[str(s) for s in ODD_SHAPES])
def test_result_and_gradients(backend, case):
    require("graph_conv", backend)
    activation, K, full = OPTIONS[case % len(OPTIONS)]
    compare(inputs(*ODD_SHAPES[case], K, full), activation, backend, strided=case % 2 == 1)


@pytest.mark.parametrize("activation,K,full", OPTIONS)
def test_gradcheck(activation, K, full):
    tensors = {n: t.requires_grad_() for n, t in double(inputs(2, 3, 2, 4, K, full)).items()}
    names, values = zip(*tensors.items())
    assert torch.autograd.gradcheck(
        lambda *t: graph_conv(**dict(zip(names, t)), activation=activation, backend="reference"), values
    )


@pytest.mark.parametrize("isa", ["generic", "avx2"])
def test_lesser_instruction_sets(isa):
    require("graph_conv", "cpu")
    code = (
        "from tests.ops import test_graph_conv as t\n"
        "for case, shape in enumerate(t.ODD_SHAPES):\n"
        "    activation, K, full = t.OPTIONS[case % 5]\n"
        "    t.compare(t.inputs(*shape, K, full), activation, 'cpu')\n"
    )
    printed_by(code, isa)


def test_a_broken_pose_leaves_its_neighbours_alone():
    require("graph_conv", "cpu")
    tensors = inputs(9, 17, 5, 20, 2, True)
    tensors["x"][3, 4, 2] = float("nan")
    want, got = run(tensors, "gelu", "reference"), run(tensors, "gelu", "cpu")
    for name in ("y", "x"):
        assert_within_budget(got[name], want[name].double(), what=name)
    assert got["weight"].isnan().any() and got["y"][3].isnan().all()


def test_same_bits_whatever_the_threads():
    require("graph_conv", "cpu")
    tensors, before, results = inputs(61, 17, 33, 40, 2, True), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 3):
            torch.set_num_threads(threads)
            results.append(run(tensors, "gelu", "cpu"))
    finally:
        torch.set_num_threads(before)
    for name in results[0]:
        assert all(torch.equal(results[0][name], r[name]) for r in results), name


@pytest.mark.parametrize("name", GRADIENTS)
def test_only_the_gradient_that_is_asked_for(name):
    require("graph_conv", "cpu")
    tensors = inputs(3, 17, 8, 16, 2, True)
    want, got = run(double(tensors), "gelu", "reference"), run(tensors, "gelu", "cpu", wanted=(name,))
    assert got.keys() == {"y", name}
    assert_within_budget(got[name], want[name], what=name)


def test_weights_are_packed_again_after_a_step():
    require("graph_conv", "cpu")
    tensors = inputs(4, 17, 8, 16, 2, False)
    weight = tensors["weight"] = torch.nn.Parameter(tensors["weight"])
    for _ in range(3):
        got = graph_conv(**tensors, backend="cpu")
        assert_within_budget(got, graph_conv(**double(tensors), backend="reference"))
        (got.square().mean()).backward()
        torch.optim.SGD([weight], lr=0.5).step()


def test_leading_axes_strides_and_numpy():
    require("graph_conv", "cpu")
    tensors = inputs(6, 17, 8, 16, 2, False)
    want = graph_conv(**tensors, backend="cpu")
    x = tensors.pop("x")
    clips = graph_conv(x.view(2, 3, 17, 8), **tensors, backend="cpu")
    assert torch.equal(clips, want.view(2, 3, 17, 16))
    turned = x.transpose(0, 1).contiguous().transpose(0, 1)
    assert torch.equal(graph_conv(turned, **tensors, backend="cpu"), want)
    weight = tensors["weight"].transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(graph_conv(x, **tensors | {"weight": weight}, backend="cpu"), want)
    arrays = graph_conv(x.numpy(), **{n: t.numpy() for n, t in tensors.items()}, backend="cpu")
    assert isinstance(arrays, np.ndarray) and np.array_equal(arrays, want.numpy())


def test_choice_of_backend():
    require("graph_conv", "cpu")
    tensors = inputs(2, 5, 3, 4, 1, False)
    with use_backend("cpu"), pytest.raises(BackendError, match="takes float32, float16 or bfloat16, got torch.float64"):
        graph_conv(**double(tensors))
    got = graph_conv(**double(tensors))  # auto: the reference takes what the kernels do not
    torch.testing.assert_close(got, graph_conv(**double(tensors), backend="reference"))
    assert explain("graph_conv").startswith("cpu")


@pytest.mark.parametrize(
    "change,message",
    [
        ({"x": torch.zeros(2, 65, 3)}, "1 to 64 joints"),
        ({"x": torch.zeros(3)}, "at least 2 axes"),
        ({"weight": torch.zeros(1, 4, 4)}, r"weight must be \[1, 3, 4\]"),
        ({"adjacency": torch.zeros(2, 5, 5)}, r"adjacency must be \[1, 5, 5\]"),
        ({"bias": torch.zeros(5)}, r"bias must be \[4\]"),
        ({"modulation": torch.zeros(4)}, r"modulation must be \[5, 4\]"),
        ({"residual": torch.zeros(2, 5, 3)}, "residual must be"),
        ({"activation": "tanh"}, "activation must be one of none, relu, gelu, got 'tanh'"),
        ({"bias": torch.zeros(4).double()}, "bias must have the first argument's dtype"),
        ({"x": torch.zeros(2, 5, 3).long()}, "x must be float32"),
        ({"backend": "gpu"}, "backend must be one of"),
    ],
)
def test_refusals(change, message):
    with pytest.raises((ValueError, TypeError), match=message):
        ops.graph_conv(**inputs(2, 5, 3, 4, 1, False) | change)
