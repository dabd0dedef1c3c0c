"""Parameter names of the published RIE checkpoints (``paTRICK-swk/Pose3D-RIE``).

Their left/right part names are mirrored with respect to the Human3.6M joints; here is the only place that knows.
"""

from itertools import count, takewhile

from torch import Tensor

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


def wrap(net, state: dict[str, Tensor]) -> dict:
    """What the published program looks for in a file that it evaluates or starts a stage from."""
    return {"epoch": 0, "model_pos": state}


def configuration(state: dict[str, Tensor]) -> tuple[str, dict] | None:
    """Read off the shapes; stages 2 and 3 are one architecture."""
    if "LocalLayer_Torso.expand_conv.weight" not in state:
        return None
    channels, inputs, width = state["LocalLayer_Torso.expand_conv.weight"].shape
    convs = (f"LocalLayer_Torso.layers_conv.{2 * i}.weight" for i in count())
    widths = [width, *(state[name].shape[2] for name in takewhile(state.__contains__, convs))]
    config = {"filter_widths": widths, "stage": 3 if any(name.startswith("FuseBlocks.") for name in state) else 1}
    config |= {"latent": state["GlobalInfo.fc_2.weight"].shape[0], "channels": channels}
    return "rie", config | ({"skeleton": "humaneva-15"} if inputs == 18 else {})
