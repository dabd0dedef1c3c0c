"""Ops on CuPy arrays: no copy, on CuPy's current stream. python examples/with_cupy.py (needs a CUDA device, CuPy)."""

import cupy

from posekernels import ops

poses = cupy.random.standard_normal((4096, 17, 3), dtype=cupy.float32)
with cupy.cuda.Stream(non_blocking=True) as stream:
    target = poses * 2 + 1  # turned, scaled and moved poses align to error 0
    aligned = ops.procrustes(poses, target)  # waits for `target`, since both run on `stream`
    error = cupy.linalg.norm(aligned - target, axis=-1).mean()
stream.synchronize()
print(f"{type(aligned).__module__} array {aligned.shape} on {aligned.device}, mean error {float(error):.1e}")
