"""Parameter names of the published Strided Transformer checkpoints (``no_refine_*.pth`` of
``Vegetebird/StridedTransformer-Pose3D``)."""

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
