"""Parameter names of the published RIE checkpoints (``paTRICK-swk/Pose3D-RIE``).

Their left/right part names are mirrored with respect to the Human3.6M joints; here is the only place that knows.
"""

PART = {"torso": "Torso", "right_arm": "LArm", "left_arm": "RArm", "right_leg": "LLeg", "left_leg": "RLeg"}
RENAME = [  # ours -> published, applied in order
    (r"\.linears\.(\d*[02468])\.", lambda m: f".layers.{int(m[1]) // 2}.w1."),
    (r"\.linears\.(\d+)\.", lambda m: f".layers.{int(m[1]) // 2}.w2."),
    (r"^(whole_body|fusions\.\w+|decoders\.\w+)\.norms\.(\d+)\.",
     lambda m: f"{m[1]}.layers.{int(m[2]) // 2}.batch_norm{int(m[2]) % 2 + 1}."),
    (r"\.first\.", ".fc_1."),
    (r"\.first_norm\.", ".bn_1."),
    (r"\.last\.", ".fc_2."),
    (r"\.expand\.", ".expand_conv."),
    (r"\.expand_norm\.", ".expand_bn."),
    (r"\.convs\.", ".layers_conv."),
    (r"\.norms\.", ".layers_bn."),
    (r"^encoders\.(\w+)\.", lambda m: f"LocalLayer_{PART[m[1]]}."),
    (r"^decoders\.(\w+)\.", lambda m: f"Integration_{PART[m[1]]}."),
    (r"^fusions\.(\w+)\.", lambda m: f"FuseBlocks.{list(PART).index(m[1])}."),
    (r"^whole_body\.", "GlobalInfo."),
]  # fmt: skip


def unwrap(checkpoint):
    """The state dict of a published training checkpoint (``epoch``, ``lr``, ``random_state``, ``model_pos``, ...)."""
    return checkpoint.get("model_pos", checkpoint) if isinstance(checkpoint, dict) else checkpoint
