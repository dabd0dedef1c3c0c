"""Networks and systems by name: ``create("htnet")``, ``create("diffpose", setting="frame")``."""

from __future__ import annotations

import importlib
import inspect
import numbers
import typing

import torch
from torch import Tensor, nn

from posekernels.checks import nearest
from posekernels.pose.skeleton import SKELETONS, Skeleton, skeleton

_NETWORKS = {  # name -> module:class; imported when asked for
    "gcndiff": "posekernels.models.gcndiff:GCNdiff",
    "gcnpose": "posekernels.models.gcnpose:GCNpose",
    "htnet": "posekernels.models.htnet:HTNet",
    "mgcn_lw": "posekernels.models.mgcn_lw:MgcnLw",
    "mixste": "posekernels.models.mixste:MixSTE",
    "pkd": "posekernels.models.pkd:PKD",
    "rie": "posekernels.models.rie:RIE",
    "simlpe": "posekernels.models.pkd:SiMLPe",
    "strided_refine": "posekernels.models.strided_refine:StridedRefine",
    "strided_transformer": "posekernels.models.strided_transformer:StridedTransformer",
    "variance_gcn": "posekernels.models.variance:VarianceGCN",
    "variance_linear": "posekernels.models.variance:VarianceLinear",
}
_SYSTEMS = {  # several networks that work together
    "diffpose": "posekernels.models.diffpose:diffpose",
    "ws_anl": "posekernels.models.ws_anl:ws_anl",
}


def names() -> list[str]:
    """Every network that ``create`` knows, sorted."""
    return sorted(_NETWORKS)


def systems() -> list[str]:
    """Every system of several networks that ``create`` knows, sorted."""
    return sorted(_SYSTEMS)


def where_is(name: str) -> tuple[str, str]:
    """Module of a network or system, and what makes it there.

    Raises:
        ValueError: an unknown name; the nearest one is told.
    """
    known = _NETWORKS | _SYSTEMS
    if name not in known:
        there = f"networks: {', '.join(names())}; systems: {', '.join(systems())}"
        raise ValueError(f"no network named {name!r}{nearest(name, known)} ({there})")
    module, maker = known[name].split(":")
    return module, maker


def create(name: str, **config) -> nn.Module:
    """Build a network, or a system of several, with fresh weights.

    Args:
        name: one of ``names()`` or ``systems()``.
        config: the constructor's arguments; the defaults are the published configuration. A skeleton may be named.
    Returns:
        The network; its ``created`` is (name, config): what it takes to create it again.
    Raises:
        ValueError: an unknown name (the nearest one is told), or a configuration the network refuses.
        TypeError: an argument that the network does not have, or of another kind than it expects.
    """
    module, maker = where_is(name)
    network = getattr(importlib.import_module(module), maker)
    given = {k: skeleton(v) if k == "skeleton" and isinstance(v, str) else v for k, v in config.items()}
    _check_config(name, network, given)
    net = network(**given)
    net.created = name, {k: v.name if isinstance(v, Skeleton) and v.name in SKELETONS else v for k, v in config.items()}
    net.register_forward_pre_hook(_check_dtype)
    return net


def _check_dtype(net: nn.Module, args: tuple) -> None:
    """Raises TypeError for an input of another dtype than the weights; float32, the usual, is not looked at further."""
    x = args[0] if args else None
    if isinstance(x, Tensor) and x.dtype is not torch.float32 and not torch.is_autocast_enabled(x.device.type):
        weights = next(net.parameters()).dtype
        if x.dtype != weights:
            what = next(iter(inspect.signature(net.forward).parameters))
            want, got = (str(dtype).removeprefix("torch.") for dtype in (weights, x.dtype))
            raise TypeError(f"{net.created[0]}: {what} must be {want} as the weights, got {got}")


def _check_config(name: str, network, config: dict) -> None:
    """Raises TypeError for an argument that ``network`` does not have, or of another kind than it expects."""
    expected = typing.get_type_hints(network.__init__ if isinstance(network, type) else network)
    expected.pop("return", None)
    for key, value in config.items():
        if key not in expected:
            instead = getattr(network, "decided_by", {}).get(key)
            near = f"; it follows from {instead}" if instead else nearest(key, expected)
            raise TypeError(f"{name} has no {key!r}{near} (it has: {', '.join(expected)})")
        kind = expected[key]
        if not _is_a(value, kind):
            kind = kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind)
            raise TypeError(f"{name}: {key} must be {kind}, got {value!r}")


def _is_a(value, kind) -> bool:
    """Whether ``value`` passes for ``kind``: a class, a union or a tuple; a list does for a tuple, 1 for 1.0."""
    parts = typing.get_args(kind)
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, (tuple, list)) or parts[-1] is not ... and len(value) != len(parts):
            return False
        return all(_is_a(v, k) for v, k in zip(value, parts if parts[-1] is not ... else parts[:1] * len(value)))
    if parts:
        return any(_is_a(value, part) for part in parts)
    if kind in (int, float):
        return isinstance(value, numbers.Integral if kind is int else numbers.Real) and not isinstance(value, bool)
    return isinstance(value, kind)
