"""``posekernels lift INPUT -o OUT``: a video, pictures, a camera or 2D keypoints to 3D people."""

from __future__ import annotations

import fcntl
import itertools
import json
import math
import os
import re
import sys
import time
from argparse import SUPPRESS, ArgumentTypeError, BooleanOptionalAction, Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch

from posekernels.archive import DataError
from posekernels.cli import Parser, frame_rate
from posekernels.extras import needs
from posekernels.files import check_writable, left_aside, write_aside
from posekernels.models.lifting import SLOW
from posekernels.pose.layouts import LAYOUTS
from posekernels.pose.skeleton import H36M_17, skeleton
from posekernels.pose.smoothing import savitzky_golay

from .. import detect, keypoint_files, pictures, player, pose_files
from ..keypoint_files import Keypoints
from ..lifter import (
    FOCAL,
    SURE,
    Lifter,
    Nobody,
    Person,
    Shelf,
    focal_of,
    in_h36m,
    lift_all,
    load_lifter,
    more_than_lifted,
)
from ..live import Live, frames_of, pushed
from ..numbers import put_right
from ..rows import PIECE, Rows, cuts
from ..tracking import Sighting, Track, Tracker
from ..video import FOLDER_FPS, PICTURES, VIDEOS, Backgrounds, Video, each_by_itself
from ..world import Lifted, stand, tilt_of
from . import many

BRIEF = 0.3  # seconds: whoever is seen for less, in a video, is taken for a mistake of the detector
BRIDGE = 0.5  # seconds of absence that are filled in
BROWSERS_PLAY = (".mp4", ".m4v", ".mov", ".webm")
MOST_LINES = 40  # on people, before their number is said
CLOSE_UPS = 3  # people who each have a panel of a picture beside that of everybody
FAR_OFF = 0.15  # of the joints' median distance from the hips in the image; of 85 clips none has more than 0.10
SAMPLED = 1000  # frames of a person, to tell how large they are in the image
SLOWEST = 0.1  # frames per second: in between many are lifted, so that fewer would take for ever
PEOPLE = 4  # at one moment, unless asked for more
PICTURES_PER_SECOND = 15.0  # of .gif and .mp4, unless asked for more
WIDEST = 1920  # pixels of a picture inside a page
FPS = 30.0  # of keypoints that do not say
NOTHING_KEPT = "{}: no earlier run left anything here, so this one begins at the start"  # {}: the option's name
KEYPOINTS = (".npz", ".npy", ".json")
WRITTEN = (".bvh", ".trc", ".c3d", ".glb", ".gltf", ".html")  # by us, and not read again


def size(text: str) -> tuple[int, int]:
    """``1920x1080`` as numbers."""
    try:
        width, height = (int(n) for n in text.lower().split("x"))
    except ValueError:
        width = height = 0
    if width < 1 or height < 1:
        raise ArgumentTypeError(f"expected WIDTHxHEIGHT, such as 1920x1080, got {text!r}")
    return width, height


def tilt(text: str) -> str | float:
    """``auto``, or degrees as a number."""
    try:
        degrees = 0.0 if text == "auto" else float(text)
    except ValueError:
        degrees = np.inf
    if not -90 <= degrees <= 90:
        raise ArgumentTypeError(f"expected auto or degrees between -90 and 90, got {text!r}")
    return text if text == "auto" else degrees


def couple(text: str) -> tuple[int, int]:
    """``3=7`` as numbers."""
    try:
        first, second = (int(n) for n in text.split("="))
    except ValueError:
        raise ArgumentTypeError(f"expected two people's numbers, such as 3=7, got {text!r}") from None
    if first == second:
        raise ArgumentTypeError(f"expected the numbers of two different people, got {text!r}")
    return first, second


def moment(text: str) -> tuple[int, float]:
    """``3@61.5`` as a number and seconds."""
    try:
        number, seconds = text.split("@")
        return int(number), float(seconds)
    except ValueError:
        raise ArgumentTypeError(f"expected a person's number and seconds, such as 3@61.5, got {text!r}") from None


def parser(own: bool = False, people: int | None = None) -> Parser:
    """Args: own: of a command that brings its own input, which its help then leaves out. people: as --people."""
    p = Parser(prog="posekernels lift", description=__doc__)
    one = "video, picture, folder of pictures, camera number, or 2D keypoints: .npz, .npy, .json, folder of .json"
    further = "more of them, or a folder of them; -o is then a folder"
    p.add_argument("input", metavar="INPUT", help=SUPPRESS if own else one)
    p.add_argument("more", nargs="*", metavar="INPUT", help=SUPPRESS if own else further)
    p.add_argument(
        "-o",
        "--out",
        required=True,
        action="append",
        metavar="OUT",
        help="by its suffix .npz .json .bvh .trc .c3d .glb .gltf .gif .mp4 .html; may be given several times",
    )
    p.add_argument("--model", metavar="NAME", help="the network that --weights are of, where the file does not say")
    p.add_argument("--weights", metavar="FILE", help="ours or published (default: those that come with the project)")
    p.add_argument(
        "--rtmpose",
        nargs=2,
        metavar=("DETECTOR.onnx", "POSE.onnx"),
        help="find people with these networks instead of BlazePose: a person detector, and RTMPose or ViTPose "
        "(17, 26 or 133 joints)",
    )
    p.add_argument("--yolo-pose", metavar="FILE.onnx", help="find people with this network of YOLO-pose instead")
    most = f"at most this many at one moment (default {people or PEOPLE})"
    p.add_argument("--people", type=int, default=people, metavar="N", help=most)
    several = "these two numbers are one person; may be given several times"
    p.add_argument("--merge", type=couple, action="append", default=[], metavar="3=7", help=several)
    p.add_argument(
        "--split",
        type=moment,
        action="append",
        default=[],
        metavar="3@SECONDS",
        help="person 3 is somebody else from then on",
    )
    p.add_argument("--smooth", type=float, default=0.25, metavar="SECONDS", help="span of the smoothing; 0 for none")
    p.add_argument(
        "--ground",
        choices=("clip", "frame", "none"),
        default="clip",
        help="what is put on the floor: each person's whole way, each frame by itself, or nothing",
    )
    p.add_argument(
        "--tilt",
        type=tilt,
        default="auto",
        metavar="DEGREES",
        help="how far the camera looks down (default: found from how people stand)",
    )
    p.add_argument("--focal", type=float, metavar="PIXELS", help="focal length (default: 1.2 times the longer side)")
    p.add_argument("--latency", type=int, metavar="N", help="live: give each pose N frames after its image")
    p.add_argument("--device", default="cpu", help="cpu or cuda, for the lifter")
    p.add_argument(
        "--resume", action="store_true", help="go on where an interrupted run stopped; of many files, skip what is done"
    )
    p.add_argument("--progress", action=BooleanOptionalAction, default=None, help="show a bar (default: on a terminal)")
    group = p.add_argument_group("keypoint files")
    group.add_argument("--layout", choices=LAYOUTS, help="which joints they are, where their number does not show it")
    group.add_argument("--size", type=size, metavar="WxH", help="size of the image in pixels")
    group.add_argument("--fps", type=frame_rate, metavar="F", help="frames per second, where the file does not say")
    group.add_argument(
        "--clip", metavar="TEXT", help="where a file holds several videos, the one with TEXT in its name"
    )
    group = p.add_argument_group("many files")
    group.add_argument(
        "--form", nargs="+", default=[".npz"], metavar="SUFFIX", help="what to write for each input (default: .npz)"
    )
    group.add_argument("--engine", choices=many.ENGINES, default="here", help="ray: on the workers of a Ray cluster")
    group = p.add_argument_group("pictures")
    group.add_argument("--panel", type=int, default=360, metavar="PIXELS", help="size of a panel")
    group.add_argument(
        "--picture-fps", type=frame_rate, metavar="F", help="pictures per second of .gif and .mp4 (default: 15)"
    )
    group.add_argument(
        "--overlay", action=BooleanOptionalAction, default=True, help="show the video under the 2D skeletons"
    )
    group.add_argument("--embed", action="store_true", help="the video inside the page (default: a link to its file)")
    group.add_argument(
        "--rerun", nargs="?", const="", metavar="FILE.rrd", help="log to rerun: to a viewer, or to a file"
    )
    return p


@dataclass
class Clock:
    """Seconds and frames of each stage."""

    seconds: dict[str, float] = field(default_factory=dict)
    frames: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str, frames: int = 1) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
            self.frames[name] = self.frames.get(name, 0) + frames

    def __str__(self) -> str:
        return "; ".join(
            f"{name} {self.frames[name] / max(s, 1e-9):.1f} frames/s ({s:.2f} s)"
            if max(self.frames.values()) > 1
            else f"{name} {s:.2f} s"
            for name, s in self.seconds.items()
        )


# -- what can go wrong early -----------------------------------------------------------------------------------------
def check_outs(names: list[str], source: str) -> list[Path]:
    """The output files of a command that reads ``source``.

    Raises:
        ValueError: an unknown suffix, a folder that is not there or cannot be written to, ``source`` itself; a
            ``source`` that we write and do not read.
    """
    kind = Path(source).suffix.lower()
    if kind in WRITTEN:
        raise ValueError(f"{source}: {kind} is written, not read; give the .npz or .json that posekernels lift wrote")
    outs = [Path(name) for name in names]
    for out in outs:
        suffix = out.suffix.lower()
        if suffix not in (*pose_files.SUFFIXES, *pictures.SUFFIXES):
            known = ", ".join((*pose_files.SUFFIXES, *pictures.SUFFIXES))
            raise ValueError(f"-o {out}: the suffix says what to write; one of {known}, got {suffix or 'none'!r}")
        (pictures if suffix in pictures.SUFFIXES else pose_files).check_target(out)
        check_writable(out, source)
    return outs


def check(options: Namespace) -> list[Path]:
    """The output files; everything that can be refused before the work begins is refused here.

    Raises:
        ValueError, OSError: as ``check_outs``; a bad number.
    """
    outs = check_outs(options.out, options.input)
    for name, low in (("people", 1), ("latency", 0), ("panel", 32)):
        value = getattr(options, name)
        if value is not None and value < low:
            raise ValueError(f"--{name} must be at least {low}, got {value}")
    for name in ("focal", "fps", "picture_fps"):
        value = getattr(options, name)
        if value is not None and not 0 < value < float("inf"):
            raise ValueError(f"--{name.replace('_', '-')} must be positive, got {value}")
    if options.fps is not None and options.fps < SLOWEST:
        raise ValueError(
            f"--fps must be at least {SLOWEST}: a frame every {1 / SLOWEST:g} seconds; got {options.fps:g}"
        )
    if options.rerun is not None:
        needs("rerun", "rerun", "--rerun")
        if options.rerun:
            if Path(options.rerun).suffix != ".rrd":
                raise ValueError(f"--rerun {options.rerun}: expected a name that ends in .rrd")
            check_writable(Path(options.rerun), options.input, "--rerun")
    if is_keypoints(options.input):
        for name, given in (("--rtmpose", options.rtmpose), ("--yolo-pose", options.yolo_pose)):
            if given:
                raise ValueError(f"{name} finds people in images; {options.input} holds keypoints already")
    elif options.rtmpose and options.yolo_pose:
        raise ValueError("--rtmpose and --yolo-pose: expected one of them, got both")
    elif options.layout or options.size:
        raise ValueError(f"--layout and --size are for keypoint files; {options.input} is not one")
    if not 0 <= options.smooth < 60:
        raise ValueError(f"--smooth must be from 0 to 60 seconds, got {options.smooth}")
    if options.device not in ("cpu", "cuda"):
        raise ValueError(f"--device: expected cpu or cuda, got {options.device}")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: PyTorch sees no CUDA device here; use --device cpu")
    return outs


def is_keypoints(source: str) -> bool:
    path = Path(source)
    return path.suffix.lower() in KEYPOINTS or (path.is_dir() and any(path.glob("*.json")))


# -- from images to 2D -----------------------------------------------------------------------------------------------
class Search:
    """People looked for in a video, frame by frame. What was found goes to a file at once, and survives whatever ends
    the search; ``frames`` reads it again.

    Args:
        partial: the file, which a resumed search goes on with.
        detector: finds and follows people; ``layout`` names their joints. All that it knows of the images before are
            their number, ``frame``, and ``regions``, where it follows somebody.
    """

    def __init__(self, video: Video, partial: Path, detector: detect.Detector, clock: Clock, bar):
        self.video, self.partial, self.detector, self.clock, self.bar = video, partial, detector, clock, bar
        self.count, self.whole = 0, False  # frames done; whether all of them
        joints = skeleton(detector.layout).num_joints
        self.dtype = np.dtype(  # of a sighting
            [
                *(("frame", "<i8"), ("people", "<i4"), ("points", "<f4", (joints, 2)), ("scores", "<f4", (joints,))),
                *(("clothes", "<f4", (2, 3)), ("region", "<f8", (4,))),
            ]
        )
        self.rows: Rows | None = None
        detector.frame, detector.regions = 0, []  # it may have looked at another video before

    def open(self, resume: bool = False) -> None:
        """Begin the file, or take up what an earlier search of the same source left, if it left something.

        Raises:
            DataError: what is there is another source's; another search is writing it.
            OSError: it cannot be written.
        """
        resume = resume and self.partial.is_file() and self.partial.stat().st_size > 0
        file = open(self.partial, "r+b" if resume else "a+b", buffering=0)  # noqa: SIM115 (until ``close``)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"{self.partial}: another run is writing there") from None
        if resume:
            self.rows = Rows(file, self.dtype, self._check(file))
            self._take_up()
        else:
            file.truncate(0)
            line = json.dumps(self._head()).encode() + b"\n"
            file.write(line)
            self.rows = Rows(file, self.dtype, len(line))

    def would_go_on(self) -> bool:
        """Whether there is a search of the same source, and by the same detector, to take up."""
        try:
            with open(self.partial, "rb") as file:
                self._check(file)
        except (DataError, OSError):
            return False
        return True

    def _head(self) -> dict:
        return {"search": 1, "source": self.video.source, "layout": self.detector.layout}

    def _check(self, file) -> int:
        """Where the sightings begin in a file of this source and layout."""
        head = self._head()
        try:
            had = json.loads(first := file.readline(1 << 16))
            source, layout = had["source"], had["layout"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"--resume: {self.partial} is not what an interrupted run leaves") from error
        if source != head["source"]:
            raise DataError(f"--resume: {self.partial} belongs to {source}, not to {head['source']}")
        if layout != head["layout"]:
            raise DataError(f"--resume: {self.partial} holds joints of {layout}, this detector finds {head['layout']}")
        return len(first)

    def _take_up(self) -> None:
        """Go on after the last frame that is whole; empty ones after it are looked at again."""
        while len(self.rows):
            last = self.rows[np.array([len(self.rows) - 1])][0]
            first = len(self.rows) - int(last["people"])
            own = self.rows[slice(max(0, first), len(self.rows))]
            if first >= 0 and (own["frame"] == last["frame"]).all():
                self.count = int(last["frame"]) + 1
                regions = [detect.Region(*region) for region in own["region"].tolist() if np.isfinite(region).all()]
                self.detector.frame, self.detector.regions = self.count, regions
                return
            self.rows.cut(len(self.rows) - 1)

    def close(self, keep: bool) -> None:
        if self.rows is not None:
            self.rows.file.close()
        if not keep:
            self.partial.unlink(missing_ok=True)

    def _add(self, people: list[Sighting]) -> None:
        regions = [astuple(region) for region in self.detector.regions]
        records = np.zeros(len(people), self.dtype)
        records["clothes"], records["region"] = np.nan, np.nan
        records["frame"], records["people"] = self.count, len(people)
        for record, sighting in zip(records, people):
            record["points"], record["scores"] = sighting.points, sighting.scores
            if sighting.clothes is not None:
                record["clothes"] = sighting.clothes
        if len(regions) == len(people):
            records["region"] = np.reshape(regions, (-1, 4))
        self.rows.append(records)
        self.count += 1

    def frames(self) -> Iterator[list[Sighting]]:
        """The people of every frame so far."""
        done, waiting = 0, []
        for start in range(0, len(self.rows), PIECE):
            for record in self.rows[slice(start, start + PIECE)]:
                for _ in range(done, int(record["frame"])):
                    yield waiting
                    waiting, done = [], done + 1
                # copies: whoever keeps one keeps it alone, and not all that was read with it
                waiting.append(Sighting(*(record[name].copy() for name in ("points", "scores", "clothes"))))
        for _ in range(done, self.count):
            yield waiting
            waiting = []

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points and scores of sightings by their numbers."""
        found = self.rows[rows]
        return found["points"], found["scores"]

    def __iter__(self) -> Iterator[list[Sighting]]:
        """The people of every frame, from the first new one on."""
        images, done = iter(self.video), self.count
        for number in itertools.count():
            with self.clock.stage("reading", 0):
                image = next(images, None)
            if image is None:
                self.whole = True
                break
            self.clock.frames["reading"] += 1
            if number < done:
                continue
            with self.clock.stage("detection"):
                people = self.detector(image)
            self._add(people)
            self.bar.update(1)
            yield people
        if not self.count:
            raise DataError(f"{self.video.source}: no image could be read from it")

    @property
    def least(self) -> int:
        """Frames; whoever was seen in fewer is left out."""
        return max(1, round(min(BRIEF * self.video.fps, 0.5 * self.count)))

    def keypoints(self) -> Keypoints:
        tracker = Tracker(layout=self.detector.layout)
        for people in self.frames():
            tracker.add(people)
        tracks = tracker.tracks(self.read, self.least)
        notes = list(self.video.notes)
        if tracks.brief:
            several = "s" if tracks.brief > 1 else ""
            notes.append(f"{tracks.brief} sighting{several} shorter than {BRIEF:g} s left out")
        if not tracks:
            kind = "pictures" if self.video.files else "frames"
            raise Nobody(
                f"{self.video.source}: nobody was found in {self.count} {kind if self.count > 1 else kind[:-1]}"
            )
        return Keypoints(tracks, self.detector.layout, self.count, self.video.fps, self.video.size, notes)


def scratch(options: Namespace) -> Path | None:
    """The folder for what does not fit into memory while the work goes on; None for the usual one."""
    return Path(options.out[0]).parent if options.out else None


# -- from 2D to 3D ---------------------------------------------------------------------------------------------------
def live_lifting(options: Namespace, lifter: Lifter, layout: str, fps: float, image: tuple[int, int] | None) -> Live:
    how = {"size": image, "focal": options.focal, "fps": fps, "smooth": options.smooth > 0}
    joints = more_than_lifted(layout)
    return Live(lifter, options.latency, round(BRIDGE * fps), scratch(options), joints=joints, **how)


def window(seconds: float, fps: float) -> int:
    """Frames of a smoothing window, odd."""
    return max(1, round(seconds * fps) | 1)


def lift(keypoints: Keypoints, lifter: Lifter, options: Namespace, clock: Clock) -> Shelf:
    fps = keypoints.fps
    steps, _ = lifter.pace(fps)
    if fps < SLOW and steps > 1:
        keypoints.notes.append(
            f"{fps:g} frames/s are few: {steps} times as many are lifted, with straight lines between keypoints"
        )
    with clock.stage("lifting", keypoints.frames):
        return lift_all(
            lifter,
            keypoints,
            options.people or PEOPLE,
            scratch(options),
            focal=options.focal,
            fps=fps,
            bridge=round(BRIDGE * fps),
            smooth=window(options.smooth, fps) if options.smooth else 1,
        )


# -- out -------------------------------------------------------------------------------------------------------------
def panels(lifted: Lifted, video: str | None, panel: int, step: int = 1) -> list[pictures.Panel]:
    """2D beside 3D: one person from two sides; several together, and each close up.

    Args:
        video: source of the images under the 2D skeletons. step: every so many frames.
    """
    people = lifted.people
    body = pictures.crowd(H36M_17, len(people))
    points = np.concatenate(lifted.over("points", step=step), 1)
    worlds = lifted.over("world", step=step)
    world = np.concatenate(worlds, 1)
    points, extent = player.in_image(points, lifted.size)
    background = None
    if video is not None:
        width = min(extent[0], panel * 2)
        background = _Every(Backgrounds(video, lifted.frames, width - width % 2), step, len(points))
    shown = [pictures.Panel("Input", points, body, extent=extent, background=background)]
    if len(people) == 1:
        for title, azimuth in (("3D", -90), ("3D from the side", 0)):
            shown.append(pictures.Panel(title, world, body, azimuth=azimuth))
        return shown
    shown.append(together(worlds))
    if len(people) <= CLOSE_UPS:
        for number, person in enumerate(people):
            title = f"Person {person.identity}"
            shown.append(pictures.Panel(title, worlds[number], H36M_17, azimuth=-60, persons=(number,)))
    return shown


def together(worlds: list[np.ndarray]) -> pictures.Panel:
    """Everybody, [T, 17, 3] each, in one space; the view goes along with those who are there, and holds all of them."""
    world = np.stack(worlds)  # [P, T, 17, 3]
    there = np.isfinite(world).all((2, 3))
    roots = np.where(there[..., None], world[:, :, H36M_17.root, :2], np.nan)
    some = there.any(0)
    focus, reach = np.full((len(some), 2), np.nan), 0.0
    focus[some] = (np.nanmin(roots[:, some], 0) + np.nanmax(roots[:, some], 0)) / 2
    focus = savitzky_golay(pictures.held(focus)[:, None], 15, 1)[:, 0]
    if some.any():
        reach = float(np.nanmax(np.linalg.norm(roots - focus, axis=-1)))
    everybody, zoom = np.concatenate(world, 1), 0.95
    tall = pictures.height_of(everybody)  # of those on a roof and those below, together
    side = min(max(pictures.CUBE + reach, zoom * tall), 9.0)
    return pictures.Panel(
        "Together",
        everybody,
        pictures.crowd(H36M_17, len(worlds)),
        azimuth=-65,
        zoom=zoom,
        focus=focus,
        side=side,
        aspect=1.3,
    )


class _Every:
    """Every n-th image of a sequence."""

    def __init__(self, images, step: int, count: int):
        self.images, self.step, self.count = images, step, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> np.ndarray:
        return self.images[index * self.step]


def pages_last(outs: list[Path]) -> list[Path]:
    """In the order to write them: a page links to the poses that lie beside it."""
    return sorted(outs, key=lambda out: out.suffix.lower() == ".html")


def save(
    out: Path,
    lifted: Lifted,
    video: str | None,
    panel: int = 360,
    fps: float | None = None,
    embed: bool = False,
    beside: Sequence[Path] = (),
    progress: bool | None = None,
) -> list[Path]:
    """Write poses, a picture or a page, by the suffix.

    Args:
        video: under the skeletons. panel, fps: of pictures. embed: the video goes inside the page.
        beside: what the page links to, if it is poses. progress: a bar while pictures are drawn.
    """
    if out.suffix.lower() in pose_files.SUFFIXES:
        return pose_files.write(out, lifted)
    if out.suffix.lower() == ".html":
        files = [path for path in beside if path.suffix.lower() in pose_files.SUFFIXES]
        picture = picture_in(video)
        film = player.film_of(lifted, playable(video) if picture is None else None, files, picture=picture)
        return [player.write(out, film, embed)]
    step = max(1, round(lifted.fps / (fps or PICTURES_PER_SECOND)))
    shown = panels(lifted, video, panel, step)
    return [pictures.save(out, shown, lifted.fps / step, size=panel, progress=progress)]


def is_drawn(out: Path) -> bool:
    """Whether a file is made of pictures; pages play the video itself."""
    return out.suffix.lower() in pictures.SUFFIXES and out.suffix.lower() != ".html"


def filmed(lifted: Lifted, path: str | Path) -> str | None:
    """The video or picture of people that were read from ``path``: where it was, or beside it; None where gone."""
    source, path = Path(lifted.source), Path(path)
    if source.suffix.lower() not in (*VIDEOS, *PICTURES):
        return None
    for place in (source, path.parent / source, path.parent / source.name):
        if os.path.isfile(place):  # a name too long for a file is told as one that is gone
            say(f"behind the skeletons: {place}, which {path} was lifted from")
            return str(place)
    say(f"{source}, which {path} was lifted from, is not here: posekernels render --video FILE shows it")
    return None


def drawable(found: str | None) -> str | None:
    """The video that ``filmed`` found, where it can be read here; None where not, which is said."""
    if found is None:
        return None
    try:
        Video(found)
    except DataError as error:
        say(f"{error}: drawn without it")
        return None
    return found


def picture_in(source: str | None) -> np.ndarray | None:
    """[H, W, 3] of a single picture, which a page holds itself; None for what is none."""
    if source is None or not Path(source).is_file() or Path(source).suffix.lower() not in PICTURES:
        return None
    return next(iter(Video(source, WIDEST)))


def playable(source: str | None) -> Path | None:
    """The video that a page plays; None for what is no video to a browser, which is said."""
    if source is None:
        return None
    path = Path(source)
    if not path.is_file() or path.suffix.lower() == ".gif":
        say(f"{source}: browsers play video files, so the page shows the skeletons without it")
        return None
    if path.suffix.lower() not in BROWSERS_PLAY:
        say(f"{source}: few browsers play {path.suffix}; in the others the page shows the skeletons without it")
    return path


def told(out: Path, write: Callable[[], list[Path]]) -> list[Path]:
    """The files that ``write`` makes for the user's ``out``, said; also which of them took another's place."""
    before = {path for path in out.parent.iterdir() if path.name.startswith(out.stem)}
    written = write()
    for path in written:
        say(f"wrote {path}{', in place of the one that was there' if path in before else ''}")
    return written


def say(text: str) -> None:
    print(text, file=sys.stderr)


def assumed(
    size: tuple[int, int] | None, tilt: float, options: Namespace, images: Sequence[Path] = ()
) -> Iterator[str]:
    """What nobody told and nothing shows, in a line or two.

    Args:
        tilt: degrees that the camera looks down, of the world that people were put into.
        images: the pictures that were read, if it was no video.
    """
    focal, parts = focal_of(size, options.focal), []
    if len(images) > 1 and options.fps is None:
        frames = f"{len(images)} pictures are the frames of one video, {FOLDER_FPS:g} a second (--fps)"
        yield f"assumed: {frames}; if they are not, {each_by_itself(images)}"
    if focal is not None and options.focal is None:
        parts.append(f"focal length {focal:.0f} px, {FOCAL:g} times the longer side (--focal)")
    if options.tilt == "auto":
        parts.append(f"camera {abs(tilt):.0f} degrees {'down' if tilt >= 0 else 'up'}, as people stand (--tilt)")
    floors = {"clip": "each person's lowest feet on one floor", "frame": "everybody on the floor in every frame"}
    parts += [f"{floors[options.ground]} (--ground)"] if options.ground in floors else []
    yield f"assumed: {'; '.join([*parts, 'people about 1.7 m tall'])}"


def describe(lifted: Lifted, live: bool = False) -> Iterator[str]:
    """How many are there how often; a line per person: where they are seen, and where not, and which joints never."""
    together = np.zeros(lifted.frames, np.int32)
    lines = []
    for person in lifted.people:
        there = person.present
        frames = person.frames[there]
        together[frames] += 1
        first, last = int(frames[0]), int(frames[-1])
        line = f"person {person.identity}: "
        if lifted.frames > 1:
            line += f"frames {first + 1} to {last + 1} of {lifted.frames}"
            line += f" ({first / lifted.fps:.1f} to {last / lifted.fps:.1f} s)"
        else:
            line += "in the picture"
        missing = last - first + 1 - len(frames)
        line += f", {missing} of them empty (not seen for longer than {BRIDGE:g} s)" if missing else ""
        lines.append(line + ("" if person.off is None else f"; {_projected(person)}"))
        unseen = sum((person.scores[rows][there[rows]] == 0).sum(0) for rows in cuts(len(there)))  # frames, by joint
        if unseen.any():
            how = "moving with their neighbours, as last seen" if live else "moving with their neighbours"
            never = [name for name, gone in zip(H36M_17.joints, unseen == len(frames)) if gone]
            line = f"person {person.identity}: {unseen.sum()} of {17 * len(frames)} keypoints missing, not finite or "
            line += f"with a score under {SURE:g}: filled in, {how}"
            guessed = f"; never seen, put where a standing person has them: {', '.join(never)}" if never else ""
            lines.append(line + guessed)
    yield presence(together)
    yield from lines[:MOST_LINES]
    if len(lines) > MOST_LINES:
        yield f"... and {len(lines) - MOST_LINES} more lines about {len(lifted.people)} people"


def _projected(person: Person) -> str:
    """In words, how far a person projected back is off, and whether that is far for somebody of their size."""
    step, away = math.ceil(len(person.frames) / SAMPLED), []
    for rows in cuts(len(person.frames)):
        points = np.where((person.scores[rows] > 0)[..., None], person.points[rows], np.nan)[::step]
        reach = np.linalg.norm(points[:, 1:] - points[:, :1], axis=-1)
        away.append(reach[np.isfinite(reach)])
    size = np.concatenate(away)  # empty where the hips are never seen
    far = len(size) > 0 and person.off > FAR_OFF * np.median(size)
    told = " (high: is --fps, --size or --focal right?)" if far else ""
    return f"projected back, {person.off:.1f} px off in the median{told}"


def presence(together: np.ndarray) -> str:
    """In words, the share of frames in which nobody, one, two ... are present, of [T] counts."""
    if len(together) == 1:
        return f"people in the picture: {together[0]}"
    shares = [
        f"{name} in {100 * share:.{0 if share in (0, 1) else 1}f} %"
        for name, share in zip(
            itertools.chain(("nobody", "one", "two"), itertools.count(3)), np.bincount(together) / len(together)
        )
        if share
    ]
    return f"people at one moment: {', '.join(shares)} of the frames"


def from_keypoints(options: Namespace, lifter: Lifter, clock: Clock) -> tuple[Keypoints, Live | None]:
    """Keypoints of a file; lifted on the way if they are to be taken one by one."""
    with clock.stage("reading", 0):
        keypoints = keypoint_files.read(options.input, options.layout, options.size, options.clip)
    clock.frames["reading"] = keypoints.frames
    if not (options.fps or keypoints.fps):
        keypoints.notes.append(f"frame rate unknown: taken to be {FPS:g} frames/s; --fps F says another")
    keypoints.fps = options.fps or keypoints.fps or FPS
    keypoints.size = options.size or keypoints.size
    if keypoints.size is None:
        keypoints.notes.append("size of the image unknown: people stay in one place; with --size WxH they move about")
    lifter.check_size(keypoints.size)
    if options.latency is None:
        return keypoints, None
    if keypoints.fps < SLOW and lifter.pace(keypoints.fps)[0] > 1:
        keypoints.notes.append(
            f"warning: --latency at {keypoints.fps:g} frames/s: lifters need {SLOW:g} or more to be at their best"
        )
    live = live_lifting(options, lifter, keypoints.found, keypoints.fps, keypoints.size)
    for people in frames_of(keypoints, options.people or PEOPLE, lifter.net.sees):
        with clock.stage("lifting"):
            live.push(people)
    return keypoints, live


def finder(options: Namespace) -> detect.Detector:
    """What looks for people in images."""
    people = options.people or PEOPLE
    if options.rtmpose:
        from ..rtmpose import RTMPose

        return RTMPose(*options.rtmpose, people=people)
    if options.yolo_pose:
        from ..yolo_pose import YoloPose

        return YoloPose(options.yolo_pose, people)
    return detect.BlazePose(people)


def from_images(
    search: Search, options: Namespace, lifter: Lifter, clock: Clock
) -> tuple[Live | None, list[list[int]] | None, bool]:
    """Look through all images; lifted on the way if live.

    Returns:
        The people lifted so far, whose numbers are one person's, and whether Ctrl-C cut it short.
    """
    live, tracker = None, Tracker(layout=search.detector.layout)
    if options.latency is not None:
        live = live_lifting(options, lifter, search.detector.layout, search.video.fps, search.video.size)
    try:
        for people in search:
            if live is not None:
                with clock.stage("lifting"):
                    numbered = zip(tracker.add(people), people)
                    live.push([_frame(n, s, search.detector.layout, lifter.net.sees) for n, s in numbered])
    except KeyboardInterrupt:
        if not search.count:
            raise
        interrupted = True
    else:
        interrupted = False
    return live, None if live is None else tracker.groups(search.least), interrupted


def main(arguments: list[str]) -> int:
    options = parser().parse_args(arguments)
    if many.is_many(options):
        if options.merge or options.split:
            raise ValueError(
                "--merge and --split correct the numbers of one recording; expected one input, not many files"
            )
        return many.run(options)
    outs = check(options)
    return 130 if run(options, outs, outs[0]) is None else 0


def partial_of(out: Path) -> Path:
    """Where a search that is cut short keeps what it found."""
    return out.with_name(f".{out.name[:80]}.partial")


def of_part(outs: list[Path]) -> list[Path]:
    """What is written of the part that was searched, in the place of ``outs``; gone where a resumed run is done."""
    return [out.with_name(f"{out.stem}.partial{out.suffix}") for out in outs]


def clear_part(outs: list[Path]) -> None:
    """Take away ``of_part``, further people's .bvh too, and what a run that was killed left while it wrote."""
    for out, part in zip(outs, of_part(outs)):
        name = re.compile(rf"{re.escape(part.stem)}(-\d+)?{re.escape(part.suffix)}")
        stale = [path for path in out.parent.iterdir() if name.fullmatch(path.name)]
        stale += [path for path in left_aside(out.parent) if path.name.startswith(f".{out.stem[:80]}-aside-")]
        for path in stale:
            path.unlink(missing_ok=True)


def run(
    options: Namespace,
    outs: list[Path],
    beside: Path,
    again: str = "--resume",
    *,
    lifter: Lifter | None = None,
    detector: detect.Detector | None = None,
    bar=None,
) -> Lifted | None:
    """All of ``posekernels lift`` after its options are checked.

    Args:
        outs: files to write. beside: where a search that is cut short keeps what it found.
        again: the option that goes on from there, as the user calls it.
        lifter, detector: to use again; loaded where they are not given. bar: of files, to move on by parts of one.
    Returns:
        The people; None where Ctrl-C cut the run short.
    """
    lifter = lifter or load_lifter(options.model, options.weights, options.device)
    if options.latency is not None:
        lifter.check_live()
    if options.latency is not None and options.resume:
        raise ValueError("--resume and --latency: expected one of them; live frames come only once")
    clock = Clock()
    if is_keypoints(options.input):
        if options.resume:
            say(NOTHING_KEPT.format(again))
        keypoints, live = from_keypoints(options, lifter, clock)
        return finish(outs, keypoints, live, None, options, lifter, clock)
    from tqdm import tqdm

    video, left = Video(options.input, fps=options.fps, clip=options.clip), partial_of(beside)
    show = sys.stderr.isatty() if options.progress is None else options.progress
    with tqdm(total=video.count, unit="frame", desc="people", disable=not show, leave=False) as own:
        steps = own if bar is None or not video.count else _Part(bar, video.count)
        search = Search(video, left, detector or finder(options), clock, steps)
        if left.is_file() and left.stat().st_size > 0 and not options.resume:
            of_this = search.would_go_on()
            why = f"{again} would have gone on from it" if of_this else "it is of another input or detector"
            say(f"{left}: what an earlier run found is not used; {why}")
        search.open(options.resume)
        if options.resume and not search.count:
            say(NOTHING_KEPT.format(again))
        steps.update(search.count)
        try:
            lifted, interrupted = _whole(search, outs, options, lifter, clock)
        except BaseException as error:
            useful = bool(search.rows) and not (search.whole and isinstance(error, Nobody))  # to go on from
            search.close(keep=useful)
            if useful and not isinstance(error, KeyboardInterrupt):  # the search may have taken hours
                kept = f"what was found in {search.count} frames is kept"
                say(f"{kept}, and the same command with {again} goes on from there")
            raise
    search.close(keep=interrupted)
    if interrupted:
        say(f"interrupted; {search.count} frames are kept, and the same command with {again} goes on from there")
        return None
    if options.resume:
        clear_part(outs)
    return lifted


def _whole(
    search: Search, outs: list[Path], options: Namespace, lifter: Lifter, clock: Clock
) -> tuple[Lifted | None, bool]:
    """Search, lift, write; also whether Ctrl-C cut it short, with what there was then in files of their own."""
    live, groups, interrupted = from_images(search, options, lifter, clock)
    if interrupted and not search.video.live:  # a camera has no other end
        outs = of_part(outs)
    try:
        lifted = finish(outs, search.keypoints(), live, search.video, options, lifter, clock, groups)
        return lifted, interrupted
    except KeyboardInterrupt:  # while lifting or drawing
        return None, True


class _Part:
    """A bar of files, moved on by the frames of one."""

    def __init__(self, bar, frames: int):
        self.bar, self.frames = bar, frames

    def update(self, frames: int) -> None:
        self.bar.update(round(frames / self.frames, 6))


def finish(
    outs: list[Path],
    keypoints: Keypoints,
    live: Live | None,
    video: Video | None,
    options: Namespace,
    lifter: Lifter,
    clock: Clock,
    groups: list[list[int]] | None = None,
) -> Lifted:
    """Lift what is not lifted yet, put people into the world, write, and say what was done."""
    if live is None:
        people = lift(keypoints, lifter, options, clock)
    else:
        with clock.stage("lifting", 0):
            people = live.finish(groups)
        if not people:
            raise Nobody(f"{options.input}: nobody to lift in {keypoints.frames} frames")
    keypoints.people = ()  # memory for what follows
    if not keypoints.numbered:  # whatever numbers those who are left out had
        for i, person in enumerate(people, 1):
            person.identity = i
    people = put_right(people, options.merge, options.split, keypoints.fps)
    span = window(2 * options.smooth, keypoints.fps) if options.smooth else 1
    turn = stand(
        people, keypoints.size, options.focal, ground=options.ground, tilt=options.tilt, smooth=span, fps=keypoints.fps
    )
    source = keypoints.source or options.input  # what was lifted before is of the same video
    lifted = Lifted(
        people,
        keypoints.fps,
        keypoints.size,
        source,
        keypoints.notes,
        length=keypoints.frames,
        detected_layout=keypoints.found if more_than_lifted(keypoints.found) else None,
    )
    taken = assumed(lifted.size, tilt_of(turn), options, () if video is None else video.files)
    for note in (*keypoints.notes, *taken, *describe(lifted, live is not None)):
        say(note)
    under = options.input if video is not None and not video.live and options.overlay else None
    if keypoints.source and options.overlay and any(out.suffix.lower() in pictures.SUFFIXES for out in outs):
        under = filmed(lifted, options.input)
    drawn = drawable(under) if keypoints.source and any(map(is_drawn, outs)) else under
    written: list[Path] = []
    failures: list[Exception] = []
    for out in pages_last(outs):
        with clock.stage("drawing" if out.suffix.lower() in pictures.SUFFIXES else "writing", lifted.frames):
            how = (
                drawn if is_drawn(out) else under,
                options.panel,
                options.picture_fps,
                options.embed,
                written,
                options.progress,
            )
            try:
                written += told(out, partial(save, out, lifted, *how))
            except Exception as error:  # whatever it is, the other files may still be written
                failures.append(error)
                say(f"{out}: not written: {' '.join(str(error).split()) or type(error).__name__}")
    if options.rerun is not None:
        log_to_rerun(lifted, options)
    say(str(clock))
    if failures:
        raise failures[0]
    return lifted


def log_to_rerun(lifted: Lifted, options: Namespace) -> None:
    from .. import rerun_log

    source = Path(options.input)
    video = source if source.is_file() and source.suffix.lower() == ".mp4" else None
    if not options.rerun:
        rerun_log.log(lifted, video)
        return
    with write_aside(options.rerun) as aside:
        rerun_log.log(lifted, video, aside)
    say(f"wrote {options.rerun}")


def _frame(identity: int, sighting: Sighting, layout: str, sees: str) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    came = Track(identity, sighting.points[None], sighting.scores[None])
    return pushed(in_h36m(came, layout, sees), came, 0)
