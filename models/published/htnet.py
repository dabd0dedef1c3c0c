"""Parameter names of the published HTNet checkpoints (``vefalun/HTNet``, ``xzhouzeng/PRPose``)."""

from .ws_anl import configuration

__all__ = ["RENAME", "configuration"]

RENAME = [  # ours -> published, applied in order
    (r"^embed\.", "patch_embed."),
    (r"^position$", "pos_embed"),
    (r"^norm\.", "Hiremixer.Temporal_norm."),
    (r"^head\.", "fcn."),
    (r"^blocks\.", "Hiremixer.blocks."),
    (r"\.joint\.norm_in\.", ".lgc.norm_gcn1."),
    (r"\.joint\.norm_out\.", ".lgc.norm_gcn2."),
    (r"\.joint\.conv(\d)\.weight$", r".lgc.gcn\1.W"),
    (r"\.joint\.conv(\d)\.modulation$", r".lgc.gcn\1.M"),
    (r"\.joint\.conv(\d)\.adjacency_offset$", r".lgc.gcn\1.adj2"),
    (r"\.joint\.conv(\d)\.bias$", r".lgc.gcn\1.bias"),
    (r"\.part\.three\.norm_mlp\.", ".ipc.norm_conv1_mlp."),
    (r"\.part\.three\.norm\.", ".ipc.norm_conv1."),
    (r"\.part\.three\.conv\.", ".ipc.conv1."),
    (r"\.part\.three\.mlp\.", ".ipc.mlp_down_1."),
    (r"\.part\.two\.norm_mlp\.", ".ipc.norm_conv2_mlp."),
    (r"\.part\.two\.norm\.", ".ipc.norm_conv2."),
    (r"\.part\.two\.conv\.", ".ipc.conv2."),
    (r"\.part\.two\.mlp\.", ".ipc.mlp_down_2."),
    (r"\.body\.norm\.", ".gbi.norm_attn."),
    (r"\.body\.(qkv|proj)\.", r".gbi.attn.\1."),
    (r"^(Hiremixer\.blocks\.\d+)\.norm\.", r"\1.norm_mlp."),
]
