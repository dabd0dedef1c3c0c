"""Who is whom, put right by hand: people who are one, and one who is two."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .bodies import one_skeleton
from .lifter import Person, Shelf

FIELDS = ("points", "scores", "poses")


def put_right(
    people: Shelf, couples: Sequence[tuple[int, int]], moments: Sequence[tuple[int, float]], fps: float
) -> Shelf:
    """People of whom some are one (``--merge``), or two (``--split``); before they stand in a world.

    Args:
        couples: numbers of people; the second is the first. They are never there at one moment.
        moments: somebody's number, and seconds from which on it is somebody new.
    Raises:
        ValueError: a number that nobody has; two who are there at one moment; one who is not there before and after.
    """
    if not couples and not moments:
        return people
    found = {person.identity: person for person in people}
    everybody = sorted(found)

    def take(number: int, option: str) -> Person:
        if number not in found:
            known = ", ".join(map(str, everybody[:20])) + (", ..." if len(everybody) > 20 else "")
            raise ValueError(f"{option}: nobody has the number {number}; there are {known}")
        return found.pop(number)

    for number, seconds in moments:
        option = f"--split {number}@{seconds:g}"
        person = take(number, option)
        before, after = (np.flatnonzero((person.frames >= seconds * fps) == late) for late in (False, True))
        if not len(before) or not len(after):
            frames = person.frames[[0, -1]] / fps
            raise ValueError(
                f"{option}: expected a time when this person is there, {frames[0]:.1f} to {frames[1]:.1f} s"
            )
        new = max([number, *found]) + 1
        found |= {number: _some(person, before, number), new: _some(person, after, new)}
    for first, second in couples:
        option = f"--merge {first}={second}"
        one, other = take(first, option), take(second, option)
        both = np.intersect1d(one.frames[one.present], other.frames[other.present])
        if len(both):
            when = f"at {both[0] / fps:.1f} s, and in {len(both)} frames in all"
            raise ValueError(f"{option}: expected one person, but both are there {when}")
        found[first] = _one(one, other)
    shelf = Shelf(people.folder)
    for _, person in sorted(found.items()):
        shelf.append(person)
    return shelf


def _some(person: Person, rows: np.ndarray, identity: int) -> Person:
    of = (getattr(person, name)[rows] for name in FIELDS)
    detected = None if person.detected is None else person.detected[rows]
    return Person(identity, *of, frames=person.frames[rows], detected=detected)


def _one(one: Person, other: Person) -> Person:
    """Both as the first, with limbs as long in all frames."""
    frames = np.concatenate([p.frames[p.present] for p in (one, other)])
    order = np.argsort(frames, kind="stable")
    points, scores, poses = (
        np.concatenate([getattr(p, name)[p.present] for p in (one, other)])[order] for name in FIELDS
    )
    detected = None
    if one.detected is not None:
        detected = np.concatenate([p.detected[p.present] for p in (one, other)])[order]
    return Person(one.identity, points, scores, one_skeleton(poses), frames=frames[order], detected=detected)
