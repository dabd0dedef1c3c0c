"""Parameter names of the published MixSTE2 checkpoints (``JinluZhang1126/MixSTE``, ``mixste_cpn_243f.bin``)."""

from posekernels.archive import CheckpointError

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


def unwrap(checkpoint):
    """The parameters of a checkpoint file: its entry ``model_pos``, or the file itself when it is bare."""
    return checkpoint.get("model_pos", checkpoint) if isinstance(checkpoint, dict) else checkpoint


def hint(net, state: dict) -> str | None:
    """What to build instead, when a file is of another clip length."""
    position = state.get("Temporal_pos_embed")
    if position is None or position.dim() != 3 or position.shape[1] == net.frames:
        return None
    return f"the file is for clips of {position.shape[1]} frames: create('mixste', frames={position.shape[1]}, ...)"


def configuration(checkpoint) -> tuple[str, dict]:
    """(name, arguments) for ``models.create``: frames and depth, read off the shapes. Heads cannot be, so the width is
    the published one.

    Raises:
        CheckpointError: a checkpoint of another network.
    """
    state = unwrap(checkpoint)
    try:
        state = {str(name).removeprefix("module."): tensor for name, tensor in state.items()}
        frames = state["Temporal_pos_embed"].shape[1]
    except (AttributeError, KeyError, IndexError) as error:
        raise CheckpointError(f"not a MixSTE state dict ({error})") from None
    return "mixste", {"frames": frames, "depth": sum(n.endswith("norm1.weight") and n[0] == "S" for n in state)}
