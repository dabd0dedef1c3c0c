"""One module per family of golden cases; each has a list HANDLERS."""

from __future__ import annotations

import torch

from posekernels.models import create, load
from posekernels.pose.skeleton import H36M_16, H36M_17

SKELETONS = {17: H36M_17, 16: H36M_16}  # by the joints that a manifest counts


def tensors(weights: dict) -> dict:
    """The drawn weights as tensors, by published name."""
    return {name: torch.from_numpy(value) for name, value in weights.items()}


def published(case, name: str, **config):
    """A network in eval mode that holds the case's weights, loaded as a published checkpoint would be."""
    return load(tensors(case.weights), create(name, **config))


def record(net, names: dict[str, str]):
    """Record outputs of submodules: {our dotted name: output name} -> the dict they appear in when ``net`` runs."""
    seen = {}
    for dotted, output in names.items():

        def hook(_module, _inputs, result, output=output):
            seen[output] = result

        net.get_submodule(dotted).register_forward_hook(hook)
    return seen
