"""What every op promises, for all of them alike: right on every backend here whatever the strides, on no pose at all
and on NaN; ``opcheck``, ``torch.compile`` and ``gradcheck``. The ops and their problems are in ``table.py``.
"""

import contextlib
from operator import methodcaller

import pytest
import torch

from posekernels import _dispatch
from posekernels.testing import require
from tests.ops.table import LAYOUTS, OPS, Choices, check, run, with_floats

BACKENDS = ("reference", "cpu", "triton", "cuda")
HAVE = [(name, b) for name in OPS for b in BACKENDS if b in _dispatch.OPS[name]]
KERNELS = [(name, b) for name, b in HAVE if b != "reference"]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name, backend", HAVE)
def test_right_on_any_strides(name, backend, layout):
    device = require(name, backend)
    if (backend, device) == ("triton", "cpu") and layout != "columns":
        pytest.skip("the interpreter takes seconds, and one layout shows what a kernel makes of strides")
    check(OPS[name], OPS[name].make(Choices()), backend, layout=layout)


@pytest.mark.parametrize("name, backend", KERNELS)
def test_16_bits(name, backend):
    require(name, backend)
    for dtype in OPS[name].dtypes(backend)[1:]:
        check(OPS[name], OPS[name].make(Choices()), backend, dtype, gradients=False)


@pytest.mark.parametrize("name, backend", HAVE)
def test_no_poses_and_one(name, backend):
    require(name, backend)
    for batch in (0, 1):
        check(OPS[name], OPS[name].make(Choices(batch=batch)), backend)


@contextlib.contextmanager
def float64_by_default():
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(usual)


# set_default_device leaves a mode behind, even where it sets what was there before, and some compiled code breaks on it
OTHER_DEFAULTS = {"dtype": float64_by_default, "device": lambda: torch.device("meta")}


@pytest.mark.parametrize("which", OTHER_DEFAULTS)
@pytest.mark.parametrize("name", OPS)
def test_defaults_of_pytorch_change_nothing(name, which):
    """What kernels fill, and what they make of weights, has the kernels' own dtype and device."""
    require(name, "cpu")
    problem = OPS[name].make(Choices(batch=2))
    for dtype, training in ((torch.float32, True), *((dtype, False) for dtype in OPS[name].cpu_dtypes)):
        usual, other = ({n: plain(t) for n, t in problem.tensors.items()} for _ in range(2))
        usual, other = (with_floats(tensors, methodcaller("to", dtype)) for tensors in (usual, other))
        want = run(problem, usual, "cpu", training)
        with OTHER_DEFAULTS[which]():
            got = run(problem, other, "cpu", training)
        for result, exact in want.items():
            assert got[result].dtype == dtype and torch.equal(got[result], exact), f"{result}, {dtype}"


@pytest.mark.filterwarnings("ignore:invalid value encountered")  # NumPy's, from Triton's interpreter
@pytest.mark.parametrize("name, backend", KERNELS)
def test_nan_comes_out_where_the_reference_has_it(name, backend):
    device = require(name, backend)
    problem = OPS[name].make(Choices())
    for where, tensor in list(problem.tensors.items())[: 1 if (backend, device) == ("triton", "cpu") else 6]:
        if tensor is None or not tensor.is_floating_point():
            continue
        broken = tensor.clone()
        broken[tuple(n // 2 for n in tensor.shape)] = torch.nan
        tensors = problem.tensors | {where: broken}
        want = run(problem, tensors, "reference", False)
        got = run(problem, {n: None if t is None else t.to(device) for n, t in tensors.items()}, backend, False)
        for result, exact in want.items():
            assert torch.equal(got[result].isnan().cpu(), exact.isnan()), f"NaN in {where}: {result}"


def plain(value):
    return value.detach().clone() if isinstance(value, torch.Tensor) else value


@pytest.fixture
def calls(monkeypatch):
    """The calls of raw ops, (name, arguments), as they are made."""
    found, resolve = [], _dispatch.resolve

    def recorded(op, backend, args):
        detached = [[plain(t) for t in a] if isinstance(a, (list, tuple)) else plain(a) for a in args]
        found.append((op, (*detached, backend)))
        return resolve(op, backend, args)

    monkeypatch.setattr(_dispatch, "resolve", recorded)
    return found


def call_raw_ops(name):
    """With the kernel named: ``auto`` leaves small problems with gradients to PyTorch's own graph."""
    require(name, "cpu")
    problem = OPS[name].make(Choices(batch=2))
    for gradients in (False, True):
        run(problem, problem.tensors, "cpu", gradients)


def test_the_table_has_every_op(calls):
    for name in OPS:
        call_raw_ops(name)
        assert any(called == name for called, _ in calls), name
    assert {name for name, _ in calls} == set(_dispatch.OPS)


def opcheck(calls, **options):
    for raw, args in dict(calls).items():
        op = getattr(torch.ops.posekernels, f"_{raw}").default
        wants = [str(argument.type) for argument in op._schema.arguments]  # a seed comes as a number, too
        args = tuple(
            torch.tensor(a) if type(a) is int and w == "Tensor" else a for a, w in zip(args, wants, strict=True)
        )
        torch.library.opcheck(op, args, **options)


@pytest.mark.parametrize("name", OPS)
def test_opcheck(name, calls):
    call_raw_ops(name)
    opcheck(calls)


@pytest.mark.parametrize("dtype", (torch.float64, torch.float16))
@pytest.mark.parametrize("name", OPS)
def test_stand_ins_of_dtypes_that_no_kernel_may_take(name, dtype, calls):
    """What a compiler is told of the results is so where the reference makes them, too."""
    problem = OPS[name].make(Choices(batch=2))
    run(problem, with_floats(problem.tensors, methodcaller("to", dtype)), "auto", False)
    opcheck(calls, test_utils="test_faketensor")


@pytest.mark.parametrize("name", OPS)
def test_compiled_as_one_graph_is_the_same(name):
    torch._dynamo.reset()
    problem = OPS[name].make(Choices(batch=2))
    compiled = torch.compile(lambda t: problem.call(t, "auto"), fullgraph=True, backend="aot_eager")
    tensors = with_floats(problem.tensors, lambda t: t.clone().requires_grad_())
    with torch.no_grad():
        for got, want in zip(compiled(tensors), problem.call(tensors, "auto"), strict=True):
            torch.testing.assert_close(got, want)
    leaves = [t for t in tensors.values() if t is not None and t.requires_grad]
    results = [[y for y in call(tensors) if y.requires_grad] for call in (compiled, lambda t: problem.call(t, "auto"))]
    grads = [torch.autograd.grad([y.sum() for y in ys], leaves, allow_unused=True) for ys in results]
    for got, want in zip(*grads, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", OPS)
def test_differentiates_twice_on_every_backend_as_the_reference_does(name):
    """A penalty on the gradient: what the reference gives, in float32 within its budget, whichever kernel ran first."""
    problem = OPS[name].make(Choices(batch=2))

    def penalty(backend, to):
        tensors = with_floats(problem.tensors, lambda t: to(t.clone()).requires_grad_())
        leaves = [t for t in tensors.values() if t is not None and t.requires_grad]
        results = [y for y in problem.call(tensors, backend) if y.requires_grad]
        first = torch.autograd.grad([y.square().sum() for y in results], leaves, create_graph=True, allow_unused=True)
        second = [g.square().sum() for g in first if g is not None and g.requires_grad]
        return torch.autograd.grad(sum(second), leaves, allow_unused=True)

    want = penalty("reference", torch.Tensor.double)
    for backend in ("auto", "cpu"):
        got = penalty(backend, lambda t: t)
        assert [g is None for g in got] == [g is None for g in want]
        pairs = [(g, exact) for g, exact in zip(got, want) if g is not None]
        whole = sum(exact.square().sum() for _, exact in pairs).sqrt()  # some of them are 0 but for rounding
        for g, exact in pairs:
            assert (g - exact).norm() <= 1e-4 * whole


@pytest.mark.parametrize("name", OPS)
def test_follows_autocast(name):
    """Inputs may be bfloat16 there and weights float32: the first argument's dtype decides, in and out."""
    problem = OPS[name].make(Choices(batch=2))
    first = next(iter(problem.tensors))
    tensors = problem.tensors | {first: problem.tensors[first].bfloat16()}
    with torch.autocast("cpu", torch.bfloat16):
        got = problem.call(tensors, "auto")
    want = problem.call(with_floats(problem.tensors, lambda t: t.bfloat16().float()), "auto")
    for y, exact in zip(got, want, strict=True):
        assert (y.float() - exact).norm() <= 0.05 * exact.norm()


@pytest.mark.parametrize("name", OPS)
def test_gradcheck_of_the_reference(name):
    problem = OPS[name].make(Choices(batch=2))
    tensors = with_floats(problem.tensors, lambda t: t.double().requires_grad_())
    names = [n for n, t in tensors.items() if t is not None and t.requires_grad][:12]  # of a fused op's 45 weights

    def call(*leaves):
        return tuple(y for y in problem.call(tensors | dict(zip(names, leaves)), "auto") if y.requires_grad)

    assert torch.autograd.gradcheck(call, [tensors[n] for n in names], fast_mode=True)
