"""Networks by name, and the published checkpoints they read.

``create("htnet")`` builds a network; ``load_published(net, "model.pth")`` fills it from a published file.
"""

from __future__ import annotations

import importlib
import inspect
import numbers
import re
import typing
from pathlib import Path

import torch
from torch import Tensor, nn

from posekernels._checks import nearest
from posekernels._files import write_aside
from posekernels.archive import CheckpointError, read_checkpoint
from posekernels.pose.skeleton import skeleton

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


def names() -> list[str]:
    """Every name ``create`` knows, sorted."""
    return sorted(_NETWORKS)


def _where(name: str) -> tuple[str, str]:
    """Module and class of a network."""
    if name not in _NETWORKS:
        raise ValueError(f"no network named {name!r}{nearest(name, _NETWORKS)} (networks: {', '.join(names())})")
    module, cls = _NETWORKS[name].split(":")
    return module, cls


def create(name: str, **config) -> nn.Module:
    """Build a network with fresh weights.

    Args:
        name: one of ``names()``.
        config: the constructor's arguments; the defaults are the published configuration. A skeleton may be named.
    Returns:
        The network; its ``created`` is (name, config): what it takes to create it again.
    Raises:
        ValueError: an unknown name (the nearest one is told), or a configuration the network refuses.
        TypeError: an argument that the network does not have, or of another kind than it expects.
    """
    module, cls = _where(name)
    network = getattr(importlib.import_module(module), cls)
    given = {k: skeleton(v) if k == "skeleton" and isinstance(v, str) else v for k, v in config.items()}
    _check_config(name, network, given)
    net = network(**given)
    net.created = name, config
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


def _check_config(name: str, network: type[nn.Module], config: dict) -> None:
    """Raises TypeError for an argument that ``network`` does not have, or of another kind than it expects."""
    expected = typing.get_type_hints(network.__init__)
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


def refuse_run(checkpoint, where: str | Path) -> None:
    """Raises CheckpointError for a checkpoint that ``train.loop`` wrote; says what reads it."""
    if isinstance(checkpoint, dict) and str(checkpoint.get("format", "")).startswith("posekernels-train"):
        raise CheckpointError(
            f"{where}: of a training run of this project, not published; from train import recipes; "
            "net, about = recipes.trained(FILE) reads it"
        )


def published_table(net: nn.Module):
    """The module ``models.published.<network>`` that knows the published parameter names of ``net``."""
    return importlib.import_module(f"posekernels.models.published.{type(net).__module__.rpartition('.')[2]}")


def configuration(name: str, checkpoint) -> dict:
    """Arguments for ``create(name)`` that a published checkpoint's shapes imply; {} where its table cannot tell.

    Raises:
        CheckpointError: a checkpoint of another network.
    """
    table = importlib.import_module(f"posekernels.models.published.{_where(name)[0].rpartition('.')[2]}")
    if not hasattr(table, "configuration"):
        return {}
    found, config = table.configuration(checkpoint)
    if found != name:
        raise CheckpointError(f"weights of {found}, not of {name}")
    return config


def _hint(net: nn.Module, state: dict[str, Tensor]) -> str | None:
    """What else to create for a ``state`` that does not fit ``net``, where that can be told."""
    table = published_table(net)
    if hasattr(table, "hint"):
        return table.hint(net, state)
    if not hasattr(table, "configuration"):
        return None
    try:
        (mine, have), (name, config) = table.configuration(published_state(net)), table.configuration(state)
    except CheckpointError:
        return None
    other = [f"{key}={value}" for key, value in config.items() if have.get(key) != value]
    return f"it is a file for create({', '.join([repr(name), *other])})" if other or name != mine else None


def published_names(net: nn.Module) -> dict[str, str]:
    """{published name: our name} of every stored tensor of ``net``, from its table's ``RENAME`` rules.

    The rules are (pattern, replacement) pairs for ``re.sub``, ours -> published, applied one after the other. A table
    whose names depend on the configuration has a function ``rename(net)`` that returns them instead.
    """
    table = published_table(net)
    rules = table.rename(net) if hasattr(table, "rename") else table.RENAME

    def rename(name: str) -> str:
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        return name

    return {rename(name): name for name in net.state_dict()}


def load_published(net: nn.Module, source: str | Path | dict | list, **container) -> nn.Module:
    """Fill ``net`` from a published checkpoint, strictly: everything fits, or nothing is loaded.

    Args:
        net: a network from ``create``.
        source: a checkpoint file, or what it holds. A ``module.`` prefix (DataParallel) is dropped.
        container: which part of the file, for networks whose files hold several (``ema=True`` for "gcndiff"): the
            options of ``unwrap`` in ``models.published.<network>``.
    Returns:
        ``net``.
    Raises:
        CheckpointError: lists what is missing, unexpected and misshapen, by published name.

    Tensors that the published program stores but never reads are kept in ``net.published_unused``. Other names too many
    are an error here, which some published programs ignore: they belong to a larger network, or to another one.
    """
    table = published_table(net)
    in_memory = isinstance(source, (dict, list))
    checkpoint = source if in_memory else read_checkpoint(source)
    where = "state dict" if in_memory else str(source)
    refuse_run(checkpoint, where)
    if container and not hasattr(table, "unwrap"):
        raise TypeError(f"{type(net).__name__}: its files have one part; unexpected {', '.join(container)}")
    try:
        state = table.unwrap(checkpoint, **container) if hasattr(table, "unwrap") else checkpoint
    except ValueError as error:
        raise CheckpointError(f"{where}: {error}") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{where}: expected a dict of tensors, got {type(state).__name__}")
    bad = [k for k, v in state.items() if not (isinstance(k, str) and isinstance(v, Tensor))]
    if bad:
        raise CheckpointError(
            f"{where}: expected a dict of named tensors; it holds others: {', '.join(map(str, bad[:5]))}"
        )
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    unused_patterns = getattr(table, "UNUSED", [])
    want, have = published_names(net), net.state_dict()
    unused = {n: t for n, t in state.items() if n not in want and any(re.fullmatch(p, n) for p in unused_patterns)}
    problems = [f"missing: {n} {list(have[ours].shape)}" for n, ours in want.items() if n not in state]
    problems += [f"unexpected: {n}" for n in state if n not in want and n not in unused]
    problems += [
        f"misshapen: {n} is {list(state[n].shape)}, the network has {list(have[ours].shape)}"
        for n, ours in want.items()
        if n in state and state[n].shape != have[ours].shape
    ]
    if problems:
        hint = _hint(net, state)
        most = 3 if hint else 12
        shown = "\n  ".join(problems[:most]) + (f"\n  ... and {len(problems) - most} more" if problems[most:] else "")
        shown += f"\n  {hint}" if hint else ""
        raise CheckpointError(f"{where} does not fit {type(net).__name__}; nothing was loaded:\n  {shown}")
    net.load_state_dict({ours: state[n] for n, ours in want.items()})
    net.published_unused = unused
    return net


def published_state(net: nn.Module) -> dict[str, Tensor]:
    """The state dict under published names, stored-but-unused tensors included: what the published program reads."""
    state = net.state_dict()
    return {n: state[ours] for n, ours in published_names(net).items()} | getattr(net, "published_unused", {})


def save_published(net: nn.Module, path: str | Path) -> None:
    """Write ``net`` as a checkpoint that the published program reads back: a state dict of published names.

    Bare, or in the container of the table's ``wrap``. The file appears whole or not at all.
    """
    state = {name: tensor.detach().cpu().clone() for name, tensor in published_state(net).items()}
    with write_aside(path) as aside:
        torch.save(getattr(published_table(net), "wrap", dict)(state), aside)
