"""A named GPU backend trains every network: gradients are those of the C++ kernels, under the same dropout masks."""

from __future__ import annotations

import contextlib

import pytest
import torch

from posekernels import models, use_backend
from posekernels.models import rie
from posekernels.models.examples import inputs_of
from posekernels.testing import relative_error
from tests.capture import on_card
from tests.cuda_emulation import EmulatedModule

SMALL = {
    "gcndiff": {"channels": 8, "heads": 2, "layers": 1},
    "gcnpose": {"channels": 8, "heads": 2, "layers": 1},
    "htnet": {"channels": 24, "depth": 1, "hidden": 16},
    "rie": {"channels": 8, "latent": 8, "filter_widths": (3,), "stage": 1},
    "variance_linear": {},
}


def gradients(name: str, backend: contextlib.AbstractContextManager) -> list[torch.Tensor]:
    torch.manual_seed(0)
    net = models.create(name, **SMALL[name]).train()
    inputs = inputs_of(name, net, 3)
    with backend:
        made = net(*inputs)
        made.sum().backward()
    return [made.detach(), *(p.grad for p in net.parameters() if p.grad is not None)]


@pytest.mark.parametrize("backend", ["triton", "cuda"])
@pytest.mark.parametrize("name", SMALL)
def test_gradients_are_those_of_the_cpu(name, backend, monkeypatch):
    monkeypatch.setattr(rie, "HIDDEN", 16)
    if backend == "triton" and not torch.cuda.is_available():
        named = use_backend("triton")  # in its interpreter
    else:
        named = on_card(backend, EmulatedModule)
    got, want = gradients(name, named), gradients(name, use_backend("cpu"))
    largest = max(g.norm() for g in want)
    for i, (g, w) in enumerate(zip(got, want, strict=True)):
        assert g.shape == w.shape
        small = w.norm() < 1e-4 * largest  # 0 but for rounding, as of a bias before a norm
        assert (g - w).norm() < 1e-4 * largest if small else relative_error(g, w) < 1e-4, f"{name}: tensor {i}"
