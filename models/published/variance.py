"""Parameter names of the published variance models (``xzhouzeng/PRPose``), graph network and linear one."""

from .mgcn_lw import RENAME as MODULATED
from .ws_anl import configuration

__all__ = ["RENAME", "configuration"]

RENAME = [
    *MODULATED,
    (r"^embed\.linear\.", "w1."),
    (r"^embed\.norm\.", "batch_norm1."),
    (r"^stages\.(\d+)\.first\.linear\.", r"linear_stages.\1.w1."),
    (r"^stages\.(\d+)\.first\.norm\.", r"linear_stages.\1.batch_norm1."),
    (r"^stages\.(\d+)\.second\.linear\.", r"linear_stages.\1.w2."),
    (r"^stages\.(\d+)\.second\.norm\.", r"linear_stages.\1.batch_norm2."),
    (r"^head\.", "w2."),
]
