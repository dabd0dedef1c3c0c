"""Lifted people in rerun (extra ``rerun``): skeletons in space and on the image, on one time line."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from posekernels.extras import needs
from posekernels.pose.skeleton import H36M_17

from .world import Lifted


def log(lifted: Lifted, video: Path | None = None, to: Path | None = None) -> None:
    """Log people to a file, or to a viewer, which is started.

    Entities: ``world/person 1``, metres, z up; ``image/person 1``, pixels; ``image/video``. Time lines: ``frame`` and
    ``time``.

    Args:
        video: .mp4 that they were found in, shown under them. to: .rrd file to write; None for a viewer.
    Raises:
        ValueError: rerun is not installed, or its viewer cannot be started. OSError: ``to`` cannot be written.
    """
    rr = needs("rerun", "rerun", "--rerun")
    recording = rr.RecordingStream("posekernels")
    with recording:
        if to is not None:
            recording.save(to)
        else:
            recording.spawn()
        rr.log("world", rr.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
        joints = [rr.AnnotationInfo(id=i, label=name) for i, name in enumerate(H36M_17.joints)]
        skeleton = rr.ClassDescription(
            info=rr.AnnotationInfo(id=0), keypoint_annotations=joints, keypoint_connections=list(H36M_17.bones)
        )
        rr.log("/", rr.AnnotationContext(skeleton), static=True)
        if video is not None:
            _video(rr, video)
        for person in lifted.people:
            for place, kind, values in (
                ("world", rr.Points3D, person.over("world", lifted.frames)),
                ("image", rr.Points2D, person.over("points", lifted.frames)),
            ):
                times = _times(rr, person.frames, lifted.fps)
                _points(rr, f"{place}/person {person.identity}", kind, values, times)
    recording.disconnect()


def _times(rr, frames: np.ndarray, fps: float) -> list:
    return [rr.TimeColumn("frame", sequence=frames), rr.TimeColumn("time", duration=frames / fps)]


def _points(rr, name: str, kind, values: np.ndarray, times: list) -> None:
    """[N, 17, C]; frames with NaN are logged as nobody."""
    there = np.isfinite(values).all((1, 2))
    count = len(values[there])
    if not count:
        return
    joints, lengths = values.shape[1], np.where(there, values.shape[1], 0)
    columns = kind.columns(
        positions=values[there].reshape(-1, values.shape[2]),
        keypoint_ids=np.tile(np.arange(joints), count),
        class_ids=np.zeros(count * joints, int),
    ).partition(lengths)
    rr.send_columns(name, times, columns)


def _video(rr, path: Path) -> None:
    asset = rr.AssetVideo(path=path)
    rr.log("image/video", asset, static=True)
    at = asset.read_frame_timestamps_nanos()
    frames = np.arange(len(at))
    times = [rr.TimeColumn("frame", sequence=frames), rr.TimeColumn("time", duration=at * 1e-9)]
    rr.send_columns("image/video", times, rr.VideoFrameReference.columns_nanos(at))
