"""Do lifted people look right? ``python -m bench.people [--weights FILE ...] [--motion DIR] [--wheel WHEEL]``.

Clips with known truth go through what ``posekernels lift`` does: tracks of 2D keypoints in, people in a world out.

- synthetic: the starter set's test clips (and with ``--motion`` the subjects of ``train.data.open_motion`` that
  training leaves out), filmed by cameras pitched 0 to 25 degrees, with a detector's errors: as
  ``bench.detector_errors`` measured them, and limbs left for right, elsewhere, or not seen, for some frames;
- standing: with ``--motion``, five seconds each of those left out who stand, whatever they do above their feet;
- real: pose2sim's four views (``--wheel``, as in ``bench.pose2sim``);
- chosen on: of the wheels of ``bench.detector_errors``, the people measured there, in each of their views. What the
  lifter learns from may be chosen by these.

Measured on the 12 joints of arms and legs, each clip counting the same:

- MPJPE and P-MPJPE, mm: with the middle of the hips at 0, and after similarity alignment of each frame.
- bones, mm: standard deviation of a limb's length over a clip. knees, degrees: error of their angle.
- slide, m/s: speed over the ground of ankles that the truth plants (slower than 0.1 m/s).
- shaking: 95th percentile of the ankles' acceleration, relative to the truth's.
- drift, m: 95th percentile of how far the hips' way is off, from its first frame on: of walkers mostly their unknown
  size. stands, m: the same of people who stand, whose feet and hips the truth keeps within 5 and 10 cm for 5 s;
  sways, m: as far these would be off if they followed the truth, but not along the view, where an image hardly shows
  how they sway; hips, m/s: 95th percentile of the hips' speed meanwhile. tilt, degrees: error of "up"; walkers: of
  those whose hips come ``WALKS`` metres far on level ground.
- swaps, %: frames in which the legs are nearer to the truth with left and right exchanged.

Beside the shipped weights and those of ``--weights`` stands "flat": the keypoints themselves, without depth.

``--latency`` measures live lifting (``lift --latency``) instead, of the shipped weights on the synthetic clips: errors
of poses; delay, ms: how long ago the pose that a live one is nearest to was filmed, without the frames it waits for.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from posekernels.cli import Parser, run_cli
from posekernels.files import write_aside
from posekernels.people.keypoint_files import read
from posekernels.people.lifter import Lifter, Person, in_h36m, lift_person, load_lifter
from posekernels.people.live import Live
from posekernels.people.tracking import Track
from posekernels.people.world import facing, stand
from posekernels.pose.angles import knee_angles
from posekernels.pose.keypoints import centre_on_person, one_trunk
from posekernels.pose.metrics import p_mpjpe
from posekernels.train.data import open_motion
from posekernels.train.data.motion import load_starter
from posekernels.train.recipes.any_camera import CHAINS, detectors_joints, looking, motions

from . import detector_errors, pose2sim

LIMBS = [joint for chain in CHAINS for joint in chain]
BONES = [pair for chain in CHAINS for pair in zip(chain, chain[1:])]
SIZE, FOCAL, FPS = (1920, 1080), 1700.0, 50.0
LONGEST = 500  # frames of a clip
PLANTED = 0.1  # m/s
LATENCIES = (0, 5, 13)  # frames
LATEST = 10  # frames: as late as a live pose may be
STANDS, WITHIN = 5.0, (0.05, 0.1)  # seconds; metres: whose feet and hips stay there for so long stands
WALKS, LEVEL = 1.5, 0.1  # metres: how far walkers come, and how far apart in height their feet stand
COLUMNS = (
    *("MPJPE", "P-MPJPE", "bones", "knees", "slide", "shaking"),
    *("drift", "stands", "sways", "hips", "tilt", "walkers", "swaps"),
)


@dataclass(frozen=True)
class Case:
    """A clip with its truth.

    Args:
        track: 2D joints in H36M's order, pixels. truth: [T, 17, 3] metres, camera axes; NaN where unknown.
        up: [3] the world's up in camera axes.
    """

    name: str
    track: Track
    truth: np.ndarray
    up: np.ndarray
    size: tuple[int, int]
    focal: float
    fps: float


# -- clips -----------------------------------------------------------------------------------------------------------
def filmed(world: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """A recording [T, 17, 3] in the axes of a camera that looks at the middle of its way, and up in them."""
    yaw, pitch = 2 * np.pi * 0.381966 * number, np.radians((0.0, 8.0, 15.0, 25.0)[number % 4])
    turn = looking(*(torch.tensor([angle], dtype=torch.float32) for angle in (yaw, pitch, 0.0)))[0].numpy()
    middle = (world[:, 0].min(0) + world[:, 0].max(0)) / 2
    reach = np.abs(world[:, 0] - middle)[:, :2].max()
    return (world - middle) @ turn.T + (0, 0, 4.0 + 1.2 * reach), turn[:, 2]


def detected(pixels: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """[T, 17, 2] pixels and [T, 17] scores as a detector might see them."""
    T = len(pixels)
    unit = np.linalg.norm(pixels - pixels[:, :1], axis=-1).mean(1)[:, None, None]
    error = random.normal(0, 0.02, (1, 17, 2)) + random.normal(0, 0.006, (T, 17, 2))
    wave = random.normal(0, 1, (T + 40, 17, 2))
    for t in range(1, len(wave)):  # errors that last for some frames
        wave[t] = 0.75 * wave[t - 1] + np.sqrt(1 - 0.75**2) * wave[t]
    found = pixels + unit * (error + 0.02 * wave[40:])
    scores = np.full((T, 17), 0.9, np.float32)
    for event in range(max(4, T // 60)):
        first, length = random.integers(T), random.integers(1, 9)
        part, kind, limb = slice(first, first + length), event % 4, CHAINS[random.integers(4)]
        if kind == 0:  # left for right
            pair = random.integers(2)
            found[part, [*CHAINS[2 * pair], *CHAINS[2 * pair + 1]]] = found[
                part, [*CHAINS[2 * pair + 1], *CHAINS[2 * pair]]
            ]
        elif kind == 1:  # elsewhere
            found[part, limb[1:]] += unit[part] * random.normal(0, 0.3, 2)
        elif kind == 2:  # not seen
            found[part, limb[1:]], scores[part, limb[1:]] = np.nan, 0
        else:  # both limbs on one
            other = CHAINS[CHAINS.index(limb) ^ 1]
            found[part, limb[1:]] = found[part, other[1:]]
    outside = ((found < 0) | (found > SIZE)).any(-1)
    found[outside], scores[outside] = np.nan, 0
    return found.astype(np.float32), scores


def synthetic(recordings: list[tuple[str, np.ndarray]]) -> Iterator[Case]:
    for number, (name, world) in enumerate(recordings):
        world = detectors_joints(torch.from_numpy(np.ascontiguousarray(world[:LONGEST])).float()).numpy()
        truth, up = filmed(world, number)
        pixels = truth[..., :2] / truth[..., 2:] * FOCAL + np.array(SIZE) / 2
        points, scores = detected(pixels, np.random.default_rng(number))
        yield Case(name, Track(1, points, scores), truth, up, SIZE, FOCAL, FPS)


def standers(held: list[open_motion.Recording]) -> list[tuple[str, np.ndarray]]:
    """Of each recording in which somebody stands, the first ``STANDS`` seconds of that."""
    found = []
    for number, recording in enumerate(held):
        stretches = standing(recording.points, np.ones(len(recording.points) - 1, bool), FPS)
        found += [(f"{recording.subject} {number}", recording.points[part]) for part in stretches[:1]]
    return found


def real(wheel: Path) -> Iterator[Case]:
    """pose2sim's four views; the track nearest to the projected truth."""
    with tempfile.TemporaryDirectory() as folder:
        demo = pose2sim.unpacked(wheel, Path(folder))
        names, markers = pose2sim.read_trc(demo / "opensim/Balancing_for_IK.trc")
        markers = markers[:, [names.index(m) for m in pose2sim.MARKERS]]
        world = np.full((len(markers), 17, 3), np.nan)
        world[:, list(pose2sim.MARKERS.values())] = np.stack((markers[..., 2], markers[..., 0], markers[..., 1]), -1)
        world = one_trunk(world)
        for number, camera in enumerate(pose2sim.cameras(demo / "calib-2d/Calib.qca.txt"), 1):
            keypoints = read(demo / f"pose-2d/cam{number}_json", "body-25b")
            truth, up = pose2sim.seen_by(world, camera)
            pixels = pose2sim.project(world, camera)
            tracks = [in_h36m(track, keypoints.layout) for track in keypoints.people]
            tracks = [t for t in tracks if (t.scores > 0).any(1).sum() > len(pixels) / 2]
            off = []
            for track in tracks:
                both = track.frames < len(pixels)
                off.append(np.nanmedian(np.linalg.norm(track.points[both] - pixels[track.frames[both]], axis=-1)))
            track, focal = tracks[int(np.nanargmin(off))], float(camera["focal"][0])
            yield Case(f"pose2sim view {number}", track, truth, up, pose2sim.SIZE, focal, 60.0)


def chosen_on(wheel: Path) -> Iterator[Case]:
    """The views of the person whom one of ``bench.detector_errors``' wheels shows."""
    person = detector_errors.filmed(wheel)
    off, pixels = detector_errors.errors(person.joints, person.views, person.rig), person.pixels()
    units = detector_errors.unit_of(pixels)[..., None, None]
    for number, camera in enumerate(person.rig):
        points = (pixels + off * units)[number].astype(np.float32)
        seen = np.isfinite(points).all(-1)
        if seen.any(1).mean() > 0.5:
            truth, up = pose2sim.seen_by(person.joints, camera)
            track, focal = Track(1, points, np.where(seen, 0.9, 0).astype(np.float32)), float(camera["focal"][0])
            yield Case(
                f"{person.title}, view {number + 1}", track, truth, up, pose2sim.SIZE, focal, detector_errors.FPS
            )


# -- figures ---------------------------------------------------------------------------------------------------------
class _Flat:
    """Stands in for a ``Lifter``: the keypoints themselves, half a metre for a person's size, depth 0."""

    def __init__(self, spread: int = 27):
        self.net = SimpleNamespace(sees="screen", frames=1)  # nothing is made better
        self.spread = spread

    def __call__(self, points: np.ndarray, size, focal, fps) -> np.ndarray:
        person = centre_on_person(torch.from_numpy(np.ascontiguousarray(points, np.float32)), spread=self.spread)[0]
        return np.pad(person.numpy() * 0.5, ((0, 0), (0, 0), (0, 1)))


def standing(world: np.ndarray, follows: np.ndarray, fps: float) -> list[slice]:
    """Stretches of ``STANDS`` seconds, half a second apart, in which somebody stands.

    Args:
        world: [T, 17, 3] metres, of the truth. follows: [T - 1] whether a frame is the next one of the recording.
    """
    length, found = round(STANDS * fps), []
    for start in range(0, len(world) - length + 1, round(fps / 2)):
        part = world[start : start + length, [3, 6, 0]]
        feet, hips = np.split(np.linalg.norm(part - np.median(part, 0), axis=-1), [2], 1)
        if feet.max() < WITHIN[0] and hips.max() < WITHIN[1] and follows[start : start + length - 1].all():
            found.append(slice(start, start + length))
    return found


def figures(case: Case, person: Person) -> dict[str, float]:
    """The columns for one clip. ``person.world`` comes from ``stand`` with the camera's size and focal length."""
    own = np.flatnonzero(person.present & (person.frames < len(case.truth)))
    there = person.frames[own]
    truth, poses = case.truth[there], person.poses[own].astype(np.float64)
    relative = truth - truth[:, :1]
    off = np.linalg.norm(poses - poses[:, :1] - relative, axis=-1)[:, LIMBS]
    aligned = p_mpjpe(torch.from_numpy(poses[:, LIMBS]), torch.from_numpy(relative[:, LIMBS]))
    lengths = np.stack([np.linalg.norm(poses[:, a] - poses[:, b], axis=-1) for a, b in BONES], -1)
    world, true_world = person.world[own].astype(np.float64), truth @ facing(case.up).T
    ankles, true_ankles = world[:, [3, 6]], true_world[:, [3, 6]]
    follows = np.diff(there) == 1
    speed = np.linalg.norm(np.diff(ankles, axis=0), axis=-1) * case.fps
    planted = (np.linalg.norm(np.diff(true_ankles, axis=0), axis=-1) * case.fps < PLANTED) & follows[:, None]
    shaking = [np.percentile(np.linalg.norm(np.diff(a, 2, axis=0), axis=-1), 95) for a in (ankles, true_ankles)]
    way = (world[:, 0] - world[0, 0]) - (true_world[:, 0] - true_world[0, 0])
    hips = np.linalg.norm(np.diff(world[:, 0], axis=0), axis=-1) * case.fps
    still = standing(true_world, follows, case.fps)
    stands = [np.percentile(np.linalg.norm(way[part] - way[part.start], axis=-1), 95) for part in still]
    along = true_world[:, 0, 1]  # the camera looks along y
    sways = [np.percentile(np.abs(along[part] - along[part.start]), 95) for part in still]
    stood = true_ankles[:-1][planted][:, 2]
    walks = np.ptp(true_world[:, 0], axis=0).max() > WALKS and len(stood) > 0
    walks = walks and np.ptp(np.percentile(stood, [5, 95])) < LEVEL
    legs = list(LIMBS[:6])
    direct = np.linalg.norm(poses[:, legs] - relative[:, legs], axis=-1).mean(1)
    crossed = np.linalg.norm(poses[:, [*legs[3:], *legs[:3]]] - relative[:, legs], axis=-1).mean(1)
    # the rotation from camera axes to the world that was found, of the poses that are in both
    camera, turned = (p.reshape(-1, 3) for p in (poses - poses[:, :1], world - world[:, :1]))
    up = np.linalg.lstsq(camera, turned, rcond=None)[0][:, 2]
    tilt = np.degrees(np.arccos(np.clip(up @ case.up / np.linalg.norm(up), -1, 1)))
    return {
        "MPJPE": off.mean() * 1000,
        "P-MPJPE": float(aligned) * 1000,
        "bones": lengths.std(0).mean() * 1000,
        "knees": np.abs(knee_angles(poses) - knee_angles(truth)).mean(),
        "slide": speed[planted].mean() if planted.any() else np.nan,
        "shaking": shaking[0] / shaking[1] if shaking[1] else np.nan,
        "drift": np.percentile(np.linalg.norm(way, axis=-1), 95),
        "stands": np.mean(stands) if stands else np.nan,
        "sways": np.mean(sways) if still else np.nan,
        "hips": np.mean([np.percentile(hips[part][:-1], 95) for part in still]) if still else np.nan,
        "tilt": tilt,
        "walkers": tilt if walks else np.nan,
        "swaps": (crossed < 0.8 * direct).mean() * 100,
    }


def measured(case: Case, lifter: Lifter | None, smooth: int) -> dict[str, float]:
    """Figures of one clip; ``lifter`` None for flat."""
    how = {"size": case.size, "focal": case.focal, "fps": case.fps}
    person = lift_person(lifter or _Flat(), case.track, bridge=15, smooth=smooth if lifter else 1, **how)
    stand([person], case.size, case.focal, smooth=smooth, fps=case.fps)
    return figures(case, person)


def live_figures(case: Case, lifter: Lifter, latency: int | None, smooth: int) -> dict[str, float]:
    """Errors of poses as they come, ``latency`` frames late; None for offline. Units as of the columns."""
    how = {"size": case.size, "focal": case.focal, "fps": case.fps}
    if latency is None:
        person = lift_person(lifter, case.track, bridge=15, smooth=smooth, **how)
    else:
        live = Live(lifter, latency, 15, smooth=smooth > 1, **how)
        for points, scores in zip(case.track.points, case.track.scores):
            live.push([(1, points, scores)])
        person = live.finish()[0]
    there = person.frames[person.present]
    poses, truth = person.poses[person.present].astype(np.float64), case.truth - case.truth[:, :1]
    poses = poses - poses[:, :1]
    late = np.arange(0, LATEST + 0.1, 0.5)
    own = there >= LATEST
    off = [np.linalg.norm(poses[own] - at(truth, there[own] - frames), axis=-1)[:, LIMBS].mean() for frames in late]
    aligned = p_mpjpe(torch.from_numpy(poses[:, LIMBS]), torch.from_numpy(truth[there][:, LIMBS]))
    lengths = np.stack([np.linalg.norm(poses[:, a] - poses[:, b], axis=-1) for a, b in BONES], -1)
    ankles = [np.linalg.norm(np.diff(p[:, [3, 6]], 2, axis=0), axis=-1) for p in (poses, truth[there])]
    return {
        "MPJPE": np.linalg.norm(poses - truth[there], axis=-1)[:, LIMBS].mean() * 1000,
        "P-MPJPE": float(aligned) * 1000,
        "bones": lengths.std(0).mean() * 1000,
        "knees": np.abs(knee_angles(poses) - knee_angles(truth[there])).mean(),
        "shaking": np.percentile(ankles[0], 95) / np.percentile(ankles[1], 95),
        "delay": late[int(np.argmin(off))] / case.fps * 1000,
    }


def at(motion: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Motion [T, ...] between its frames, at [N] times in frames."""
    before = np.floor(times).astype(int)
    part = (times - before).reshape(-1, *[1] * (motion.ndim - 1))
    return motion[before] * (1 - part) + motion[np.minimum(before + 1, len(motion) - 1)] * part


def mean(values: list[float]) -> float | None:
    """Of those there are."""
    there = [float(v) for v in values if np.isfinite(v)]
    return sum(there) / len(there) if there else None


def table(title: str, rows: dict[str, dict[str, float]], columns: Sequence[str] = COLUMNS) -> str:
    width = max(map(len, rows)) + 2
    lines = [title, " " * width + "".join(f"{c:>9}" for c in columns)]
    for name, row in rows.items():
        cells = ("-" if v is None or np.isnan(v) else f"{v:.{1 if v >= 10 else 2}f}" for v in map(row.get, columns))
        lines.append(f"{name:<{width}}" + "".join(f"{cell:>9}" for cell in cells))
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="python -m bench.people", description=__doc__.split("\n\n")[0])
    parser.add_argument("--weights", nargs="+", default=[], metavar="FILE", help="beside the shipped ones")
    parser.add_argument("--motion", metavar="DIR", help="what python -m train.data.open_motion wrote")
    wheels = "pose2sim-0.3.9-py3-none-any.whl; those of bench.detector_errors"
    parser.add_argument("--wheel", type=Path, nargs="+", default=[], metavar="WHEEL", dest="wheels", help=wheels)
    parser.add_argument("--smooth", type=int, default=15, metavar="N", help="as of lift (default: %(default)s)")
    parser.add_argument("--latency", type=int, nargs="*", metavar="N", help="live lifting, so many frames late")
    parser.add_argument("--each", action="store_true", help="every clip too")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args(argv)
    if options.latency is not None and (options.weights or options.wheels or options.each):
        raise ValueError("--latency is of the shipped weights on synthetic clips: no --weights, --wheel or --each")
    lifters = {"flat": None, "shipped": load_lifter()} | {Path(w).name: load_lifter(None, w) for w in options.weights}
    starter = load_starter().test
    recordings = [(f"starter {n}", world) for n, world in enumerate(motions(starter))]
    if options.motion:
        held = [
            r for r in open_motion.load(options.motion) if r.subject in open_motion.HELD_OUT and len(r.points) > 200
        ]
        recordings += [(f"{r.subject} {n}", r.points) for n, r in enumerate(held[:: max(1, len(held) // 12)])]
    groups = {"synthetic": list(synthetic(recordings))}
    if options.latency is not None:
        result = latencies(groups["synthetic"], load_lifter(), options.latency or LATENCIES, options.smooth)
        written(options.out, {"latency": result})
        return 0
    if options.motion:
        groups["standing"] = list(synthetic(standers(held)))
    for wheel in options.wheels:
        if pose2sim.is_demo(wheel):
            groups["pose2sim"] = list(real(wheel))
        else:
            try:
                groups.setdefault("chosen on", []).extend(chosen_on(wheel))
            except ValueError as error:
                raise ValueError(f"{error}, nor pose2sim-0.3.9-py3-none-any.whl") from None
    result = {}
    for group, cases in groups.items():
        rows = {name: [measured(case, lifter, options.smooth) for case in cases] for name, lifter in lifters.items()}
        means = {name: {c: mean([f[c] for f in found]) for c in COLUMNS} for name, found in rows.items()}
        result[group] = {"clips": len(cases), "means": means}
        print(table(f"{group}: {len(cases)} clips, {sum(len(c.truth) for c in cases)} frames", means))
        if options.each:
            for n, case in enumerate(cases):
                print(table(case.name, {name: found[n] for name, found in rows.items()}))
    written(options.out, result)
    return 0


def latencies(cases: list[Case], lifter: Lifter, frames: Sequence[int], smooth: int) -> dict[str, dict]:
    """The figures of live lifting at each latency, and offline; printed."""
    rows = {}
    for latency in (*frames, None):
        found = [live_figures(case, lifter, latency, smooth) for case in cases]
        name = "offline" if latency is None else f"latency {latency}"
        rows[name] = {c: mean([f[c] for f in found]) for c in found[0]}
    print(table(f"live: {len(cases)} clips, {sum(len(c.truth) for c in cases)} frames", rows, list(rows["offline"])))
    return {"clips": len(cases), "means": rows}


def written(out: Path | None, result: dict) -> None:
    """Figures as JSON into a file; those of other groups stay."""
    if out is None:
        return
    kept = json.loads(out.read_text()) if out.is_file() else {}
    with write_aside(out) as aside:
        aside.write_text(json.dumps(kept | result, indent=1) + "\n")


if __name__ == "__main__":
    run_cli(main)
