"""What products in FP8 cost on the golden cases of two networks: ``python -m tests.eight_bits [FOLDER]``.

Computed with ``posekernels.eight_bits.reference``, on a CPU; the case of 243 frames of MixSTE takes a minute.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor

import posekernels
from tests import golden
from tests.golden_cases import diffpose, strided_transformer, tensors

CASES = ("mixste_f27", "mixste_f243", "strided_f27", "strided_f243", "strided_f351")


def poses(case: golden.Case) -> tuple[Tensor, Tensor, Tensor]:
    """(as published, in float32, in FP8), each [B, T, J, 3] metres."""
    if case.system == strided_transformer.SYSTEM:
        net, output = strided_transformer.networks(case)[0], "single"
    else:
        net, output = diffpose.mixste_network(case.config["model"], tensors(case.weights)), "y"
    x, want = torch.from_numpy(case["x"]), torch.from_numpy(case.arrays[f"out.{output}"])
    with torch.no_grad():
        return want, net(x), posekernels.fp8(net)(x)


def row(case: golden.Case) -> str:
    want, plain, low = poses(case)

    def joints(pose: Tensor) -> float:
        """Mean length in millimetres, relative to the root."""
        return (pose - pose[..., :1, :])[..., 1:, :].norm(dim=-1).mean().item() * 1e3

    errors = (golden.relative_error(pose, want.numpy()) for pose in (plain, low))
    return " | ".join(
        (
            f"| `{case.name}`",
            *(f"{error:.1e}" for error in errors),
            f"{joints(low - want):.0f}",
            f"{joints(want):.0f} |",
        )
    )


def main(folder: Path) -> None:
    print("| case | float32: relative error | FP8: relative error | FP8: joints are off by, mm | of, mm |")
    print("|---|---:|---:|---:|---:|")
    for name in CASES:
        print(row(golden.load(folder, name)), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else golden.DEFAULT_FOLDER)
