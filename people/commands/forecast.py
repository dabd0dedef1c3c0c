"""``posekernels forecast INPUT -o OUT``: what people do next.

INPUT is lifted people, anything ``lift`` takes, or, with ``--joints LAYOUT``, 3D joints of your own.
"""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from posekernels import models
from posekernels.archive import DataError, check_file, names_in
from posekernels.cli import Parser, frame_rate
from posekernels.models.forecasting import FPS, with_path, without_path
from posekernels.models.pkd import roll_out
from posekernels.pose.layouts import LAYOUTS
from posekernels.pose.skeleton import H36M_17

from .. import pictures, player, pose_files
from ..future import believable
from ..lifter import LONGEST, Person, runs, stretches
from ..video import Video
from ..world import Lifted
from . import lift
from .lift import say

PAST = 60.0  # seconds before a forecast that are kept with it
NAMED = ", forecast"  # after the name of where people came from, in files of poses
BEFORE = 2.0  # seconds of the past that pictures begin with, at most


def resampled(motion: np.ndarray, fps: float, target: float, count: int, end: int) -> np.ndarray:
    """[count, ...] at ``target`` per second, the last one frame ``end`` of ``motion`` at ``fps``; linear in between.

    Before its first frame it stands still: as it goes there, half a second on, it would be far off.
    """
    at = np.maximum(end - np.arange(count)[::-1] * fps / target, 0)
    below = np.minimum(np.floor(at).astype(int), len(motion) - 1)
    above = np.minimum(below + 1, len(motion) - 1)
    share = (at - below)[(..., *(None,) * (motion.ndim - 1))]
    return motion[below] * (1 - share) + motion[above] * share


def seen(person: Person) -> np.ndarray:
    """The frames with a place in the world."""
    parts = range(0, len(person.frames), LONGEST)
    return np.concatenate([person.frames[:0], *(_seen(person, slice(start, start + LONGEST)) for start in parts)])


def _seen(person: Person, rows: slice) -> np.ndarray:
    return person.frames[rows][np.isfinite(person.world[rows]).all((1, 2))]


def best_moment(lifted: Lifted, least: float) -> tuple[float, list[int]]:
    """When most people have been seen for ``least`` seconds: the middle of the longest such time, and their numbers."""
    ready = np.zeros((len(lifted.people), lifted.frames), bool)
    for row, person in zip(ready, lifted.people):
        for part in runs(seen(person), 0):
            row[part.start + int(np.ceil(least * lifted.fps)) : part.stop] = True
    count = ready.sum(0)
    longest = max(stretches(count == count.max(), 0), key=lambda part: part.stop - part.start)
    frame = (longest.start + longest.stop) // 2
    there = [person.identity for person, row in zip(lifted.people, ready) if row[frame]]
    return round((frame + 1) / lifted.fps, 2), there


def named(people: list[int]) -> str:
    return f"{'person' if len(people) == 1 else 'people'} {', '.join(map(str, people))}"


def only_seen(lifted: Lifted, name: str | None = None) -> Lifted:
    """The people in the frames that were seen, without the forecast that the rest may be; ``name``: their file's.

    Raises:
        DataError: a forecast that does not tell how many were seen.
    """
    if lifted.now is None:
        if lifted.source.endswith(NAMED):
            why = "a forecast that does not say where it begins; give the file that it was made from"
            raise DataError(f"{name or lifted.source}: {why}")
        return lifted
    cut = [person.until(lifted.now) for person in lifted.people]
    return replace(lifted, people=cut, length=lifted.now, now=None)


def forecast(
    net: torch.nn.Module, lifted: Lifted, seconds: float, rate: float, at: float | None = None
) -> tuple[Lifted, int, list[str]]:
    """Past and future of everybody who is there at the end, and notes on those who are not.

    Args:
        net: a forecaster of 17 joints. rate: frames per second it expects.
        at: the second that the people were cut at (``until``), for the notes.
    Returns:
        The people over past and future frames, at ``lifted.fps``, keypoints of the future NaN; how many frames are
        past, up to the last one in which all of them are seen; the notes.
    """
    lifted = only_seen(lifted)
    ahead = round(seconds * lifted.fps)
    if ahead < 1:
        raise ValueError(f"--seconds: expected at least one frame, got {seconds:g} s at {lifted.fps:g} frames/s")
    need = (net.history - 1) / rate
    moment = "the end" if at is None else f"second {at:.2f}"
    people, notes, futures = [], [], []
    latest = [runs(seen(person), 0)[-1:] for person in lifted.people]
    late = lifted.frames - 0.2 * lifted.fps
    end = min((run.stop for last in latest for run in last if run.stop >= late), default=0)  # one moment for everybody
    for person, last in zip(lifted.people, latest):
        have = (end - 1 - last[0].start) / lifted.fps if last else 0.0
        if not last or last[0].stop < late:
            gone = f"last seen at {last[0].stop / lifted.fps:.1f} s" if last else "never seen before it"
            notes.append(f"person {person.identity} is not there at {moment} ({gone}): nothing to forecast")
        elif have < 0.5 * need:
            notes.append(
                f"person {person.identity}: seen for {have:.2f} s at {moment}, too short ({0.5 * need:.2f} s needed)"
            )
        else:
            past = person.world[slice(*np.searchsorted(person.frames, (last[0].start, end)))]
            people.append(person)
            futures.append(resampled(past, lifted.fps, rate, net.history, len(past) - 1))
    if not people:
        raise DataError(f"{lifted.source}: nobody to forecast; {'; '.join(notes)}")
    world = torch.from_numpy(np.stack(futures)).float()
    origin = world[:, -1, 0]
    steps = int(np.ceil(seconds * rate))
    with torch.no_grad():
        found = without_path(roll_out(net, with_path(world, net.history - 1), steps), origin).numpy()
    found = np.stack([believable(past, future, rate) for past, future in zip(world.numpy(), found)])
    joined = np.concatenate((world[:, -1:].numpy(), found), 1)  # from the last frame seen on
    shown = []
    for person, future in zip(people, joined):
        at = (np.arange(1, ahead + 1) / lifted.fps * rate).clip(0, steps)
        below = np.floor(at).astype(int).clip(0, steps - 1)
        share = (at - below)[:, None, None]
        ahead_world = (future[below] * (1 - share) + future[below + 1] * share).astype(np.float32)
        before, new = person.until(end).since(end - round(PAST * lifted.fps)), np.arange(end, end + ahead)
        parts = {
            "points": np.full((ahead, 17, 2), np.nan, np.float32),
            "scores": np.zeros((ahead, 17), np.float32),
            "poses": np.full((ahead, 17, 3), np.nan, np.float32),
            "world": ahead_world,
            "frames": new,
        }
        if lifted.detected_layout:
            parts["detected"] = np.full((ahead, *before.detected.shape[1:]), np.nan, np.float32)
        shown.append(Person(person.identity, **{k: np.concatenate((getattr(before, k), v)) for k, v in parts.items()}))
    if end > PAST * lifted.fps:
        notes.append(
            f"only the last {PAST:g} s before the forecast are written with it, not all {end / lifted.fps:.0f} s"
        )
    about = lifted.fps, lifted.size, lifted.source, notes, end, end + ahead, lifted.detected_layout
    return Lifted(shown, *about), end, notes


def frame_at(at: float, frames: int, fps: float, more: str = "") -> int:
    """How many of ``frames`` there are up to second ``at``; ``more``: what is said of a time after them.

    Raises:
        ValueError: none, or it is after all of them.
    """
    number = round(at * fps)
    if not 1 <= number <= frames:
        raise ValueError(f"--at {at:g}: expected a time within the motion, which lasts {frames / fps:.1f} s{more}")
    return number


def until(lifted: Lifted, at: float) -> Lifted:
    """The people up to second ``at``.

    Raises:
        ValueError: nobody is there yet, or no more.
    """
    more = "" if lifted.now is None else "; what comes after it is a forecast"
    lifted = only_seen(lifted)
    frames = frame_at(at, lifted.frames, lifted.fps, more)
    cut = [person.until(frames) for person in lifted.people]
    return replace(lifted, people=cut, length=frames)


def beginning(lifted: Lifted, end: int) -> int:
    """The frame that pictures begin with: ``BEFORE`` the forecast from frame ``end`` on, or when somebody is seen."""
    first = min((int(frames[0]) for p in lifted.people if len(frames := seen(p))), default=0)
    return max(end - max(1, round(BEFORE * lifted.fps)), first)


def when(seconds: float) -> str:
    """How far from the last frame that was seen, in words."""
    words = f"{abs(seconds):.1f} s"
    return "now" if abs(seconds) < 0.05 else f"{words} ago" if seconds < 0 else f"forecast, in {words}"


def panels(lifted: Lifted, end: int, step: int = 1) -> list[pictures.Panel]:
    """The past up to frame ``end``, which then stands still beside the future that walks on from it.

    Args:
        step: only every such frame, the last that was seen among them.
    """
    people, start = lifted.people, beginning(lifted, end)
    worlds = lifted.over("world", start)
    past = np.concatenate(worlds, 1)
    end -= start
    future = past.copy()
    roots = np.stack([pictures.held(world[:, H36M_17.root, :2]) for world in worlds])
    past[end:] = past[end - 1]
    future[:end] = np.nan
    both = np.concatenate((past, future), 1)
    both[..., 2] -= min(np.nanmin(both[..., 2]), 0)  # joints of one's own may be relative to the root: on the floor
    focus = roots.mean(0)  # the view goes along, so that people fill it
    reach, zoom = float(np.nanmax(np.abs(both[..., :2] - focus[:, None]))), 0.9
    seconds = (np.arange(len(both)) - end + 1) / lifted.fps
    kept = slice((end - 1) % step, None, step)
    shared = {
        "focus": focus[kept],
        "side": min(max(pictures.CUBE, 2.1 * reach, zoom * pictures.height_of(both)), 8.0),
        "zoom": zoom,
        "faded": tuple(range(len(people) * 17)),
        "persons": tuple(range(len(people))) * 2,
        "captions": [when(s) for s in seconds[kept].tolist()],
    }
    body = pictures.crowd(H36M_17, 2 * len(people))
    name = f"{Path(lifted.source).stem}, {named([p.identity for p in people])}"
    return [
        pictures.Panel(name, both[kept], body, azimuth=-90, **shared),
        pictures.Panel("from the side; past in grey", both[kept], body, azimuth=0, **shared),
    ]


def draw(out: Path, done: Lifted, beside: Sequence[Path], panel: int, fps: float | None = None) -> list[Path]:
    """Write a page or pictures of a forecast, by the suffix.

    Args:
        done: people with ``now``. beside: what the page links to, if it is poses.
        panel: pixels. fps: of pictures; None for every frame.
    """
    if out.suffix.lower() == ".html":
        files = [path for path in beside if path.suffix.lower() in pose_files.SUFFIXES]
        return [player.write(out, player.film_of(done, files=files, start=beginning(done, done.now), now=done.now))]
    step = max(1, round(done.fps / (fps or done.fps)))
    title = f"{Path(done.source).name}: {round((done.frames - done.now) / done.fps, 2):g} s ahead"
    return [pictures.save(out, panels(done, done.now, step), done.fps / step, size=panel, title=title)]


def _check_before_search(at: float, how: Namespace) -> None:
    """Raises ValueError where a video to be searched, which may take hours, ends before second ``at``."""
    source = Path(how.input)
    if source.is_file() or source.is_dir():  # no camera, and no pipe, which gives its images once
        video = Video(source, fps=how.fps, clip=how.clip)
        if video.files or video.count > 1:  # where images have no times, as in .h264, one is all that is known
            frame_at(at, video.count, video.fps)


def _is_lifted(source: str) -> bool:
    path = Path(source)
    if not path.is_file() or path.suffix.lower() not in pose_files.READ:
        return False
    check_file(path, f"{pose_files.OURS}, or 2D keypoints")
    return "world" in names_in(path) if path.suffix.lower() == ".npz" else pose_files.is_ours(path)


def main(arguments: list[str]) -> int:
    p = Parser(prog="posekernels forecast", description=__doc__)
    p.add_argument(
        "input", metavar="INPUT", help="people.npz or .json of posekernels lift; or a video or keypoints, lifted first"
    )
    p.add_argument("-o", "--out", required=True, action="append", metavar="OUT", help="as for posekernels lift")
    p.add_argument("--seconds", type=float, default=1.0, help="how far ahead")
    p.add_argument("--at", type=float, metavar="SECONDS", help="forecast from this second on (default: the end)")
    ours = "the project's: one of lifted people, one of --joints"
    p.add_argument("--weights", metavar="FILE", help=f"a forecaster of 17 joints (default: {ours})")
    p.add_argument("--panel", type=int, default=360, metavar="PIXELS", help="size of a panel")
    layouts = ", ".join(LAYOUTS)
    p.add_argument("--joints", metavar="LAYOUT", help=f"INPUT is 3D joints [T, J, 3], .npy or .npz, metres: {layouts}")
    p.add_argument("--fps", type=frame_rate, metavar="F", help="frames per second of --joints")
    p.add_argument("--up", choices=("y", "z"), help="which axis of --joints points up (default: z)")
    names = "options for lifting, without their dashes: people=2 size=1920x1080"
    p.add_argument("--lift", nargs="+", default=[], metavar="OPTION", help=names)
    options = p.parse_args(arguments)
    outs = lift.check_outs(options.out, options.input)
    if not 0 < options.seconds <= 10:
        raise ValueError(f"--seconds must be more than 0 and at most 10, got {options.seconds:g}")
    if options.at is not None and not 0 < options.at < float("inf"):
        raise ValueError(f"--at must be a time after 0, in seconds, got {options.at:g}")
    if options.panel < 32:
        raise ValueError(f"--panel must be at least 32, got {options.panel}")
    own, outline = options.joints is not None, None
    net = models.load(options.weights or ("forecaster" if own else "forecaster_lifted"))
    if getattr(net, "joints", None) != 17 or not hasattr(net, "history"):
        of = f" of {net.joints} joints" if hasattr(net, "joints") else ""
        raise ValueError(f"{options.weights}: {net.about.network}{of} is not a forecaster of 17 joints")
    if own and options.fps is None:
        raise ValueError("--joints needs --fps F, the frames per second of these joints")
    for name, value in (("fps", options.fps), ("up", options.up)):
        if value is not None and not own:
            raise ValueError(f"--{name} {value} is for 3D joints, and needs --joints LAYOUT")
    if options.lift and (own or _is_lifted(options.input)):
        raise ValueError(f"--lift: {options.input} is lifted already")
    if own:
        lifted = pose_files.read_joints(options.input, options.joints, options.fps, options.up or "z")
        for note in lifted.notes:
            say(note)
    elif _is_lifted(options.input):
        lifted, outline = pose_files.read_before(options.input, PAST + 1, options.at)
    else:
        extra = [word for pair in options.lift for word in _option(pair)]
        try:
            how = lift.parser().parse_args([options.input, "-o", options.out[0], *extra])
            lift.check(how)
        except ValueError as error:  # of options as they are called here
            words = re.sub(r"--(?!help)(?=[a-z])", "", str(error)).replace("(--help", "(posekernels lift --help")
            raise ValueError(f"--lift: {words}") from error
        if options.at is not None and not lift.is_keypoints(options.input):
            _check_before_search(options.at, how)
        lifted = lift.run(how, [], outs[0], "--lift resume")
        if lifted is None:
            return 130
    if lifted.now is not None:
        say(f"{options.input} is a forecast: only its {lifted.now / lifted.fps:.2f} s that were seen are taken")
    rate = net.about.fps or FPS
    moment, most = best_moment(only_seen(outline or lifted, options.input), 0.5 * (net.history - 1) / rate)
    better = f"; --at {moment:g} would forecast {named(most)}" if most else ""
    if options.at is not None:
        lifted = until(lifted, options.at)
    try:
        done, end, notes = forecast(net, lifted, options.seconds, rate, options.at)
    except DataError as error:
        raise DataError(f"{error}{better}") from error
    for note in notes:
        say(note)
    who, drawn = [p.identity for p in done.people], (end - beginning(done, end)) / lifted.fps
    say(
        f"forecast: {named(who)}, {options.seconds:g} s from second {end / lifted.fps:.2f} on; pictures begin "
        f"{drawn:.2f} s before{better if len(most) > len(who) else ''}"
    )
    beside: list[Path] = []

    def write(out: Path) -> list[Path]:
        if out.suffix.lower() in pose_files.SUFFIXES:
            named_so = f"{Path(done.source.removesuffix(NAMED)).stem}{NAMED}"  # no video shows it
            return pose_files.write(out, replace(done, source=named_so))
        return draw(out, done, beside, options.panel)

    for out in lift.pages_last(outs):
        beside += lift.told(out, partial(write, out))
    return 0


def _option(pair: str) -> list[str]:
    name, equals, value = pair.partition("=")
    return [f"--{name}", value] if equals else [f"--{name}"]
