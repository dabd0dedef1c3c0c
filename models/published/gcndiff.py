"""Parameter names of the published GCNdiff checkpoints (``GONGJIA0208/Diffpose`` and ``Diffpose_video``)."""

from torch import Tensor

from . import count, heads_unknown

RENAME = [  # ours -> published, applied in order
    (r"^conv_in\.", "gconv_input."),
    (r"^conv_out\.", "gconv_output."),
    (r"^blocks\.(\d+)\.conv(\d)\.", r"gconv_layers.\1.gconv\2.gconv."),
    (r"^blocks\.(\d+)\.time\.", r"gconv_layers.\1.temb_proj."),
    (r"^attention\.(\d+)\.attention\.", r"atten_layers.\1.self_attn."),
    (r"\.self_attn\.query\.", ".self_attn.linears.0."),
    (r"\.self_attn\.key\.", ".self_attn.linears.1."),
    (r"\.self_attn\.value\.", ".self_attn.linears.2."),
    (r"\.self_attn\.out\.", ".self_attn.linears.3."),
    (r"^attention\.(\d+)\.norm1\.", r"atten_layers.\1.sublayer.0.norm."),
    (r"^attention\.(\d+)\.norm2\.", r"atten_layers.\1.sublayer.1.norm."),
    (r"\.norm\.gain$", ".norm.a_2"),
    (r"\.norm\.shift$", ".norm.b_2"),
    (r"^attention\.(\d+)\.graph\.adjacency$", r"atten_layers.\1.feed_forward.A_hat"),
    (r"^attention\.(\d+)\.graph\.fc(\d)\.", r"atten_layers.\1.feed_forward.gconv\2.fc."),
    (r"^time_embedding\.fc1\.", "temb.dense.0."),
    (r"^time_embedding\.fc2\.", "temb.dense.1."),
]


def wrap(net, state: dict[str, Tensor]) -> list:
    """What the published program reads: [model, optimiser, epoch, step], of a data-parallel wrapper."""
    return [{f"module.{name}": tensor for name, tensor in state.items()}, {}, 0, 0]


def configuration(state: dict[str, Tensor]) -> tuple[str, dict] | None:
    """GCNdiff or GCNpose, read off the shapes.

    Raises:
        CheckpointError: a width that is not published: it does not tell how many heads share it.
    """
    if "gconv_input.weight" not in state:
        return None
    _, _, inputs, channels = state["gconv_input.weight"].shape
    sizes = {"layers": count(r"gconv_layers\.(\d+)\.", state), "in_channels": inputs}
    name = "gcndiff" if "gconv_layers.0.temb_proj.weight" in state else "gcnpose"
    if channels != 96:
        raise heads_unknown(name, sizes | {"channels": channels})
    return name, sizes | ({"out_channels": state["gconv_output.weight"].shape[3]} if name == "gcndiff" else {})
