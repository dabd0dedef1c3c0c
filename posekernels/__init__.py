"""posekernels: the kernels under fast 3D human pose, and the geometry of poses.

Ops live in ``posekernels.ops``; lengths are metres, layouts [B, T, J, C]. ``python -m posekernels.info`` tells which
backends run here.
"""

from . import ops
from ._derived import derived, repack
from ._dispatch import BackendError, explain, use_backend

__version__ = "0.1.0"
__all__ = ["BackendError", "derived", "explain", "ops", "repack", "use_backend"]
