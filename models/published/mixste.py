"""Parameter names of the published MixSTE2 checkpoints (``JinluZhang1126/MixSTE``, ``mixste_cpn_243f.bin``)."""

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
