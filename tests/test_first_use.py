"""``auto`` relies on a GPU kernel once its first use on a card agreed with the reference."""

import json
import logging

import pytest
import torch

from posekernels import _dispatch, _first_use
from posekernels._dispatch import Kernel

CARD = "a card sm_80"


@pytest.fixture
def op(monkeypatch, tmp_path):
    """An op "twice" of one kernel, ``run``, on a card that this machine does not have."""
    monkeypatch.setenv("POSEKERNELS_CACHE", str(tmp_path))
    monkeypatch.delenv("POSEKERNELS_SELF_CHECK", raising=False)
    monkeypatch.setattr(_first_use, "_card", lambda device: CARD)
    _first_use._verdicts.cache_clear()
    calls = []

    def named(name, result):
        def run(x):
            calls.append(name)
            return result(x)

        return run

    def make(result):
        kernels = {"cuda": Kernel(named("cuda", result)), "reference": Kernel(named("reference", lambda x: 2 * x))}
        monkeypatch.setitem(_dispatch.OPS, "twice", kernels)
        calls.clear()
        return lambda x: _dispatch.resolve("twice", "auto", (x,))(x)

    yield make, calls
    _first_use._verdicts.cache_clear()


def test_a_good_kernel_is_checked_once_per_dtype_and_for_good(op, tmp_path):
    make, calls = op
    call, x = make(lambda x: 2 * x), torch.ones(3)
    assert torch.equal(call(x), 2 * x) and torch.equal(call(x), 2 * x)
    assert calls == ["reference", "cuda", "cuda"]
    call(x.bfloat16())
    assert calls[3:] == ["reference", "cuda"]
    _first_use._verdicts.cache_clear()  # as another process
    call(x)
    assert calls[5:] == ["cuda"]
    kept = json.loads((tmp_path / "first_use.json").read_text())
    assert kept["verdicts"] == {f"twice / cuda / {dtype} / {CARD}": "good" for dtype in ("float32", "bfloat16")}
    kept["version"] = "another"
    (tmp_path / "first_use.json").write_text(json.dumps(kept))
    _first_use._verdicts.cache_clear()
    call(x)
    assert calls[6:] == ["reference", "cuda"]


def test_two_processes_keep_each_others_verdicts(op, tmp_path):
    make, _ = op
    make(lambda x: 2 * x)(torch.ones(3))
    kept = json.loads((tmp_path / "first_use.json").read_text())
    kept["verdicts"]["another / cuda / float32 / a card"] = "good"  # found by one that started as this one did
    (tmp_path / "first_use.json").write_text(json.dumps(kept))
    make(lambda x: 2 * x)(torch.ones(3).bfloat16())
    assert len(json.loads((tmp_path / "first_use.json").read_text())["verdicts"]) == 3


def fails(x):
    raise RuntimeError("an illegal instruction was encountered\nmore")


@pytest.mark.parametrize(
    "wrong, said",
    [
        (lambda x: 2.1 * x, "result 0 differs from the reference by 5"),
        (lambda x: 2 * x * float("nan"), "differs from the reference by nan"),
        (lambda x: 2 * x[:2], r"float32 \[2\], expected torch.float32 \[3\]"),
        (fails, "RuntimeError: an illegal instruction was encountered"),
    ],
)
def test_a_wrong_kernel_is_passed_over(op, caplog, wrong, said):
    make, calls = op
    call, x = make(wrong), torch.ones(3)
    with caplog.at_level(logging.WARNING, "posekernels"):
        assert torch.equal(call(x), 2 * x)
    assert len(caplog.records) == 1 and caplog.records[0].message.startswith("twice: auto passes cuda over for float32")
    calls.clear()
    assert torch.equal(call(x), 2 * x) and calls == ["reference"]
    assert "its first use on this card was wrong" in _dispatch.explain("twice", x)
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(_dispatch.explain("twice", x))
    if wrong is not fails:  # named, it is used
        assert not torch.equal(_dispatch.resolve("twice", "cuda", (x,))(x), 2 * x)


def test_it_can_be_switched_off(op, monkeypatch):
    make, calls = op
    monkeypatch.setenv("POSEKERNELS_SELF_CHECK", "0")
    call, x = make(lambda x: 3 * x), torch.ones(3)
    assert torch.equal(call(x), 3 * x) and calls == ["cuda"]


def test_nothing_is_learned_from_an_empty_result_or_nan(op):
    make, calls = op
    call = make(lambda x: 2 * x)
    call(torch.ones(0)), call(torch.full((2,), torch.nan))
    assert calls == ["reference", "reference"]


def test_on_a_cpu_nothing_is_checked(monkeypatch):
    assert _first_use.key_of("twice", "cuda", (torch.ones(1),)) is None


def test_results_are_measured_by_the_largest_beside_them():
    """A gradient that is 0 but for rounding proves nothing against a kernel."""
    want = [torch.ones(100), torch.full((3,), 1e-9)]
    assert _first_use.difference([want[0], -want[1]], want) is None
    assert "result 1" in _first_use.difference([want[0], want[1] + 1], want)
    assert "1 results, expected 2" in _first_use.difference(want[:1], want)
