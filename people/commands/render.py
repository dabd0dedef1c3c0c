"""``posekernels render PEOPLE -o OUT``: a moving picture of what ``posekernels lift`` or ``forecast`` wrote."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from posekernels.cli import Parser
from posekernels.files import check_writable

from .. import pictures, pose_files
from . import forecast
from .lift import drawable, filmed, is_drawn, pages_last, save, say, told


def main(arguments: list[str]) -> int:
    p = Parser(prog="posekernels render", description=__doc__)
    p.add_argument("input", metavar="PEOPLE", help=".npz or .json written by posekernels lift or forecast")
    kinds = ".gif, .mp4 or .html; other suffixes convert"
    p.add_argument("-o", "--out", required=True, type=Path, action="append", metavar="OUT", help=kinds)
    p.add_argument(
        "--video",
        metavar="FILE",
        help="to show under the 2D skeletons (default: that of PEOPLE, where it is still there)",
    )
    p.add_argument("--embed", action="store_true", help="the video inside the page (default: a link to its file)")
    p.add_argument("--panel", type=int, default=360, metavar="PIXELS", help="size of a panel")
    p.add_argument("--picture-fps", type=float, metavar="F", help="pictures per second of .gif and .mp4")
    options = p.parse_args(arguments)
    for out in options.out:
        (pose_files if out.suffix.lower() in pose_files.SUFFIXES else pictures).check_target(out)
        check_writable(out, options.input)
    if options.panel < 32:
        raise ValueError(f"--panel must be at least 32, got {options.panel}")
    if options.picture_fps is not None and not 0 < options.picture_fps < float("inf"):
        raise ValueError(f"--picture-fps must be positive, got {options.picture_fps}")
    if options.video is not None and not Path(options.video).exists():
        raise ValueError(f"--video {options.video}: no such video")
    lifted = pose_files.read(options.input)
    shown = any(out.suffix.lower() in pictures.SUFFIXES for out in options.out)
    if lifted.now is not None and options.video is not None:
        raise ValueError(f"--video {options.video}: {options.input} is a forecast, which no video shows")
    if lifted.now is not None and shown:
        say(f"{options.input} is a forecast: drawn as posekernels forecast draws it, without a video")
    elif lifted.source.endswith(forecast.NAMED) and shown:
        say(f"{options.input} is a forecast, but does not say where it begins: drawn as if all of it had been seen")
    video = options.video
    if video is None and shown:
        video = filmed(lifted, options.input)
    drawn = drawable(video) if options.video is None and any(map(is_drawn, options.out)) else video
    if options.embed and video is None:
        raise ValueError("--embed puts a video inside the page, but --video FILE is missing")
    written: list[Path] = []
    for out in pages_last(options.out):
        if lifted.now is not None and out.suffix.lower() in pictures.SUFFIXES:
            write = partial(forecast.draw, out, lifted, written, options.panel, options.picture_fps)
        else:
            how = drawn if is_drawn(out) else video, options.panel, options.picture_fps, options.embed, written
            write = partial(save, out, lifted, *how)
        written += told(out, write)
    return 0
