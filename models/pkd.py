"""PKD (ICME 2025) and its base siMLPe (WACV 2023): past motion to future motion, by maps over frequencies."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from posekernels.ops import temporal_mlp, temporal_mlp_forecast
from posekernels.prepared import OneCall

GAIN = 1e-8  # of the Xavier-uniform weights: an untrained network repeats the last frame


def dct_matrix(n: int) -> Tensor:
    """[n, n] float64, the orthonormal DCT-II: row k = frequency, column i = frame."""
    k, i = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(n, dtype=torch.float64)[None]
    matrix = math.sqrt(2 / n) * torch.cos(math.pi * (i + 0.5) * k / n)
    matrix[0] = math.sqrt(1 / n)
    return matrix


class MlpStack(nn.Module):
    """N residual blocks over C coordinates by T slots, their parameters stacked along axis 0 (``temporal_mlp``).

    ``state_dict`` shows them block by block, as if each block were a module: ``3.weight``.

    Args:
        blocks: N.
        coordinates, slots: C, T.
        pre: each block has the first map and norm of a PKD motion block.
        idle: each block stores such a map and norm but never reads them. Published quirk of PKD's distiller: they
            are initialised, saved and loaded, and are buffers here, so that no optimiser touches them.
        mix, norm: see ``temporal_mlp``.
    """

    def __init__(
        self,
        blocks: int,
        coordinates: int,
        slots: int,
        *,
        pre: bool = False,
        idle: bool = False,
        mix: str = "temporal",
        norm: str = "spatial",
    ):
        super().__init__()
        C, T, M = coordinates, slots, slots if mix == "temporal" else coordinates
        affine = {"spatial": (C,), "temporal": (T,), "all": (C, T), "none": ()}[norm]
        self.mix, self.norm = mix, norm
        # A norm's parameters are stored as they broadcast against [B, C, T].
        self._stored_as = {"pre_scale": (1, 1, T), "pre_shift": (1, 1, T)}
        broadcast = {"spatial": (1, C, 1), "temporal": (1, 1, T)}.get(norm, affine)
        self._stored_as |= {"scale": broadcast, "shift": broadcast}
        self.weight = nn.Parameter(torch.empty(blocks, M, M))
        self.bias = nn.Parameter(torch.zeros(blocks, M))
        self.scale = nn.Parameter(torch.ones(blocks, *affine)) if affine else None
        self.shift = nn.Parameter(torch.zeros(blocks, *affine)) if affine else None
        if pre or idle:
            stored = nn.Parameter if pre else nn.Buffer
            self.pre_weight = stored(torch.empty(blocks, T, T))
            self.pre_bias = stored(torch.zeros(blocks, T))
            self.pre_scale = stored(torch.ones(blocks, T))
            self.pre_shift = stored(torch.zeros(blocks, T))
        self._names = tuple(name for name, _ in self.named_parameters())
        for maps in (self.weight, getattr(self, "pre_weight", None)):
            if maps is not None:
                bound = GAIN * math.sqrt(3 / maps.shape[1])  # Xavier: sqrt(6 / (fan_in + fan_out)) of a square map
                nn.init.uniform_(maps, -bound, bound)

    def parameters_by_name(self) -> dict[str, Tensor]:
        """What ``temporal_mlp`` takes, by its argument names; stored but unread tensors are left out."""
        return {name: getattr(self, name) for name in self._names}

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T] -> [B, C, T]."""
        return temporal_mlp(x, **self.parameters_by_name(), mix=self.mix, norm=self.norm)

    def _stacked(self) -> dict[str, Tensor]:
        """In the published order: the last map, the first map and its norm, the last norm."""
        have = dict(self.named_parameters()) | dict(self.named_buffers())
        last = [name for name in ("scale", "shift") if name in have]
        return {name: have[name] for name in [*(n for n in have if n not in last), *last]}

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        stacked = {name: tensor if keep_vars else tensor.detach() for name, tensor in self._stacked().items()}
        for n in range(len(self.weight)):
            for name, tensor in stacked.items():
                shape = self._stored_as.get(name, tensor.shape[1:])
                destination[f"{prefix}{n}.{name}"] = tensor[n].view(shape)

    def _load_from_state_dict(self, state, prefix, metadata, strict, missing, unexpected, errors):
        known = set()
        for name, stacked in self._stacked().items():
            shape, found = self._stored_as.get(name, tuple(stacked.shape[1:])), {}
            for n in range(len(stacked)):
                key = f"{prefix}{n}.{name}"
                known.add(key)
                if key not in state:
                    missing.append(key)
                elif tuple(state[key].shape) != shape:
                    errors.append(f"{key} is {list(state[key].shape)}, the network has {list(shape)}")
                else:
                    found[n] = state[key].detach().view(stacked.shape[1:])
            if metadata.get("assign_to_params_buffers") and 0 < len(found) == len(stacked):
                whole, (owner, _, own) = torch.stack([*found.values()]), name.rpartition(".")
                if isinstance(stacked, nn.Parameter):
                    whole = nn.Parameter(whole, stacked.requires_grad)
                setattr(self.get_submodule(owner), own, whole)
            else:
                for n, tensor in found.items():
                    stacked.detach()[n].copy_(tensor)
        unexpected += [key for key in state if key.startswith(prefix) and key not in known]


class _Forecaster(nn.Module):
    """What both networks share: sizes, the transform and the checks."""

    def __init__(self, joints: int, history: int, future: int, blocks: dict[str, int], norm: str, mix: str):
        super().__init__()
        name = type(self).__name__.lower()
        for argument, value in {"joints": joints, "history": history, "future": future, **blocks}.items():
            if not isinstance(value, int) or value < (argument != "distill_blocks"):
                raise ValueError(f"{name}: {argument} must be a positive whole number, got {value!r}")
        if future > history:
            raise ValueError(f"{name}: future must be at most history ({history} frames), got {future}")
        if norm not in ("spatial", "temporal", "all", "none"):
            raise ValueError(f"{name}: norm must be one of spatial, temporal, all, none, got {norm!r}")
        if mix not in ("temporal", "spatial"):
            raise ValueError(f"{name}: mix must be one of temporal, spatial, got {mix!r}")
        self.joints, self.history, self.future = joints, history, future
        matrix, dtype = dct_matrix(history), torch.get_default_dtype()  # that of the parameters
        self.register_buffer("transform", matrix.to(dtype), persistent=False)
        self._one_call = OneCall()
        # Published: the numerical inverse, of which only the first rows mean anything.
        self.register_buffer("inverse", torch.linalg.inv(matrix)[:future].to(dtype).contiguous(), persistent=False)

    def check(self, motion: Tensor) -> Tensor:
        """[B, T, J, 3] -> [B, T, 3J], or ValueError."""
        want = (self.history, self.joints, 3)
        if motion.dim() != 4 or motion.shape[1:] != want:
            raise ValueError(
                f"{type(self).__name__.lower()}: history must be [B, {self.history}, {self.joints}, 3] (metres, "
                f"relative to the root), got {list(motion.shape)}"
            )
        return motion.flatten(2)

    def in_one_call(self, history: Tensor, *side) -> Tensor:
        """What ``forward`` gives, by ``temporal_mlp_forecast``; ``side``: its second stack and head, if there are."""
        return temporal_mlp_forecast(
            self.check(history),
            self.transform,
            self.inverse,
            self.embed.weight,
            self.embed.bias,
            self.motion.parameters_by_name(),
            self.head.weight,
            self.head.bias,
            *side,
            mix=self.motion.mix,
            norm=self.motion.norm,
        ).unflatten(2, (-1, 3))


class PKD(_Forecaster):
    """Past joints -> future joints: motion blocks, and a small distiller branch whose output is added.

    Args:
        joints: J, those that move (22 of Human3.6M's 32, 25 of CMU's 38, 23 of 3DPW's 24).
        history: observed frames, T.
        future: frames predicted at a time.
        blocks: motion blocks (published ``--num``).
        distill_blocks: distiller blocks (published ``--distill_layer_num``: 12 on Human3.6M, 6 on CMU and 3DPW).
        norm: axis of a block's last norm: "spatial", "temporal", "all", or "none" for no norm.
        mix: "spatial" replaces a block's last map over time by one over coordinates (published ``--spatial-fc``).
    """

    def __init__(
        self,
        joints: int = 22,
        history: int = 50,
        future: int = 10,
        blocks: int = 48,
        distill_blocks: int = 12,
        norm: str = "spatial",
        mix: str = "temporal",
    ):
        super().__init__(joints, history, future, {"blocks": blocks, "distill_blocks": distill_blocks}, norm, mix)
        C = 3 * joints
        self.motion = MlpStack(blocks, C, history, pre=True, norm=norm, mix=mix)
        self.distiller = MlpStack(distill_blocks, C, history, idle=True, norm=norm, mix=mix)
        self.embed, self.head, self.distill_head = (nn.Linear(C, C) for _ in range(3))
        for layer in (self.embed, self.head, self.distill_head):
            nn.init.xavier_uniform_(layer.weight, GAIN)
            nn.init.zeros_(layer.bias)

    def coefficients(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """DCT coefficients [B, T, 3J] -> (prediction, posterior), both [B, T, 3J]: the published forward pass."""
        h = self.embed(x).transpose(1, 2)  # both branches start here
        return self.head(self.motion(h).transpose(1, 2)), self.distill_head(self.distiller(h).transpose(1, 2))

    def branches(self, history: Tensor) -> tuple[Tensor, Tensor]:
        """[B, T, J, 3] metres -> (prediction, posterior), both [B, S, J, 3]: metres relative to the last frame."""
        prediction, posterior = self.coefficients(self.transform @ self.check(history))
        return tuple((self.inverse @ y).unflatten(2, (-1, 3)) for y in (prediction, posterior))

    def forward(self, history: Tensor, posterior: bool = True) -> Tensor:
        """[B, T, J, 3] metres, relative to the root -> the next frames [B, S, J, 3].

        Args:
            posterior: False leaves the distiller out: the preliminary prediction alone.
        """
        if not self._one_call.fits(self):
            return sum(self.branches(history)[: 1 + posterior]) + history[:, -1:]
        side = (self.distiller.parameters_by_name(), self.distill_head.weight, self.distill_head.bias)
        return self.in_one_call(history, *(side if posterior else ()))


class SiMLPe(_Forecaster):
    """Past joints -> future joints: one stack of blocks.

    Args:
        joints, history, future, blocks, norm, mix: as in ``PKD``. The published program's ``norm`` is "none" unless
            ``--with-normalization`` is given; its checkpoints have the spatial norm.
        temporal_only: the input and output layers map over time, not over coordinates (published ``--temporal-only``).
    """

    def __init__(
        self,
        joints: int = 22,
        history: int = 50,
        future: int = 10,
        blocks: int = 48,
        norm: str = "spatial",
        mix: str = "temporal",
        temporal_only: bool = False,
    ):
        super().__init__(joints, history, future, {"blocks": blocks}, norm, mix)
        C = 3 * joints
        self.temporal_only = temporal_only
        self.motion = MlpStack(blocks, C, history, norm=norm, mix=mix)
        M = history if temporal_only else C
        self.embed, self.head = nn.Linear(M, M), nn.Linear(M, M)
        nn.init.xavier_uniform_(self.head.weight, GAIN)
        nn.init.zeros_(self.head.bias)

    def coefficients(self, x: Tensor) -> Tensor:
        """DCT coefficients [B, T, 3J] -> prediction [B, T, 3J]: the published forward pass."""
        if self.temporal_only:
            return self.head(self.motion(self.embed(x.transpose(1, 2)))).transpose(1, 2)
        return self.head(self.motion(self.embed(x).transpose(1, 2)).transpose(1, 2))

    def branches(self, history: Tensor) -> tuple[Tensor]:
        """[B, T, J, 3] metres -> (prediction [B, S, J, 3],): metres relative to the last frame."""
        y = self.coefficients(self.transform @ self.check(history))
        return ((self.inverse @ y).unflatten(2, (-1, 3)),)

    def forward(self, history: Tensor) -> Tensor:
        """[B, T, J, 3] metres, relative to the root -> the next frames [B, S, J, 3]."""
        if self.temporal_only or not self._one_call.fits(self):
            return self.branches(history)[0] + history[:, -1:]
        return self.in_one_call(history)


def roll_out(net: nn.Module, history: Tensor, frames: int, **options) -> Tensor:
    """Forecast further than the network's own horizon by feeding its output back.

    Args:
        net: a PKD or SiMLPe.
        history: [B, T, J, 3] metres, T = ``net.history``.
        frames: how many future frames are wanted.
        options: for ``net.forward``.
    Returns:
        [B, frames, J, 3].
    """
    seen, future = history, []
    for _ in range(-(-frames // net.future)):
        future.append(net(seen, **options))
        seen = torch.cat((seen[:, net.future :], future[-1]), dim=1)
    return torch.cat(future, dim=1)[:, :frames]
