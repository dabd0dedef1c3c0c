"""WS-ANL (Zeng et al., 2024): many 3D hypotheses of one 2D pose, by noise around a frozen lifter.

A variance model says how far the lifter will be off, joint by joint; noise of that size goes on the 2D pose and on its
mirror image; each noisy pair is lifted and merged into one hypothesis.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from posekernels.ops import merge_hypotheses, sample_hypotheses
from posekernels.pose.skeleton import H36M_17, Skeleton

from .lifting import FRAMES, Lifts
from .registry import create

ALPHA = {"h36m": 0.005, "3dhp": 0.01}  # noise where sigma is at its floor of 1, in normalised screen units
PAIRS = {"htnet": "variance_gcn", "mgcn_lw": "variance_linear"}  # lifter -> variance model, as published
CHUNK = 1024  # poses lifted at once: HTNet needs about 0.2 MB each


def with_mirror(keypoints: Tensor, skeleton: Skeleton = H36M_17) -> Tensor:
    """[B, 2, J, 2] from [B, J, 2]: each pose, and its mirror image."""
    return torch.stack((keypoints, skeleton.mirror(keypoints)), 1)


def check_keypoints(keypoints: Tensor) -> Tensor:
    """Refuse keypoints that are plainly in pixels.

    Returns:
        ``keypoints``. On a GPU no value is read, as the host would wait for it and a CUDA graph cannot record that:
        keypoints in pixels are NaN there.
    Raises:
        ValueError: most coordinates lie beyond what a joint in or near the picture can have.
    """
    beyond = (keypoints.detach().abs() > 3).double().mean() > 0.5
    if keypoints.device.type != "cpu":
        return keypoints.masked_fill(beyond, math.nan)
    if beyond:
        raise ValueError(
            "keypoints look like pixels (median absolute coordinate "
            f"{keypoints.detach().abs().median().item():.0f}); normalise them first: "
            "x * 2 / width - 1, y * 2 / width - height / width"
        )
    return keypoints


def ws_anl(lifter: str = "htnet", sizes: dict | None = None, variance_sizes: dict | None = None) -> WsAnl:
    """``create("ws_anl", lifter="mgcn_lw")``: a lifter and the variance model published beside it.

    Args:
        lifter: "htnet" or "mgcn_lw". sizes: its arguments. variance_sizes: the variance model's.
    """
    if lifter not in PAIRS:
        raise ValueError(f"ws_anl: lifter must be one of {', '.join(PAIRS)}, got {lifter!r}")
    return WsAnl(create(lifter, **sizes or {}), create(PAIRS[lifter], **variance_sizes or {}))


class WsAnl(Lifts):
    """A lifter, its variance model, and the sampling between them.

    Args:
        lifter: [B, 1, J, 2] -> [B, 1, J, 3]; frozen, in eval mode even when the rest trains (see ``freeze``).
        variance: [B, 1, J, 2] -> [B, 1, J, 1], relative to the lifter's mean error; None when only ``single`` is used.
        skeleton: of both.

    All of it starts in eval mode: hypotheses are drawn there.
    """

    mirrors = True
    members = ("lifter", "variance")

    def __init__(self, lifter: nn.Module, variance: nn.Module | None, skeleton: Skeleton = H36M_17):
        super().__init__()
        for name, net, outputs in (("lifter", lifter, 3), ("variance", variance, 1)):
            got = getattr(net, "outputs", outputs)  # networks of others may not say
            if got != outputs:
                raise ValueError(
                    f"ws_anl: the {name} network must give {outputs} number(s) per joint, {type(net).__name__} gives "
                    f"{got}: are lifter and variance model swapped?"
                )
        self.lifter, self.variance, self.skeleton = lifter, variance, skeleton
        self.freeze().eval()

    def freeze(self, lifter: bool = True) -> WsAnl:
        """Train the variance model around the frozen lifter; with ``lifter=False`` the lifter, before all else."""
        self.frozen = lifter
        self.lifter.requires_grad_(not lifter)
        if self.variance is not None:
            self.variance.requires_grad_(lifter)
        return self.train(self.training)

    def train(self, mode: bool = True) -> WsAnl:
        super().train(mode)
        still = self.lifter if self.frozen else self.variance
        if still is not None:
            still.eval()
        return self

    def sigma(self, views: Tensor) -> Tensor:
        """[B, V, J] the variance model's raw output for views [B, V, J, 2]; may be below 1, even negative."""
        if self.variance is None:
            raise ValueError("ws_anl: no variance model was given, so sigma must be")
        B, V, J, _ = views.shape
        return self.variance(views.reshape(B * V, 1, J, 2)).view(B, V, J)

    def merged(self, views: Tensor) -> Tensor:
        """[..., J, 3] merged poses, root 0, from views [..., V, J, 2]."""
        poses = self.lifter(views.flatten(0, -3)[:, None]).view(*views.shape[:-1], 3)
        return merge_hypotheses(poses, self.skeleton.mirrored, root=self.skeleton.root)

    def single(self, keypoints: Tensor) -> Tensor:
        """[B, J, 3] the pose without noise: the mean of the lift and of the mirrored lift. Keypoints are [B, J, 2]."""
        return self.merged(with_mirror(keypoints, self.skeleton))

    def every_frame(self, clips: Tensor) -> Tensor:
        """The single pose of every frame."""
        poses = [self.single(part) for part in clips.flatten(0, 1).split(FRAMES)]
        return torch.cat(poses).unflatten(0, clips.shape[:2])

    def forward(
        self,
        keypoints: Tensor,
        samples: int = 200,
        *,
        alpha: float = ALPHA["h36m"],
        seed: int = 1,
        first_pose: int = 0,
        sigma: Tensor | None = None,
        noise: Tensor | None = None,
        chunk: int = CHUNK,
    ) -> Tensor:
        """Sample hypotheses.

        Args:
            keypoints: [B, J, 2] in normalised screen units, or [B, 2, J, 2] with the mirrored poses beside them.
            samples: S >= 1.
            alpha: >= 0, the noise where sigma is at its floor; 0 gives S times the single pose.
            seed, first_pose: the noise of pose b is a function of (seed, first_pose + b), whatever the batch.
            sigma: [B, 2, J] in place of the variance model's output.
            noise: [B, S, 2, J, 2] in place of random numbers.
            chunk: poses lifted at once (two per hypothesis). Bounds memory; does not change which noise is drawn.
        Returns:
            [B, S, J, 3] metres, relative to the root, which is 0.
        Raises:
            ValueError: no samples, a negative alpha, or a wrong shape; on a CPU also NaN in sigma and keypoints in
                pixels, of which the poses are NaN on a GPU.

        Published quirk: each hypothesis is the mean of two *differently* noisy lifts, so its spread is smaller than
        that of one.
        """
        joints = self.skeleton.num_joints
        if keypoints.shape[1:] not in ((joints, 2), (2, joints, 2)):
            raise ValueError(
                f"ws_anl: keypoints must be [B, {joints}, 2] or [B, 2, {joints}, 2], got {list(keypoints.shape)}"
            )
        if keypoints.dim() == 3:
            keypoints = with_mirror(keypoints, self.skeleton)
        if samples < 1:
            raise ValueError(f"ws_anl: samples must be at least 1, got {samples}")
        if not (alpha >= 0 and math.isfinite(alpha)):
            raise ValueError(f"ws_anl: alpha must be a finite number of at least 0, got {alpha}")
        if chunk < 2:
            raise ValueError(f"ws_anl: chunk must be at least 2 (a pose and its mirror image), got {chunk}")
        B = keypoints.shape[0]
        if sigma is None:
            sigma = self.sigma(keypoints)
        elif sigma.shape != (B, 2, joints):
            raise ValueError(f"ws_anl: sigma must be {[B, 2, joints]}, got {list(sigma.shape)}")
        if noise is not None and noise.shape != (B, samples, 2, joints, 2):
            raise ValueError(f"ws_anl: noise must be {[B, samples, 2, joints, 2]}, got {list(noise.shape)}")
        if not torch.compiler.is_compiling():  # reading a value back would break the graph
            keypoints = check_keypoints(keypoints)
            if sigma.device.type == "cpu" and sigma.isnan().any():
                raise ValueError("ws_anl: sigma holds NaN: does the checkpoint belong to the variance model?")
        pairs = chunk // 2
        images, step = max(1, pairs // samples), min(pairs, samples)
        poses = keypoints.new_empty(B, samples, joints, 3)
        for b in range(0, B, images):
            for s in range(0, samples, step):
                x, spread, count = keypoints[b : b + images], sigma[b : b + images], min(step, samples - s)
                if noise is None:
                    views = sample_hypotheses(
                        x, spread, count, alpha=alpha, seed=seed, first_pose=first_pose + b, first_sample=s
                    )
                else:
                    eps = noise[b : b + images, s : s + count]
                    views = x[:, None] + (alpha * spread.clamp(min=1))[:, None, ..., None] * eps
                poses[b : b + images, s : s + count] = self.merged(views)
        return poses
