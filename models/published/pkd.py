"""Parameter names of published PKD (``cobblestones/PKD-MLP``) and siMLPe (``dulucas/siMLPe``) checkpoints."""

from __future__ import annotations

import re

from torch import Tensor, nn

from posekernels.archive import CheckpointError

from ..pkd import SiMLPe
from . import count

_LEGACY = "motion_transformer.transformer."  # how the published siMLPe files say what its code calls _CURRENT
_CURRENT = "motion_mlp.mlps."
RENAME_OLDER = [(f"^{re.escape(_LEGACY)}", _CURRENT)]


def rename(net: nn.Module) -> list[tuple[str, str]]:
    """The rules for ``net``, ours -> published: the two programs name their blocks differently, the "all" norm too."""
    scale, shift = ("weight", "bias") if net.motion.norm == "all" else ("alpha", "beta")
    return [
        (r"^motion\.(\d+)\.", rf"{_CURRENT}\1." if isinstance(net, SiMLPe) else r"MLPBlocks.\1."),
        (r"^distiller\.(\d+)\.", r"PosteriorKnowledgeDistiller.\1."),
        (r"^embed\.", "motion_fc_in."),
        (r"^head\.", "motion_fc_out."),
        (r"^distill_head\.", "motion_fc_for_distill."),
        (r"(\.\d+)\.pre_(weight|bias)$", r"\1.fc_temporal.fc.\2"),
        (r"(\.\d+)\.pre_scale$", r"\1.norm_temporal.alpha"),
        (r"(\.\d+)\.pre_shift$", r"\1.norm_temporal.beta"),
        (r"(\.\d+)\.(weight|bias)$", r"\1.fc0.fc.\2"),
        (r"(\.\d+)\.scale$", rf"\1.norm0.{scale}"),
        (r"(\.\d+)\.shift$", rf"\1.norm0.{shift}"),
    ]


def family(state: dict[str, Tensor]) -> str:
    """How a published state dict names its blocks: PKD's way, siMLPe's code's, or that of siMLPe's published files."""
    return next(prefix + "N" for prefix in (_LEGACY, _CURRENT, "MLPBlocks.") if any(prefix in n for n in state))


def configuration(state: dict[str, Tensor]) -> tuple[str, dict] | None:
    """Everything is read off the shapes, as far as they tell.

    A siMLPe whose maps are all C wide and whose norm is over coordinates, or absent, stores T nowhere: it is taken for
    one with maps over coordinates (``--spatial-fc``) and the published T = 50. Where a PKD has C = T, its maps are
    taken to be over time.

    Raises:
        CheckpointError: a file that stores C nowhere.
    """
    pkd = any(name.startswith("MLPBlocks.") for name in state)
    if not pkd and not any(name.startswith(_CURRENT) for name in state):
        return None
    prefix = "MLPBlocks." if pkd else _CURRENT
    outer, bias = state["motion_fc_in.weight"], state[f"{prefix}0.fc0.fc.bias"]
    affine = next((state[n] for n in (f"{prefix}0.norm0.alpha", f"{prefix}0.norm0.weight") if n in state), None)
    # Without a norm over coordinates nothing but the outer maps tells C.
    history = len(state[f"{prefix}0.fc_temporal.fc.bias"]) if pkd else None
    norm, C = "none", len(outer)
    if affine is not None and affine.dim() == 2:
        norm, C, history = "all", *affine.shape
    elif affine is not None and affine.shape[2] > 1:
        norm, history = "temporal", affine.shape[2]
    elif affine is not None:
        norm, C = "spatial", affine.shape[1]
    history = history or next((n for n in (len(bias), len(outer)) if n != C), 50)
    if C % 3:  # temporal_only, and no norm over coordinates
        raise CheckpointError(
            f"{C} coordinates are not whole joints: the number of joints cannot be told from the shapes"
        )
    config = {"joints": C // 3, "history": history, "norm": norm}
    config["blocks"] = count(rf"{re.escape(prefix)}(\d+)\.", state)
    config["mix"] = "temporal" if len(bias) == history else "spatial"
    if pkd:
        return "pkd", config | {"distill_blocks": count(r"PosteriorKnowledgeDistiller\.(\d+)\.", state)}
    return "simlpe", config | {"temporal_only": len(outer) != C}
