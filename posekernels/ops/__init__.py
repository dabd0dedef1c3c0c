"""The ops, one folder each: public function, reference (its definition), kernels, and a page of math."""

from .annotated_norm import annotated_norm
from .best_hypothesis import best_hypothesis
from .encoder_layer import encoder_layer
from .graph_conv import graph_conv
from .joint_attention import joint_attention
from .merge_hypotheses import merge_hypotheses
from .procrustes import procrustes, procrustes_error
from .sample_hypotheses import sample_hypotheses
from .strided_feed_forward import strided_feed_forward
from .temporal_attention import temporal_attention

__all__ = [
    "annotated_norm",
    "best_hypothesis",
    "encoder_layer",
    "graph_conv",
    "joint_attention",
    "merge_hypotheses",
    "procrustes",
    "procrustes_error",
    "sample_hypotheses",
    "strided_feed_forward",
    "temporal_attention",
]
