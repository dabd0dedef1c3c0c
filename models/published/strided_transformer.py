"""Parameter names of the published Strided Transformer checkpoints (``no_refine_*.pth`` of
``Vegetebird/StridedTransformer-Pose3D``)."""

from torch import Tensor

from posekernels.archive import CheckpointError

from ..strided_transformer import STRIDES
from . import count

RENAME = [  # ours -> published, applied in order
    (r"^embed\.", "encoder.0."),
    (r"^embed_norm\.", "encoder.1."),
    (r"^position$", "Transformer.pos_embedding"),
    (r"^strided_positions\.0$", "Transformer_reduce.model.pos_embedding_1"),
    (r"^strided_positions\.1$", "Transformer_reduce.model.pos_embedding_2"),
    (r"^strided_positions\.2$", "Transformer_reduce.model.pos_embedding_3"),
    (r"^vanilla\.", "Transformer.model.layers."),
    (r"^strided\.", "Transformer_reduce.model.layers."),
    (r"^unread_norms\.0\.", "Transformer.model.norm."),
    (r"^unread_norms\.1\.", "Transformer_reduce.model.norm."),
    (r"\.attention\.query\.", ".self_attn.linears.0."),
    (r"\.attention\.key\.", ".self_attn.linears.1."),
    (r"\.attention\.value\.", ".self_attn.linears.2."),
    (r"\.attention\.output\.", ".self_attn.linears.3."),
    (r"\.norm_attention\.", ".sublayer.0.norm."),
    (r"\.norm_feed_forward\.", ".sublayer.1.norm."),
    (r"norm\.gain$", "norm.a_2"),
    (r"norm\.shift$", "norm.b_2"),
    (r"\.hidden\.", ".feed_forward.w_1."),
    (r"(layers\.\d+)\.conv\.", r"\1.feed_forward.w_2."),
    (r"^head\.norm\.", "fcn.0."),
    (r"^head\.conv\.", "fcn.1."),
    (r"^full_head\.norm\.", "fcn_1.0."),
    (r"^full_head\.conv\.", "fcn_1.1."),
]


def configuration(state: dict[str, Tensor]) -> tuple[str, dict] | None:
    """Read off the shapes; heads and strides are the published ones.

    Raises:
        CheckpointError: strides that are not published for its frames: a file does not store them.
    """
    if "Transformer.pos_embedding" not in state:
        return None
    _, frames, channels = state["Transformer.pos_embedding"].shape
    strided = count(r"Transformer_reduce\.model\.layers\.(\d+)\.", state)
    if len(STRIDES.get(frames, ())) != strided:
        raise CheckpointError(
            f"a strided_transformer of {frames} frames and {strided} strided layers: no such strides are published, "
            f"and the file does not hold them; load it into create('strided_transformer', frames={frames}, strides=...)"
        )
    sizes = {"frames": frames, "layers": count(r"Transformer\.model\.layers\.(\d+)\.", state), "channels": channels}
    sizes["hidden"] = state["Transformer_reduce.model.layers.0.feed_forward.w_1.weight"].shape[0]
    sizes["joints"] = state["encoder.0.weight"].shape[1] // 2
    return "strided_transformer", sizes | {"out_joints": state["fcn.1.bias"].shape[0] // 3}
