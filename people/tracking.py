"""Who is who from frame to frame: people found in single frames, joined into tracks with stable numbers."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np

REACH = 0.5  # of a person's size: joints farther off than this on average belong to somebody else
PATIENCE = 60  # frames after which somebody who was lost from sight comes back as somebody new
NEWCOMER = 0.1  # added to the distance of people of a few frames: in doubt, a sighting continues an older one
SEEN = 0.2  # score from which a joint counts in the comparison


@dataclass
class Sighting:
    """One person in one frame: points [J, 2] pixels (NaN where not seen), scores [J]."""

    points: np.ndarray
    scores: np.ndarray

    def joined(self, other: Sighting) -> Sighting:
        """The sighting with the joints of another one that it lacks."""
        mine = self.scores > 0
        return Sighting(np.where(mine[:, None], self.points, other.points), np.where(mine, self.scores, other.scores))

    @property
    def size(self) -> float:
        """Diagonal of the box around the joints seen, pixels."""
        seen = self.points[np.isfinite(self.points).all(-1)]
        return float(np.linalg.norm(np.ptp(seen, axis=0))) if len(seen) else 0.0


@dataclass
class Track:
    """One person over a video: points [T, J, 2] pixels, NaN where not seen; scores [T, J], 0 there."""

    identity: int
    points: np.ndarray
    scores: np.ndarray

    @property
    def present(self) -> np.ndarray:
        """[T] frames in which any joint was seen."""
        return (self.scores > 0).any(-1)


@dataclass
class _Person:
    identity: int
    last: Sighting
    last_frame: int
    number: int | None = None  # that somebody else knows them by
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(2))
    found: dict[int, Sighting] = field(default_factory=dict)


class Tracker:
    """Frames in, one at a time (``add``); people out (``tracks``).

    A sighting continues the person whose joints, moved on at constant speed, are nearest: the mean distance over joints
    seen in both, relative to the person's size. Pairs are taken from the nearest on, each side once. A person out of
    sight for up to ``patience`` frames is taken up again where expected; a later one is new. Detectors at times break
    a person into two, of different joints: both halves continue the same one. A number that somebody else knows a
    person by decides, where there is one.
    """

    def __init__(self, patience: int = PATIENCE):
        self.patience, self.frame, self.people = patience, 0, []
        self.numbered: set[int] = set()

    def _distance(self, person: _Person, sighting: Sighting, number: int | None) -> float:
        if number is not None and person.number is not None:
            return -1.0 if number == person.number else np.inf
        if number is not None and number in self.numbered:
            return np.inf  # of somebody else
        if self.frame - person.last_frame > self.patience:
            return np.inf
        gap = min(self.frame - person.last_frame, 10)  # nobody walks straight on for long
        moved = person.last.points + person.velocity * gap
        good = (person.last.scores > SEEN) & (sighting.scores > SEEN)
        if not good.any():
            good = (person.last.scores > 0) & (sighting.scores > 0)
        if not good.any():
            return np.inf
        size = max(person.last.size, sighting.size, 1e-6)
        return float(np.linalg.norm(moved - sighting.points, axis=-1)[good].mean()) / size

    def _continue(self, person: _Person, sighting: Sighting) -> None:
        both = np.isfinite(person.last.points + sighting.points).all(-1)
        gap = self.frame - person.last_frame
        if both.any() and gap:
            step = (sighting.points - person.last.points)[both].mean(0) / gap
            person.velocity = 0.5 * person.velocity + 0.5 * step
        person.last, person.last_frame = sighting, self.frame
        person.found[self.frame] = sighting

    def add(self, sightings: list[Sighting], numbers: list[int | None] | None = None) -> list[int]:
        """Take the people of the next frame.

        Args:
            numbers: of these people, where somebody else knows them; no number twice. Who has none is told apart by
                place, also from those who have one.
        Returns:
            Everybody's number: the known one, else counted from 1 in order of appearance.
        """
        numbers = numbers or [None] * len(sightings)
        alive = [p for p in self.people if p.number is not None or self.frame - p.last_frame <= self.patience]
        pairs = sorted(
            (distance + (NEWCOMER if len(person.found) < 5 else 0.0), i, j)
            for i, person in enumerate(alive)
            for j, sighting in enumerate(sightings)
            if (distance := self._distance(person, sighting, numbers[j])) < REACH
        )
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
                taken[j] = self._new(sighting, numbers[j])
        self.frame += 1
        return [taken[j].identity for j in range(len(sightings))]

    def _new(self, sighting: Sighting, number: int | None) -> _Person:
        person = _Person(len(self.people) + 1, sighting, self.frame, found={self.frame: sighting})
        self.people.append(person)
        self._learn(person, number)
        return person

    def _learn(self, person: _Person, number: int | None) -> None:
        if number is not None:
            person.identity = person.number = number
            self.numbered.add(number)

    def tracks(self) -> list[Track]:
        """Everybody so far, over all frames so far; the most prominent first: who is large, for long."""
        tracks, free = [], itertools.count(1 + max((p.identity for p in self.people), default=0))
        for person in sorted(self.people, key=lambda p: -sum(s.size for s in p.found.values())):
            joints = len(person.last.scores)
            points = np.full((self.frame, joints, 2), np.nan, np.float32)
            scores = np.zeros((self.frame, joints), np.float32)
            for frame, sighting in person.found.items():
                points[frame], scores[frame] = sighting.points, sighting.scores
            clashes = person.number is None and person.identity in self.numbered
            tracks.append(Track(next(free) if clashes else person.identity, points, scores))
        return tracks
