"""WS-ANL's light lifter and its variance models at one pose, 64 and 400; and HTNet's 200 hypotheses of a pose.

ONNX Runtime and OpenVINO compute the networks of it, pose by pose; its sampling and merging are ours there too. The
memory of an evaluation is measured at 512 poses, 200 hypotheses each.
"""

from __future__ import annotations

from torch import nn

from bench.cases import ModelCase, keypoints
from bench.models.htnet import MULTIPLY_ADDS as HTNET
from posekernels.models import create
from posekernels.models.ws_anl import WsAnl

SAMPLES = 200
MULTIPLY_ADDS = {"mgcn_lw": 2_572_899, "variance_gcn": 19_184_194, "variance_linear": 11_456}  # per pose


inputs = keypoints(1)


class Exported(nn.Module):
    """A network that an engine computes, in the place of one of PyTorch's."""

    def __init__(self, run):
        super().__init__()
        self.forward = run


def exported(net, poses, export):
    (x,) = poses
    lifter = export(inputs(2 * SAMPLES), net.lifter)
    whole = WsAnl(Exported(lifter), Exported(export(inputs(2 * len(x)), net.variance)))
    return lambda: whole(x, SAMPLES, seed=1, chunk=2 * SAMPLES)


CASES = [
    ModelCase(
        name,
        make=lambda name=name: create(name),
        inputs=inputs,
        batches=(1, 64, 400),
        flops=lambda batch, count=count: 2.0 * count * batch,
        training_batch=256,
        unchecked_training="dropout draws other masks" if name == "variance_linear" else "",
    )
    for name, count in MULTIPLY_ADDS.items()
] + [
    ModelCase(
        f"ws_anl {SAMPLES} hypotheses",
        make=lambda: WsAnl(create("htnet"), create("variance_gcn")),
        inputs=lambda batch: (inputs(batch)[0][:, 0],),
        batches=(1, 8, 32),
        flops=lambda batch: 2.0 * batch * (2 * SAMPLES * HTNET + 2 * MULTIPLY_ADDS["variance_gcn"]),
        run=lambda net, inputs: net(*inputs, SAMPLES, seed=1),
        session=exported,
        memory_only=(512,),
    )
]
