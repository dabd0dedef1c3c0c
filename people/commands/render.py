"""``posekernels render PEOPLE.npz -o OUT``: a moving picture of what ``posekernels lift`` or ``forecast`` wrote."""

from __future__ import annotations

from pathlib import Path

from posekernels._cli import Parser
from posekernels._files import check_writable

from .. import pictures, pose_files
from .lift import save, say


def main(arguments: list[str]) -> int:
    p = Parser(prog="posekernels render", description=__doc__)
    p.add_argument("input", metavar="PEOPLE.npz", help="written by posekernels lift or forecast")
    kinds = ".gif, .mp4 or .html; other suffixes convert"
    p.add_argument("-o", "--out", required=True, type=Path, action="append", metavar="OUT", help=kinds)
    p.add_argument("--video", metavar="FILE", help="to draw under the 2D skeletons (.gif and .mp4)")
    p.add_argument("--panel", type=int, default=360, metavar="PIXELS", help="size of a panel")
    p.add_argument("--picture-fps", type=float, metavar="F", help="pictures per second of .gif and .mp4")
    options = p.parse_args(arguments)
    for out in options.out:
        if out.suffix.lower() not in pose_files.SUFFIXES:
            pictures.check_target(out)
        check_writable(out, options.input)
    if options.panel < 32 or (options.picture_fps is not None and not options.picture_fps > 0):
        raise ValueError("--panel must be at least 32 pixels and --picture-fps positive")
    lifted = pose_files.read(options.input)
    for out in options.out:
        for path in save(out, lifted, options.video, options.panel, options.picture_fps):
            say(f"wrote {path}")
    return 0
