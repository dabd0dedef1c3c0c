"""``graphed``: what is recorded, refused and recorded anew, with a stand-in for the graph. Not run on a card."""

from __future__ import annotations

import contextlib
from unittest import mock

import pytest
import torch
from torch import nn

import posekernels
from posekernels import graphs, models
from posekernels.models.diffpose import Sampling


class FakeGraph:
    """Records the call that runs under ``torch.cuda.graph``; a replay computes again, into the same results."""

    made: list[FakeGraph] = []

    def __init__(self):
        self.replays = 0
        FakeGraph.made.append(self)

    def record(self, call, results):
        self.call, self.results = call, results

    def replay(self):
        self.replays += 1
        with torch.no_grad():
            fresh = []
            graphs._each(self.call(), fresh.append)
            graphs._each(self.results, lambda t: t.copy_(fresh.pop(0)))


def record(call, device):
    graph, results = FakeGraph(), call()
    graph.record(call, results)
    return graph.replay, results


@pytest.fixture
def card(monkeypatch):
    """The CPU as a card."""
    FakeGraph.made = []
    monkeypatch.setattr(graphs, "_CARD", "cpu")
    monkeypatch.setattr(graphs, "_record", record)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    return FakeGraph.made


@pytest.fixture
def net():
    torch.manual_seed(0)
    return models.create("mgcn_lw", hidden=8, depth=1).eval()


def test_without_a_gpu_it_says_so(net):
    with pytest.raises(ValueError, match="a CUDA graph needs tensors on a GPU, input 0 is on cpu"):
        posekernels.graphed(net, torch.zeros(2, 1, 17, 2))


def test_replays_what_the_network_does(card, net):
    fast = posekernels.graphed(net, torch.zeros(2, 1, 17, 2))
    x, other = torch.randn(2, 1, 17, 2), torch.randn(2, 1, 17, 2)
    with torch.no_grad():
        first, second = fast(x), fast(other)
        assert torch.equal(first, net(x)) and torch.equal(second, net(other)), "results are the caller's own"
    assert len(card) == 1 and card[0].replays == 2


@pytest.mark.parametrize("write", ["in place", "another tensor", "unseen"])
def test_records_anew_when_weights_change(card, net, write):
    x = torch.randn(2, 1, 17, 2)
    fast = posekernels.graphed(net, x)
    parameter = next(iter(net.parameters()))
    with torch.no_grad():
        if write == "in place":
            parameter.mul_(2)
        elif write == "unseen":
            parameter.data.mul_(2)
            posekernels.repack(net)
        else:
            next(m for m in net.modules() if "bias" in m._parameters).bias = nn.Parameter(torch.ones(8))
        assert torch.equal(fast(x), net(x))
        fast(x)
    assert len(card) == 2


def test_refusals(card, net):
    x = torch.randn(2, 1, 17, 2)
    fast = posekernels.graphed(net, x)
    with pytest.raises(ValueError, match=r"input 0 must be torch.float32 \[2, 1, 17, 2\] .* got torch.float32 \[3,"):
        fast(x[[0, 1, 1]])
    with pytest.raises(ValueError, match="takes 1 inputs, got 2"):
        fast(x, x)
    with pytest.raises(TypeError, match="input 1 must be a tensor, got int"):
        posekernels.graphed(net, x, 3)
    net.train()
    for call in (lambda: fast(x), lambda: posekernels.graphed(net, x)):
        with pytest.raises(ValueError, match="training mode"):
            call()


def test_what_cannot_be_recorded_is_told(card, net, monkeypatch):
    def impossible(call, device):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(graphs, "_record", impossible)
    with pytest.raises(RuntimeError, match="MgcnLw cannot be recorded: operation not permitted when stream is captur"):
        posekernels.graphed(net, torch.zeros(2, 1, 17, 2))
    replays, x = graphs.Replays(), torch.randn(2, 1, 17, 2)
    with torch.no_grad():
        assert all(torch.equal(replays(None, net, x), net(x)) for _ in range(3)), "a plain call instead"


def test_calls_that_come_again_are_replayed(card, net):
    replays, x = graphs.Replays(most=2), torch.randn(2, 1, 17, 2)
    with torch.no_grad():
        for _ in range(3):
            assert torch.equal(replays(None, net, x), net(x))
        assert len(card) == 1 and card[0].replays == 2
        with posekernels.use_backend("reference"):  # a named backend is never swapped
            replays(None, net, x)
        assert len(card) == 1
    replays(None, net, x).sum().backward()
    assert card[0].replays == 2


def test_streams_and_reverse_chains_replay(card):
    torch.manual_seed(0)
    lifter = models.create("strided_transformer", frames=9, strides=(3, 3), layers=1).eval()
    clip, stream = torch.randn(12, 17, 2), models.stream(lifter, 2)
    got = torch.stack([p for p in map(stream.push, clip) if p is not None])
    want = models.stream(lifter, 2)
    want._replays = lambda key, net, *inputs: net(*inputs)
    assert torch.equal(got, torch.stack([p for p in map(want.push, clip) if p is not None]))
    assert len(card) == 1 and card[0].replays == 9
    system = models.create("diffpose", setting="frame", denoiser={"channels": 8, "heads": 2, "layers": 1})
    keypoints, sampling = torch.randn(2, 17, 2), Sampling(steps=2, limit=12)
    poses = [system(keypoints, sampling).xyz for _ in range(3)]
    assert torch.equal(poses[0], poses[2]) and len(card) == 2 and card[1].replays == 2
    system(keypoints, Sampling(steps=2, limit=12, eta=1.0), seed=3)  # noise is a function of the seed
    assert len(card) == 2


def test_recording_warms_up_aside():
    calls = []

    class Stream:
        def wait_stream(self, other):
            calls.append("waits")

    current, aside = Stream(), Stream()

    @contextlib.contextmanager
    def graph(graph):
        calls.append("begins")
        yield
        calls.append("ends")

    fakes = {
        "device": lambda device: contextlib.nullcontext(),
        "current_stream": lambda: current,
        "Stream": lambda: aside,
        "stream": lambda stream: contextlib.nullcontext(),
        "CUDAGraph": FakeGraph,
        "graph": graph,
    }
    with mock.patch.multiple(torch.cuda, **fakes):
        _, results = graphs._record(lambda: calls.append("calls"), torch.device("cuda"))
    assert calls == ["waits", "calls", "calls", "calls", "waits", "begins", "calls", "ends"] and results is None
