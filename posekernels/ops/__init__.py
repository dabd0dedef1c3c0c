"""The ops, one folder each: public function, reference (its definition), kernels, and a page of math."""

from .best_hypothesis import best_hypothesis
from .graph_conv import graph_conv
from .joint_attention import joint_attention
from .merge_hypotheses import merge_hypotheses
from .procrustes import procrustes, procrustes_error
from .sample_hypotheses import sample_hypotheses

__all__ = [
    "best_hypothesis",
    "graph_conv",
    "joint_attention",
    "merge_hypotheses",
    "procrustes",
    "procrustes_error",
    "sample_hypotheses",
]
