"""Seeds of dropout masks as tensors: read where they lie, so that a CUDA graph replays with what is there then."""

from __future__ import annotations

import pytest
import torch

from posekernels import ops
from posekernels._dropout import draw_seed, keep_mask
from tests.capture import CARD


def ramp(*shape):
    return torch.linspace(-1, 2, torch.Size(shape).numel()).view(shape)


CALLS = {
    "annotated_norm": lambda x, seed, b: ops.annotated_norm(x, x[0], x[1], x * x, dropout=0.3, seed=seed, backend=b)[1],
    "dropout": lambda x, seed, b: ops.dropout(x, 0.3, seed=seed, backend=b),
    "norm_activation": lambda x, seed, b: ops.norm_activation(x, x[0], x[1], dropout=0.3, seed=seed, backend=b)[0],
    "strided_feed_forward": lambda x, seed, b: ops.strided_feed_forward(
        x[None], x[:5], x[0, :5], ramp(6, 5, 3), ramp(6), dropout=0.3, hidden_dropout=0.2, seed=seed, backend=b
    ),
    "temporal_attention": lambda x, seed, b: ops.temporal_attention(
        *((x + i).view(1, 6, 2, 4) for i in range(3)), dropout=0.3, seed=seed, backend=b
    ),
}
X = ramp(6, 8)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("op", CALLS)
def test_a_tensor_is_as_good_as_its_number(op, backend):
    for seed in (0, 2**62 + 1, -(2**63)):
        assert torch.equal(CALLS[op](X, torch.tensor(seed), backend), CALLS[op](X, seed, backend))
    assert not torch.equal(CALLS[op](X, 1, backend), CALLS[op](X, 2, backend))
    grads = []
    for seed in (5, torch.tensor(5)):
        x = X.clone().requires_grad_()
        grads += torch.autograd.grad(CALLS[op](x, seed, backend).square().sum(), x)
    assert torch.equal(*grads)


@pytest.mark.parametrize("op", CALLS)
def test_compiles_with_a_tensor(op):
    run = torch.compile(lambda x, seed: CALLS[op](x, seed, "auto"), fullgraph=True, backend="aot_eager")
    for seed in (5, 6):
        got, want = X.clone().requires_grad_(), X.clone().requires_grad_()
        y, z = run(got, torch.tensor(seed)), CALLS[op](want, seed, "auto")
        torch.testing.assert_close(y, z)
        y.square().sum().backward()
        z.square().sum().backward()
        torch.testing.assert_close(got.grad, want.grad)


@pytest.mark.parametrize("op", CALLS)
@pytest.mark.parametrize(
    "seed, why",
    [
        (torch.tensor(1.0), "seed must be one int64, got torch.float32"),
        (torch.zeros(2, dtype=torch.int64), r"seed must be one int64, got torch.int64 \[2\]"),
        (torch.zeros((), dtype=torch.int64, device="meta"), "seed must be on cpu, got one on meta"),
        (0.5, "seed must be an? ?.*integer"),
    ],
)
def test_refusals(op, seed, why):
    with pytest.raises((TypeError, ValueError), match=f"{op}: {why}"):
        CALLS[op](X, seed, "cpu")


def test_kernels_read_what_is_in_memory_when_they_run():
    from posekernels.ops.dropout import triton

    x, seed = torch.ones(50), torch.tensor(1)
    for value in (1, 16, 32):
        seed.fill_(value)
        assert torch.equal(triton.dropout(x, 0.3, seed) != 0, keep_mask((50,), 0.3, value, 0, "cpu"))


def test_seeds_are_drawn_where_the_kernels_are():
    assert isinstance(draw_seed(torch.device("cpu")), int)
    assert draw_seed(CARD).device == CARD, "by the GPU's generator, in a CUDA graph anew in every replay"
