"""How good is ``posekernels lift`` on a real recording? ``python -m bench.pose2sim WHEEL [--weights FILE]``.

WHEEL is pose2sim-0.3.9-py3-none-any.whl from PyPI (BSD-3): four calibrated cameras around a balancing person, OpenPose
detections of each view (100 frames, 60 Hz), and the joints triangulated from all four. Each view is lifted on its
own, from its detections alone, and compared with the triangulated joints by P-MPJPE (similarity-aligned, frame by
frame) over the 12 joints of arms and legs, which both skeletons have. Where a view shows several people, the one whose
keypoints are nearest to the triangulated joints' projection is taken. The triangulation is itself no marker system: its
joints reproject with a median error of 8 to 21 pixels of 1920.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import xml.etree.ElementTree as ElementTree
import zipfile
from pathlib import Path

import numpy as np
import torch

from posekernels.cli import Parser, run_cli
from posekernels.files import write_aside
from posekernels.people import keypoint_files
from posekernels.people.lifter import Person, lift_all, load_lifter
from posekernels.pose.metrics import mpjpe, p_mpjpe
from posekernels.pose.skeleton import H36M_17

SHA256 = "a72a4882269c76270ac849ecd60ffe0ada209f4613dfa8533b70081ab7a61671"
DEMO = "Pose2Sim/Demo"
SIZE = (1088, 1920)  # pixels
MARKERS = {  # of the .trc -> H36M-17
    f"{side[0].upper()}{marker}": H36M_17.joints.index(f"{side}_{joint}")
    for side in ("left", "right")
    for marker, joint in (
        ("Hip", "hip"),
        ("Knee", "knee"),
        ("Ankle", "ankle"),
        ("Shoulder", "shoulder"),
        ("Elbow", "elbow"),
        ("Wrist", "wrist"),
    )
}
MEDIAPIPE_MM = (89.0, 109.0)  # what MediaPipe's own monocular 3D scores on such views


def read_trc(path: Path) -> tuple[list[str], np.ndarray]:
    """Marker names and [T, M, 3] metres."""
    lines = path.read_text().splitlines()
    names = [name for name in lines[3].split("\t")[2:] if name]
    rows = [[float(v) for v in line.split("\t")[2 : 2 + 3 * len(names)]] for line in lines[5:] if line.strip()]
    return names, np.array(rows).reshape(len(rows), -1, 3)


def cameras(path: Path) -> list[dict]:
    """Of a Qualisys calibration: rotation [3, 3], centre in metres, focal length and principal point in pixels."""
    found = []
    for entry in ElementTree.parse(path).iter("camera"):
        place, lens = entry.find("transform").attrib, entry.find("intrinsic").attrib
        turn = np.array([[float(place[f"r{i}{j}"]) for j in (1, 2, 3)] for i in (1, 2, 3)])
        found.append(
            {
                "turn": turn,
                "centre": np.array([float(place[k]) for k in "xyz"]) / 1000,
                "focal": np.array([float(lens[f"focalLength{k}"]) for k in "UV"]) / 64,
                "principal": np.array([float(lens[f"centerPoint{k}"]) for k in "UV"]) / 64,
            }
        )
    return found


def seen_by(points: np.ndarray, camera: dict) -> tuple[np.ndarray, np.ndarray]:
    """[..., 3] metres, z up, in a camera's axes (right, down, away), and [3] up in these.

    Qualisys cameras look along -z of their columns' axes.
    """
    axes = (1, -1, -1)
    return (points - camera["centre"]) @ camera["turn"].T * axes, camera["turn"][:, 2] * axes


def project(points: np.ndarray, camera: dict) -> np.ndarray:
    """[..., 3] metres, z up, to pixels; no distortion."""
    seen, _ = seen_by(points, camera)
    return seen[..., :2] / seen[..., 2:] * camera["focal"] + camera["principal"]


def nearest_person(people: list[Person], pixels: np.ndarray, joints: list[int]) -> tuple[Person, float]:
    """The person whose keypoints are nearest to [T, M, 2], and the median distance in pixels."""
    off = [float(np.nanmedian(np.linalg.norm(p.points[: len(pixels), joints] - pixels, axis=-1))) for p in people]
    return people[int(np.argmin(off))], min(off)


def measure(demo: Path, weights: str | None, model: str | None) -> list[dict]:
    names, truth = read_trc(demo / "opensim/Balancing_for_IK.trc")
    markers, joints = list(MARKERS), list(MARKERS.values())
    truth = truth[:, [names.index(m) for m in markers]]
    z_up = np.stack((truth[..., 2], truth[..., 0], truth[..., 1]), -1)
    lifter, rows = load_lifter(model, weights), []
    for number, camera in enumerate(cameras(demo / "calib-2d/Calib.qca.txt"), 1):
        keypoints = keypoint_files.read(demo / f"pose-2d/cam{number}_json", "body-25b")
        keypoints.size = SIZE
        people = lift_all(lifter, keypoints, bridge=15, smooth=15, focal=float(camera["focal"][0]))
        person, off = nearest_person(people, project(z_up, camera), joints)
        there = np.flatnonzero(person.present[: len(truth)])
        found = torch.from_numpy(person.poses[there][:, joints])
        wanted = torch.from_numpy(truth[there]).float()
        flat = torch.from_numpy(np.pad(person.points[there][:, joints], ((0, 0), (0, 0), (0, 1)))).float()
        rows.append(
            {
                "camera": number,
                "frames": len(there),
                "P-MPJPE_mm": round(float(p_mpjpe(found, wanted)) * 1000, 1),
                "flat_P-MPJPE_mm": round(float(p_mpjpe(flat, wanted)) * 1000, 1),
                "spread_mm": round(float(mpjpe(wanted, wanted.mean(1, keepdim=True).expand_as(wanted))) * 1000, 1),
                "reprojection_px": round(off, 1),
            }
        )
    return rows


def is_demo(wheel: Path) -> bool:
    """Whether it is the wheel that this measures on."""
    return wheel.is_file() and hashlib.sha256(wheel.read_bytes()).hexdigest() == SHA256


def unpacked(wheel: Path, folder: Path) -> Path:
    """The demo's folder, of the wheel's files that are needed here. Raises ValueError for another wheel."""
    if not is_demo(wheel):
        raise ValueError(f"{wheel}: not pose2sim-0.3.9-py3-none-any.whl (sha256 {SHA256[:16]}...)")
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            if member.startswith(DEMO) and member.endswith((".json", ".trc", ".txt")):
                archive.extract(member, folder)
    return folder / DEMO


def main() -> int:
    parser = Parser(prog="python -m bench.pose2sim", description=__doc__.split("\n\n")[0])
    parser.add_argument("wheel", metavar="WHEEL", help="pose2sim-0.3.9-py3-none-any.whl")
    parser.add_argument("--weights", help="default: those that come with the project")
    parser.add_argument("--model", help="the network that --weights are of, where the file does not say")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options: argparse.Namespace = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(unpacked(Path(options.wheel), Path(folder)), options.weights, options.model)
    mean = sum(r["P-MPJPE_mm"] for r in rows) / len(rows)
    columns = ("camera", "frames", "P-MPJPE_mm", "flat_P-MPJPE_mm", "reprojection_px")
    print("  ".join(columns))
    for r in rows:
        print("  ".join(f"{r[c]:>{len(c)}}" for c in columns))
    low, high = MEDIAPIPE_MM
    print(f"mean P-MPJPE {mean:.1f} mm over {len(MARKERS)} joints (MediaPipe's own 3D: {low:.0f} to {high:.0f} mm)")
    if options.out:
        about = {"data": "pose2sim 0.3.9, Demo, Balancing", "joints": list(MARKERS), "mean_P-MPJPE_mm": round(mean, 1)}
        with write_aside(options.out) as aside:
            aside.write_text(json.dumps(about | {"mediapipe_mm": MEDIAPIPE_MM, "views": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    run_cli(main)
