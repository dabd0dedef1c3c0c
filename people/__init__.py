"""Applying: from a video or keypoints to people in one world, and to what they do next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from posekernels.door import one_package

if TYPE_CHECKING:
    from .world import Lifted

one_package(__name__)

__all__ = ["forecast", "lift"]


def lift(source: str | Path | int, **options) -> Lifted:
    """``posekernels lift`` for Python: ``lift("clip.mp4", people=2, smooth=0.5)``.

    Args:
        source: a video, a folder of pictures, the number of a camera, or 2D keypoints.
        options: of the command, without their dashes; True for one without a value, False for its --no- form.
    Returns:
        The people; ``people.pose_files.write`` makes files of them, ``people.player`` pages.
    Raises:
        ValueError, OSError: as the command. KeyboardInterrupt: Ctrl-C; the search is kept beside, for ``resume=True``.
    """
    from .commands import lift as command

    words = [str(source), "-o", f"{Path(str(source)).stem}.npz"]  # the name that an interrupted search is kept under
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(option if value else option.replace("--", "--no-", 1))
        elif value is not None:
            words += [option, *map(str, value if isinstance(value, (list, tuple)) else [value])]
    parsed = command.parser().parse_args(words)
    beside, parsed.out = Path(words[2]), []
    lifted = command.run(parsed, command.check(parsed), beside, "resume=True")
    if lifted is None:
        raise KeyboardInterrupt
    return lifted


def forecast(lifted: Lifted, seconds: float = 1.0, *, at: float | None = None, net: nn.Module | None = None) -> Lifted:
    """``posekernels forecast`` for Python: the people, and from frame ``now`` on what they may do next.

    Args:
        lifted: people in the world. seconds: how far ahead. at: the second to forecast from; by default the end.
        net: a forecaster of 17 joints; by default the one that ships for lifted people.
    Raises:
        ValueError: nobody to forecast (``DataError``), or a time outside of the motion.
    """
    from posekernels import models

    from .commands import forecast as command

    net = net or models.load("forecaster_lifted")
    whole = lifted if at is None else command.until(lifted, at)
    return command.forecast(net, whole, seconds, net.about.fps or models.forecasting.FPS, at)[0]
