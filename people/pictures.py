"""Moving pictures of poses: panels of 2D and 3D skeletons side by side, as .gif, .mp4 or one .html file.

    panels = [Panel("Input", keypoints_px, skeleton, extent=(1000, 1000)), Panel("Prediction", poses_m, skeleton)]
    save("walk.gif", panels, fps=50)

3D poses are [T, J, 3] metres in world axes, z up (``to_world`` brings camera axes there); 2D points are [T, J, 2]
pixels, y down. .gif and .html need nothing but Pillow; .mp4 needs the extra ``video``.
"""

from __future__ import annotations

import contextlib
import io
import math
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from posekernels.extras import needs
from posekernels.files import write_aside
from posekernels.limits import processors
from posekernels.pose.camera import camera_to_world, rotate
from posekernels.pose.skeleton import Skeleton
from posekernels.pose.smoothing import savitzky_golay

from . import paint, player
from .video import Video

BACKGROUND = "#ffffff"
CUBE = 1.7  # metres: side of the space drawn, which follows the root
SUFFIXES = (".gif", ".mp4", ".html")
CALM = 31  # frames over which a view goes up or down
FILLED = 0.88  # of a view's height by what it holds
RAISED = 0.3  # metres: feet that much above the floor are on something
GIF_PIECE = 64  # pictures of a .gif that are held at once
ENOUGH = 24  # pictures from which on all cores draw


@dataclass
class Panel:
    """One picture of the row.

    Args:
        title: above it.
        points: [T, J, 2] pixels, or [T, J, 3] metres in world axes, z up.
        skeleton: bones to draw; None for dots only (a detector's own layout).
        extent: (width, height) of the image that 2D points are in.
        azimuth: degrees about z from which 3D is seen (matplotlib's convention).
        background: [H, W, 3] uint8 images, one per frame, under 2D points; black without.
        focus: [T, 2] the ground point that 3D is centred on; None to follow the root.
        side: metres, of the space drawn in 3D. zoom: width of that space relative to the panel's.
        faded: joints drawn in grey, with the bones to them.
        aspect: width of a 3D panel relative to its height. persons: their numbers, for their colours in 3D.
        captions: one line per frame, at the foot of the panel; none by default.
        pale: on a page, drawn faintly: what another panel is compared with.
        hypotheses: [T, S, J, 3] on a page, a cloud around the points; none by default.

    Joints that are NaN, and bones to them, are left out. In 3D the view goes up and down with whoever is on a roof or a
    stair: ``heights`` [T], metres, is where it looks.
    """

    title: str
    points: np.ndarray
    skeleton: Skeleton | None
    extent: tuple[int, int] = (1000, 1000)
    azimuth: float = 70.0
    background: Sequence[np.ndarray] | None = None
    focus: np.ndarray | None = None
    side: float = CUBE
    faded: Sequence[int] = ()
    zoom: float = 1 / 1.25
    aspect: float = 1.0
    persons: Sequence[int] = ()
    captions: Sequence[str] = ()
    pale: bool = False
    hypotheses: np.ndarray | None = None

    def __post_init__(self):
        self.points = np.asarray(self.points, np.float32)
        if self.points.ndim != 3 or self.points.shape[2] not in (2, 3) or not len(self.points):
            raise ValueError(f"panel {self.title!r}: points must be [T >= 1, J, 2 or 3], got {list(self.points.shape)}")
        if self.skeleton is not None and self.skeleton.num_joints != self.points.shape[1]:
            raise ValueError(
                f"panel {self.title!r}: skeleton {self.skeleton.name} has {self.skeleton.num_joints} joints, "
                f"points have {self.points.shape[1]}"
            )
        if self.captions and len(self.captions) != len(self.points):
            raise ValueError(f"panel {self.title!r}: {len(self.captions)} captions for {len(self.points)} frames")
        if np.isinf(self.points).any():
            raise ValueError(f"panel {self.title!r}: points hold infinity")
        if self.is_3d:
            root = self.points[:, self.skeleton.root if self.skeleton else 0, :2] if self.focus is None else self.focus
            self.focus = held(np.asarray(root, np.float32))
            if self.focus.shape != (len(self.points), 2):
                raise ValueError(f"panel {self.title!r}: focus must be [T, 2], got {list(self.focus.shape)}")
            self.heights = _heights(self.points, min(self.side, CUBE) / 2, self.side / self.zoom / 2)

    @property
    def is_3d(self) -> bool:
        return self.points.shape[2] == 3


def held(track: np.ndarray) -> np.ndarray:
    """[T, C] with NaN rows replaced by the row before (at the start, by the first good one); zeros if none is good."""
    good = np.flatnonzero(np.isfinite(track).all(-1))
    if not len(good):
        return np.zeros_like(track)
    return track[good[np.maximum(np.searchsorted(good, np.arange(len(track)), side="right") - 1, 0)]]


def _heights(points: np.ndarray, middle: float, half: float) -> np.ndarray:
    """[T] metres: where a view of ``half`` a metre up and down looks, so that it holds points [T, J, 3].

    ``middle`` above the floor for whoever stands or jumps there, as much above a roof for whoever is on one; calm.
    """
    low, high = _levels(points)
    around = np.lib.stride_tricks.sliding_window_view(np.pad(low, CALM // 2, mode="edge"), CALM)
    level = np.median(around, -1)
    wanted = middle + np.where(np.abs(level) > RAISED, level, 0)
    calm = savitzky_golay(wanted[:, None], CALM // 2, 1)[:, 0]
    room = np.maximum(FILLED * half - (high - low) / 2, 0)  # to go up and down in
    return np.clip(calm, (low + high) / 2 - room, (low + high) / 2 + room)


def _levels(points: np.ndarray) -> np.ndarray:
    """[2, T] metres: the lowest and the highest of points [T, J, 3]; of a frame without any, those before."""
    z = points[..., 2]
    there = np.isfinite(z)
    both = np.stack((np.where(there, z, np.inf).min(1), np.where(there, z, -np.inf).max(1)), 1)
    return held(np.where(there.any(1)[:, None], both, np.nan)).T


def height_of(points: np.ndarray) -> float:
    """Metres up and down that a view needs to hold points [T, J, 3] of any one frame."""
    low, high = _levels(points)
    return float((high - low).max()) / FILLED


def crowd(body: Skeleton, people: int) -> Skeleton:
    """``people`` copies of a layout in one, to draw [T, people * J, C]; its root is that of the first."""
    J = body.num_joints

    def copies(joints: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(j + i * J if j >= 0 else -1 for i in range(people) for j in joints)

    sides = copies(body.left), copies(body.right)
    return Skeleton(f"{body.name} x {people}", body.joints * people, copies(body.parents), *sides)


def dots(joints: int) -> Skeleton:
    """A layout without bones or sides."""
    return Skeleton("dots", tuple(map(str, range(joints))), (-1,) * joints, (), ())


def to_world(
    poses: np.ndarray, orientation: np.ndarray | None = None, translation: np.ndarray | None = None
) -> np.ndarray:
    """Poses in camera axes (x right, y down, z away) to world axes with z up, for drawing.

    Args:
        poses: [T, J, 3] metres.
        orientation: the camera's unit quaternion (w, x, y, z), camera to world; None for a level camera.
        translation: its centre in the world; None where unknown: the lowest point of all frames is put at height 0.
    """
    poses = np.asarray(poses, np.float32)
    if orientation is not None and translation is not None:
        return camera_to_world(poses, np.asarray(orientation, np.float32), np.asarray(translation, np.float32))
    poses = upright(poses, orientation)
    poses[..., 2] -= poses[..., 2].min()
    return poses


def upright(vectors: np.ndarray, orientation: np.ndarray | None) -> np.ndarray:
    """Vectors [..., 3] in camera axes to the directions of the world; of a level camera without ``orientation``."""
    if orientation is not None:
        return rotate(np.asarray(vectors, np.float32), np.asarray(orientation, np.float32))
    return np.stack((vectors[..., 0], vectors[..., 2], -vectors[..., 1]), -1)


def azimuth_of(orientation: np.ndarray | None) -> float:
    """Degrees: the azimuth from which a camera looks at the world, so that a drawing is seen from its side."""
    if orientation is None:
        return -90.0
    forward = rotate(np.array([0, 0, 1], np.float32), np.asarray(orientation, np.float32))
    return math.degrees(math.atan2(-forward[1], -forward[0]))


def downsample(points: np.ndarray, n: int) -> np.ndarray:
    """[T // n, ...]: means of groups of ``n`` frames; a last, smaller group is left out unless it is the only one."""
    if n == 1:
        return points
    whole = len(points) // n * n
    if whole == 0:
        return points.mean(0, keepdims=True)
    return points[:whole].reshape(-1, n, *points.shape[1:]).mean(1)


# -- single pictures -------------------------------------------------------------------------------------------------
def _draw_3d(image: Image.Image, panel: Panel, t: int) -> None:
    x, y = panel.focus[t].tolist()
    middle, tall = (x, y, float(panel.heights[t])), panel.side / panel.zoom
    eye = paint.Eye(middle, panel.azimuth, tall, *image.size)
    paint.floor(image, eye, middle, min(7.0, 1.8 * tall))
    skeleton = panel.skeleton or dots(panel.points.shape[1])
    paint.body_3d(image, panel.points[t], skeleton, eye, panel.faded, panel.persons)


def _draw_2d(image: Image.Image, panel: Panel, t: int, background: np.ndarray | None) -> None:
    scale = min(image.width / panel.extent[0], image.height / panel.extent[1])
    size = np.round(np.array(panel.extent) * scale).astype(int)
    corner = (np.array(image.size) - size) // 2
    box = (*corner.tolist(), *(corner + size).tolist())
    image.paste(paint.DARK, (0, 0, *image.size))
    if background is not None:
        image.paste(Image.fromarray(background).resize(tuple(size.tolist()), Image.Resampling.BILINEAR), box[:2])
    paint.body_2d(image, panel.points[t] * scale + corner, panel.skeleton, panel.faded)


def width_of(panel: Panel, size: int) -> int:
    """Pixels: as wide as its image for 2D, as it asks to be for 3D."""
    if panel.is_3d:
        return round(size * panel.aspect)
    return round(size * min(1.8, max(0.5, panel.extent[0] / panel.extent[1])))


def _backgrounds(panels: Sequence[Panel], t: int) -> list[np.ndarray | None]:
    return [None if p.background is None else p.background[min(t, len(p.background) - 1)] for p in panels]


def picture(panels: Sequence[Panel], t: int, size: int = 360, backgrounds=None) -> Image.Image:
    """Frame ``t`` of all panels side by side, each ``size`` pixels high, below its title.

    Args:
        backgrounds: the images under the panels at ``t``, where they have been read already.
    """
    backgrounds = _backgrounds(panels, t) if backgrounds is None else backgrounds
    bar, widths = round(size * 0.09), [width_of(p, size) for p in panels]
    sheet = Image.new("RGB", (sum(widths), size + bar), BACKGROUND)
    font, left = ImageFont.load_default(max(10, round(bar * 0.55))), 0
    for panel, width, background in zip(panels, widths, backgrounds):
        image = Image.new("RGB", (width * paint.SMOOTH, size * paint.SMOOTH), paint.BACK)
        if panel.is_3d:
            _draw_3d(image, panel, t)
        else:
            _draw_2d(image, panel, t, background)
        sheet.paste(image.reduce(paint.SMOOTH), (left, bar))
        middle, write = left + width / 2, ImageDraw.Draw(sheet).text
        write((middle, bar / 2), panel.title, fill=paint.TEXT, font=font, anchor="mm")
        if panel.captions:
            write((middle, size + bar / 2), panel.captions[t], fill=paint.TEXT, font=font, anchor="mm")
        left += width
    return sheet


# -- files -----------------------------------------------------------------------------------------------------------
def save(
    path: str | Path,
    panels: Sequence[Panel],
    fps: float,
    *,
    size: int = 360,
    bitrate: int = 3000,
    title: str = "",
    progress: bool | None = None,
    **of_page,
) -> Path:
    """Write panels as a moving picture; the suffix of ``path`` says which kind.

    Args:
        panels: all with the same number of frames.
        fps: frames per second of the points; a .gif shows at most 50 of them, in real time.
        size: pixels per panel. bitrate: kbit/s, .mp4 only. title: of the .html page.
        progress: a bar on stderr; by default where that is a terminal.
        of_page: more for a .html page, as ``film_of`` takes it.
    Raises:
        ValueError: another suffix, panels of different length, an .mp4 without PyAV.
        OSError: ``path`` cannot be written.
    """
    path, panels = Path(path), list(panels)
    check_target(path)
    if len({len(p.points) for p in panels}) != 1:
        raise ValueError(f"panels must have the same number of frames, got {[len(p.points) for p in panels]}")
    if not fps > 0 or size < 32:
        raise ValueError(f"fps must be positive and size at least 32 pixels, got {fps} and {size}")
    if path.suffix.lower() == ".html":
        return player.write(path, film_of(panels, fps, title or path.stem, **of_page))
    progress = sys.stderr.isatty() if progress is None else progress
    with write_aside(path) as aside:
        if path.suffix.lower() == ".gif":
            _save_gif(aside, panels, fps, size, progress)
        else:
            _save_mp4(aside, panels, fps, size, bitrate, progress)
    return path


def check_target(path: str | Path) -> None:
    """Raises ValueError if ``save`` cannot write such a file: another suffix, or .mp4 without PyAV."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{path}: pictures are written as {', '.join(SUFFIXES)}, got {suffix or 'no suffix'!r}")
    if suffix == ".mp4":
        _av()


def _palette(panels: Sequence[Panel], size: int) -> Image.Image:
    """A palette of 128 colours: what bodies are drawn in, and the best others for some of the pictures."""
    frames = len(panels[0].points)
    some = [picture(panels, t, size) for t in sorted({t * (frames - 1) // 4 for t in range(5)})]
    sheet = Image.new("RGB", (some[0].width, sum(p.height for p in some)))
    for i, image in enumerate(some):
        sheet.paste(image, (0, i * image.height))
    fixed = [paint.RINGS, paint.BACK, paint.TEXT, paint.DARK, paint.HAZE, BACKGROUND]
    drawn = {ImageColor.getrgb(c) for c in fixed}
    for panel in (p for p in panels if p.is_3d and p.skeleton is not None):
        people = panel.persons or range(panel.skeleton.parents.count(-1))
        drawn |= {
            s for i in people for c in paint.tints(i, bool(panel.faded)) + paint.tints(i) for s in paint.shades(c)
        }
    drawn = sorted(drawn)[:64]
    best = sheet.quantize(128 - len(drawn), method=Image.Quantize.MEDIANCUT).getpalette()[: 3 * (128 - len(drawn))]
    palette = Image.new("P", (1, 1))
    palette.putpalette([*(v for colour in drawn for v in colour), *best])
    return palette


def _draw(panels: Sequence[Panel], t: int, size: int, palette: Image.Image | None, backgrounds: list) -> Image.Image:
    image = picture(panels, t, size, backgrounds)
    return image if palette is None else image.quantize(palette=palette, dither=Image.Dither.NONE)


def _work(
    pipe: Connection, parents: list[Connection], panels: Sequence[Panel], size: int, palette: Image.Image | None
) -> None:
    """A worker: (frame, backgrounds) in, a picture out, until the pipe is closed.

    Args:
        parents: ends that only the parent is to hold: a pipe ends with it then, however it ends.
    """
    for other in parents:
        other.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent alone answers Ctrl-C, and ends them
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            t, backgrounds = pipe.recv()
            pipe.send(_draw(panels, t, size, palette, backgrounds))


@contextlib.contextmanager
def _workers(count: int, *task) -> Iterator[list[Connection]]:
    """Pipes to ``count`` forked workers, which end with the block, however it ends."""
    context, pipes, processes = multiprocessing.get_context("fork"), [], []
    try:
        for _ in range(count):
            here, there = context.Pipe()
            pipes.append(here)
            process = context.Process(target=_work, args=(there, [*pipes], *task), daemon=True)
            processes.append(process)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads: it only uses Pillow
                process.start()
            there.close()
        yield pipes
    finally:
        for process in processes:
            if process.pid is not None:
                process.kill()
                process.join()


@contextlib.contextmanager
def _alive() -> Iterator[None]:
    """Raises ValueError where the worker at the other end of a pipe is gone."""
    try:
        yield
    except (EOFError, ConnectionError) as error:
        raise ValueError("drawing: a process that draws ended on its own (killed, or out of memory?)") from error


def _answer(pipe: Connection) -> Image.Image:
    with _alive():
        return pipe.recv()


def _pictures(
    panels: Sequence[Panel], times: Sequence[int], size: int, progress: bool, palette: Image.Image | None = None
) -> Iterator[Image.Image]:
    """The pictures at ``times``, in order, drawn by all cores; in a palette where one is given."""
    from tqdm import tqdm

    cores = processors() if hasattr(os, "fork") else 1
    bare = [replace(p, background=None) for p in panels]
    with tqdm(total=len(times), unit="picture", desc="drawing", disable=not progress, leave=False) as bar:
        if len(times) < ENOUGH or cores < 2:
            for t in times:
                yield _draw(bare, t, size, palette, _backgrounds(panels, t))
                bar.update()
            return
        with _workers(cores, bare, size, palette) as pipes:
            for i, t in enumerate(times):  # in turn, one picture at a time each: what comes back is in order
                pipe = pipes[i % cores]
                if i >= cores:
                    yield _answer(pipe)
                    bar.update()
                with _alive():
                    pipe.send((t, _backgrounds(panels, t)))
            for i in range(max(0, len(times) - cores), len(times)):
                yield _answer(pipes[i % cores])
                bar.update()


def _save_gif(path: Path, panels: Sequence[Panel], fps: float, size: int, progress: bool) -> None:
    step = max(1, math.ceil(fps / 50))  # viewers slow down what is faster
    times = range(0, len(panels[0].points), step)
    # Delays are whole hundredths of a second: round the clock, not the delay, so that the speed stays true.
    clock = [round(100 * i * step / fps) for i in range(len(times) + 1)]
    images = _pictures(panels, times, size, progress, _palette(panels, size))
    delays = [10 * (b - a) for a, b in zip(clock, clock[1:])]
    how = {"save_all": True, "loop": 0, "disposal": 1, "optimize": False}  # not optimised, all have one palette
    with open(path, "wb") as file:  # Pillow's writer holds all pictures: each piece is a file of its own, then joined
        for start in range(0, len(times), GIF_PIECE):
            some, part = list(islice(images, GIF_PIECE)), io.BytesIO()
            some[0].save(part, "GIF", append_images=some[1:], duration=delays[start : start + len(some)], **how)
            file.write(_joinable(part.getvalue(), first=start == 0))
        file.write(b";")


def _joinable(gif: bytes, first: bool) -> bytes:
    """The bytes of a GIF without its end, and but for the first without its head: size, palette, how often to play."""
    if first:
        return gif[:-1]
    at = 13 + (3 << ((gif[10] & 7) + 1) if gif[10] & 0x80 else 0)
    while gif[at : at + 2] == b"!\xff":  # an application's extension: blocks with their lengths before them
        at += 2
        while gif[at]:
            at += 1 + gif[at]
        at += 1
    return gif[at:-1]


def _save_mp4(path: Path, panels: Sequence[Panel], fps: float, size: int, bitrate: int, progress: bool) -> None:
    av = _av()
    first = picture(panels, 0, size)
    width, height = (n - n % 2 for n in first.size)  # what yuv420p can hold
    with av.open(f"file:{path}", "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = width, height, "yuv420p", bitrate * 1000
        for image in _pictures(panels, range(len(panels[0].points)), size, progress):
            container.mux(stream.encode(av.VideoFrame.from_image(image.crop((0, 0, width, height)))))
        container.mux(stream.encode(None))


def _av():
    return needs("av", "video", "writing .mp4 (.gif and .html do without)")


def read_video(path: str | Path, frames: int, skip: int = 0) -> list[np.ndarray]:
    """The first ``frames`` images of a video after ``skip``, each [H, W, 3] uint8.

    Raises:
        ValueError: no such file, not a video, fewer images than asked for, or PyAV is missing.
    """
    images = list(islice(Video(path), skip, skip + frames))
    if len(images) < frames:
        raise ValueError(f"{path}: expected {frames} images after the first {skip}, got {len(images)}")
    return images


def film_of(
    panels: Sequence[Panel],
    fps: float,
    title: str,
    now: int | None = None,
    video: Path | None = None,
    times: Sequence[float] | None = None,
) -> player.Film:
    """The 3D panels as a film: a body each, named by its panel, in one space; a 2D panel of their layout is its image.

    Args:
        now: frame from which on it is forecast. video, times: what plays beside it, and when each frame is in it.
    Raises:
        ValueError: no panel in 3D with a skeleton, or several layouts.
    """
    solid = [p for p in panels if p.is_3d and p.skeleton is not None]
    layouts = {p.skeleton for p in solid}
    if len(layouts) != 1:
        raise ValueError(f"{title}: a page shows 3D panels of one skeleton, got {len(layouts)}")
    flat = next((p for p in panels if not p.is_3d and p.skeleton in layouts), None)
    bodies = [player.Body(p.title, p.points, hypotheses=p.hypotheses, pale=p.pale) for p in solid]
    if flat is not None:
        bodies[0].pixels = flat.points
    size = tuple(map(int, flat.extent)) if flat is not None else None
    return player.Film(title, fps, layouts.pop(), bodies, size, video, times, now, solid[0].azimuth)
