"""Which of WS-ANL's networks a published state dict belongs to, for when lifter and variance model are exchanged."""

from __future__ import annotations

import re

from torch import Tensor, nn

from posekernels.archive import CheckpointError


def hint(net: nn.Module, state: dict[str, Tensor]) -> str | None:
    """What the file holds, when it is another network of the system than ``net``."""
    if "patch_embed.weight" in state:
        held, role = "HTNet", "lifter"
    elif "gconv_output.W" in state:
        weights, _, outputs = state["gconv_output.W"].shape
        held = "MgcnLw" if weights == 1 else "VarianceGCN"
        role = "lifter" if outputs == 3 else "variance model"
    elif "batch_norm1.weight" in state and "w2.weight" in state:
        held, role = "VarianceLinear", "variance model"
    else:
        return None
    if held == type(net).__name__:
        return None
    return (
        f"it holds {held}, a {role}: are the checkpoints of lifter and variance model swapped, or of another --lifter?"
    )


def configuration(checkpoint) -> tuple[str, dict]:
    """(name, arguments) for ``models.create``, read off the shapes. A modulated network of 16 joints is of ``H36M_16``.

    Raises:
        CheckpointError: a checkpoint of another network.
    """
    state = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, dict) else checkpoint
    if not isinstance(state, dict):
        raise CheckpointError(f"not a state dict of WS-ANL's networks: a {type(state).__name__}")
    shapes = {str(n).removeprefix("module."): tuple(t.shape) for n, t in state.items() if isinstance(t, Tensor)}

    def count(pattern: str) -> int:
        return len({m[1] for m in (re.match(pattern, name) for name in shapes) if m})

    try:
        if "patch_embed.weight" in shapes:
            sizes = {"channels": shapes["patch_embed.weight"][0], "depth": count(r"Hiremixer\.blocks\.(\d+)\.")}
            return "htnet", sizes | {"hidden": shapes["Hiremixer.blocks.0.mlp.fc1.weight"][0]}
        if "gconv_output.W" in shapes:
            weights, hidden, outputs = shapes["gconv_output.W"]
            sizes = {"hidden": hidden, "depth": count(r"gconv_layers\.(\d+)\."), "outputs": outputs}
            sizes |= {"skeleton": "h36m-16"} if shapes["gconv_output.M"][0] == 16 else {}
            return ("mgcn_lw" if weights == 1 else "variance_gcn"), sizes
        return "variance_linear", {"hidden": shapes["w1.weight"][0], "stages": count(r"linear_stages\.(\d+)\.")}
    except (KeyError, IndexError, ValueError) as error:
        raise CheckpointError(f"not a state dict of WS-ANL's networks ({error})") from None
