"""The ops, one folder each: public function, reference (its definition), kernels, and a page of math."""

from .annotated_norm import annotated_norm as annotated_norm
from .best_hypothesis import best_hypothesis as best_hypothesis
from .denoise import GraphDenoiser as GraphDenoiser
from .denoise import denoise_loop as denoise_loop
from .denoise import denoise_step as denoise_step
from .denoise import graph_transformer as graph_transformer
from .dropout import dropout as dropout
from .encoder_layer import encoder_layer as encoder_layer
from .graph_conv import graph_conv as graph_conv
from .hierarchy_block import hierarchy_block as hierarchy_block
from .joint_attention import joint_attention as joint_attention
from .merge_hypotheses import merge_hypotheses as merge_hypotheses
from .norm_activation import norm_activation as norm_activation
from .procrustes import procrustes as procrustes
from .procrustes import procrustes_error as procrustes_error
from .relative_encoding import relative_encoding as relative_encoding
from .sample_hypotheses import sample_hypotheses as sample_hypotheses
from .strided_feed_forward import strided_feed_forward as strided_feed_forward
from .strided_temporal_conv import strided_temporal_conv as strided_temporal_conv
from .temporal_attention import temporal_attention as temporal_attention
from .temporal_mlp import temporal_mlp as temporal_mlp
from .temporal_mlp import temporal_mlp_forecast as temporal_mlp_forecast
from .temporal_networks import Layer as Layer
from .temporal_networks import TemporalNetworks as TemporalNetworks
from .temporal_networks import temporal_networks as temporal_networks
from .transformer_block import transformer_block as transformer_block
