"""The ops, one folder each: public function, reference (its definition), kernels, and a page of math."""

from .denoise import GraphDenoiser, denoise_loop, denoise_step, graph_transformer
from .graph_conv import graph_conv
from .relative_encoding import relative_encoding
from .strided_temporal_conv import strided_temporal_conv
from .temporal_mlp import temporal_mlp, temporal_mlp_forecast

__all__ = [
    "GraphDenoiser",
    "denoise_loop",
    "denoise_step",
    "graph_conv",
    "graph_transformer",
    "relative_encoding",
    "strided_temporal_conv",
    "temporal_mlp",
    "temporal_mlp_forecast",
]
