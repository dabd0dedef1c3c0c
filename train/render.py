"""``--render``: one clip of the data set, its 2D input, the prediction and the ground truth side by side."""

from __future__ import annotations

from argparse import Action, Namespace
from pathlib import Path

import numpy as np
import torch

from posekernels.checks import nearest
from posekernels.files import check_writable, write_aside
from posekernels.people import pictures
from posekernels.people.video import Video

from .data.clips import Clip, LiftingData

CLOUD = 20  # hypotheses that a page shows


class _Render(Action):
    """``--render FILE``; or as published: ``--render``, which asks, and ``--viz-output FILE``, which says where to."""

    def __call__(self, parser, namespace, values, option_string=None):
        namespace.render = values or namespace.render or ""


def add_arguments(parser) -> None:
    """``--render`` and the ``--viz-*`` options, named as in RIE and VideoPose3D (rie section 10)."""
    group = parser.add_argument_group("pictures")
    group.add_argument(
        "--render", action=_Render, nargs="?", metavar="FILE", help="draw a test clip to FILE.gif, .mp4 or .html"
    )
    group.add_argument(
        "--viz-output", dest="render", action=_Render, metavar="FILE", help="published: FILE of --render"
    )
    group.add_argument(
        "--viz-export", metavar="FILE.npy", help="predicted poses, [T, J, 3] float32 metres, camera axes"
    )
    group.add_argument("--viz-subject", metavar="NAME", help="default: the first test clip's")
    group.add_argument("--viz-action", metavar="NAME", help='e.g. "Walking 1"; default: the first test clip\'s')
    group.add_argument("--viz-camera", type=int, default=0, metavar="N")
    group.add_argument("--viz-start", type=int, default=0, metavar="N", help="leave out the first N frames")
    group.add_argument("--viz-limit", type=int, default=-1, metavar="N", help="draw N frames at most")
    group.add_argument("--viz-downsample", type=int, default=1, metavar="N", help="average groups of N frames")
    group.add_argument("--viz-fps", type=float, metavar="F", help="speed; default: that of the data, in real time")
    group.add_argument("--viz-size", type=float, default=5, metavar="INCHES", help="of a panel, 72 pixels each")
    group.add_argument("--viz-bitrate", type=int, default=3000, metavar="KBIT", help=".mp4")
    group.add_argument("--viz-no-ground-truth", action="store_true", help="leave the third panel out")
    group.add_argument("--viz-video", metavar="FILE", help="video to draw under the 2D input")
    group.add_argument("--viz-skip", type=int, default=0, metavar="N", help="skip the video's first N frames")


def choose_clip(clips: list[Clip], subject: str | None, action: str | None, camera: int) -> Clip:
    """The clip of a subject, action and camera; the first one where subject or action is None.

    Raises:
        ValueError: there is none, naming what there is.
    """

    def pick(option: str, wanted, names: list, clips: list[Clip], attribute: str) -> list[Clip]:
        found = [c for c in clips if wanted is None or getattr(c, attribute) == wanted]
        if not found:
            near = nearest(wanted, names) if isinstance(wanted, str) else ""
            raise ValueError(f"{option}: no {wanted!r}{near} (there are: {', '.join(map(str, names))})")
        return found

    clips = pick("--viz-subject", subject, sorted({c.subject for c in clips}), clips, "subject")
    clips = pick("--viz-action", action, sorted({c.action for c in clips}), clips, "action")
    clips = [c for c in clips if (c.subject, c.action) == (clips[0].subject, clips[0].action)]
    return pick("--viz-camera", camera, sorted({c.camera for c in clips}), clips, "camera")[0]


def panels_of(
    clip: Clip,
    predicted: np.ndarray,
    data: LiftingData,
    frames: slice = slice(None),
    downsample: int = 1,
    ground_truth: bool = True,
    video: list[np.ndarray] | None = None,
    hypotheses: np.ndarray | None = None,
) -> list[pictures.Panel]:
    """Input, prediction and, where known and wanted, ground truth of one clip as panels of ``pictures``.

    Args:
        predicted: [T, J, 3] metres, camera axes, relative to the root: all frames of the clip.
        frames: which of them to draw.
        downsample: average groups of so many frames.
        video: images for ``frames``, before ``downsample``.
        hypotheses: [T, S, J, 3] as ``predicted``, all frames.
    """
    poses = {"Prediction": predicted[frames]}
    translation = None
    if clip.positions is not None:
        root = clip.positions[frames, :1]
        truth = clip.positions[frames].copy()
        truth[:, 1:] += root
        poses["Prediction"] = predicted[frames] + root
        translation = clip.translation
        if ground_truth:
            poses["Ground truth"] = truth
    pixels = (clip.keypoints[frames, :, :2] + 1) * 500  # screen units, as on an image of 1000 x 1000
    same_layout = clip.keypoints.shape[1] == data.skeleton.num_joints and (
        set(zip(data.left, data.right)) == set(zip(data.skeleton.left, data.skeleton.right))
    )
    extent = (1000, 1000)
    if video is not None:
        extent = (1000, round(1000 * video[0].shape[0] / video[0].shape[1]))
        pixels = pixels + (0, (extent[1] - 1000) / 2)
        video = video[::downsample]
    panels = [
        pictures.Panel(
            "Input",
            pictures.downsample(pixels, downsample),
            data.skeleton if same_layout else None,
            extent=extent,
            background=video,
        )
    ]
    azimuth = pictures.azimuth_of(clip.orientation)
    for title, pose in poses.items():
        world = pictures.to_world(pictures.downsample(pose, downsample), clip.orientation, translation)
        panels.append(pictures.Panel(title, world, data.skeleton, azimuth=azimuth, pale=title == "Ground truth"))
    if hypotheses is not None:
        off = pictures.upright(hypotheses[frames] - predicted[frames][:, None], clip.orientation)
        panels[1].hypotheses = panels[1].points[:, None] + pictures.downsample(off, downsample)
    return panels


def check_place(option: str, name: str | None, out: str | None) -> None:
    """Raises ValueError unless ``option name`` can be written; a bare name goes to ``out``, which the run makes."""
    path = Path(name or "")
    if name and path.name != name and (out is None or path.parent.resolve() != Path(out).resolve()):
        check_writable(path, option=option)


def check(data: LiftingData, options: Namespace) -> tuple[Clip, slice]:
    """The clip and the frames that the ``--viz-*`` options choose.

    Raises:
        ValueError: options that cannot be met, so that a mistake is found before the training, not after it.
    """
    if options.render:
        pictures.check_target(options.render)
    elif not options.viz_export:
        raise ValueError("--render: to which file? give --render FILE, --viz-output FILE or --viz-export FILE.npy")
    clip = choose_clip(data.test, options.viz_subject, options.viz_action, options.viz_camera)
    count, start, limit = len(clip.keypoints), options.viz_start, options.viz_limit
    if not 0 <= start < count:
        raise ValueError(f"--viz-start must be between 0 and {count - 1} for this clip, got {start}")
    for name in ("viz_downsample", "viz_size", "viz_fps"):
        value = getattr(options, name)
        if value is not None and value <= 0:
            raise ValueError(f"--{name.replace('_', '-')} must be positive, got {value}")
    return clip, slice(start, count if limit < 0 else min(count, start + max(1, limit)))


def check_video(options: Namespace, frames: slice) -> None:
    """Refuse a ``--viz-video`` that cannot be drawn, before the work.

    Raises:
        ValueError: no such file, not a video, or too short for ``frames``.
    """
    if options.render and options.viz_video:
        there, wanted = Video(options.viz_video).count, options.viz_skip + frames.stop
        if there is not None and there < wanted:
            raise ValueError(
                f"--viz-video {options.viz_video}: {there} images, the clip needs {wanted}, of which --viz-skip "
                f"{options.viz_skip}; --viz-limit N draws fewer"
            )


def cloud_of(recipe, data: LiftingData, clip: Clip) -> np.ndarray | None:
    """[T, S, J, 3]: other poses that ``recipe`` holds possible, as its test would draw them; None where it has one."""
    if not hasattr(recipe, "hypotheses"):
        return None
    before = data.test[: next(i for i, c in enumerate(data.test) if c is clip)]
    drawn = recipe.hypotheses(clip, sum(len(c.keypoints) for c in before), CLOUD)
    return np.concatenate([poses.float().numpy() for _, poses, _ in drawn])


def render(recipe, data: LiftingData, options: Namespace, folder: Path | None) -> list[Path]:
    """Draw (``--render``) and export (``--viz-export``) what ``recipe`` predicts for the chosen test clip.

    A bare file name goes to ``folder`` where there is one.

    Returns:
        The files written.
    """
    clip, frames = check(data, options)
    start, step = frames.start, options.viz_downsample
    recipe.model.eval()
    with torch.no_grad(), recipe.place.autocast():
        predicted = torch.as_tensor(recipe.predict(clip)).float().cpu().numpy()

    def place(name: str) -> Path:
        return folder / name if folder and Path(name).name == name else Path(name)

    written = []
    if options.viz_export:
        path = place(options.viz_export)
        with write_aside(path) as aside, open(aside, "wb") as file:
            np.save(file, predicted[frames])
        written.append(path)
    if options.render:
        video, played = None, {}
        if options.viz_video:
            video = pictures.read_video(options.viz_video, frames.stop - frames.start, options.viz_skip + start)
            count = max(1, (frames.stop - start) // step)
            at = (options.viz_skip + start + np.arange(count) * step) / clip.fps
            played = {"video": Path(options.viz_video), "times": at.tolist()}
        cloud = cloud_of(recipe, data, clip) if Path(options.render).suffix.lower() == ".html" else None
        panels = panels_of(clip, predicted, data, frames, step, not options.viz_no_ground_truth, video, cloud)
        written.append(
            pictures.save(
                place(options.render),
                panels,
                options.viz_fps or clip.fps / step,
                size=round(options.viz_size * 72),
                bitrate=options.viz_bitrate,
                title=f"{recipe.name}: {data.name}, {clip.subject} {clip.action}, camera {clip.camera}",
                **played,
            )
        )
    return written
