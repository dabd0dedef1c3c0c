"""Parameter names of the published modulated GCNs (``xzhouzeng/PRPose``, ``ZhimingZo/Modulated-GCN``)."""

from .ws_anl import configuration

__all__ = ["RENAME", "configuration"]

RENAME = [  # ours -> published, applied in order
    (r"^input\.(conv|norm)\.", r"gconv_input.0.\1."),
    (r"^layers\.(\d+)\.conv(\d)\.(conv|norm)\.", r"gconv_layers.\1.gconv\2.\3."),
    (r"^(gconv_.*)\.conv\.", r"\1.gconv."),
    (r"^(gconv_.*)\.norm\.", r"\1.bn."),
    (r"^output\.", "gconv_output."),
    (r"^(gconv_.*)\.modulation$", r"\1.M"),
    (r"^(gconv_.*)\.adjacency_offset$", r"\1.adj2"),
    (r"^(gconv_input\.0\.gconv|gconv_layers\.\d+\.gconv\d\.gconv|gconv_output)\.weight$", r"\1.W"),
]
