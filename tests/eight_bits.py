"""What products in FP8 cost: ``python -m tests.eight_bits [FOLDER]``, on golden cases and on trained weights.

Computed with ``posekernels.eight_bits.reference``, on a CPU; the case of 243 frames of MixSTE takes a minute. The
trained weights are those of the lifter that ships, the poses those of the starter set that it has not seen.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import posekernels
from posekernels import models
from posekernels.models.lifting import pace
from posekernels.pose.camera import looking_at
from posekernels.pose.keypoints import centre_on_person
from posekernels.train.data.clips import Clip
from posekernels.train.data.motion import load_starter
from posekernels.train.evaluate import target_of
from posekernels.train.recipes.any_camera import as_detected
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


def unseen_clips() -> list[Clip]:
    """The starter set's test clips, in one view each."""
    return [as_detected(clip, True) for clip in load_starter().test if clip.camera == 0]


@torch.no_grad()
def trained(clips: Sequence[Clip]) -> tuple[float, float, float]:
    """(error in float32, error in FP8, distance between both) of the lifter that ships: mean over joints, in mm."""
    plain = models.load("lifter").eval()
    low = posekernels.fp8(plain)
    found = []
    for clip in clips:
        _, apart = pace(plain, clip.fps)
        keypoints = torch.from_numpy(np.ascontiguousarray(clip.keypoints))
        person, centre, _ = centre_on_person(keypoints, apart * plain.frames | 1)
        focal, principal = torch.from_numpy(clip.intrinsics).split((2, 7))
        ray = (centre - principal[:2]) / focal
        poses = [looking_at(models.lift(net, person, apart=apart), ray) for net in (plain, low)]
        target = torch.from_numpy(target_of(clip))
        pairs = ((poses[0], target), (poses[1], target), (poses[1], poses[0]))
        found.append(torch.stack([(a - b).norm(dim=-1).mean(-1) for a, b in pairs]))
    plain_mm, low_mm, between_mm = (1e3 * torch.cat(found, 1).mean(1)).tolist()
    return plain_mm, low_mm, between_mm


def main(folder: Path) -> None:
    print("| case | float32: relative error | FP8: relative error | FP8: joints are off by, mm | of, mm |")
    print("|---|---:|---:|---:|---:|")
    for name in CASES:
        print(row(golden.load(folder, name)), flush=True)
    clips = unseen_clips()
    plain, low, between = trained(clips)
    print(f"\nThe lifter that ships, on {sum(len(clip.keypoints) for clip in clips)} frames that it has not seen:")
    print(f"MPJPE {plain:.2f} mm in float32, {low:.2f} mm in FP8; poses differ by {between:.2f} mm")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else golden.DEFAULT_FOLDER)
