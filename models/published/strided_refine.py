"""Parameter names of the published refine checkpoints (``refine_*.pth``)."""

from torch import Tensor

RENAME = [  # ours -> published, applied in order
    (r"^hidden\.", "post_refine.0."),
    (r"^score\.", "post_refine.3."),
]


def configuration(state: dict[str, Tensor]) -> tuple[str, dict] | None:
    """Read off the shapes."""
    if "post_refine.0.weight" not in state:
        return None
    return "strided_refine", {"joints": state["post_refine.0.weight"].shape[1] // 6}
