"""Parameter names of the published Strided Transformer checkpoints (``no_refine_*.pth`` of
``Vegetebird/StridedTransformer-Pose3D``)."""

from posekernels.archive import CheckpointError

from ..strided_transformer import STRIDES

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


def configuration(checkpoint) -> tuple[str, dict]:
    """(name, arguments) for ``models.create``, read off the shapes; heads and strides are the published ones.

    Raises:
        CheckpointError: a checkpoint of another network, or of strides that are not published for its frames: it does
            not store them.
    """
    try:
        state = {str(name).removeprefix("module."): tensor.shape for name, tensor in checkpoint.items()}
        _, frames, channels = state["Transformer.pos_embedding"]
        hidden = state["Transformer_reduce.model.layers.0.feed_forward.w_1.weight"][0]
        joints, out_joints = state["encoder.0.weight"][1] // 2, state["fcn.1.bias"][0] // 3
    except (AttributeError, KeyError, IndexError, ValueError) as error:
        raise CheckpointError(f"not a Strided Transformer's state dict ({error})") from None

    def layers(prefix: str) -> int:
        return len({name.removeprefix(prefix).partition(".")[0] for name in state if name.startswith(prefix)})

    strided = layers("Transformer_reduce.model.layers.")
    if len(STRIDES.get(frames, ())) != strided:
        raise CheckpointError(
            f"a network of {frames} frames and {strided} strided layers: no such strides are published, and the file "
            f"does not hold them; create('strided_transformer', frames={frames}, strides=(...)) first"
        )
    config = {"frames": frames, "layers": layers("Transformer.model.layers."), "channels": channels, "hidden": hidden}
    return "strided_transformer", config | {"joints": joints, "out_joints": out_joints}
