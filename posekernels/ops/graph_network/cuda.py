"""``graph_network`` in CUDA C++: the launches of ``graph_conv``, layer by layer."""

from functools import partial

from ..graph_conv.cuda import graph_conv
from .reference import walk

graph_network = partial(walk, graph_conv)
