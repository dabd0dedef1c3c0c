"""Moving pictures of poses: panels of 2D and 3D skeletons side by side, as .gif, .mp4 or one .html file.

    panels = [Panel("Input", keypoints_px, skeleton, extent=(1000, 1000)), Panel("Prediction", poses_m, skeleton)]
    save("walk.gif", panels, fps=50)

3D poses are [T, J, 3] metres in world axes, z up (``to_world`` brings camera axes there); 2D points are [T, J, 2]
pixels, y down. .gif and .html need nothing but Pillow; .mp4 needs the extra ``video``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from posekernels._files import write_aside
from posekernels.extras import needs
from posekernels.pose.camera import camera_to_world, rotate
from posekernels.pose.skeleton import Skeleton

from . import player

LEFT, RIGHT, MIDDLE = "#6a5acd", "#8fbc8f", "#cd853f"  # slateblue, darkseagreen, peru: by the child joint of a bone
FADED = "#b4b4bc"
BACKGROUND, FLOOR, TEXT = "#ffffff", "#d8d8de", "#333340"
CUBE = 1.7  # metres: side of the space drawn, which follows the root
ELEVATION = 15.0
SUFFIXES = (".gif", ".mp4", ".html")
_SMOOTH = 2  # drawn this many times larger, then reduced


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
        captions: one line per frame, at the foot of the panel; none by default.
        pale: on a page, drawn faintly: what another panel is compared with.

    Joints that are NaN, and bones to them, are left out.
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
    zoom: float = 1 / 1.4
    captions: Sequence[str] = ()
    pale: bool = False

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

    @property
    def is_3d(self) -> bool:
        return self.points.shape[2] == 3

    @property
    def fineness(self) -> float:
        """Width of bones and joints relative to that for one person who fills the panel."""
        if self.is_3d:
            return min(1.0, max(0.4, 1.4 * self.zoom * CUBE / self.side))
        several = self.skeleton is not None and self.skeleton.parents.count(-1) > 1
        return 0.6 if several or self.background is not None else 1.0

    def bones(self) -> list[tuple[int, int, str]]:
        """(parent, joint, colour)."""
        if self.skeleton is None:
            return []
        left, right = self.skeleton.left, self.skeleton.right
        colours = {j: LEFT for j in left} | {j: RIGHT for j in right} | {j: FADED for j in self.faded}
        return [(p, j, colours.get(j, MIDDLE)) for p, j in self.skeleton.bones]


def held(track: np.ndarray) -> np.ndarray:
    """[T, C] with NaN rows replaced by the row before (at the start, by the first good one); zeros if none is good."""
    good = np.flatnonzero(np.isfinite(track).all(-1))
    if not len(good):
        return np.zeros_like(track)
    return track[good[np.maximum(np.searchsorted(good, np.arange(len(track)), side="right") - 1, 0)]]


def crowd(body: Skeleton, people: int) -> Skeleton:
    """``people`` copies of a layout in one, to draw [T, people * J, C]; its root is that of the first."""
    J = body.num_joints

    def copies(joints: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(j + i * J if j >= 0 else -1 for i in range(people) for j in joints)

    sides = copies(body.left), copies(body.right)
    return Skeleton(f"{body.name} x {people}", body.joints * people, copies(body.parents), *sides)


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
    if orientation is None:
        poses = np.stack((poses[..., 0], poses[..., 2], -poses[..., 1]), -1)
    elif translation is None:
        poses = rotate(poses, np.asarray(orientation, np.float32))
    else:
        return camera_to_world(poses, np.asarray(orientation, np.float32), np.asarray(translation, np.float32))
    poses[..., 2] -= poses[..., 2].min()
    return poses


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
def _view(azimuth: float, elevation: float = ELEVATION) -> np.ndarray:
    """[3, 3] rows: right, down, towards the eye."""
    a, e = math.radians(azimuth), math.radians(elevation)
    right = (-math.sin(a), math.cos(a), 0)
    up = (-math.sin(e) * math.cos(a), -math.sin(e) * math.sin(a), math.cos(e))
    eye = (math.cos(e) * math.cos(a), math.cos(e) * math.sin(a), math.sin(e))
    return np.array((right, tuple(-x for x in up), eye), np.float32)


def _skeleton(draw: ImageDraw.ImageDraw, xy: np.ndarray, depth: np.ndarray, panel: Panel, size: int) -> None:
    """Bones from the farthest to the nearest, joints on top."""
    fine = panel.fineness
    width, dot = max(2, round(fine * size / 75)), fine * size / 110
    points = [tuple(map(float, p)) for p in xy]
    bones = [b for b in panel.bones() if np.isfinite(xy[b[0]] + xy[b[1]]).all()]
    for parent, joint, colour in sorted(bones, key=lambda b: depth[b[0]] + depth[b[1]]):
        draw.line((points[parent], points[joint]), fill=colour, width=width)
        for x, y in (points[parent], points[joint]):  # round ends
            r = width / 2 - 0.5
            draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)
    ring = "#ffffff" if panel.is_3d else "#000000"
    for x, y in points:
        if math.isnan(x + y):
            continue
        fill = TEXT if panel.is_3d else "#f2f2f2"
        draw.ellipse((x - dot, y - dot, x + dot, y + dot), fill=fill, outline=ring)


def _draw_3d(image: Image.Image, panel: Panel, t: int, size: int) -> None:
    draw, view, pose = ImageDraw.Draw(image), _view(panel.azimuth), panel.points[t]
    root = panel.focus[t]
    centre, scale = np.array((root[0], root[1], min(panel.side, CUBE) / 2), np.float32), size * panel.zoom / panel.side

    def screen(points) -> np.ndarray:
        return (np.asarray(points, np.float32) - centre) @ view.T * (scale, scale, 1) + (size / 2, size / 2, 0)

    half = panel.side / 2
    for axis in (0, 1):  # a floor of half-metre tiles that stands still in the world while the view follows the root
        low, high = root[axis] - half, root[axis] + half
        for tick in np.arange(math.ceil(low * 2) / 2, high, 0.5):
            ends = np.zeros((2, 3), np.float32)
            ends[:, axis], ends[:, 1 - axis] = tick, (root[1 - axis] - half, root[1 - axis] + half)
            a, b = screen(ends)[:, :2].tolist()
            draw.line((*a, *b), fill=FLOOR, width=_SMOOTH)
    corners = screen([(root[0] + x * half, root[1] + y * half, 0) for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))])
    draw.polygon([tuple(c[:2].tolist()) for c in corners], outline="#a8a8b4", width=_SMOOTH)
    points = screen(pose)
    _skeleton(draw, points[:, :2], points[:, 2], panel, size)


def _draw_2d(image: Image.Image, panel: Panel, t: int, size: int) -> None:
    width, height = panel.extent
    scale = size / max(width, height)
    corner = np.array(((size - width * scale) / 2, (size - height * scale) / 2))
    box = (
        *corner.round().astype(int).tolist(),
        *(corner + np.array(panel.extent) * scale).round().astype(int).tolist(),
    )
    if panel.background is None:
        ImageDraw.Draw(image).rectangle(box, fill="#000000")
    else:
        frame = Image.fromarray(panel.background[min(t, len(panel.background) - 1)])
        image.paste(frame.resize((box[2] - box[0], box[3] - box[1])), box[:2])
    xy = panel.points[t] * scale + corner
    _skeleton(ImageDraw.Draw(image), xy, np.zeros(len(xy)), panel, size)


def picture(panels: Sequence[Panel], t: int, size: int = 360) -> Image.Image:
    """Frame ``t`` of all panels side by side, each ``size`` pixels square below its title."""
    big, bar = size * _SMOOTH, round(size * 0.09)
    sheet = Image.new("RGB", (len(panels) * size, size + bar), BACKGROUND)
    font = ImageFont.load_default(max(10, round(bar * 0.55)))
    for i, panel in enumerate(panels):
        image = Image.new("RGB", (big, big), BACKGROUND)
        (_draw_3d if panel.is_3d else _draw_2d)(image, panel, t, big)
        sheet.paste(image.reduce(_SMOOTH), (i * size, bar))
        middle, write = (i + 0.5) * size, ImageDraw.Draw(sheet).text
        write((middle, bar / 2), panel.title, fill=TEXT, font=font, anchor="mm")
        if panel.captions:
            write((middle, size + bar / 2), panel.captions[t], fill=TEXT, font=font, anchor="mm")
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
    **of_page,
) -> Path:
    """Write panels as a moving picture; the suffix of ``path`` says which kind.

    Args:
        panels: all with the same number of frames.
        fps: frames per second of the points; a .gif shows at most 50 of them, in real time.
        size: pixels per panel. bitrate: kbit/s, .mp4 only. title: of the .html page.
        of_page: more for a .html page, as ``film_of`` takes it.
    Raises:
        ValueError: another suffix, panels of different length, an .mp4 without the package imageio-ffmpeg.
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
    with write_aside(path) as aside:
        if path.suffix.lower() == ".gif":
            _save_gif(aside, panels, fps, size)
        else:
            _save_mp4(aside, panels, fps, size, bitrate)
    return path


def check_target(path: str | Path) -> None:
    """Raises ValueError if ``save`` cannot write such a file: another suffix, or .mp4 without imageio-ffmpeg."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{path}: pictures are written as {', '.join(SUFFIXES)}, got {suffix or 'no suffix'!r}")
    if suffix == ".mp4":
        _ffmpeg("writing .mp4")


def _palette(pictures: Sequence[Image.Image]) -> Image.Image:
    """A palette of 64 colours: what the skeletons are drawn in, and the best others for these pictures."""
    sheet = Image.new("RGB", (pictures[0].width, sum(p.height for p in pictures)))
    for i, image in enumerate(pictures):
        sheet.paste(image, (0, i * image.height))
    drawn = [ImageColor.getrgb(c) for c in (LEFT, RIGHT, MIDDLE, FADED, FLOOR, TEXT, BACKGROUND, "#000000")]
    best = sheet.quantize(64 - len(drawn), method=Image.Quantize.MEDIANCUT).getpalette()[: 3 * (64 - len(drawn))]
    palette = Image.new("P", (1, 1))
    palette.putpalette([*(v for colour in drawn for v in colour), *best])
    return palette


def _save_gif(path: Path, panels: Sequence[Panel], fps: float, size: int) -> None:
    step = max(1, math.ceil(fps / 50))  # viewers slow down what is faster
    times = range(0, len(panels[0].points), step)
    # Delays are whole hundredths of a second: round the clock, not the delay, so that the speed stays true.
    clock = [round(100 * i * step / fps) for i in range(len(times) + 1)]
    colours = _palette([picture(panels, t, size) for t in sorted({0, times[len(times) // 2]})])
    images = [picture(panels, t, size).quantize(palette=colours, dither=Image.Dither.NONE) for t in times]
    delays = [10 * (b - a) for a, b in zip(clock, clock[1:])]
    images[0].save(path, save_all=True, append_images=images[1:], duration=delays, loop=0, disposal=1)


def _save_mp4(path: Path, panels: Sequence[Panel], fps: float, size: int, bitrate: int) -> None:
    ffmpeg = _ffmpeg("writing .mp4")
    first = picture(panels, 0, size)
    width, height = (n - n % 2 for n in first.size)  # what yuv420p can hold
    writer = ffmpeg.write_frames(
        str(path), (width, height), fps=fps, codec="libx264", bitrate=f"{bitrate}k", macro_block_size=2
    )
    writer.send(None)
    try:
        for t in range(len(panels[0].points)):
            writer.send(picture(panels, t, size).crop((0, 0, width, height)).tobytes())
    finally:
        writer.close()


def _ffmpeg(purpose: str):
    return needs("imageio_ffmpeg", "video", f"{purpose} (.gif and .html do without)")


def read_video(path: str | Path, frames: int, skip: int = 0) -> list[np.ndarray]:
    """The first ``frames`` images of a video after ``skip``, each [H, W, 3] uint8.

    Raises:
        ValueError: no such file, not a video, fewer images than asked for, or imageio-ffmpeg is missing.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such video")
    reader = _ffmpeg("reading a video").read_frames(str(path), pix_fmt="rgb24")
    try:
        width, height = next(reader)["size"]
    except Exception as error:
        raise ValueError(f"{path}: not a video that ffmpeg can read") from error
    images = []
    for i, raw in enumerate(reader):
        if i >= skip:
            images.append(np.frombuffer(raw, np.uint8).reshape(height, width, 3))
        if len(images) == frames:
            break
    reader.close()
    if len(images) < frames:
        raise ValueError(f"{path}: {len(images)} images after the first {skip}, {frames} wanted")
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
    bodies = [player.Body(p.title, p.points, pale=p.pale) for p in solid]
    if flat is not None:
        bodies[0].pixels = flat.points
    size = tuple(map(int, flat.extent)) if flat is not None else None
    return player.Film(title, fps, layouts.pop(), bodies, size, video, times, now, solid[0].azimuth)
