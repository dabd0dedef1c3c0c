"""Who is who from frame to frame: people found in single frames, joined into tracks with stable numbers.

A track holds the frames in which its person was seen and no others, so that a recording of hours with hundreds of
people costs what was seen in it.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from posekernels.pose.skeleton import skeleton

REACH = 0.5  # of a person's size: joints farther off than this on average belong to somebody else
PATIENCE = 60  # frames after which somebody who was lost from sight is only known by their looks
NEWCOMER = 0.1  # added to the distance of people of a few frames: in doubt, a sighting continues an older one
SEEN = 0.2  # score from which a joint counts in the comparison
LOOKS = 5  # frames from one look at somebody's bones and clothes to the next
# How unlike two people may look to be one: of clothes (0 to 1 in each of red, green, blue), of sizes and of bones
# (logarithms), each as a share of the whole; and by how much the next best must be less alike.
CLOTHES, SIZES, BONES, UNLIKE, CLEARLY = 0.12, 0.9, 0.6, 0.7, 0.25
NEAR = 1.0  # of a person's size: without clothes to go by, whoever comes back does so where they were last seen


@dataclass
class Sighting:
    """One person in one frame: points [J, 2] pixels (NaN where not seen), scores [J].

    ``clothes`` [2, 3]: red, green, blue, 0 to 1, of the trunk and of the thighs; None where nobody looked, NaN where it
    could not be seen.
    """

    points: np.ndarray
    scores: np.ndarray
    clothes: np.ndarray | None = None

    def joined(self, other: Sighting) -> Sighting:
        """The sighting with the joints of another one that it lacks."""
        mine = self.scores > 0
        points = np.where(mine[:, None], self.points, other.points)
        return Sighting(points, np.where(mine, self.scores, other.scores), self.clothes)

    @property
    def box(self) -> np.ndarray:
        """[4] left, top, right, bottom of the joints seen, pixels; zeros where there are none."""
        seen = self.points[np.isfinite(self.points).all(-1)]
        return np.concatenate((seen.min(0), seen.max(0))) if len(seen) else np.zeros(4, np.float32)

    @property
    def size(self) -> float:
        """Diagonal of the box, pixels."""
        return float(np.linalg.norm(self.box[2:] - self.box[:2]))


@dataclass
class Track:
    """One person: in each of N frames points [N, J, 2] pixels, NaN where not seen; scores [N, J], 0 there.

    ``frames`` [N]: their numbers in the video, in order; by default all from 0 on. ``detected``: of a file of ours,
    [N, K, 3] x, y and score of the joints that these were once made of, where they were more.
    """

    identity: int
    points: np.ndarray
    scores: np.ndarray
    frames: np.ndarray | None = None
    detected: np.ndarray | None = None

    def __post_init__(self):
        if self.frames is None:
            self.frames = np.arange(len(self.points))

    @property
    def present(self) -> np.ndarray:
        """[N] frames in which any joint was seen."""
        return (self.scores > 0).any(-1)

    def part(self, rows: slice | np.ndarray) -> Track:
        """Some of its frames, by their place in ``frames``."""
        detected = None if self.detected is None else self.detected[rows]
        return Track(self.identity, self.points[rows], self.scores[rows], self.frames[rows], detected)

    def between(self, first: int, last: int) -> Track:
        """Its frames from ``first`` to ``last``, both included."""
        return self.part(slice(*np.searchsorted(self.frames, (first, last + 1)).tolist()))

    def over(self, frames: int) -> Track:
        """The track over all ``frames`` frames of the video."""
        points = np.full((frames, *self.points.shape[1:]), np.nan, np.float32)
        scores = np.zeros((frames, self.scores.shape[1]), np.float32)
        points[self.frames], scores[self.frames] = self.points, self.scores
        return Track(self.identity, points, scores)


def joined(tracks: Sequence[Track], identity: int) -> Track:
    """Several tracks as one; of a frame with several sightings the first is taken, with what it lacks from the next."""
    frames = np.concatenate([t.frames for t in tracks])
    points, scores = np.concatenate([t.points for t in tracks]), np.concatenate([t.scores for t in tracks])
    order = np.argsort(frames, kind="stable")
    every, first = np.unique(frames[order], return_index=True)
    whole, sure = points[order[first]], scores[order[first]]
    for at, again in zip(np.searchsorted(every, frames), range(len(frames))):
        if order[first[at]] != again:  # few: halves of one person
            lacks = (sure[at] <= 0) & (scores[again] > 0)
            whole[at][lacks], sure[at][lacks] = points[again][lacks], scores[again][lacks]
    return Track(identity, whole, sure, every)


class Looks:
    """What somebody looks like, a mean over some of the frames: clothes, and bones relative to each other."""

    def __init__(self):
        self.clothes, self.bones = np.zeros((2, 2, 3)), None  # sums and counts

    def add(self, sighting: Sighting, bones: tuple[np.ndarray, np.ndarray] | None) -> None:
        if sighting.clothes is not None:
            seen = np.isfinite(sighting.clothes)
            self.clothes[0] += np.where(seen, sighting.clothes, 0)
            self.clothes[1] += seen
        if bones is not None:
            length = np.linalg.norm(sighting.points[bones[0]] - sighting.points[bones[1]], axis=-1)
            seen = (sighting.scores[bones[0]] > SEEN) & (sighting.scores[bones[1]] > SEEN) & (length > 0)
            self.bones = np.zeros((2, len(length))) if self.bones is None else self.bones
            self.bones += np.where(seen, length, 0), seen

    def join(self, other: Looks) -> None:
        self.clothes = self.clothes + other.clothes
        if other.bones is not None:
            self.bones = other.bones if self.bones is None else self.bones + other.bones

    @property
    def worn(self) -> np.ndarray:
        """[6], NaN where unknown."""
        total, count = self.clothes.reshape(2, -1)
        return np.where(count > 2, total / np.maximum(count, 1), np.nan)

    @property
    def built(self) -> np.ndarray:
        """[bones], logarithms of their mean lengths; NaN where hardly seen."""
        if self.bones is None:
            return np.zeros(0)
        total, count = self.bones
        return np.log(np.where(count > 2, total / np.maximum(count, 1), np.nan))


@dataclass
class _Person:
    identity: int
    last: Sighting
    last_frame: int
    size: float  # of the last sighting
    first: tuple[np.ndarray, float]  # place and size when they came
    number: int | None = None  # that somebody else knows them by
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(2))
    frames: array = field(default_factory=lambda: array("q"))
    rows: array = field(default_factory=lambda: array("q"))  # which of all sightings
    prominence: float = 0.0
    looks: Looks = field(default_factory=Looks)

    @property
    def length(self) -> int:
        return len(self.frames)


def sizes_of(sightings: list[Sighting]) -> list[float]:
    """``Sighting.size`` of several, at once."""
    if not sightings:
        return []
    points = np.stack([s.points for s in sightings])
    seen = np.isfinite(points).all(-1, keepdims=True)
    span = np.where(seen, points, -np.inf).max(1) - np.where(seen, points, np.inf).min(1)
    return np.where(seen.any((1, 2)), np.hypot(*span.T), 0.0).tolist()


def place(sighting: Sighting) -> np.ndarray:
    """[2] pixels, the middle of the joints seen."""
    seen = sighting.points[np.isfinite(sighting.points).all(-1)]
    return seen.mean(0) if len(seen) else np.zeros(2)


class Tracker:
    """Frames in, one at a time (``add``); people out (``tracks``).

    A sighting continues the person whose joints, moved on at constant speed, are nearest: the mean distance over joints
    seen in both, relative to the person's size. Pairs are taken from the nearest on, each side once. A person out of
    sight for up to ``patience`` frames is taken up again where expected; a later one is new, unless they look like
    nobody else (``again``). Detectors at times break a person into two, of different joints: both halves continue the
    same one. A number that somebody else knows a person by decides, where there is one.

    Args:
        layout: of the joints, for the lengths of bones; None for none.
    """

    def __init__(self, patience: int = PATIENCE, layout: str | None = None):
        self.patience, self.frame, self.people, self.sightings = patience, 0, [], 0
        self.alive: list[_Person] = []
        self.numbered: set[int] = set()
        pairs = skeleton(layout).bones if layout else ()
        self.bones = tuple(np.array(pairs).T) if pairs else None

    def _distances(self, people: list[_Person], sightings: list[Sighting], sizes: list[float]) -> np.ndarray:
        """[P, S] mean distance of the joints, relative to the size; infinite where nothing tells."""
        gap = np.array([min(self.frame - p.last_frame, 10) for p in people])  # nobody walks straight on for long
        expected = np.stack([p.last.points + p.velocity * g for p, g in zip(people, gap.tolist())])
        known, now = np.stack([p.last.scores for p in people])[:, None], np.stack([s.scores for s in sightings])[None]
        off = np.linalg.norm(expected[:, None] - np.stack([s.points for s in sightings])[None], axis=-1)  # [P, S, J]
        good = (known > SEEN) & (now > SEEN)
        good = np.where(good.any(-1, keepdims=True), good, (known > 0) & (now > 0))
        count = good.sum(-1)
        size = np.maximum(np.maximum(np.array([p.size for p in people])[:, None], np.array(sizes)[None]), 1e-6)
        return np.where(count > 0, np.where(good, off, 0).sum(-1) / np.maximum(count, 1), np.inf) / size

    def _by_number(self, person: _Person, number: int | None, distance: float) -> float:
        """The distance, where a number does not decide."""
        if number is not None and person.number is not None:
            return -1.0 if number == person.number else np.inf
        if number is not None and number in self.numbered:
            return np.inf  # of somebody else
        return distance if self.frame - person.last_frame <= self.patience else np.inf

    def _continue(self, person: _Person, sighting: Sighting) -> None:
        step, gap = sighting.points - person.last.points, self.frame - person.last_frame
        total, count = np.add.reduce(step, 0), len(step)
        if not np.isfinite(total).all():  # some joints are seen in one of them only
            both = np.isfinite(step).all(-1)
            total, count = np.add.reduce(step[both], 0), int(both.sum())
        if count and gap:
            person.velocity = 0.5 * person.velocity + 0.5 * total / (count * gap)
        person.last, person.last_frame = sighting, self.frame

    def add(self, sightings: list[Sighting], numbers: list[int | None] | None = None) -> list[int]:
        """Take the people of the next frame.

        Args:
            numbers: of these people, where somebody else knows them; no number twice. Who has none is told apart by
                place, also from those who have one.
        Returns:
            Everybody's number: the known one, else counted from 1 in order of appearance.
        """
        numbers, sizes = numbers or [None] * len(sightings), sizes_of(sightings)
        self.alive = [p for p in self.alive if p.number is not None or self.frame - p.last_frame <= self.patience]
        alive, pairs = self.alive, []
        if alive and sightings:
            distances = self._distances(alive, sightings, sizes)
            if self.numbered or any(n is not None for n in numbers):
                for i, person in enumerate(alive):
                    distances[i] = [self._by_number(person, n, d) for n, d in zip(numbers, distances[i].tolist())]
            near = np.argwhere(distances < REACH).tolist()
            late = [NEWCOMER if person.length < 5 else 0.0 for person in alive]
            pairs = sorted((float(distances[i, j]) + late[i], i, j) for i, j in near)
        taken: dict[int, _Person] = {}
        whole: dict[int, Sighting] = {}  # of each person taken
        for _, i, j in pairs:
            if j in taken:
                continue
            if i not in whole:
                taken[j], whole[i] = alive[i], sightings[j]
                self._learn(alive[i], numbers[j])
            elif numbers[j] is None and not ((whole[i].scores > 0) & (sightings[j].scores > 0)).any():
                taken[j], whole[i] = alive[i], whole[i].joined(sightings[j])  # the other half of somebody
        for i, sighting in whole.items():
            self._continue(alive[i], sighting)
        for j, sighting in enumerate(sightings):
            if j not in taken:
                taken[j] = self._new(sighting, numbers[j], sizes[j])
            self._see(taken[j], sighting, self.sightings + j, sizes[j])
        self.frame += 1
        self.sightings += len(sightings)
        return [taken[j].identity for j in range(len(sightings))]

    def _new(self, sighting: Sighting, number: int | None, size: float) -> _Person:
        person = _Person(len(self.people) + 1, sighting, self.frame, size, (place(sighting), size))
        self.people.append(person)
        self.alive.append(person)
        self._learn(person, number)
        return person

    def _see(self, person: _Person, sighting: Sighting, row: int, size: float) -> None:
        if person.length % LOOKS == 0:
            person.looks.add(sighting, self.bones)
        person.frames.append(self.frame)
        person.rows.append(row)
        person.size, person.prominence = size, person.prominence + size

    def _learn(self, person: _Person, number: int | None) -> None:
        if number is not None:
            person.identity = person.number = number
            self.numbered.add(number)

    def groups(self, least: int = 1) -> list[list[int]]:
        """The numbers that turned out to be one person's, of everybody so far; ``least`` as for ``tracks``."""
        return [[p.identity for p in group] for group in again([p for p in self.people if p.length >= least])]

    def tracks(self, read: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]], least: int = 1) -> Tracks:
        """Everybody so far; the most prominent first: who is large, for long.

        Args:
            read: points and scores of sightings by their numbers, in the order in which they were added.
            least: frames; whoever was seen in fewer is left out, and was not anybody who came back.
        """
        some = [p for p in self.people if p.length >= least]
        free = itertools.count(1 + max((p.identity for p in self.people), default=0))
        groups = sorted(again(some), key=lambda group: -sum(p.prominence for p in group))
        found = []
        for group in groups:
            number = group[0].identity
            clashes = group[0].number is None and number in self.numbered
            frames, rows = (
                np.concatenate([np.frombuffer(a, np.int64) for a in parts])
                for parts in zip(*((p.frames, p.rows) for p in group))
            )
            found.append((next(free) if clashes else number, frames, rows))
        return Tracks(found, read, len(self.people) - len(some))


class Tracks(Sequence):
    """Tracks that are read when they are asked for, one at a time. ``brief``: how many people were left out."""

    def __init__(self, people: list[tuple[int, np.ndarray, np.ndarray]], read: Callable, brief: int):
        self.people, self.read, self.brief = people, read, brief

    def __len__(self) -> int:
        return len(self.people)

    def __getitem__(self, index: int | slice) -> Track | list[Track]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        identity, frames, rows = self.people[index]
        points, scores = self.read(rows)
        track = Track(identity, points, scores, frames)
        return joined([track], identity) if (np.diff(frames) < 1).any() else track

    def __iter__(self) -> Iterator[Track]:
        return (self[i] for i in range(len(self)))


# -- who comes back --------------------------------------------------------------------------------------------------
def again(people: list[_Person]) -> list[list[_Person]]:
    """People who came back put together with who they were before; in order of appearance.

    Clothes, size and bones must agree, and clearly better than with anybody else who was ever seen; else they are
    somebody new. Where nobody looked at clothes, they must come back where they were last, too, before long. People
    whom somebody else knows by a number stay as they are.
    """
    size = np.array([max(p.first[1], 1e-6) for p in people])
    span = np.array([(p.frames[0], p.frames[-1]) for p in people]).reshape(-1, 2)
    each, all_of = _Table(people), _Table(people)  # by themselves; row i of the second is group i
    groups: list[list[_Person]] = []
    looks: list[Looks] = []
    for i, person in enumerate(people):
        best = None
        if person.number is None and groups:
            best = _who(i, people, groups, each, all_of, size, span)
        if best is None:
            best = len(groups)
            groups.append([])
            looks.append(Looks())
        groups[best].append(person)
        looks[best].join(person.looks)
        all_of.put(best, looks[best], person.size)
    return groups


class _Table:
    """Clothes, bones and last sizes, a row for each of some people."""

    def __init__(self, people: list[_Person]):
        self.worn = np.full((len(people), 6), np.nan)
        self.built = np.full((len(people), max((len(p.looks.built) for p in people), default=0)), np.nan)
        self.size = np.ones(len(people))
        for i, person in enumerate(people):
            self.put(i, person.looks, person.size)

    def put(self, row: int, looks: Looks, size: float) -> None:
        self.worn[row], self.size[row] = looks.worn, max(size, 1e-6)
        if looks.bones is not None:
            self.built[row] = looks.built


def _unlike(ones: _Table, a: slice | int, others: _Table, b: np.ndarray | int, size: np.ndarray) -> np.ndarray:
    """How unlike rows of two tables are, the second with sizes of its own; infinite where nothing can be compared."""
    clothes = np.abs(np.atleast_2d(ones.worn[a] - others.worn[b]))
    bones = np.atleast_2d(ones.built[a] - others.built[b])
    bones = np.abs(bones - _mean(bones)[:, None])  # whether near or far
    unlike = _mean(clothes) / CLOTHES + _mean(bones) / BONES + np.abs(np.log(ones.size[a] / size)) / SIZES
    return np.where(np.isfinite(clothes).any(-1) | np.isfinite(bones).any(-1), unlike, np.inf)


def _who(
    i: int, people: list[_Person], groups: list, each: _Table, all_of: _Table, size: np.ndarray, span: np.ndarray
) -> int | None:
    """Which group person ``i`` is of; None for somebody new."""
    unlike = _unlike(all_of, slice(0, len(groups)), each, i, size[i])
    best, *others = np.argsort(unlike, kind="stable")[:2].tolist()
    if not unlike[best] < UNLIKE or (others and unlike[others[0]] - unlike[best] < CLEARLY):
        return None
    person, before = people[i], groups[best][-1]
    apart = person.frames[0] - before.frames[-1]
    if apart <= 0 or before.number is not None:
        return None
    beside = np.flatnonzero((span[:, 0] <= span[i, 1]) & (span[:, 1] >= span[i, 0]) & (span[:, 0] > before.frames[-1]))
    beside = beside[beside != i]
    if len(beside) and _unlike(all_of, best, each, beside, size[beside]).min() - unlike[best] < CLEARLY:
        return None  # somebody beside them could be the one as well
    known = np.isfinite(all_of.worn[best] - each.worn[i]).any()
    off = np.linalg.norm(person.first[0] - place(before.last)) / max(before.size, size[i])
    return best if known or (off < NEAR and apart <= PATIENCE * 10) else None


def _mean(values: np.ndarray) -> np.ndarray:
    """Over the last axis, of what is known; 0 where nothing is."""
    known = np.isfinite(values)
    return np.where(known, values, 0).sum(-1) / np.maximum(known.sum(-1), 1)
