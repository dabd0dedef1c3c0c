"""What every op does with arguments that are odd: refuse them in one line that names them, or be right about them."""

import inspect
import re
from pathlib import Path

import pytest
import torch

from posekernels import _adapters, ops
from posekernels.testing import poisoned, relative_error, require
from tests.native import ROOT
from tests.ops.table import OPS, Choices, Random, check, odd_options, run, with_floats

WRONG = {
    "None": lambda t: None,
    "text": lambda t: "text",
    "number": lambda t: 1.5,
    "list": lambda t: t.tolist(),
    "integers": lambda t: t.long(),
    "another float dtype": lambda t: t.double(),
    "complex": lambda t: t.to(torch.complex64),
    "another device": lambda t: t.to("meta"),
    "sparse": lambda t: t.to_sparse(),
}


def refusal(problem, tensors, backend) -> str | None:
    """The words in which a call is refused, or None; anything but a TypeError or ValueError goes on."""
    try:
        problem.call(tensors, backend)
    except (TypeError, ValueError) as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_a_wrong_tensor_is_refused_by_name(name, backend):
    problem = OPS[name].make(Choices(batch=2))
    anyone = "|".join(re.escape(problem.said(n)) for n in problem.tensors)
    for where, tensor in problem.tensors.items():
        for kind, change in WRONG.items():
            if tensor is None or (kind == "None" and where in problem.optional):
                continue
            words = refusal(problem, problem.tensors | {where: change(tensor)}, backend)
            # The others follow the first one's dtype and device: it is one of them that is not alike, if there are any.
            follows = kind in ("another float dtype", "another device")
            if follows and len(problem.tensors) == 1:
                continue
            named = anyone if follows else re.escape(problem.said(where))
            assert words is not None, f"{where} as {kind} is taken"
            assert "\n" not in words and re.search(named, words), f"{where} as {kind}: {words}"
            assert words.startswith(name.split("_")[0]), words


def problems(name):
    """The usual one, and where one op has several public functions, one of each."""
    found = {}
    for seed in range(20):
        problem = OPS[name].make(Random(seed) if seed else Choices(batch=2))
        found.setdefault(problem.function, problem)
        if not problem.function:
            break
    return found.values()


@pytest.mark.parametrize("name", OPS)
def test_an_odd_option_is_refused_by_name_or_right(name):
    for problem in problems(name):
        function = inspect.signature(getattr(ops, problem.function or name))
        by_name = {n for n, p in function.parameters.items() if p.kind is p.KEYWORD_ONLY} - {"backend"}
        by_name -= {*problem.tensors} | {"scale", "shift", "residual", "noise"} - {*problem.options}
        by_name -= {"seed", "first_pose"} if "noise" in problem.tensors else set()  # one or the other
        assert by_name <= problem.options.keys()
        for option in problem.options:
            for value, refused in odd_options(option):
                odd = problem.with_options(**{option: value})
                words = [refusal(odd, problem.tensors, backend) for backend in ("reference", "cpu", "auto")]
                assert words[0] == words[1] == words[2], f"{option}={value}: {words}"
                assert words[0] or not refused, f"{option}={value} is taken"
                if words[0]:
                    assert "\n" not in words[0] and words[0].startswith(problem.function or name.split("_")[0]), words[
                        0
                    ]
                    assert option in words[0] or not refused, f"{option}={value}: {words[0]}"


@pytest.mark.parametrize("backend", ["gpu", 3, ["cpu"], torch.ones(2)])
def test_an_unknown_backend_is_refused_by_name(backend):
    with pytest.raises(ValueError, match=r"^backend: backend must be one of auto, reference, .*, got [^\n]*$"):
        ops.dropout(torch.ones(3), 0.1, backend=backend)


@pytest.mark.parametrize("name", OPS)
def test_what_may_be_left_out_may(name):
    problem = OPS[name].make(Choices(batch=2))
    for where in problem.optional:
        tensors = problem.tensors | {where: None}
        want = run(problem, with_floats(tensors, torch.Tensor.double), "reference", False)
        got = run(problem, tensors, "auto", False)
        assert all(relative_error(got[result], exact) < 1e-5 for result, exact in want.items()), where


@pytest.mark.parametrize("name", OPS)
def test_tensors_without_memory_have_results_without(name):
    """All on the meta device: shapes come out, as from PyTorch's own functions."""
    problem = OPS[name].make(Choices(batch=2))
    tensors = {n: None if t is None else t.to("meta") for n, t in problem.tensors.items()}
    for gradients in (False, True):
        want = run(problem, problem.tensors, "auto", gradients)
        got = run(problem, tensors, "auto", gradients)
        assert {n: (t.shape, t.dtype) for n, t in got.items()} == {n: (t.shape, t.dtype) for n, t in want.items()}
        assert all(t.is_meta for t in got.values())


class OneIs(Choices):
    """The n-th size that is chosen is ``value``, the others are the usual ones."""

    def __init__(self, n: int, value: int):
        super().__init__()
        self.left, self.value = n, value

    def batch(self, usual, most=9):
        self.left -= 1
        return self.value if self.left == -1 else usual

    def size(self, usual, most, least=1):
        return self.batch(usual)


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("value", [0, 1])
def test_sizes_of_none_and_one(name, value):
    """Right, or refused in one line and then on every backend."""
    require(name, "cpu")
    for n in range(100):
        choices = OneIs(n, value)
        try:
            problem = OPS[name].make(choices)
        except Exception as error:  # the table cannot make one
            assert value == 0, error
            problem = None
        if choices.left >= 0:
            break
        if problem is None:
            continue
        words = [refusal(problem, problem.tensors, backend) for backend in ("reference", "cpu", "auto")]
        assert words[0] == words[1] == words[2], f"size {n} is {value}: {words}"
        if words[0] is None:
            check(OPS[name], problem, "cpu", gradients=False)
        else:
            assert "\n" not in words[0] and words[0].startswith(name.split("_")[0]), words[0]


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("factor", [1e-5, 1e2, 1e3, 1e4, 1e5])
def test_values_of_any_size(name, factor):
    """The first tensor, and in attention all three, times a factor: within the budget, or near plain PyTorch."""
    require(name, "cpu")
    problem = OPS[name].make(Choices())
    wide = ("q", "k", "v") if "q" in problem.tensors else tuple(problem.tensors)[:1]
    tensors = {n: t * factor if n in wide else t for n, t in problem.tensors.items()}
    check(OPS[name], type(problem)(tensors, problem.call), "cpu")


def test_adapters_take_addresses_from_one_place():
    """So that ``poisoned`` sees to it that no kernel reads a tensor with strides as if it had none."""
    for path in (Path(ROOT) / "posekernels" / "ops").rglob("*.py"):
        assert "data_ptr" not in path.read_text(), path
    with poisoned(), pytest.raises(AssertionError, match="strides"):
        _adapters.address(torch.zeros(6, 2)[:, 0])
