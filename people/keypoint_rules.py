"""What is believed of 2D keypoints from a file: each reader hands over a ``Reading``, ``believed`` makes people of it.

Files of many programs look alike and mean different things. Each rule of ``RULES`` looks at one kind of difference.
What it recognises it puts right and says in the notes; what it cannot put right it refuses. It never assumes in
silence.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import torch

from posekernels.archive import DataError
from posekernels.checks import nearest
from posekernels.pose.layouts import LAYOUTS, to_h36m
from posekernels.pose.skeleton import SKELETONS

from .rows import cuts
from .tracking import Sighting, Track, Tracker

# What a number of joints means when nobody says; 25 is decided by where the joints lie.
BY_COUNT = {
    16: "mpii-16",
    17: "coco-17",
    18: "openpose-18",
    24: "smpl-24",
    26: "halpe-26",
    31: "cmu-31",
    32: "h36m-32",
    33: "blazepose-33",
    38: "cmu-38",
    133: "coco-133",
}
HALPE_136, HALPE_26 = 136, 26  # the one begins with the other
FAR = 1e9  # pixels: no coordinate is so large
LOOKED_AT = 4096  # detections that tell whether people stand upright
UNCOUNTED = 100  # frames for each one that is there: numbers so far apart do not count frames
FOR_3D = "for 3D joints use posekernels forecast --joints LAYOUT"


@dataclass
class Keypoints:
    """People in a video, in 2D.

    Args:
        people: tracks over the same ``frames`` frames; NaN where a person is not seen.
        layout: name of their joints in ``SKELETONS``.
        frames: of the video. fps: None where the file does not say. size: (width, height) of the image, or None.
        notes: what was guessed or left out, in words for the user.
        numbered: whether people have the numbers by which the user knows them.
        detected_layout: of the tracks' ``detected``; None where they have none.
        source: what people were found in, where the file is one of ours that says so.
    """

    people: Sequence[Track]
    layout: str
    frames: int
    fps: float | None = None
    size: tuple[int, int] | None = None
    notes: list[str] = field(default_factory=list)
    numbered: bool = False
    detected_layout: str | None = None
    source: str = ""

    @property
    def found(self) -> str:
        """The layout of all joints that were found, of which ``layout`` may be a part."""
        return self.detected_layout or self.layout


@dataclass
class Seen:
    """One person in one frame, as the file has them.

    Args:
        points: [J, C]: x, y, and for C = 3 a third number that may be a score.
        scores: [J], where the file keeps them apart. identity: whatever tells the person from others, or None.
    """

    points: np.ndarray
    scores: np.ndarray | None = None
    identity: object = None


@dataclass
class Frame:
    """The people of one frame. ``label``: the number or name that the file gives it; None where its place counts."""

    label: object
    people: list[Seen]


@dataclass
class Table:
    """N detections, all of a frame and then those of the next, as arrays have them.

    Args:
        points: [N, J, C]. scores: [N, J] or None. names: N of them. at: [N] frames, of ``count``.
    """

    points: np.ndarray
    scores: np.ndarray | None
    names: list
    at: np.ndarray
    count: int


@dataclass
class Reading:
    """What a file says, before any of it is believed.

    Args:
        where: the file or folder. frames: in the file's order. table: all of them in its place.
        layout, fps, size: as the user or the file says; None where neither does.
        clip: part of the name of one of several videos, where the user chose it.
        sided: coordinates from -1 to 1 would span the image's width and its height (OpenPose, Ultralytics), and not
            both its width. ranked: people are put in order, the most prominent first. numbered: as for ``Keypoints``.
        detected: [N, K, 3] of a file of ours, as for ``Track``, and the layout of these joints; None where it has none.
        source: as for ``Keypoints``.
    After the rule ``joints``, of all N detections together:
        points [N, J, C], scores [N, J] or None; identities and frame numbers ``at``, N of each; ``count`` frames.
    """

    where: Path
    frames: list[Frame]
    table: Table | None = None
    layout: str | None = None
    fps: float | None = None
    size: tuple[int, int] | None = None
    clip: str | None = None
    sided: bool = False
    ranked: bool = True
    numbered: bool = False
    detected: tuple[np.ndarray, str] | None = None
    source: str = ""
    notes: list[str] = field(default_factory=list)
    points: np.ndarray = field(init=False)
    scores: np.ndarray | None = field(init=False)
    identities: list = field(init=False)
    at: np.ndarray = field(init=False)
    count: int = field(init=False)

    def refuse(self, why: str) -> DataError:
        return DataError(f"{self.where}: {why}")

    @property
    def seen(self) -> np.ndarray:
        """[N, J] joints that are somewhere, with a score if there are any."""
        there = np.isfinite(self.points[..., :2]).all(-1)
        return there if self.scores is None else there & (self.scores > 0)


def believed(reading: Reading) -> Keypoints:
    """People in 2D.

    Raises:
        DataError: what a rule refuses.
    """
    for rule in RULES:
        rule(reading)
    r = reading
    people = _people(r)  # which may leave ``detected`` out
    more = None if r.detected is None else r.detected[1]
    return Keypoints(people, r.layout, r.count, r.fps, r.size, r.notes, r.numbered, more, r.source)


# -- frames ----------------------------------------------------------------------------------------------------------
def frames(r: Reading) -> None:
    """Frames stand where their numbers say: those left out are empty. In names, the digits that vary are the number.

    Names that differ in more than that are of several videos, of which one must be chosen.
    """
    r.count = len(r.frames) if r.table is None else r.table.count
    labels = [frame.label for frame in r.frames]
    if r.clip is not None and not any(isinstance(label, str) for label in labels):
        raise r.refuse(f"--clip {r.clip}: its frames have no names to choose by")
    if not labels or any(label is None for label in labels):
        return
    if all(_number(label) is not None for label in labels):
        numbers = [_number(label) for label in labels]
    else:
        try:
            chosen, numbers, notes = in_order([str(label) for label in labels], r.clip)
        except ValueError as error:
            raise r.refuse(str(error)) from error
        r.frames, r.notes = [r.frames[i] for i in chosen], r.notes + notes
    _stand(r, numbers)


def _number(label: object) -> float | None:
    """A number, or a text of one."""
    try:
        number = float(label) if isinstance(label, (int, float, str)) else np.nan
    except ValueError:
        return None
    return number if np.isfinite(number) else None


class SeveralVideos(ValueError):
    """Names of images that are not of one video; ``groups`` are the names that go together, with their numbers."""

    def __init__(self, groups: dict[str, int], message: str):
        super().__init__(message)
        self.groups = groups


def in_order(names: list[str], clip: str | None = None) -> tuple[list[int], list[float] | None, list[str]]:
    """Which of these names of images are of the one video, their numbers, and notes; None where names do not count.

    Args:
        clip: part of the name of one of several videos.
    Raises:
        SeveralVideos: none or not just one of them is chosen.
    """
    split = [re.split(r"(\d+)", name) for name in names]
    clips: dict[tuple, list[int]] = {}
    for i, parts in enumerate(split):
        clips.setdefault(tuple(parts[::2]), []).append(i)
    found: dict[str, tuple[list[int], list[float]]] = {}
    for texts, members in clips.items():
        digits = np.array([[int(n) for n in split[i][1::2]] for i in members], object).reshape(len(members), -1)
        place = _counting(digits)
        times = _times_beside(digits, place)
        for i, row in zip(members, digits):
            rest = ["*" if k == place or k in times else split[i][2 * k + 1] for k in range(len(row))]
            key = "".join(a + b for a, b in zip(texts, [*rest, ""]))
            chosen, numbers = found.setdefault(key, ([], []))
            chosen.append(i)
            numbers.append(float(row[place]) if place is not None else 0.0)
    numbered = any(len(parts) > 1 for parts in split)
    if clip is None and len(found) == len(names) > (10 if numbered else 1):
        return list(range(len(names))), None, ["the names do not number the frames: taken in the order they come in"]
    fits = [clip] if clip in found else [key for key in found if clip is None or clip in key]
    if len(fits) == 1:
        return *found[fits[0]], []
    listed = ", ".join(f"{key} ({len(found[key][0])} frames)" for key in [*found][:6]) + (", ..." * (len(found) > 6))
    if clip is None:
        message = f"holds {len(found)} videos: {listed}; --clip TEXT chooses the one whose name has TEXT in it"
    else:
        message = (
            f"--clip {clip}: expected it in the name of one video, found it in {len(fits)} of {len(found)}: {listed}"
        )
    raise SeveralVideos({key: len(members) for key, (members, _) in found.items()}, message)


def _counting(digits: np.ndarray) -> int | None:
    """Which of the groups of digits [frames, groups] counts frames: the one of most values, in the smallest steps."""
    if not digits.shape[1]:
        return None
    spread = [(len(set(column)), min(column) - max(column), k) for k, column in enumerate(digits.T)]
    return max(spread)[2]


def _times_beside(digits: np.ndarray, place: int | None) -> set[int]:
    """Groups of digits that tell the time beside the number of the frame: one value for each number, and many of them.

    Where there is one, slower ones beside it belong to it: minutes and hours. Others belong to the name.
    """
    if place is None or len({*digits[:, place]}) < len(digits):
        return set()
    varied = {k: len({*column}) for k, column in enumerate(digits.T) if k != place and len({*column}) > 1}
    return set(varied) if any(values > len(digits) / 4 for values in varied.values()) else set()


def _stand(r: Reading, numbers: list[float] | None) -> None:
    """Put frames where their numbers say, with empty ones between them."""
    r.count = len(r.frames)
    if numbers is None or len(numbers) < 2:
        return
    values, order = np.sort(np.array(numbers)), np.argsort(numbers, kind="stable")
    steps = np.diff(values)
    if not (steps > 0).all():
        same = (steps == 0).sum() + 1
        r.notes.append(f"{same} frames have the same number in the {_holder(r)}: taken in the order they come in")
        return
    step = 1.0
    if values[-1] - values[0] >= UNCOUNTED * len(values) or (values != values.round()).any() or _times(steps):
        step = float(np.median(steps))
        r.notes.append(f"the {_holder(r)} numbers its frames in steps of about {step:.4g}: taken for times")
    places = np.round((values - values[0]) / step).astype(np.int64)
    if (np.diff(places) < 1).any() or places[-1] >= UNCOUNTED * len(values):
        r.notes.append(f"the {_holder(r)}'s numbers leave out too many to count frames: taken in their order")
        places = np.arange(len(values))
    standing = [Frame(None, []) for _ in range(int(places[-1]) + 1)]
    for place, i in zip(places.tolist(), order.tolist()):
        standing[place] = r.frames[i]
    left_out = len(standing) - len(values)
    r.frames, r.count = standing, len(standing)
    empty = f"; {left_out} of them are not in the {_holder(r)}, and nobody is in them" if left_out else ""
    other = f" from {values[0]:g} to {values[-1]:g}; here they count" if (values[0], values[-1]) != (1, r.count) else ""
    r.notes.append(f"the {_holder(r)} numbers its frames{other} from 1 to {r.count}{empty}")


def _holder(r: Reading) -> str:
    """What the frames are in."""
    return "folder" if r.where.is_dir() else "file"


def _times(steps: np.ndarray) -> bool:
    """Whether steps between numbers are those of a clock: large, and not multiples of one of them."""
    return bool(steps.min() > 10 and (np.abs(steps / steps.min() - np.round(steps / steps.min())) > 1e-9).any())


# -- joints ----------------------------------------------------------------------------------------------------------
def joints(r: Reading) -> None:
    """Everybody has the same joints: detections with another number of them than most are left out."""
    if r.table is not None and len(r.table.at):
        table, r.table = r.table, None
        keep = slice(HALPE_26 if table.points.shape[1] == HALPE_136 else None)
        r.points = np.require(table.points, np.float32, "W")[:, keep]  # rules put them right in place
        r.scores = None if table.scores is None else np.require(table.scores, np.float32, "W")[:, keep]
        r.identities, r.at = table.names, table.at
        return
    everyone = [(seen, t) for t, frame in enumerate(r.frames) for seen in frame.people]
    counts = Counter(len(seen.points) for seen, _ in everyone)
    if not counts:
        raise r.refuse("nobody in it: it holds no detection")
    most = counts.most_common(1)[0][0]
    kept = [(seen, t) for seen, t in everyone if len(seen.points) == most]
    if len(kept) < len(everyone):
        left = len(everyone) - len(kept)
        r.notes.append(f"{left} detections left out: they have not {most} joints, as the others do")
    keep, width = HALPE_26 if most == HALPE_136 else most, {seen.points.shape[-1] for seen, _ in kept}
    if len(width) > 1:
        raise r.refuse(
            f"expected as many numbers for every keypoint, got {' and '.join(str(n) for n in sorted(width))}"
        )
    r.points = np.stack([seen.points for seen, _ in kept]).astype(np.float32)[:, :keep]
    apart = {seen.scores is not None for seen, _ in kept}
    if len(apart) > 1:
        raise r.refuse("expected scores beside all keypoints or none, got them beside some")
    r.scores = np.stack([seen.scores for seen, _ in kept]).astype(np.float32)[:, :keep] if apart == {True} else None
    r.identities, r.at = [seen.identity for seen, _ in kept], np.array([t for _, t in kept])


def third_number(r: Reading) -> None:
    """A third number beside x and y is a score, or the third coordinate of joints in 3D, which are refused."""
    if r.points.shape[-1] == 2:
        return
    if r.scores is not None:
        raise r.refuse(f"keypoints of 3 numbers and scores beside them: joints in 3D; {FOR_3D}")
    known = np.isfinite(r.points).all(-1) & (r.points[..., :2] != 0).any(-1) & (r.points[..., 2] != -1)
    third = r.points[..., 2][known]
    if len(third):
        low, high = third.min(), third.max()
        least, most = (of(r.points[..., :2], where=known[..., None], initial=0) for of in (np.min, np.max))
        small = max(-least, most) <= 20  # not in pixels: rather 3D in metres
        score = low >= -0.05 and high <= 1.05 or low >= 0 and 20 < high <= 100  # or percent
        # some detectors' scores in pixels lie a little above 1 or below 0
        score |= np.isin(third, (0, 1, 2)).all()
        middle = np.median(third, overwrite_input=True)
        score |= not small and low >= -1 and np.mean(third < 0) < 0.05 and high <= 2 and middle <= 1.05
        if not score:
            raise r.refuse(f"the third column is no score (from {low:.3g} to {high:.3g}); {FOR_3D}")
    r.points, r.scores = r.points[..., :2], r.points[..., 2]


def layout(r: Reading) -> None:
    """The joints are those that the user or the file names, else what their number means, which is said."""
    guessed = r.layout is None
    name = r.layout or layout_of(r.points, r.where)
    if name not in LAYOUTS:
        raise r.refuse(f"names its layout {name!r}{nearest(name, LAYOUTS)}; say --layout NAME")
    if SKELETONS[name].num_joints != r.points.shape[-2]:
        raise r.refuse(f"{r.points.shape[-2]} joints, but layout {name} has {SKELETONS[name].num_joints}")
    r.layout = name
    if guessed:
        r.notes.append(f"{r.points.shape[-2]} joints, taken for {name}; --layout NAME if they are others")
        if name == "coco-17" and looks_like_h36m(r.points):
            r.notes.append("warning: these look like Human3.6M's joints, not COCO's; if so, --layout h36m-17")


def upright(r: Reading) -> None:
    """Where most people have their shoulders below their hips, y may grow upwards, as in plots: it is said."""
    some = slice(None, None, max(1, len(r.points) // LOOKED_AT))
    points = np.where(r.seen[some, :, None], r.points[some], np.float32(np.nan))
    body = to_h36m(torch.from_numpy(points), r.layout).numpy()
    hips, shoulders = (body[:, pair].mean(1) for pair in ([1, 4], [11, 14]))
    tall = np.linalg.norm(shoulders - hips, axis=-1)
    share = ((shoulders - hips)[:, 1] > 0.7 * tall).sum() / max(np.isfinite(tall).sum(), 1)
    if share > 0.5:
        r.notes.append(f"warning: {share:.0%} of the people are upside down; is y, in pixels, counted downwards?")


def layout_of(points: np.ndarray, where: str | Path) -> str:
    """The layout that keypoints [..., J, 2 or more] most likely have, by their number.

    With 25 joints it is ``body-25`` if joint 8 lies between 9 and 12 (the middle of the hips), else ``body-25b``.

    Raises:
        DataError: no layout has that many joints.
    """
    joints = points.shape[-2]
    if joints == 25:
        flat = points[..., :2].reshape(-1, 25, 2)
        flat = flat[np.isfinite(flat).all((1, 2)) & (flat[:, [8, 9, 12]] != 0).all((1, 2))]
        if not len(flat):
            return "body-25"
        off = np.linalg.norm(flat[:, 8] - (flat[:, 9] + flat[:, 12]) / 2, axis=-1)
        return "body-25" if np.median(off / (np.ptp(flat, axis=1).max(-1) + 1e-9)) < 0.1 else "body-25b"
    if joints not in BY_COUNT:
        known = ", ".join(f"{name} ({SKELETONS[name].num_joints})" for name in LAYOUTS)
        raise DataError(f"{where}: {joints} joints fit no known layout; known are {known}")
    return BY_COUNT[joints]


def looks_like_h36m(points: np.ndarray) -> bool:
    """Whether 17 joints [T, 17, 2] without a layout are H36M-17's and not COCO's: the right one has the shorter bones.

    In the starter set H36M's bones are 0.36 to 0.66 as long as COCO's if the joints are H36M's, else 0.72 to 1.7.
    """

    def bone(layout: str) -> float:
        bones = ((j, p) for j, p in enumerate(SKELETONS[layout].parents) if p >= 0)
        lengths = np.stack([np.linalg.norm(points[:, j] - points[:, p], axis=-1) for j, p in bones])
        return float(lengths[np.isfinite(lengths)].sum() / max(np.isfinite(lengths).sum(), 1))

    return bone("h36m-17") < 0.7 * bone("coco-17")


# -- points ----------------------------------------------------------------------------------------------------------
def missing(r: Reading) -> None:
    """Not finite, 0, 0, and marks such as -1, -1 or 9999, 9999 are joints that were not seen.

    A mark is a place that is not in the image, has equal coordinates or comes again and again. A person all of whose
    joints are at one place was not seen either.
    """
    points, farthest = r.points, 0.0
    for rows in cuts(len(points)):
        some = points[rows]
        far = np.abs(some[np.isfinite(some)])
        farthest = max(farthest, float(far.max(initial=0, where=far >= FAR)))
        with np.errstate(over="ignore"):
            some[~(np.abs(some) < FAR).all(-1)] = np.nan
        some[(some == 0).all(-1)] = np.nan
    known = np.isfinite(points).all(-1)
    if farthest and not known.any():
        raise r.refuse(f"nobody in it: coordinates up to {farthest:.3g} are no pixels")
    first = points[np.unravel_index(known.argmax(), known.shape)]

    def each() -> Iterator[np.ndarray]:
        return (points[rows][known[rows]] for rows in cuts(len(points)))

    if any((some != first).any() for some in each()):
        columns = (points[..., axis][known] for axis in (0, 1))  # one at a time, in memory of its own
        middle = np.array([np.median(column, overwrite_input=True) for column in columns])
        reach = max(_reach(points[..., axis][known], middle[axis]) for axis in (0, 1)) + 1e-9
        doubtful = [some[_alike(some) | (np.abs(some - middle).max(-1) > 5 * reach)] for some in each()]
        places, times = np.unique(np.concatenate(doubtful), axis=0, return_counts=True)
        equal, far = _alike(places), np.abs(places - middle).max(-1) > 5 * reach
        if r.size is not None:
            far &= ((places < -r.size[0]) | (places > 2 * np.array(r.size))).any(-1)
        mark = equal & (places[:, 0] < 0) & (places == places.round()).all(-1) | far & (times > 2) & (
            equal | (times > 0.01 * known.sum())
        )
        for place, count in zip(places[mark], times[mark]):
            points[(points == place).all(-1)] = np.nan
            r.notes.append(f"{count} keypoints at {place[0]:g}, {place[1]:g}: taken for not seen")
    there = np.isfinite(points).all(-1)
    low = points.min(1, where=there[..., None], initial=np.inf)
    high = points.max(1, where=there[..., None], initial=-np.inf)
    heap = (there.sum(1) > 2) & (low == high).all(-1)
    if heap.any():
        points[heap] = np.nan
        r.notes.append(f"{heap.sum()} detections with all joints at one place: taken for not seen")


def _reach(column: np.ndarray, middle: np.floating) -> np.floating:
    """How far three of four numbers are from their middle at most; ``column`` is used up."""
    column -= middle
    return np.percentile(np.abs(column, out=column), 75, overwrite_input=True)


def _alike(points: np.ndarray) -> np.ndarray:
    """[N] bool, of [N, 2]: both coordinates are the same."""
    return points[:, 0] == points[:, 1]


def scores(r: Reading) -> None:
    """Scores go from 0 to 1; percent and COCO's visibility (0, 1, 2) are brought there, anything else is refused."""
    if r.scores is None:
        r.scores = np.ones(r.points.shape[:2], np.float32)
    values = np.nan_to_num(r.scores, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    there = np.isfinite(r.points).all(-1)
    given = values[there & (values > 0)]
    high = given.max() if len(given) else 0.0
    if not len(given) and there.any():
        raise r.refuse(f"nobody in it: no joint was found in any of {r.count} frames (no score is above 0)")
    if high > 1 and np.isin(given, (1, 2)).all():
        values = np.where(values == 1, np.float32(0.5), values / 2)
        r.notes.append("scores of 0, 1 and 2: taken for COCO's visibility")
    elif 20 < high <= 100:
        values = values / 100
        r.notes.append(f"scores up to {high:.3g}: taken for percent")
    elif high > 2 or high > 1.05 and np.median(given) > 1.05:
        raise r.refuse(f"scores from {given.min():.3g} to {high:.3g}; expected 0 to 1, or percent")
    values[~there | ~(values > 0)] = 0
    r.scores = np.minimum(values, 1, out=values)
    r.points[r.scores == 0] = np.nan


def units(r: Reading) -> None:
    """Coordinates are pixels; parts of the image, 0 to 1, become pixels by its size; others are refused."""
    seen = r.seen
    if not seen.any():
        return
    columns = (r.points[..., axis][seen] for axis in (0, 1))  # one at a time, in memory of its own
    low, high = np.stack([np.percentile(column, (1, 99), overwrite_input=True) for column in columns], 1)
    span = f"coordinates from {low.min():.3g} to {high.max():.3g}"
    spans = np.fmax.reduce(r.points, axis=1) - np.fmin.reduce(r.points, axis=1)
    tall = float(np.median(np.linalg.norm(spans[seen.any(1)], axis=-1)))
    if tall >= 5 and np.abs([low, high]).max() > 5:
        if r.size is not None and max(r.size) > 250 and low.min() >= 0 and high.max() <= 100:
            raise r.refuse(f"{span}, in an image of {_by(r.size)}: percent? keypoints must be in pixels")
        if r.size is not None and (high > 2 * np.array(r.size)).any():
            r.notes.append(f"warning: {span}, in an image of {_by(r.size)}; is its size right?")
        return
    # people leave the image at the sides, and hardly over its top: much below 0 is the middle of an image, not its edge
    reach = low.min() > -1.5 and high.max() < 1.5
    x, y = (r.points[..., axis][seen] for axis in (0, 1))
    parts = reach and np.mean(y < 0) < 0.05 and np.median(x) >= 0 and low.min() > -0.5
    if not parts and not (reach and r.sided):
        what = "already normalised?" if reach else "in metres?"
        raise r.refuse(f"{span}, {what} keypoints must be in pixels, or parts of the image from 0 to 1")
    if r.size is None:
        raise r.refuse(f"{span}: parts of the image; --size WIDTHxHEIGHT makes them pixels")
    r.points = ((r.points if parts else (r.points + 1) / 2) * np.array(r.size)).astype(np.float32)
    r.notes.append(f"{span}: parts of the image, made pixels of {_by(r.size)}")


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


# -- people ----------------------------------------------------------------------------------------------------------
def identities(r: Reading) -> None:
    """A number is somebody if nobody else has it in the same frame, and if it does not jump from one to another.

    Numbers may come as 3.0, "3", [3] or "person_3". Negative ones, those that occur twice in a frame, once in the file,
    or leap between people are not believed: who has one is told apart by place.
    """
    numbers = _numbers(r.identities)
    given = {n for n in numbers if n is not None}
    if not given:
        if any(i is not None for i in r.identities):
            r.notes.append(f"the {_holder(r)} gives nobody a number of their own: people are told apart by place")
        r.identities = numbers
        return
    wrong = {n: "no number of a person" for n in given if n < 0}
    here, names = _coded(r, numbers)
    every, times = np.unique(here, return_counts=True)
    several = {names[i] for i in np.unique(every[times > 1] % len(names)).tolist()}
    wrong |= {n: "several people's in one frame" for n in several if n >= 0}
    if _once(r, numbers):
        wrong = {n: "in one frame only" for n in given}
    elif not wrong and _leaps(r, numbers):
        wrong = {n: "now of one, now of another" for n in given}
    for reason in sorted(set(wrong.values())):
        listed = sorted(n for n in wrong if wrong[n] == reason)
        some = ", ".join(map(str, listed[:5])) + (", ..." if len(listed) > 5 else "")
        is_it, it = ("is", "it") if len(listed) == 1 else ("are", "one of them")
        r.notes.append(
            f"numbers that the {_holder(r)} gives people: {some} {is_it} {reason}; who has {it} is told apart by place"
        )
    r.identities = [None if n in wrong else n for n in numbers]


def _numbers(raw: list) -> list[int | None]:
    """Identities in any dress as whole numbers; names are numbered in order."""

    def bare(value):
        while isinstance(value, (list, tuple, np.ndarray)) and len(value) == 1:
            value = value[0]
        if value is None or isinstance(value, (list, tuple, dict, np.ndarray, bool)):
            return None
        number = _number(value.item() if isinstance(value, np.generic) else value)
        if number is not None:
            return int(number) if number == int(number) else None
        return value.strip() or None if isinstance(value, str) and value.lower() not in ("nan", "none") else None

    values = [bare(value) for value in raw]
    names = sorted({v for v in values if isinstance(v, str)})
    if not names:
        return values
    ends = {name: re.fullmatch(r"(\D*)(\d+)", name) for name in names}
    if all(ends.values()) and len({end[1] for end in ends.values()}) == 1 and len(names) == len({*values} - {None}):
        known = {name: int(end[2]) for name, end in ends.items()}
    else:
        known = {v: i for i, v in enumerate(dict.fromkeys(v for v in values if v is not None), 1)}
    return [known.get(v) for v in values]


def _once(r: Reading, numbers: list[int | None]) -> bool:
    """Whether numbers hardly ever come again from a frame to the next, as in files that number detections."""
    here, names = _coded(r, numbers)
    here = np.unique(here)
    again = np.isin(here + len(names), here).sum()
    could = np.isin(here // len(names) + 1, r.at).sum()
    return bool(could > 1 and again < 0.05 * could)


def _coded(r: Reading, numbers: list[int | None]) -> tuple[np.ndarray, list[int]]:
    """Of all who have a number: frame * K + which of the K numbers; and these."""
    names = sorted({n for n in numbers if n is not None})
    place = {n: i for i, n in enumerate(names)}
    which = np.array([-1 if n is None else place[n] for n in numbers], np.int64)
    return (r.at * len(names) + which)[which >= 0], names


def _leaps(r: Reading, numbers: list[int | None]) -> bool:
    """Whether people with numbers often stand where somebody else stood in the frame before, and not they themselves.

    Such numbers are places in a list, sorted anew in every frame.
    """
    if len(set(numbers)) < 2:
        return False

    def off(a: np.ndarray, b: np.ndarray) -> float:
        apart = np.linalg.norm(a - b, axis=-1)
        return float(np.mean(apart[np.isfinite(apart)])) if np.isfinite(apart).any() else np.inf

    steps = leaps = 0
    for (t, before), (u, now) in pairwise(_by_frame(r, numbers)):
        if u - t > 1 or len(before) < 2:
            continue
        for number in before.keys() & now.keys():
            points, size = now[number]
            own = off(points, before[number][0])
            steps += 1
            if own > 0.25 * size:
                leaps += any(off(points, other[0]) < 0.3 * own for n, other in before.items() if n != number)
    return leaps >= 3 and leaps > 0.05 * steps


def _by_frame(r: Reading, numbers: list[int | None]) -> Iterator[tuple[int, dict[int, tuple[np.ndarray, float]]]]:
    """Each frame in which somebody with a number is seen, and of each of them the points, and how large they are."""
    for t, rows in groupby(range(len(r.at)), key=r.at.tolist().__getitem__):
        found = {}
        for row in rows:
            there = r.points[row][np.isfinite(r.points[row]).all(-1)]
            if numbers[row] is not None and len(there):
                found[numbers[row]] = r.points[row], float(np.linalg.norm(np.ptp(there, axis=0)))
        if found:
            yield t, found


def _people(r: Reading) -> Sequence[Track]:
    """Tracks of everybody of whom a joint was found."""
    kept = r.seen.any(1)
    if not kept.any():
        raise r.refuse(f"nobody in it: no joint was found in any of {r.count} frames")
    rows = np.flatnonzero(kept)
    at = r.at[rows]
    numbers = [n for n, there in zip(r.identities, kept) if there]
    if not r.ranked and None not in numbers:  # as they come, without a search
        tracks, every = [], np.array(numbers)
        for number in dict.fromkeys(numbers):
            own = _evenly(rows[every == number])
            detected = None if r.detected is None else r.detected[0][own]
            tracks.append(Track(number, r.points[own], r.scores[own], r.at[own], detected))
        return tracks
    if r.detected is not None:
        r.notes.append(f"people are told apart anew: the joints of {r.detected[1]} kept beside them are left out")
        r.detected = None
    tracker, first = Tracker(layout=r.layout), np.searchsorted(at, np.arange(r.count + 1))
    for a, b in zip(first[:-1].tolist(), first[1:].tolist()):
        tracker.add([Sighting(r.points[i], r.scores[i]) for i in rows[a:b]], numbers[a:b])
    return tracker.tracks(lambda some: (r.points[rows[some]], r.scores[rows[some]]))


def _evenly(rows: np.ndarray) -> np.ndarray | slice:
    """Rows that are evenly spaced as a slice, which takes no copy of what it chooses; others as they are."""
    steps = np.diff(rows)
    if not len(steps) or (steps != steps[0]).any():
        return rows
    return slice(int(rows[0]), int(rows[-1]) + 1, int(steps[0]))


RULES = (frames, joints, third_number, missing, scores, units, layout, upright, identities)
"""In this order; each takes a ``Reading``, changes it or raises DataError, and adds to its notes."""
