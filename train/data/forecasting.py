"""Motion for forecasting, in memory: clips of 3D joints, which joints are forecast, windows and their samplings."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from posekernels.archive import DataError
from posekernels.checks import nearest
from posekernels.pose.skeleton import CMU_25_OF_38, CMU_38, H36M_17, H36M_22_OF_32, H36M_32, SMPL_24, Skeleton

OBSERVED, TRAINED, EVALUATED = 50, 10, 25  # frames of a window: seen, forecast in training, forecast in evaluation
PUBLISHED_SEED = 1234567890  # of the evaluation samplings, the same since LearnTrajDep


@dataclass(frozen=True)
class Layout:
    """Which joints of a skeleton a network forecasts, and how a full skeleton is put together again.

    Args:
        name: of the data set.
        skeleton: the whole one, J joints.
        used: the joints that the network sees, in its order.
        copies: {joint: the used joint it always sits on}. Joints in neither are constant: they stay at ground truth,
            and count in the mean error. Published quirk.
        reported: future frames (from 1) of the table.
        milliseconds: nominal, per frame; 40 for what the field calls 25 frames per second.
        decimals: of the table.
        per_action: the figure is the mean over actions of each action's mean; else windows are pooled.
    """

    name: str
    skeleton: Skeleton
    used: tuple[int, ...]
    copies: dict[int, int]
    reported: tuple[int, ...] = (2, 4, 8, 10, 14, 18, 22, 25)
    milliseconds: float = 40.0
    decimals: int = 1
    per_action: bool = False

    @property
    def joints(self) -> int:
        return self.skeleton.num_joints

    @property
    def labels(self) -> list[str]:
        """Nominal milliseconds of the reported frames."""
        return [f"{f * self.milliseconds:.0f}" for f in self.reported]

    def restore(self, predicted: Tensor, truth: Tensor) -> Tensor:
        """Used joints [..., U, 3] -> the whole skeleton [..., J, 3]; constant joints are taken from ``truth``."""
        whole = truth.clone()
        whole[..., list(self.used), :] = predicted
        if self.copies:
            whole[..., list(self.copies), :] = whole[..., list(self.copies.values()), :]
        return whole


H36M = Layout(
    "Human3.6M",
    H36M_32,
    H36M_22_OF_32,
    {16: 13, 20: 19, 23: 22, 24: 13, 28: 27, 31: 30},
    decimals=3,
    per_action=True,
)
CMU = Layout(
    "CMU mocap",
    CMU_38,
    CMU_25_OF_38,
    {16: 15, 20: 15, 24: 23, 27: 23, 29: 15, 33: 32, 36: 32},
)
PW3D = Layout("3DPW", SMPL_24, tuple(range(1, 24)), {}, (5, 10, 15, 20, 25))
STARTER = Layout("starter set", H36M_17, tuple(range(1, 17)), {})


@dataclass
class Motion:
    """One clip of one person.

    Args:
        subject, action, take: where it is from; ``take`` is the file's number.
        positions: [n, J, 3] float32 metres (float64 for 3DPW's test clips), relative to the root.
    """

    subject: str
    action: str
    take: int
    positions: np.ndarray

    def __str__(self) -> str:
        return "/".join(part for part in (self.subject, f"{self.action}_{self.take}") if part)


@dataclass
class ForecastData:
    """A data set for forecasting.

    Args:
        name: as printed beside every figure.
        layout: of its skeleton.
        train, test: clips in published order.
        axes: where up is: "y" or "z" (for drawing).
        notes: one line for each thing that is unlike the published protocol, or nominal.
        skipped: files that ``--skip-bad`` left out, and why.
    """

    name: str
    layout: Layout
    train: list[Motion]
    test: list[Motion]
    axes: str = "y"
    notes: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


@contextlib.contextmanager
def keep_or_skip(skip_bad: bool, skipped: list[str]) -> Iterator[None]:
    """Let a DataError through, or with ``skip_bad`` note it in ``skipped`` and go on."""
    try:
        yield
    except DataError as error:
        if not skip_bad:
            raise
        skipped.append(str(error))


def choose_actions(wanted: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """The entries of a comma list, in ``known``'s order; "*" is all of them.

    Raises:
        ValueError: an unknown one; the nearest is told.
    """
    names = known if wanted.strip() == "*" else tuple(n.strip() for n in wanted.split(",") if n.strip())
    for name in names or ("",):
        if name not in known:
            raise ValueError(f"--actions: no {name!r}{nearest(name, known)} (there are: {', '.join(known)})")
    return tuple(n for n in known if n in names)


# -- windows ---------------------------------------------------------------------------------------------------------
def all_windows(frames: int, length: int, last_left_out: int = 0) -> np.ndarray:
    """First frames of every window of ``length`` in a clip of ``frames``; published H3.6M omits the last 26."""
    return np.arange(max(0, frames - length + 1 - last_left_out))


H36M_LEFT_OUT = 26  # n - 100 windows of 75 frames instead of n - 74


def drawn_pair(frames: tuple[int, int], draws: int, observed: int = OBSERVED) -> tuple[np.ndarray, np.ndarray]:
    """The field's sampling of Human3.6M's two files of an action: ``draws`` window starts in each (128 or 4).

    Raises:
        ValueError: a file of fewer than 167 frames.
    """
    generator, starts = np.random.RandomState(PUBLISHED_SEED), []
    if min(frames) <= 16 + 150:
        raise ValueError(f"the samplings of 256 and 8 windows need files of at least 167 frames, got {frames}")
    for _ in range(draws):
        starts.append([generator.randint(16, n - 150) + 50 - observed for n in frames])
    first, second = np.array(starts).T
    return first, second


def drawn_cmu(frames: int, draws: int = 8, future: int = EVALUATED) -> np.ndarray:
    """The older sampling of a CMU test file: 8 windows, a fresh generator per file.

    Raises:
        ValueError: a file that a window of 50 + ``future`` frames does not fit into with room to draw.
    """
    if frames <= OBSERVED + future:
        raise ValueError(f"the sampling of 8 windows needs more than {OBSERVED + future} frames, got {frames}")
    generator = np.random.RandomState(PUBLISHED_SEED)
    return np.array([generator.randint(0, frames - OBSERVED - future) for _ in range(draws)])


@dataclass
class Windows:
    """Windows of equal length over clips that lie end to end in one array.

    Args:
        frames: [n, J, 3], every clip.
        index: [W, 2] int64: clip, first frame within the clip.
        offsets: [clips] first row of each clip in ``frames``.
        length: frames of a window.
    """

    frames: Tensor
    index: np.ndarray
    offsets: np.ndarray
    length: int

    @classmethod
    def of(cls, clips: list[Motion], starts: list[np.ndarray], length: int, joints=None) -> Windows:
        """``starts[i]`` are the first frames in ``clips[i]``; only ``joints`` are kept, all by default."""
        parts = [c.positions if joints is None else c.positions[:, list(joints)] for c in clips]
        counts = [len(p) for p in parts]
        index = [np.stack((np.full(len(s), i), s), 1) for i, s in enumerate(starts)]
        return cls(
            torch.from_numpy(np.concatenate(parts)),
            np.concatenate(index).astype(np.int64),
            np.concatenate(([0], np.cumsum(counts)[:-1])).astype(np.int64),
            length,
        )

    def __len__(self) -> int:
        return len(self.index)

    def take(self, which, reverse: Tensor | None = None) -> Tensor:
        """[len(which), length, J, 3]; windows where ``reverse`` (bool) is set run backwards."""
        chosen = self.index[which]
        first = torch.from_numpy(self.offsets[chosen[:, 0]] + chosen[:, 1])
        step = torch.arange(self.length)
        if reverse is not None:
            step = torch.where(reverse[:, None], self.length - 1 - step, step)
        rows = self.frames.flatten(1).index_select(0, (first[:, None] + step).flatten())
        return rows.view(len(chosen), self.length, *self.frames.shape[1:])


def training_windows(data: ForecastData, length: int = OBSERVED + TRAINED) -> Windows:
    """Every window of the training clips, stride 1, the network's joints."""
    starts = [all_windows(len(c.positions), length) for c in data.train]
    return Windows.of(data.train, starts, length, data.layout.used)


@dataclass
class TrainingLoader:
    """Shuffled batches (observed, target), the last partial batch dropped; half of the windows run backwards.

    Published augmentation: the whole window is reversed before it is split, so that the future becomes the past.

    Args:
        windows: of observed + target frames.
        batch_size: over all processes together.
        observed: frames of the first part.
        iterations: batches that make an "epoch" of the training loop; the stream goes on through the data, shuffled
            anew each time it is through.
        total: iterations after which the stream ends, in the middle of an epoch if need be.
        seed, rank, world: the same stream for the same seed, whatever the number of processes.
        reverse: the augmentation.
    """

    windows: Windows
    batch_size: int
    observed: int
    iterations: int
    seed: int
    total: int | None = None
    rank: int = 0
    world: int = 1
    reverse: bool = True
    _epoch: int = 0

    def __post_init__(self):
        self.per_pass = len(self.windows) // self.batch_size
        if self.per_pass == 0:
            raise ValueError(
                f"--batch-size {self.batch_size}: the training set has only {len(self.windows)} windows of "
                f"{self.windows.length} frames"
            )
        if self.batch_size % self.world:
            raise ValueError(f"--batch-size {self.batch_size} does not divide among {self.world} processes")

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        return self.iterations

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        share, current = self.batch_size // self.world, None
        end = (self._epoch + 1) * self.iterations
        for iteration in range(self._epoch * self.iterations, end if self.total is None else min(end, self.total)):
            turn, batch = divmod(iteration, self.per_pass)
            if turn != current:
                generator = torch.Generator().manual_seed(self.seed * 1_000_003 + turn)
                order = torch.randperm(len(self.windows), generator=generator).numpy()
                draws = torch.rand(len(self.windows), generator=generator)
                current = turn
            mine = slice(batch * self.batch_size + self.rank * share, batch * self.batch_size + (self.rank + 1) * share)
            window = self.windows.take(order[mine], draws[mine] > 0.5 if self.reverse else None)
            yield window[:, : self.observed], window[:, self.observed :]


SAMPLINGS = ("all", "256", "8")


def evaluation_windows(data: ForecastData, sampling: str = "all", future: int = EVALUATED) -> dict[str, Windows]:
    """{action: windows of 50 + ``future`` frames, whole skeleton} of the test clips.

    Args:
        sampling: "all": every window (Human3.6M: less the last 26 of each file, as published). "256" and "8": the
            field's random windows per action of Human3.6M; "8" also the older one per CMU file.
    Raises:
        ValueError: a sampling that the data set does not have, or a file that is too short for it.
    """
    length, groups = OBSERVED + future, {}
    for clip in data.test:
        groups.setdefault(clip.action, []).append(clip)
    result = {}
    for action, clips in groups.items():
        counts = [len(c.positions) for c in clips]
        if sampling == "all":
            left_out = H36M_LEFT_OUT if data.layout is H36M else 0
            starts = [all_windows(n, length, left_out) for n in counts]
        elif sampling in SAMPLINGS and data.layout is H36M:
            if len(clips) != 2:
                raise ValueError(f"--sampling {sampling} needs two test files of {action}, there are {len(clips)}")
            starts = list(drawn_pair(tuple(counts), 128 if sampling == "256" else 4))
        elif sampling == "8" and data.layout is CMU:
            starts = [drawn_cmu(n, future=future) for n in counts]
        else:
            raise ValueError(f"--sampling {sampling}: {data.name} has only 'all'{', 8' if data.layout is CMU else ''}")
        result[action] = Windows.of(clips, starts, length)
    return result
