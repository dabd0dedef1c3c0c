"""Which of WS-ANL's networks a published state dict belongs to: lifters and variance models lie in one folder."""

from __future__ import annotations

from torch import Tensor

from . import count


def configuration(state: dict[str, Tensor]) -> tuple[str, dict] | None:
    """The network, read off the shapes. A modulated network of 16 joints is of ``H36M_16``."""
    if "patch_embed.weight" in state:
        sizes = {"channels": state["patch_embed.weight"].shape[0], "depth": count(r"Hiremixer\.blocks\.(\d+)\.", state)}
        return "htnet", sizes | {"hidden": state["Hiremixer.blocks.0.mlp.fc1.weight"].shape[0]}
    if "gconv_output.W" in state:
        weights, hidden, outputs = state["gconv_output.W"].shape
        sizes = {"hidden": hidden, "depth": count(r"gconv_layers\.(\d+)\.", state), "outputs": outputs}
        sizes |= {"skeleton": "h36m-16"} if state["gconv_output.M"].shape[0] == 16 else {}
        return ("mgcn_lw" if weights == 1 else "variance_gcn"), sizes
    if "batch_norm1.weight" in state and "w2.weight" in state:
        sizes = {"hidden": state["w1.weight"].shape[0], "stages": count(r"linear_stages\.(\d+)\.", state)}
        return "variance_linear", sizes
    return None
