"""Set up before any test module is imported.

Triton reads ``TRITON_INTERPRET`` when a kernel is defined. Where there is no GPU its kernels run in the interpreter
(float32 and float16; ``posekernels.testing.device_of`` knows); on a GPU machine they run as compiled. Ahead-of-time
compilation needs the variable unset and therefore a process of its own (tests/ops/test_aot.py).
"""

import os

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
