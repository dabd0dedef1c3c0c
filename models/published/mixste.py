"""Parameter names of the published MixSTE2 checkpoints (``JinluZhang1126/MixSTE``, ``mixste_cpn_243f.bin``)."""

from torch import Tensor

from . import count, heads_unknown

RENAME = [  # ours -> published, applied in order
    (r"^embed\.", "Spatial_patch_to_embedding."),
    (r"^joint_position$", "Spatial_pos_embed"),
    (r"^frame_position$", "Temporal_pos_embed"),
    (r"^spatial\.", "STEblocks."),
    (r"^temporal\.", "TTEblocks."),
    (r"^(.TEblocks\.\d+)\.(qkv|proj)\.", r"\1.attn.\2."),
    (r"^spatial_norm\.", "Spatial_norm."),
    (r"^temporal_norm\.", "Temporal_norm."),
    (r"^head\.", "head.1."),
    (r"^head_norm\.", "head.0."),
]


def wrap(net, state: dict[str, Tensor]) -> dict:
    """What the published programs read: the model, saved from a data-parallel wrapper, and the epoch they tell."""
    return {"epoch": 0, "model_pos": {f"module.{name}": tensor for name, tensor in state.items()}}


def configuration(state: dict[str, Tensor]) -> tuple[str, dict] | None:
    """Read off the shapes.

    Raises:
        CheckpointError: a width that is not published: it does not tell how many heads share it.
    """
    if "Temporal_pos_embed" not in state:
        return None
    _, frames, channels = state["Temporal_pos_embed"].shape
    sizes = {"frames": frames, "joints": state["Spatial_pos_embed"].shape[1]}
    sizes["in_channels"] = state["Spatial_patch_to_embedding.weight"].shape[1]
    sizes["depth"] = count(r"STEblocks\.(\d+)\.", state)
    if channels != 512:
        raise heads_unknown("mixste", sizes | {"channels": channels})
    return "mixste", sizes
