"""Images in order: from a video file, a folder of pictures, or a camera. Videos need PyAV (extra ``video``)."""

from __future__ import annotations

import contextlib
import itertools
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from posekernels.archive import DataError
from posekernels.extras import needs

from .keypoint_rules import SeveralVideos, in_order

VIDEOS = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".mts", ".wmv", ".flv", ".3gp", ".gif")
PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
FOLDER_FPS = 30.0
READ = (
    "keypoints come as .npy, .npz or .json, videos as .mp4, .mov, .avi, .mkv and the like, pictures as .jpg, .png or a "
    "folder of them; a number is a camera"
)
# What FFmpeg may take a file for: not for a text, nor for a list of other files or addresses.
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegvideo,mpegts,flv,asf,gif,ogg,mxf,dv,ivf,h264,hevc,m4v,mjpeg,"
    "apng,jpeg_pipe,png_pipe,webp_pipe,bmp_pipe,tiff_pipe"
)
# What a picture's tag of how the camera was held asks for; 1 asks for nothing.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# How videos begin: where, and with which bytes.
BEGINNINGS = (
    (4, (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")),  # mp4, mov, 3gp
    (0, (b"\x1aE\xdf\xa3", b"RIFF", b"GIF8", b"FLV", b"\x30\x26\xb2\x75", b"\0\0\1\xba", b"\0\0\1\xb3")),
)
USUAL = (24000 / 1001, 24, 25, 30000 / 1001, 30, 48, 50, 60000 / 1001, 60, 90, 100, 120, 240)


@dataclass
class Clock:
    """When the images of a video are shown.

    Args:
        fps: frames per second to read it at. count: so many. even: whether its images come at that rate already.
        apart: seconds between two images, the least and the most.
    """

    fps: float
    count: int
    even: bool
    apart: tuple[float, float]

    @classmethod
    def of(cls, times: np.ndarray, last: float | None) -> Clock:
        """Of images shown from ``times`` [T] on, seconds in order; ``last``: how long the last one is shown."""
        steps = np.diff(times)
        steps = steps[steps > 1e-6]
        if not len(steps):
            return cls(FOLDER_FPS, max(1, len(times)), True, (0.0, 0.0))
        mean, usual = len(steps) / steps.sum(), 1 / float(np.median(steps))
        drift = times - times[0] - np.arange(len(times)) / mean
        even = len(steps) == len(times) - 1 and np.abs(drift).max() < 0.75 / mean
        fps = float(mean if even else usual)
        near = min(USUAL, key=lambda rate: abs(rate - fps))
        if abs(near - fps) < (0.002 if even else 0.02) * fps:  # times are rounded, in some files to milliseconds
            fps = float(near)
        span = float(times[-1] - times[0]) + (last or 1 / fps)
        count = len(times) if even else max(1, round(span * fps))
        return cls(fps, count, bool(even), (float(steps.min()), float(steps.max())))


class Video:
    """A source of images. Iterating reads it from the start, upright as it is meant to be watched, at a steady rate.

    Images of an uneven rate, as phones film, are read by the times at which they are shown: at each moment the nearest
    one. Pixels that are not square are made so.

    Args:
        source: a video file, a picture, a folder of pictures (in the order of their numbers), a camera's number, or a
            pipe that a video comes through.
        width: images are reduced to so many pixels; None for as they are.
    Attributes:
        fps: frames per second. size: (width, height). notes: what had to be put right, in words for the user.
        count: frames to come; None for cameras. live: a camera, or a pipe: images come when they come, and once.
    Raises:
        DataError: no such source, not a video, no picture in it, or a missing package.
    """

    def __init__(self, source: str | Path, width: int | None = None, fps: float | None = None, clip: str | None = None):
        camera, path = bool(re.fullmatch(r"\d+", str(source))), Path(source)
        self.source, self.pipe = str(source), not camera and path.is_fifo()
        self.live = camera or self.pipe
        self.coming: Iterator | None = None  # the frames of a pipe
        self.files: list[Path] = []
        self.notes: list[str] = []
        if path.is_dir():
            self._pictures(path, clip)
        elif path.suffix.lower() in PICTURES and path.is_file():
            self.files = [path]
        if self.files:
            self.fps, self.count = fps or FOLDER_FPS, len(self.files)
            self.size = self._open(self.files[0]).size
            self._scale(width)
            return
        if camera:
            device = Path(f"/dev/video{source}")
            if not device.exists():
                raise DataError(f"no camera {source} here ({device} does not exist)")
        elif not self.pipe and not path.is_file():
            raise DataError(f"{source}: no such video, folder or keypoints file")
        elif not self.pipe and not path.stat().st_size:
            raise DataError(f"{source}: an empty file")
        self._probe()
        self._scale(width)

    def _pictures(self, folder: Path, clip: str | None) -> None:
        files = sorted(f for f in folder.iterdir() if f.suffix.lower() in PICTURES)
        if not files:
            raise DataError(f"{folder}: no pictures in this folder ({', '.join(PICTURES)})")
        if others := [file for file in visible(folder) if file.suffix.lower() not in PICTURES]:
            self.notes.append(f"files that are no pictures are left out: {names_of(others)}")
        try:
            chosen, numbers, notes = in_order([f.name for f in files], clip)
        except SeveralVideos as error:
            if clip is not None or min(error.groups.values()) > 1:
                raise DataError(f"{folder}: {error}") from error
            raise DataError(
                f"{folder}: the names of its {len(files)} pictures are not of one video: {_counted(error.groups)}; "
                f"{each_by_itself(files)}; --clip TEXT takes those with TEXT in their names for one video"
            ) from error
        self.notes += notes
        if numbers is not None:
            chosen = [i for _, i in sorted(zip(numbers, chosen))]
        self.files = [files[i] for i in chosen]
        sizes = Counter(size for file in self.files if (size := _size_of(file)))
        if len(sizes) > 1:
            named = {f"{width}x{height}": n for (width, height), n in sizes.items()}
            raise DataError(
                f"{folder}: frames of one video are of one size, its pictures are not: {_counted(named)}; "
                f"{each_by_itself(self.files)}"
            )

    def _scale(self, width: int | None) -> None:
        if width is not None and width < self.size[0]:
            self.size = (width - width % 2, max(2, round(self.size[1] * width / self.size[0]) // 2 * 2))

    def _open(self, file: Path) -> Image.Image:
        try:
            image = Image.open(file)
            image.load()
            return upright(image).convert("RGB")
        except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
            raise DataError(f"{file}: not a picture that can be read") from error

    # -- with FFmpeg, through PyAV
    def _container(self):
        av = needs("av", "video", "reading a video")
        try:
            if self.live and not self.pipe:
                return av.open(f"/dev/video{self.source}", format="v4l2")
            # "file:": no name is taken for an address, whatever is in it
            options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
            container = av.open(f"file:{self.source}", options=options)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise self._unreadable() from error
        if not container.streams.video:
            container.close()
            raise DataError(f"{self.source}: no video is in it, only sound or texts")
        container.streams.video[0].thread_type = "AUTO"
        return container

    def _unreadable(self) -> DataError:
        suffix = Path(self.source).suffix.lower()
        if suffix in VIDEOS or self.live:
            cut = not self.live and _begins_as_a_video(Path(self.source))
            what = (
                "a video that is cut short or damaged: ffmpeg cannot read it"
                if cut
                else "not a video that ffmpeg can read"
            )
            return DataError(f"{self.source}: {what}")
        return DataError(f"{self.source}: {suffix or 'a file of this kind'} is not read; {READ}")

    def _probe(self) -> None:
        """Size, turn and times of the video; the times of all images without looking at them."""
        source = self._container() if self.pipe else None
        frames = self._frames() if source is None else self._decoded(source)
        first = next(frames, None)
        if first is None:
            raise self._unreadable()
        if source is not None:
            self.coming = itertools.chain([first], frames)
        with self._container() if source is None else contextlib.nullcontext(source) as container:
            stream = container.streams.video[0]
            aspect = float(stream.sample_aspect_ratio or 1) or 1.0
            rate = float(stream.average_rate or stream.guessed_rate or 0) or FOLDER_FPS
            turned, size = round(first.rotation / 90) % 4, (max(2, round(first.width * aspect)), first.height)
            if size[0] != first.width:
                self.notes.append(f"pixels are not square: {first.width}x{first.height} is read as {size[0]}x{size[1]}")
            self._turned, self.size = turned, size[::-1] if turned % 2 else size
            if self.live:
                self.fps, self.count, self.clock = rate, None, None
                return
            shown = [(p.pts, p.duration) for p in container.demux(stream) if p.pts is not None and not p.is_discard]
            base = float(stream.time_base)
        shown.sort()
        times = np.array([pts for pts, _ in shown], float) * base
        if len(times):
            times = times[times >= (first.time or 0) - 1e-6]  # those before are only there to decode others
        self.clock = Clock.of(times, shown[-1][1] * base if shown and shown[-1][1] else None)
        self.fps, self.count = self.clock.fps, self.clock.count
        if len(times) < 2:
            self.fps = rate
        if not self.clock.even:
            least, most = self.clock.apart
            self.notes.append(
                f"images are {least:.3f} to {most:.3f} s apart: read by their times, at {self.fps:.4g} frames/s"
            )

    def _frames(self) -> Iterator:
        """All frames that can be decoded; damaged ones are passed over."""
        if self.coming is not None:
            yield from self.coming
            return
        with self._container() as container:
            yield from self._decoded(container)

    def _decoded(self, container) -> Iterator:
        av = needs("av", "video", "reading a video")
        try:
            for packet in container.demux(container.streams.video[0]):
                try:
                    yield from packet.decode()
                except av.error.InvalidDataError:
                    continue
        except av.FFmpegError as error:
            raise self._unreadable() from error

    def _image(self, frame) -> np.ndarray:
        """[H, W, 3] of a frame, upright, of ``size``."""
        size = self.size[::-1] if self._turned % 2 else self.size
        image = frame.reformat(width=size[0], height=size[1], format="rgb24").to_ndarray()
        return np.ascontiguousarray(np.rot90(image, self._turned)) if self._turned else image

    def __iter__(self) -> Iterator[np.ndarray]:
        """[H, W, 3] uint8, RGB."""
        if self.files:
            for file in self.files:
                image = self._open(file)
                yield np.asarray(image if image.size == self.size else image.resize(self.size))
        elif self.clock is None or self.clock.even:
            for frame in self._frames():
                yield self._image(frame)
        else:
            yield from self._evened()

    def _evened(self) -> Iterator[np.ndarray]:
        """At each of ``count`` moments the image whose time is nearest."""
        start = image = None
        given, before = 0, 0.0
        for frame in self._frames():
            if frame.time is None:
                continue
            start = frame.time if start is None else start
            now = frame.time - start
            while image is not None and given < self.count and given / self.fps <= (before + now) / 2:
                yield image
                given += 1
            image, before = self._image(frame), now
        while image is not None and given < self.count:
            yield image
            given += 1


def visible(folder: Path) -> list[Path]:
    """The files of a folder, in order, without those that are hidden."""
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def names_of(files: list[Path]) -> str:
    """The names of the first three."""
    return ", ".join(file.name for file in files[:3]) + (", ..." if len(files) > 3 else "")


def each_by_itself(files: list[Path]) -> str:
    """In words, how to lift the pictures of a folder that are not the frames of a video."""
    folder = shlex.quote(str(files[0].parent))
    names = " ".join(f"{folder}/*{suffix}" for suffix in dict.fromkeys(file.suffix for file in files))
    return f"posekernels lift {names} -o OUT/ lifts each by itself"


def _counted(groups: dict[str, int]) -> str:
    """Names of pictures, and how many have each."""
    counts = [f"{name} ({n} picture{'s' if n > 1 else ''})" for name, n in groups.items()]
    return ", ".join(counts[:6]) + (", ..." if len(counts) > 6 else "")


def _begins_as_a_video(file: Path) -> bool:
    """Whether the first bytes are those of a video, of whatever kind."""
    with contextlib.suppress(OSError), open(file, "rb") as content:
        head = content.read(16)
        return any(head.startswith(beginning, at) for at, beginnings in BEGINNINGS for beginning in beginnings)
    return False


def _size_of(file: Path) -> tuple[int, int] | None:
    """(width, height) of a picture held upright, by its head alone; None where it is no picture."""
    try:
        with Image.open(file) as image:
            # a PNG may have tags behind its pixels, too: to look there is to decode it
            tags = {} if image.format == "PNG" and "exif" not in image.info else image.getexif()
            turn = TURNS.get(tags.get(ExifTags.Base.Orientation))
            lying = turn in (TURNS[5], TURNS[6], TURNS[7], TURNS[8])
            return image.size[::-1] if lying else image.size
    except Exception:  # of damaged files Pillow raises many kinds; whoever reads the picture says so
        return None


def upright(image: Image.Image) -> Image.Image:
    """A loaded picture as its camera was held, which phones write beside the pixels."""
    try:
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # of damaged tags Pillow raises many kinds; the picture itself is whole
        return image
    return image if turn is None else image.transpose(turn)


class Backgrounds:
    """The images of a video for drawing, read again and reduced: ``images[t]``, best in order of t.

    Args:
        frames: how many the drawing has; later images than the video's repeat its last one.
    """

    def __init__(self, source: str | Path, frames: int, width: int):
        self.video, self.frames = Video(source, width), frames
        self._restart()

    def _restart(self) -> None:
        self.images, self.at, self.image = iter(self.video), -1, None

    def __len__(self) -> int:
        return self.frames

    def __getitem__(self, t: int) -> np.ndarray:
        if t < self.at:
            self._restart()
        while self.at < t:
            image = next(self.images, None)
            self.at += 1
            if image is not None:
                self.image = image
        if self.image is None:
            raise DataError(f"{self.video.source}: no image in it")
        return self.image
