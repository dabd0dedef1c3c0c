"""MGCN_lw: the light lifter of WS-ANL (Zeng et al., 2024), a Modulated GCN with one weight matrix for all joints."""

from __future__ import annotations

from posekernels.pose.skeleton import H36M_17, Skeleton

from .graph import ModulatedGCN
from .lifting import LiftsFrames


class MgcnLw(LiftsFrames, ModulatedGCN):
    """2D keypoints of single frames -> root-relative 3D joints, 157,696 parameters.

    Published quirk: the self connection shares the weight of the neighbours here, and has its own in every other
    modulated network; and the root is predicted like the others: set it to 0 afterwards.

    Args:
        hidden, depth: channels between the layers, and residual layers.
        outputs: numbers per joint.
        skeleton: of input and output.
    """

    def __init__(self, hidden: int = 128, depth: int = 4, outputs: int = 3, skeleton: Skeleton = H36M_17):
        super().__init__(hidden, outputs, weights=1, depth=depth, skeleton=skeleton)
