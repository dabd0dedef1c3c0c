"""The ops, one folder each: public function, reference (its definition), kernels, and a page of math."""

from .graph_conv import graph_conv

__all__ = ["graph_conv"]
