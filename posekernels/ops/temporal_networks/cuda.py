"""``temporal_networks`` in CUDA C++: the launches of ``strided_temporal_conv``, step by step."""

from functools import partial

from ..strided_temporal_conv.cuda import run
from .walk import walk

temporal_networks = partial(walk, run)
