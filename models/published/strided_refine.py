"""Parameter names of the published refine checkpoints (``refine_*.pth``)."""

RENAME = [  # ours -> published, applied in order
    (r"^hidden\.", "post_refine.0."),
    (r"^score\.", "post_refine.3."),
]
