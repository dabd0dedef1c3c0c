"""Weights as files: those that come with the project (``pretrained``), and ``.safetensors`` that say what they are.

A file's header names the network, its configuration and what its input looks like, so that a file is all one needs:
``net, about = load_weights("lifter.safetensors")``.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor, nn

from posekernels._checks import nearest
from posekernels._files import write_aside
from posekernels.archive import CheckpointError, read_checkpoint

from .registry import configuration, create, load_published, published_names, refuse_run

OURS = {"lifter": "lifter.safetensors", "forecaster": "forecaster.safetensors"}
SEES = ("person", "screen")


@dataclass(frozen=True)
class About:
    """What the header of a weights file says.

    Args:
        network: its name in the registry. config: arguments of ``create``.
        sees: "person" (keypoints centred and scaled on the person) or "screen" (normalised screen units).
        fps: frames per second that the network expects; 0 for any.
        made: how the weights came about, in a line.
    """

    network: str
    config: dict
    sees: str = "screen"
    fps: float = 0.0
    made: str = ""


def save_weights(net: nn.Module, path: str | Path, about: About, dtype: torch.dtype = torch.float32) -> None:
    """Write a ``.safetensors`` file; floating-point weights in ``dtype``. The file appears whole or not at all.

    Tensors go by their published names, which stay when a network's own are changed.
    """
    from safetensors.torch import save_file

    def stored(tensor: Tensor) -> Tensor:
        tensor = tensor.detach().cpu()
        return (tensor.to(dtype) if tensor.is_floating_point() else tensor).clone().contiguous()

    header = {"posekernels": json.dumps(asdict(about))}
    state = net.state_dict()
    with write_aside(path) as aside:
        save_file({name: stored(state[ours]) for name, ours in published_names(net).items()}, aside, header)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], About | None]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            header = (file.metadata() or {}).get("posekernels")
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
        return state, About(**json.loads(header)) if header else None
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({str(error).splitlines()[0]})") from error


def load_weights(path: str | Path, network: str | None = None) -> tuple[nn.Module, About]:
    """A network from a file, in eval mode, float32.

    Args:
        path: ``.safetensors`` of ours, or a published checkpoint.
        network: name in the registry; needed for published checkpoints, which are taken at the size that their shapes
            tell (of MixSTE: frames and depth), GCNdiff, GCNpose and the refine module at the published one.
    Raises:
        CheckpointError: unreadable, of another network, not fitting, or nameless and no ``network`` given.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weights file")
    ours = path.suffix == ".safetensors"
    state, about = _read_safetensors(path) if ours else (read_checkpoint(path), None)
    if not isinstance(state, (dict, list)):
        raise CheckpointError(f"{path}: expected a dict of tensors, got {type(state).__name__}")
    refuse_run(state, path)
    if about is None and network is None:
        raise CheckpointError(f"{path}: does not say which network it is for; name it with --model")
    if about is not None and network not in (None, about.network):
        raise CheckpointError(f"{path}: weights of {about.network}, not of --model {network}")
    try:
        about = about or About(network, configuration(network, state))
        net = load_published(create(about.network, **about.config), state).eval()
        net.sees = about.sees
        return net, about
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def pretrained(what: str) -> tuple[nn.Module, About]:
    """The weights that come with the project: "lifter" or "forecaster"; see ``models/weights/README.md``.

    Raises:
        ValueError: another name.
    """
    if what not in OURS:
        raise ValueError(f"no weights for {what!r}{nearest(what, OURS)} (there are: {', '.join(OURS)})")
    with resources.as_file(resources.files(__package__).joinpath("weights", OURS[what])) as path:
        return load_weights(path)
