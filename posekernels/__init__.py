"""posekernels: the kernels under fast 3D human pose, and the geometry of poses.

Ops live in ``posekernels.ops``; lengths are metres, layouts [B, T, J, C]. ``python -m posekernels.info`` tells which
backends run here.
"""

from . import door, ops, pose
from ._derived import derived, repack
from ._dispatch import BackendError, explain, use_backend

__path__ += door.checkout()  # posekernels.models, .people and .train, which the build puts inside an installed package
__version__ = "0.1.0"
__all__ = ["BackendError", "derived", "explain", "ops", "pose", "repack", "use_backend"]
