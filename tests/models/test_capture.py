"""After its first call every network runs without the host, as CUDA graphs ask: no value read, no numbers sent."""

from __future__ import annotations

import pytest
import torch

from posekernels import _dispatch, models
from posekernels.models.examples import inputs_of
from posekernels.models.lifting import Lifts
from tests.capture import CARD, Crossing, no_crossing, on_card

BACKENDS = ("reference", "triton", "cuda")
SYSTEMS = {"ws_anl": ((2, 17, 2),), "diffpose": ((2, 243, 17, 2),)}
assert SYSTEMS.keys() == set(models.systems())


def on_card_with(name: str):
    net = models.create(name).to(CARD)
    if name in SYSTEMS:
        return net, [torch.empty(shape, device=CARD) for shape in SYSTEMS[name]]
    return net, [x.to(CARD) for x in inputs_of(name, net, 2)]


def skip_without(op: str, backend: str) -> None:
    if backend not in _dispatch.OPS[op]:
        pytest.skip(f"{op} has no {backend}")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", [*models.names(), *SYSTEMS])
def test_inference_stays_on_the_card(name, backend):
    if name in ("gcnpose", "diffpose"):
        skip_without("denoise", backend)
    net, inputs = on_card_with(name)
    net.eval()
    with torch.no_grad(), on_card(backend):
        net(*inputs)  # what follows from weights is made, tables are sent
        with no_crossing():
            net(*inputs)


@pytest.mark.parametrize("name", [name for name in models.names() if isinstance(models.create(name), Lifts)])
def test_lifting_a_clip_stays_on_the_card(name):
    net, _ = on_card_with(name)
    net.eval()
    if (net.in_channels, net.outputs) != (2, 3):
        pytest.skip(f"{name} gives no poses of keypoints")
    clip = torch.empty(300, 17, 2, device=CARD)
    with on_card("reference"):
        models.lift(net, clip)
        with no_crossing():
            models.lift(net, clip)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", models.names())
def test_a_training_step_stays_on_the_card(name, backend):
    net, inputs = on_card_with(name)
    net.train()
    with on_card(backend):
        for watch in (torch.enable_grad(), no_crossing()):
            with watch:
                made = net(*inputs)
                sum(t.square().mean() for t in (made if isinstance(made, tuple) else (made,))).backward()


@pytest.mark.parametrize(
    "step",
    [
        lambda x: x[:, [1, 0]],
        lambda x: x * torch.tensor([1.0, 2.0], device=CARD),
        lambda x: x + x.new_tensor([1.0, 2.0]),
        lambda x: x + torch.ones(2).to(CARD),
        lambda x: x.copy_(torch.ones(2)),
        lambda x: x * torch.tensor(2.0),
    ],
)
def test_numbers_from_the_host_are_seen(step):
    with no_crossing(), pytest.raises(Crossing):
        step(torch.empty(2, 2, device=CARD))


@pytest.mark.parametrize(
    "step", [lambda x: x.sum().item(), lambda x: x.cpu(), lambda x: bool((x > 0).all()), lambda x: x[x > 0]]
)
def test_values_that_the_host_reads_are_seen(step):
    with no_crossing(), pytest.raises((RuntimeError, NotImplementedError)):
        step(torch.empty(2, 2, device=CARD))
