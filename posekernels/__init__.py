"""posekernels: the kernels under fast 3D human pose, and the geometry of poses.

Ops live in ``posekernels.ops``; lengths are metres, layouts [B, T, J, C]. ``posekernels info`` tells which backends
run here.
"""

from .start import before_pytorch

before_pytorch()

from . import door, ops, pose  # noqa: E402
from ._dispatch import BackendError, explain, use_backend  # noqa: E402
from .eight_bits import fp8  # noqa: E402
from .graphs import graphed  # noqa: E402
from .prepared import derived, freeze, repack  # noqa: E402

__path__ += door.checkout()  # posekernels.models, .people and .train, which the build puts inside an installed package
__version__ = "0.1.0"
__all__ = ["BackendError", "derived", "explain", "fp8", "freeze", "graphed", "ops", "pose", "repack", "use_backend"]
