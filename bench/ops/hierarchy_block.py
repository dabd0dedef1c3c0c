"""``hierarchy_block`` at HTNet's sizes.

For inference: its gradient is the reference's, so only the forward pass is timed.
"""

from __future__ import annotations

import torch

from bench.cases import OpCase
from models import create
from models.htnet import HEADS, LIMB_JOINTS
from posekernels.ops import hierarchy_block
from posekernels.ops.hierarchy_block import PARAMETERS

MULTIPLY_ADDS = 12_633_152  # per pose: ws_anl section 16


def case(B: int, **extra) -> OpCase:
    def make():
        torch.manual_seed(0)
        block = create("htnet", depth=1).blocks[0]
        weights = [w.detach().clone() for w in block.weights()]
        return {"x": torch.randn(B, 17, 240)} | dict(zip(PARAMETERS, weights))

    def call(i, backend):
        return hierarchy_block(i["x"], [i[n] for n in PARAMETERS], limbs=LIMB_JOINTS, heads=HEADS, backend=backend)

    values = 2 * B * 17 * 240 + 1_014_162
    return OpCase("hierarchy_block", f"B={B}", make, call, 2.0 * B * MULTIPLY_ADDS, lambda size: values * size, **extra)


CASES = [case(1, quick=True), case(33), case(400, dtypes=(torch.bfloat16,))]
