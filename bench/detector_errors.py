"""How does a detector err? ``python -m bench.detector_errors WHEEL ...``: what ``train.recipes.any_camera`` imitates.

Four calibrated cameras see a person, whose joints are triangulated from all views that agree on them, and smoothed over
time. What a view's detections differ from the projection, each view moved and scaled as a whole as it fits best (the
lifter sees neither place nor size), is that detector's error, in units of the person (mean distance of the joints from
the middle of the hips, half a metre). WHEEL is one or both of these from PyPI (BSD-3), of one studio:

- pose2sim-0.10.49-py3-none-any.whl: videos of two people (100 frames, 60 Hz). Measured is the guest, who moves her
  arms, by BlazePose as ``posekernels lift`` runs it, or by the networks of ``--rtmpose``.
- pose2sim-0.8.4-py3-none-any.whl: one picture of a man who stands, by OpenPose's detections in it. One picture shows a
  bias and nothing else.

The other person of the videos is the one of ``bench.pose2sim``, in the same moments, and so are OpenPose's detections
of "two participants" in 0.8.4 (whose second one is nobody: no picture shows them). These are left out, since that
recording must choose nothing.

Columns: bias of a joint in a view, all along; lasting, deviation of errors that stay for a while; white, of those that
are new in each frame; far and unseen, percent of the frames in which something else was taken for the joint, or
nothing. Bias and lasting are made larger by what the triangulation takes of them, which fits 3 numbers to 2 of each
view.

Below: how long these bodies' bones are, in trunks (middle of the hips to middle of the shoulders), and how straight
their knees are. What detectors call joints are not the joints that motion capture has: pose2sim's model of a body, in
the newer wheel, says where OpenPose's 25 joints lie on it (BlazePose's and COCO's it puts at the same places).
"""

from __future__ import annotations

import hashlib
import itertools
import json
import tempfile
import warnings
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from posekernels.archive import DataError
from posekernels.cli import Parser, run_cli
from posekernels.files import write_aside
from posekernels.people.detect import BlazePose, Detector
from posekernels.people.keypoint_files import read
from posekernels.people.lifter import in_h36m
from posekernels.people.rtmpose import RTMPose
from posekernels.people.tracking import Sighting, Track
from posekernels.people.video import Video
from posekernels.pose.angles import knee_angles
from posekernels.pose.skeleton import H36M_17
from posekernels.pose.smoothing import savitzky_golay

from .pose2sim import cameras, project

VIDEOS_SHA256 = "403e0dc4065898ba6a595e72a8970950310979253d60e24c2e00b16b36bf21e1"
VIDEOS = "Pose2Sim/Demo_MultiPerson"
PICTURE_SHA256 = "d16e9bbbc38cdd210ff7ce7c4dea91ce4274012f05a27951dd33d4db95588e81"
PICTURE = "Pose2Sim/S00_Demo_BatchSession"
STANDS = f"{PICTURE}/S00_P00_SingleParticipant/S00_P00_T00_StaticTrial/pose"
FPS = 60.0
AGREE = 0.15  # units: a view whose joint is farther off is left out of its triangulation
SAME = 0.2  # units: views whose joints are farther off (median) show somebody else
SHORTEST = 8  # frames of a track
FAR = 0.25  # units: something else was taken for the joint
LAGS = np.arange(1, 7)  # frames, from which is told how long errors last
GUEST = 0.6  # metres: how near to the studio's middle the guest stands; the test recording's person is behind it
LIMBS = {
    name: [H36M_17.joints.index(f"{side}_{joint}") for side in ("right", "left")]
    for name, joint in (
        *(("hips", "hip"), ("knees", "knee"), ("ankles", "ankle")),
        *(("shoulders", "shoulder"), ("elbows", "elbow"), ("wrists", "wrist")),
    )
}
GROUPS = LIMBS | {"nose": [9], "head": [10]}
SIDES = {"legs": ([1, 2, 3], [4, 5, 6]), "arms": ([14, 15, 16], [11, 12, 13])}
BONES = {
    "trunk": [(0, 8)],
    "hips": [(1, 4)],
    "shoulders": [(11, 14)],
    "thigh": [(1, 2), (4, 5)],
    "shin": [(2, 3), (5, 6)],
    "upper arm": [(11, 12), (14, 15)],
    "forearm": [(12, 13), (15, 16)],
}
MODEL = "Pose2Sim/OpenSim_Setup"
MODEL_MARKERS = {  # on the right
    name: H36M_17.joints.index(f"right_{name[1:].lower()}")
    for name in ("RHip", "RKnee", "RAnkle", "RShoulder", "RElbow", "RWrist")
}
STANDING_CHAIN = (  # body, the one that carries it, the joint between
    *(("femur_r", "pelvis", "hip_r"), ("tibia_r", "femur_r", "walker_knee_r"), ("torso", "pelvis", "back")),
    *(("humerus_r", "torso", "acromial_r"), ("ulna_r", "humerus_r", "elbow_r"), ("radius_r", "ulna_r", "radioulnar_r")),
)
People = list[list[np.ndarray]]  # of each frame of a view, [17, 2] pixels of everybody; NaN where not seen


def by_openpose(folder: Path) -> People:
    """People in the files of OpenPose's 25 joints of one view."""
    tracks = [in_h36m(track, "body-25b") for track in read(folder, "body-25b").people]
    last = max(int(track.frames[-1]) for track in tracks)
    found: People = [[] for _ in range(last + 1)]
    for track in tracks:
        for frame, points, scores in zip(track.frames, track.points, track.scores):
            if (scores > 0).any():
                found[frame].append(points)
    return found


def by_network(detector: Detector, video: Path) -> People:
    """People in a video, with the joints that ``posekernels lift`` believes."""

    def joints(seen: Sighting) -> np.ndarray:
        return in_h36m(Track(0, seen.points[None], seen.scores[None]), detector.layout).points[0]

    return [[joints(seen) for seen in detector(image)] for image in Video(video)]


def unit_of(points: np.ndarray) -> np.ndarray:
    """Mean distance of the joints [..., 17, 2] from the root."""
    return np.nanmean(np.linalg.norm(points - points[..., :1, :], axis=-1), -1)


def triangulated(views: list[np.ndarray], rig: list[dict]) -> tuple[np.ndarray, float]:
    """Joints from the views that agree on them.

    Args:
        views: [17, 2] pixels by each camera of ``rig``.
    Returns:
        [17, 3] metres, NaN where fewer than two views have a joint; how far off the worst view is, units (median).
    """
    rows, right = [], []
    for points, camera in zip(views, rig, strict=True):
        ray = (points - camera["principal"]) / camera["focal"]
        axes = camera["turn"] * np.array([1, -1, -1])[:, None]  # right, down, away
        row = axes[None, :2] - ray[..., None] * axes[2]  # two equations row X = row centre for each joint
        rows.append(row)
        right.append(row @ camera["centre"])
    rows, right = np.stack(rows), np.stack(right)  # [V, 17, 2, 3], [V, 17, 2]
    use = np.isfinite(rows).all((2, 3)).astype(float)
    rows, right = np.nan_to_num(rows), np.nan_to_num(right)
    units = np.array([unit_of(points) for points in views])[:, None]
    for _ in range(3):
        normal = np.einsum("vj,vjik,vjil->jkl", use, rows, rows) + 1e-9 * np.eye(3)
        joints = np.linalg.solve(normal, np.einsum("vj,vjik,vji->jk", use, rows, right)[..., None])[..., 0]
        off = np.stack([np.linalg.norm(project(joints, c) - v, axis=-1) for v, c in zip(views, rig)]) / units
        bad = np.where(use > 0, np.nan_to_num(off), -1)
        use[(bad == bad.max(0)) & (bad > AGREE) & (use.sum(0) > 2)] = 0
    joints[use.sum(0) < 2] = np.nan
    return joints, float(np.nanmedian(off, axis=1).max())


def matched(views: list[list[np.ndarray]], rig: list[dict]) -> list[tuple[list[np.ndarray | None], np.ndarray]]:
    """People of one frame: in each view (None where it does not show them), and in space; best matches first."""
    options = []
    for chosen in itertools.product(*([None, *range(len(view))] for view in views)):
        there = [n for n, c in enumerate(chosen) if c is not None]
        if len(there) >= 3:
            joints, off = triangulated([views[n][chosen[n]] for n in there], [rig[n] for n in there])
            if off < SAME:
                options.append((off - 0.05 * len(there), chosen, joints))  # rather four views than three
    found, taken = [], set()
    for _, chosen, joints in sorted(options, key=lambda option: option[0]):
        places = {(n, c) for n, c in enumerate(chosen) if c is not None}
        if not places & taken:
            taken |= places
            found.append(([None if c is None else view[c] for c, view in zip(chosen, views)], joints))
    return found


def tracks(frames: list[list[tuple]]) -> list[tuple[list, np.ndarray]]:
    """Who is who over time: of each person, the views of its frames and [T, 17, 3] metres, gaps bridged, smoothed."""
    going: list[list[tuple]] = []
    for t, people in enumerate(frames):
        for views, joints in people:
            for track in going:
                if track[-1][0] == t - 1 and np.linalg.norm(np.nanmean(track[-1][2] - joints, 0)) < 0.3:
                    track.append((t, views, joints))
                    break
            else:
                going.append([(t, views, joints)])
    found = []
    for track in (t for t in going if len(t) >= SHORTEST):
        joints = np.stack([at[2] for at in track]).astype(np.float32)
        for place in np.ndindex(joints.shape[1:]):
            column = joints[(slice(None), *place)]
            gaps = np.isnan(column)
            if not gaps.all():
                column[gaps] = np.interp(np.flatnonzero(gaps), np.flatnonzero(~gaps), column[~gaps])
        found.append(([at[1] for at in track], savitzky_golay(joints, 15)))
    return found


def errors(joints: np.ndarray, views: list[People], rig: list[dict]) -> np.ndarray:
    """[V, T, 17, 2] units: how far each view's detections of a person are from the joints [T, 17, 3]; NaN if unseen."""
    found = np.full((len(rig), *joints.shape[:2], 2), np.nan)
    for n, camera in enumerate(rig):
        pixels = project(joints, camera)
        units = unit_of(pixels)
        for t, people in enumerate(views[n][: len(joints)]):
            off = [np.nanmedian(np.linalg.norm(points - pixels[t], axis=-1)) / units[t] for points in people]
            if off and np.nanmin(off) < SAME:
                found[n, t] = (people[int(np.nanargmin(off))] - pixels[t]) / units[t]
    return found


def own_bias(errors: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """[17, 2] mean error of each joint in a view, without what moves or scales the whole person.

    Args:
        errors: [T, 17, 2] units. pixels: [T, 17, 2] of the projection.
    """
    bias = np.nanmean(errors, 0)
    shape = np.nanmean((pixels - pixels.mean(1, keepdims=True)) / unit_of(pixels)[:, None, None], 0)
    known = np.isfinite(bias).all(-1)
    bias = bias - bias[known].mean(0)
    shape = shape - shape[known].mean(0)
    return bias - (bias * shape)[known].sum() / (shape * shape)[known].sum() * shape


def summary(errors: np.ndarray, pixels: np.ndarray) -> dict:
    """What the columns are, for each group of joints; swaps; how long errors last.

    Args:
        errors: [V, T, 17, 2] units. pixels: [V, T, 17, 2] of the projections.
    """
    size = np.linalg.norm(errors, axis=-1)
    close = np.where(size[..., None] < FAR, errors, np.nan)
    around = close - np.nanmean(close, 1, keepdims=True)
    bias = np.stack([own_bias(e, p) for e, p in zip(close, pixels)])
    swallowed = np.sqrt(2 * len(errors) / (2 * len(errors) - 3))
    T, limbs = errors.shape[1], sum(LIMBS.values(), [])
    still = 2 * LAGS[-1] >= T or not np.nanmax(np.abs(around)) > 1e-6  # one picture
    variance = np.nanmean(np.square(around), (0, 1, 3))
    lasting, lasts = np.full(17, np.nan), np.nan
    if not still:  # errors that fade as exp(-time / lasts), and others that are gone in the next frame
        alike = np.stack([np.nanmean(around[:, k:] * around[:, : T - k], (0, 1, 3)) for k in LAGS])
        slope = np.polyfit(LAGS, np.log(np.maximum(alike[:, limbs].sum(1), 1e-9)), 1)[0]
        lasts = -1 / slope
        lasting = np.clip((alike[:3] * np.exp(LAGS[:3, None] / lasts)).mean(0), 0, variance)
    rows = {}
    for name, group in GROUPS.items():
        white = np.nan if still else np.sqrt((variance - lasting)[group].mean())
        rows[name] = {
            "bias": swallowed * np.sqrt(np.nanmean(np.square(bias[:, group]))),
            "lasting": swallowed * np.sqrt(lasting[group].mean()),
            "white": white,
            "far": 100 * np.nanmean(np.where(np.isnan(size[..., group]), np.nan, size[..., group] > FAR)),
            "unseen": 100 * np.isnan(size[..., group]).mean(),
        }
    return {"joints": rows, "lasts_ms": 1000 * lasts / FPS, "swapped": swapped(errors, pixels)}


def swapped(errors: np.ndarray, pixels: np.ndarray) -> dict[str, float]:
    """Percent of the frames in which a pair of limbs is nearer to the truth with left and right exchanged."""
    units = unit_of(pixels)[..., None, None]
    seen, found = pixels + errors * units, {}
    for name, (right, left) in SIDES.items():
        as_is = np.linalg.norm(errors[:, :, [*right, *left]], axis=-1).mean(-1)
        exchanged = (seen[:, :, [*left, *right]] - pixels[:, :, [*right, *left]]) / units
        crossed = np.linalg.norm(exchanged, axis=-1).mean(-1)
        found[name] = 100 * float(np.nanmean(np.where(np.isnan(as_is), np.nan, crossed < 0.8 * as_is)))
    return found


def is_guest(joints: np.ndarray) -> bool:
    return float(np.linalg.norm(np.median(joints[:, 0, :2], 0))) < GUEST


@dataclass(frozen=True)
class Filmed:
    """Somebody in calibrated views.

    Args:
        views: of each camera of ``rig``, everybody's detections. joints: [T, 17, 3] metres, triangulated.
        model: the lengths of the model's bones, metres, if the wheel has it (``BONES``).
    """

    title: str
    views: list[People]
    rig: list[dict]
    joints: np.ndarray
    model: dict[str, float] | None

    def pixels(self) -> np.ndarray:
        """[V, T, 17, 2] the joints' projections."""
        return np.stack([project(self.joints, camera) for camera in self.rig])


def filmed(wheel: Path, detector: Callable[[], Detector] = BlazePose, name: str = "BlazePose") -> Filmed:
    """The person to measure: of those whom the wheel shows and who are not the test's, the one seen longest.

    Raises:
        ValueError: another wheel.
    """
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest() if wheel.is_file() else ""
    if digest not in (VIDEOS_SHA256, PICTURE_SHA256):
        raise ValueError(f"{wheel}: neither pose2sim-0.10.49-py3-none-any.whl nor pose2sim-0.8.4-py3-none-any.whl")
    videos = digest == VIDEOS_SHA256
    wanted = (VIDEOS, MODEL) if videos else (STANDS, f"{PICTURE}/S00_Calibration")
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # means of joints that no view shows
        folder = Path(place)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder, [member for member in archive.namelist() if member.startswith(wanted)])
        rig = cameras(next(folder.rglob("Calib.qca.txt")))
        if videos:
            files = [folder / VIDEOS / f"videos/cam0{n}.mp4" for n in range(1, len(rig) + 1)]
            views, title = [by_network(detector(), file) for file in files], f"{name}, who moves her arms"
        else:
            files = [folder / STANDS / f"cam0{n}_json" for n in range(1, len(rig) + 1)]
            views, title = [by_openpose(file) for file in files], "OpenPose, a picture of who stands"
        people = [joints for _, joints in tracks([matched(list(at), rig) for at in zip(*views)])]
        people = [joints for joints in people if not videos or is_guest(joints)]
        if not people:
            raise DataError(f"{wheel}: the person to measure is in none of three views at once for long enough")
        return Filmed(title, views, rig, max(people, key=len), marked(folder / MODEL) if videos else None)


def measured(person: Filmed) -> dict:
    """The figures of somebody's detections, and of the body."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # means of joints that a view never shows
        off, pixels = errors(person.joints, person.views, person.rig), person.pixels()
        shown = np.isfinite(off).any((2, 3)).mean(1) > 0.5  # others are of somebody who stands behind somebody else
        figures = {"frames": len(person.joints), "views": int(shown.sum())} | summary(off[shown], pixels[shown])
        return figures | {"body": in_trunks(bones_of(person.joints)) | {"knees": knees_of(person.joints)}}


# -- bodies ----------------------------------------------------------------------------------------------------------
def bones_of(joints: np.ndarray) -> dict[str, float]:
    """Median lengths of ``BONES`` of [T, 17, 3], both sides' mean; metres."""
    lengths = {
        name: np.mean([np.nanmedian(np.linalg.norm(joints[:, a] - joints[:, b], axis=-1)) for a, b in pairs])
        for name, pairs in BONES.items()
    }
    return {name: float(length) for name, length in lengths.items()}


def in_trunks(bones: dict[str, float]) -> dict[str, float]:
    """Lengths relative to the trunk's; "legs" are a thigh and a shin."""
    trunk = bones["trunk"]
    return {"legs": (bones["thigh"] + bones["shin"]) / trunk} | {k: v / trunk for k, v in bones.items() if k != "trunk"}


def knees_of(joints: np.ndarray) -> float:
    """Degrees, 180 is straight: median of both knees."""
    return float(np.nanmedian(knee_angles(joints)))


def marked(folder: Path) -> dict[str, float]:
    """Lengths of ``BONES``, metres, between the places of OpenPose's joints on pose2sim's OpenSim model that stands."""
    model = ElementTree.parse(folder / "Model_Pose2Sim_simple.osim").getroot()
    offsets = {}  # of a joint, on either of the two bodies that it joins
    for joint in model.find("Model/JointSet/objects"):
        frames = [[float(v) for v in f.find("translation").text.split()] for f in joint.iter("PhysicalOffsetFrame")]
        offsets[joint.get("name")] = np.array(frames)
    origins = {"pelvis": np.zeros(3)}  # of bodies, in the pelvis' axes; nothing is turned in somebody who stands
    for body, parent, joint in STANDING_CHAIN:
        before, after = offsets[joint]
        origins[body] = origins[parent] + before - after
    found = {}
    for marker in ElementTree.parse(folder / "Markers_Body25b.xml").iter("Marker"):
        body = marker.find("socket_parent_frame").text.rpartition("/")[2]
        if marker.get("name") in MODEL_MARKERS:
            found[marker.get("name")] = origins[body] + [float(v) for v in marker.find("location").text.split()]
    joints = np.zeros((1, 17, 3))
    for name, joint in MODEL_MARKERS.items():  # forward, up, right; the model is the same on both sides
        joints[0, joint] = found[name]
        joints[0, H36M_17.mirrored[joint]] = found[name] * (1, 1, -1)
    joints[0, 0], joints[0, 8] = joints[0, [1, 4]].mean(0), joints[0, [11, 14]].mean(0)
    return bones_of(joints)


def main() -> int:
    parser = Parser(prog="python -m bench.detector_errors", description=__doc__.split("\n\n")[0])
    parser.add_argument("wheels", nargs="+", metavar="WHEEL", type=Path, help="pose2sim's 0.10.49 or 0.8.4")
    parser.add_argument("--rtmpose", nargs=2, metavar="ONNX", help="person detector and pose network, for BlazePose")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    if options.rtmpose:
        detector, name = lambda: RTMPose(*options.rtmpose), "RTMPose"
    else:
        detector, name = BlazePose, "BlazePose"
    people = [filmed(wheel, detector, name) for wheel in options.wheels]
    result = {person.title: measured(person) for person in people}
    for title, found in result.items():
        swaps = ", ".join(f"{limbs} {share:.1f} %" for limbs, share in found["swapped"].items())
        print(f"{title}: {found['frames']} frames of {found['views']} views; errors last {found['lasts_ms']:.0f} ms; ")
        print(f"left for right: {swaps}; units of the person (about half a metre), and %")
        columns = list(next(iter(found["joints"].values())))
        print(f"{'':<10}" + "".join(f"{c:>9}" for c in columns))
        for joint, row in found["joints"].items():
            print(f"{joint:<10}" + "".join(f"{row[c]:>9.{1 if c in ('far', 'unseen') else 3}f}" for c in columns))
    bodies = {title: found["body"] for title, found in result.items()}
    for person in people:
        if person.model:
            bodies["OpenPose's joints on the model"] = in_trunks(person.model)
    print("lengths in trunks, and knees in degrees")
    print(f"{'':<36}" + "".join(f"{c:>11}" for c in next(iter(bodies.values()))))
    for title, body in bodies.items():
        print(f"{title:<36}" + "".join(f"{v:>11.0f}" if c == "knees" else f"{v:>11.2f}" for c, v in body.items()))
    if options.out:
        result |= {title: {"body": body} for title, body in bodies.items() if title not in result}
        with write_aside(options.out) as aside:
            aside.write_text(json.dumps(rounded(result), indent=1) + "\n")
    return 0


def rounded(value):
    """Numbers to four digits, for a file; None where there is none."""
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    if isinstance(value, float):
        return float(f"{value:.4g}") if np.isfinite(value) else None
    return value


if __name__ == "__main__":
    run_cli(main)
