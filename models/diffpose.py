"""DiffPose (Gong et al., CVPR 2023): a first estimate of the pose, refined by a few reverse diffusion steps.

Video setting: MixSTE on whole clips, then GCNdiff. Frame setting: GCNpose on single frames, then GCNdiff.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from posekernels._tables import table
from posekernels.checks import nearest
from posekernels.graphs import Replays
from posekernels.ops import denoise_loop
from posekernels.ops.denoise.reference import draw
from posekernels.prepared import outside_inference_mode

from .gcndiff import GCNdiff
from .gcnpose import GCNpose
from .layers import KeepsBuffers
from .lifting import FRAMES, Lifts, chunked, lift_both_ways, stitched
from .mixste import MixSTE
from .registry import create

SCHEDULES = ("linear", "quad", "const", "jsd", "sigmoid")
SKIPS = ("uniform", "quad")


def _known(what: str, name: str, names: tuple[str, ...]) -> None:
    if name not in names:
        raise ValueError(f"{what} must be one of {', '.join(names)}, got {name!r}{nearest(name, names)}")


def beta_schedule(name: str = "linear", start: float = 1e-4, end: float = 1e-3, timesteps: int = 51) -> Tensor:
    """[T] float32 on the CPU: the noise variance added at each timestep; computed in float64, then rounded.

    Raises:
        ValueError: an unknown schedule, ``timesteps`` < 1, or betas that leave (0, 1].
    """
    _known("beta_schedule", name, SCHEDULES)
    if timesteps < 1:
        raise ValueError(f"timesteps must be at least 1, got {timesteps}")
    kind = {"dtype": torch.float64, "device": "cpu"}
    betas = {
        "linear": lambda: torch.linspace(start, end, timesteps, **kind),
        "quad": lambda: torch.linspace(start**0.5, end**0.5, timesteps, **kind) ** 2,
        "const": lambda: torch.full((timesteps,), end, **kind),
        "jsd": lambda: 1 / torch.arange(timesteps, 0, -1, **kind),
        "sigmoid": lambda: torch.linspace(-6, 6, timesteps, **kind).sigmoid() * (end - start) + start,
    }[name]()
    if not ((betas > 0) & (betas <= 1)).all():
        raise ValueError(f"beta_schedule {name!r}: betas must lie in (0, 1], got start={start}, end={end}")
    return betas.float()


def alpha_bars(betas: Tensor) -> Tensor:
    """[T + 1] float32, entry t + 1 for timestep t, entry 0 (before all noise) exactly 1.

    Published quirk: the product is rounded to float32 at every entry, and small timesteps show it.
    """
    factors = 1 - torch.cat((betas.new_zeros(1), betas))
    return factors.double().cumprod(0).float()


@dataclass(frozen=True)
class Sampling:
    """How the reverse diffusion runs.

    Args:
        steps: S, evaluations of the denoiser (the published ``test_timesteps``).
        limit: timesteps below this one are visited (``test_num_diffusion_timesteps``).
        skip: spacing of the visited timesteps, "uniform" or "quad".
        eta: 0 for deterministic steps, 1 for the noise of DDPM.
        hypotheses: R, repetitions of every pose (``test_times``); identical when ``eta`` is 0.
    """

    steps: int = 1
    limit: int = 6
    skip: str = "uniform"
    eta: float = 0.0
    hypotheses: int = 1

    def __post_init__(self):
        _known("skip", self.skip, SKIPS)
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")
        if self.steps > self.limit:
            raise ValueError(f"steps must be at most limit={self.limit} (the timesteps there are), got {self.steps}")
        if not 0 <= self.eta < math.inf:
            raise ValueError(f"eta must be 0 (no noise), 1 (as much as DDPM) or another number >= 0, got {self.eta}")
        if self.hypotheses < 1:
            raise ValueError(f"hypotheses must be at least 1, got {self.hypotheses}")

    @property
    def sequence(self) -> list[int]:
        """Visited timesteps, smallest first (they are visited from the largest).

        Published quirks: "uniform" can have more entries than ``steps``; "quad" can repeat, and ends at 0.8 limit.
        """
        if self.skip == "uniform":
            return list(range(0, self.limit, self.limit // self.steps))
        # NumPy's points, as published: torch's differ in the last bit, which truncation turns into another timestep.
        return [int(s) for s in np.linspace(0, np.sqrt(0.8 * self.limit), self.steps) ** 2]


PUBLISHED_SAMPLING = {  # (setting, 2D input) -> as in the published configurations
    ("video", "cpn"): Sampling(steps=1, limit=6),
    ("video", "gt"): Sampling(steps=2, limit=12),
    ("frame", "cpn"): Sampling(steps=2, limit=24),
    ("frame", "gt"): Sampling(steps=2, limit=12),
}


class Diffusion(KeepsBuffers):
    """The forward process and the DDIM coefficients of the reverse one.

    Args: as ``beta_schedule``.
    """

    def __init__(self, schedule: str = "linear", start: float = 1e-4, end: float = 1e-3, timesteps: int = 51):
        super().__init__()
        betas = beta_schedule(schedule, start, end, timesteps)
        self.timesteps = timesteps
        self.alphas = alpha_bars(betas).double()  # stay on the CPU: steps are planned by the host
        alpha_bar = self.alphas.float().to(torch.get_default_device())  # as PyTorch's own buffers
        self.register_buffer("alpha_bar", alpha_bar, persistent=False)
        self._planned: dict[Sampling, tuple[list[int], Tensor]] = {}

    def check(self, t: int) -> None:
        """Raises ValueError unless ``t`` is a timestep of the schedule."""
        if not 0 <= t < self.timesteps:
            raise ValueError(f"timestep must lie in 0..{self.timesteps - 1} (the schedule's), got {t}")

    def add_noise(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t = sqrt(abar_t) x + sqrt(1 - abar_t) noise, for [B, J, C] and timesteps [B]."""
        alpha = self.alpha_bar[t + 1].to(torch.promote_types(x.dtype, torch.float32))[:, None, None]
        return alpha.sqrt().to(x.dtype) * x + (1 - alpha).sqrt().to(x.dtype) * noise

    def coefficients(self, sampling: Sampling) -> tuple[list[int], Tensor]:
        """(visited timesteps, [S, 5] float32 on the CPU for ``denoise_loop``), from the largest timestep down.

        They are kept: do not write to them.

        Raises:
            ValueError: a timestep outside the schedule, or at its end in pure noise; an ``eta`` > 1 that asks for more
                noise than a timestep has.
        """
        if sampling not in self._planned:
            with outside_inference_mode():
                self._planned[sampling] = self._plan(sampling)
        return self._planned[sampling]

    def _plan(self, sampling: Sampling) -> tuple[list[int], Tensor]:
        """See ``coefficients``."""
        sequence = sampling.sequence
        for t in (sampling.limit - 1, *sequence):
            self.check(t)
        alpha = self.alphas
        if alpha[max(sequence) + 1] <= 0:
            raise ValueError(f"timestep {max(sequence)} leaves nothing of the pose (alpha_bar is 0): start below it")
        rows = []
        for t, previous in zip(reversed(sequence), reversed([-1, *sequence[:-1]])):
            a, b = alpha[t + 1], alpha[previous + 1]  # of this timestep and of the one that is stepped to
            z = sampling.eta * ((1 - a / b) * (1 - b) / (1 - a)).sqrt()
            if z**2 > 1 - b and sampling.eta > 1:
                raise ValueError(f"eta={sampling.eta} asks for more noise than timestep {previous} has; 1 never does")
            e = (1 - b - z**2).clamp(min=0).sqrt()
            clean_x, clean_e = a.rsqrt(), -((1 - a) / a).sqrt()
            rows.append(torch.stack((clean_x, clean_e, b.sqrt() * clean_x, b.sqrt() * clean_e + e, z)))
        return sequence[::-1], torch.stack(rows).float()


@dataclass(frozen=True)
class Refined:
    """What a pipeline returns; leading axes as those of its input (... is [k, F] for chunks, [B] for frames).

    Args:
        initial: [..., J, 3] metres, the first estimate.
        uvxyz: [R, ..., J, 5] the refined hypotheses, 2D and 3D, roots as predicted.
    """

    initial: Tensor
    uvxyz: Tensor

    @property
    def hypotheses(self) -> Tensor:
        """[R, ..., J, 3] metres, root-relative."""
        return _rooted(self.uvxyz[..., 2:])

    @property
    def xyz(self) -> Tensor:
        """[..., J, 3] metres, root-relative: the mean of the hypotheses."""
        return _rooted(self.uvxyz.mean(0)[..., 2:])


def _rooted(pose: Tensor) -> Tensor:
    # Out of place: the published in-place line overlaps its own input and, on a CPU, moves no joint but the root.
    return pose - pose[..., :1, :]


def diffpose(
    setting: str = "video",
    initial: dict | None = None,
    denoiser: dict | None = None,
    diffusion: dict | None = None,
    sampling: dict | None = None,
    seed: int = 0,
) -> DiffPose:
    """``create("diffpose", setting="frame")``.

    Args:
        setting: "video" (MixSTE on clips) or "frame" (GCNpose on single frames).
        initial, denoiser, diffusion, sampling: arguments of MixSTE or GCNpose, of GCNdiff, ``Diffusion``, ``Sampling``.
        seed: of the noise that ``lift`` draws.
    """
    _known("setting", setting, ("video", "frame"))
    refiner = create("gcndiff", **denoiser or {})
    pose = create("mixste" if setting == "video" else "gcnpose", **initial or {})
    kind = VideoDiffPose if setting == "video" else FrameDiffPose
    return kind(pose, refiner, Diffusion(**diffusion or {}), Sampling(**sampling) if sampling else None, seed)


class DiffPose(Lifts):
    """A pose network and the denoiser that refines its estimate.

    Args:
        initial: gives the first estimate.
        denoiser: GCNdiff over (u, v, x, y, z).
        diffusion: the schedule the denoiser was trained with.
        sampling: how ``lift`` and ``forward`` refine; by default as published, for detected keypoints.
        seed: of the noise that ``lift`` draws, which is only for an ``eta`` > 0.

    Both start in eval mode: poses are refined there.
    """

    mirrors = True
    members = ("initial", "denoiser")
    usual: Sampling

    def __init__(
        self,
        initial: Lifts,
        denoiser: GCNdiff,
        diffusion: Diffusion | None = None,
        sampling: Sampling | None = None,
        seed: int = 0,
    ):
        super().__init__()
        self.initial, self.denoiser, self.skeleton = initial, denoiser, denoiser.skeleton
        self.diffusion = Diffusion() if diffusion is None else diffusion
        self.sampling, self.seed = sampling or self.usual, seed
        self._replays = Replays()
        self.eval()

    def refined(self, pieces: Iterable[Tensor]) -> Tensor:
        """The poses of ``forward``, piece by piece, each with noise of its own."""
        return torch.cat([self(piece, seed=self.seed + i).xyz for i, piece in enumerate(pieces)])

    def refine(
        self,
        keypoints: Tensor,
        pose: Tensor,
        sampling: Sampling,
        noise: Tensor | None = None,
        seed: int | None = None,
    ) -> Tensor:
        """Reverse diffusion from an estimate, as it stands: published, no noise is added before the first step.

        Args:
            keypoints: [B, J, 2] normalised screen units.
            pose: [B, J, 3] metres.
            sampling: steps, noise and hypotheses.
            noise: [S, R * B, J, 5] unit noise of every step, hypothesis-major; only used when ``eta`` > 0.
            seed: of the generator that draws the noise when none is given; needed when ``eta`` > 0.
        Returns:
            [R, B, J, 5]
        Raises:
            ValueError: timesteps outside the schedule, or ``eta`` > 0 with neither noise nor seed.
        """
        if sampling.eta > 0 and noise is None and seed is None:
            raise ValueError(f"eta={sampling.eta} draws noise: give seed or noise")
        self.diffusion.coefficients(sampling)  # refuses what cannot be
        x = torch.cat((keypoints, pose), dim=-1).repeat(sampling.hypotheses, 1, 1)
        if sampling.eta == 0:
            return self._replays(sampling, partial(self._chain, sampling), x)
        return self._chain(sampling, x, noise, seed)

    def _chain(self, sampling: Sampling, x: Tensor, noise: Tensor | None = None, seed: int | None = None) -> Tensor:
        """Every step of ``refine``: [R * B, J, 5] -> [R, B, J, 5]."""
        timesteps, coefficients = self.diffusion.coefficients(sampling)
        if not self.denoiser.fits():
            x = self._step_by_step(x, timesteps, coefficients.tolist(), noise, seed)
            return x.unflatten(0, (sampling.hypotheses, -1))
        x = denoise_loop(
            x,
            self.denoiser.prepared(),
            self.denoiser.time_shifts(timesteps),
            table(tuple(map(tuple, coefficients.tolist())), x.device, x.dtype),
            noise=noise,
            seed=seed,
        )
        return x.unflatten(0, (sampling.hypotheses, -1))

    def _step_by_step(
        self, x: Tensor, timesteps, coefficients: list[list[float]], noise: Tensor | None, seed
    ) -> Tensor:
        """``denoise_loop`` with the denoiser called as a module."""
        for s, (t, (_, _, keep_x, keep_e, keep_z)) in enumerate(zip(timesteps, coefficients)):
            e = self.denoiser(x, x.new_full((len(x),), t))
            x = keep_x * x + keep_e * e
            if noise is not None:
                x = x + keep_z * noise[s]
            elif seed is not None and keep_z != 0:
                x = x + keep_z * draw(tuple(x.shape), seed, s, 0, x.device).to(x.dtype)
        return x


class VideoDiffPose(DiffPose):
    """The video setting: MixSTE on a clip and on its mirror image, then GCNdiff on every frame."""

    initial: MixSTE
    usual = PUBLISHED_SAMPLING["video", "cpn"]

    @property
    def frames(self) -> int:
        """F of a chunk."""
        return self.initial.frames

    def estimate(self, chunks: Tensor) -> Tensor:
        """[k, F, J, 2] -> [k, F, J, 3] metres: the mean over the chunks and their mirror images."""
        self.initial.check(chunks)  # ``lift`` would take clips of other lengths
        return lift_both_ways(self.initial.lift, chunks, self.skeleton.mirror)

    @torch.no_grad()
    def forward(self, chunks: Tensor, sampling: Sampling | None = None, **noise) -> Refined:
        """[k, F, J, 2] chunks of clips (``chunked``) -> poses of every frame. ``noise``: as in ``refine``.

        Published quirk: the estimate's root stays as predicted until the end.
        """
        pose = self.estimate(chunks)
        x = self.refine(chunks.flatten(0, 1), pose.flatten(0, 1), sampling or self.sampling, **noise)
        return Refined(pose, x.unflatten(1, chunks.shape[:2]))

    def every_frame(self, clips: Tensor) -> Tensor:
        chunks = chunked(clips, self.frames)
        return stitched(self.refined(chunks.flatten(0, 1).split(4)).unflatten(0, chunks.shape[:2]), clips.shape[1])


class FrameDiffPose(DiffPose):
    """The frame setting: GCNpose on single frames, then GCNdiff."""

    initial: GCNpose
    usual = PUBLISHED_SAMPLING["frame", "cpn"]

    @torch.no_grad()
    def forward(self, keypoints: Tensor, sampling: Sampling | None = None, **noise) -> Refined:
        """[B, J, 2] -> poses. ``noise``: as in ``refine``. Here the estimate's root is subtracted first."""
        pose = _rooted(self.initial(keypoints))
        return Refined(pose, self.refine(keypoints, pose, sampling or self.sampling, **noise))

    def every_frame(self, clips: Tensor) -> Tensor:
        return self.refined(clips.flatten(0, 1).split(FRAMES)).unflatten(0, clips.shape[:2])
