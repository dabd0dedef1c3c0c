"""Images in order: from a video file, a folder of pictures, or a camera. Needs imageio-ffmpeg (extra ``video``)."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from posekernels.archive import DataError
from posekernels.extras import needs

VIDEOS = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".mts", ".wmv", ".flv", ".3gp", ".gif")
PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
FOLDER_FPS = 30.0
READ = "videos such as .mp4, .mov, .avi, folders of pictures, camera numbers, and keypoints in .npz, .npy, .json"


class Video:
    """A source of images. Iterating reads it from the start, upright as it is meant to be watched, at a steady rate.

    Args:
        source: a video file, a folder of pictures (in the order of the numbers in their names), or a camera's number.
        width: images are reduced to so many pixels; None for as they are.
    Attributes:
        fps: frames per second; variable rates are evened out to the mean. size: (width, height).
        count: frames to come, an estimate for video files; None for cameras. live: a camera.
    Raises:
        DataError: no such source, not a video, no picture in it, or a missing package.
    """

    def __init__(self, source: str | Path, width: int | None = None, fps: float | None = None):
        self.source, self.live = str(source), bool(re.fullmatch(r"\d+", str(source)))
        self.files: list[Path] = []
        path = Path(source)
        if path.is_dir():
            files = [f for f in path.iterdir() if f.suffix.lower() in PICTURES]
            self.files = sorted(files, key=lambda f: ([int(n) for n in re.findall(r"\d+", f.stem)], f.name))
            if not self.files:
                raise DataError(f"{source}: no pictures in this folder ({', '.join(PICTURES)})")
            self.fps, self.count = fps or FOLDER_FPS, len(self.files)
            self.size = self._open(self.files[0]).size
            self._scale(width)
            return
        if self.live:
            device = Path(f"/dev/video{source}")
            if not device.exists():
                raise DataError(f"no camera {source} here ({device} does not exist)")
            self._input, self._from = str(device), ["-f", "v4l2"]
        elif not path.is_file():
            raise DataError(f"{source}: no such video, folder or keypoints file")
        elif not path.stat().st_size:
            raise DataError(f"{source}: an empty file")
        else:
            self._input, self._from = str(path), []
        meta = self._read([], probe=True)
        self.size, self.fps = tuple(meta["size"]), float(meta.get("fps") or 0) or FOLDER_FPS
        seconds = float(meta.get("duration") or 0)
        self.count = None if self.live else max(1, round(seconds * self.fps)) if 0 < seconds < 1e6 else None
        self._scale(width)

    def _scale(self, width: int | None) -> None:
        self.reduced = width is not None and width < self.size[0]
        if self.reduced:
            self.size = (width - width % 2, max(2, round(self.size[1] * width / self.size[0]) // 2 * 2))

    def _open(self, file: Path) -> Image.Image:
        try:
            return Image.open(file).convert("RGB")
        except (UnidentifiedImageError, OSError, ValueError) as error:
            raise DataError(f"{file}: not a picture that can be read") from error

    def _read(self, output: list[str], probe: bool = False):
        ffmpeg = needs("imageio_ffmpeg", "video", "reading a video")
        logging.getLogger("imageio_ffmpeg").setLevel(logging.ERROR)  # it warns of every change of size, which is meant
        reader = ffmpeg.read_frames(self._input, pix_fmt="rgb24", input_params=self._from, output_params=output)
        try:
            meta = next(reader)
            if meta.get("codec", "").startswith("ansi"):  # ffmpeg films any .txt
                reader.close()
                raise ValueError("a text")
        except (OSError, StopIteration, RuntimeError, KeyError, ValueError) as error:
            known = Path(self.source).suffix.lower() in VIDEOS
            why = "damaged, or another kind of file" if known else f"read are {READ}"
            raise DataError(f"{self.source}: not a video that ffmpeg can read ({why})") from error
        if probe:
            reader.close()
            return meta
        return reader

    def __iter__(self) -> Iterator[np.ndarray]:
        """[H, W, 3] uint8, RGB."""
        width, height = self.size
        for file in self.files:
            image = self._open(file)
            yield np.asarray(image if image.size == self.size else image.resize(self.size))
        if self.files:
            return
        output = ["-r", f"{self.fps:g}"] + (["-vf", f"scale={width}:{height}"] if self.reduced else [])
        reader = self._read(output)
        try:
            for raw in reader:
                if len(raw) != width * height * 3:
                    raise DataError(f"{self.source}: a frame of {len(raw)} bytes, expected {width} x {height} x 3")
                yield np.frombuffer(raw, np.uint8).reshape(height, width, 3)
        finally:
            reader.close()


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
