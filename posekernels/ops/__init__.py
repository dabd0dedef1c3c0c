"""The ops, one folder each: public function, reference (its definition), kernels, and a page of math."""

from .annotated_norm import annotated_norm
from .best_hypothesis import best_hypothesis
from .denoise import GraphDenoiser, denoise_loop, denoise_step, graph_transformer
from .encoder_layer import encoder_layer
from .graph_conv import graph_conv
from .joint_attention import joint_attention
from .merge_hypotheses import merge_hypotheses
from .procrustes import procrustes, procrustes_error
from .relative_encoding import relative_encoding
from .sample_hypotheses import sample_hypotheses
from .strided_feed_forward import strided_feed_forward
from .strided_temporal_conv import strided_temporal_conv
from .temporal_attention import temporal_attention
from .temporal_mlp import temporal_mlp, temporal_mlp_forecast

__all__ = [
    "GraphDenoiser",
    "annotated_norm",
    "best_hypothesis",
    "denoise_loop",
    "denoise_step",
    "encoder_layer",
    "graph_conv",
    "graph_transformer",
    "joint_attention",
    "merge_hypotheses",
    "procrustes",
    "procrustes_error",
    "relative_encoding",
    "sample_hypotheses",
    "strided_feed_forward",
    "strided_temporal_conv",
    "temporal_attention",
    "temporal_mlp",
    "temporal_mlp_forecast",
]
