"""Which of WS-ANL's networks a published state dict belongs to, for when lifter and variance model are exchanged."""

from __future__ import annotations

from torch import Tensor, nn


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
