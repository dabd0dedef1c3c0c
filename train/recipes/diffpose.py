"""DiffPose's training of GCNdiff: what a batch is, the loss, and the published constants."""

from __future__ import annotations

import torch
from torch import Tensor

from models.diffpose import Diffusion
from models.gcndiff import GCNdiff

VIDEO_NOISE = (0.5, 0.5, 1.0, 1.0, 1.0)  # scale of the noise on u, v, x, y, z in the video setting


def pick_components(mixture: Tensor, uniform: Tensor) -> Tensor:
    """Index of the mixture component each joint draws: how many cumulative weights are <= the uniform number.

    Args:
        mixture: [B, J, M, 5] rows of (weight, u, v, scale u, scale v).
        uniform: [B, J] in [0, 1).
    Returns:
        [B, J] int64, at most M - 1 (weights that sum to a little less than 1 must not overflow).
    """
    cumulative = mixture[..., 0].cumsum(-1)
    return (cumulative <= uniform[..., None]).sum(-1).clamp(max=mixture.shape[2] - 1)


def training_poses(mixture: Tensor, pose: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """([B, J, 5] uv of the drawn component and xyz relative to the root, [B, J, 5] its noise scale).

    Args:
        mixture, uniform: as in ``pick_components``.
        pose: [B, J, 3] metres, any origin.
    """
    index = pick_components(mixture, uniform)[..., None, None].expand(-1, -1, 1, 5)
    drawn = mixture.gather(2, index).squeeze(2)
    xyz = pose - pose[:, :1]
    return torch.cat((drawn[..., 1:3], xyz), -1), torch.cat((drawn[..., 3:5], torch.ones_like(xyz)), -1)


def timestep_pairs(half: Tensor, timesteps: int, count: int) -> Tensor:
    """[count] timesteps: ``half`` (count // 2 + 1 draws) and their mirror images T - 1 - t."""
    return torch.cat((half, timesteps - 1 - half))[:count]


def denoising_loss(
    net: GCNdiff, diffusion: Diffusion, x: Tensor, unit_noise: Tensor, scale: Tensor, t: Tensor
) -> dict[str, Tensor]:
    """Squared error of the predicted noise, summed over joints and channels, mean over the batch.

    Args:
        x: [B, J, 5] clean poses.
        unit_noise: [B, J, 5] drawn from N(0, 1).
        scale: [B, J, 5] or [5]; the target is the *scaled* noise.
        t: [B] timesteps.
    Returns:
        ``loss``, and ``x_t``, ``noise``, ``predicted`` [B, J, 5].
    """
    noise = unit_noise * scale
    x_t = diffusion.add_noise(x, noise, t)
    predicted = net(x_t, t)
    loss = (noise - predicted).square().sum((1, 2)).mean()
    return {"loss": loss, "x_t": x_t, "noise": noise, "predicted": predicted}
