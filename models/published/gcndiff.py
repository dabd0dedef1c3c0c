"""Parameter names of the published GCNdiff checkpoints (``GONGJIA0208/Diffpose`` and ``Diffpose_video``)."""

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


def unwrap(checkpoint: list | dict, ema: bool = False) -> dict:
    """The parameters of a training state [model, optimiser, epoch, step, EMA], or of a bare state dict.

    Published evaluation reads the raw weights, never their running mean; ``ema=True`` takes the mean.
    """
    if isinstance(checkpoint, dict):
        if ema:
            raise ValueError("ema=True: the file holds bare parameters, and no running mean of them")
        return checkpoint
    if not isinstance(checkpoint, list) or len(checkpoint) <= 4 * ema:
        kind = f"a list of {len(checkpoint)}" if isinstance(checkpoint, list) else type(checkpoint).__name__
        raise ValueError(f"expected a list [model, optimiser, epoch, step{', EMA' * ema}] or a state dict, got {kind}")
    return checkpoint[4 * ema]


def hint(net, state: dict) -> str | None:
    """What the file holds, when it is the other of the two graph networks."""
    if "gconv_input.weight" not in state:
        return None
    held = "GCNdiff" if "gconv_layers.0.temb_proj.weight" in state else "GCNpose"
    if held == type(net).__name__:
        return None
    return f"it holds {held}: are the checkpoints of the pose network and of the denoiser swapped?"
