"""Parameter names of the published GCNpose checkpoints (``gcn_xyz_cpn.pth``, ``gcn_xyz_gt.pth``)."""

from .gcndiff import RENAME, hint, unwrap

__all__ = ["RENAME", "UNUSED", "hint", "unwrap"]

UNUSED = [r"temb\.dense\.[01]\.(weight|bias)"]  # published quirk: a time embedding is stored, and never read
