"""Hours of free human motion: ``python -m train.data.open_motion OUT`` fetches, converts and writes it.

Ten sets of recordings that anybody may train on, from public repositories at pinned commits: each is fetched with git
(one commit, no history), its BVH or ASF/AMC files are brought to Human3.6M's 17 joints, metres, z up, and ``OUT`` gets
one ``.npz`` a set and ``TERMS.md``. What is no motion of people, or comes twice, is left out: ``open_motion.json``
lists the clips that are kept. Which file holds what, in which unit and at which rate, was found by looking at the
motion (runs face where they go, knees bend forwards, flight falls at 9.8 m/s2); each is written down at its source.

``load`` reads such a folder.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from posekernels.archive import DataError, read_npz, write_npz
from posekernels.checks import nearest
from posekernels.cli import Parser, run_cli
from posekernels.files import write_aside

from .asf import parse_amc, parse_asf
from .bvh import Bvh, parse_bvh
from .motion import FPS, from_y_up, resample

HOST = "https://github.com"
KEPT = Path(__file__).with_name("open_motion.json")  # {set: [[name, frames], ...]}
UNIT = 0.001  # metres, of what is written
LEAP = 25.0  # m/s: where a joint moves faster, a recording is cut
SHORTEST = 0.5  # seconds
FARTHEST = 16.3  # metres from the middle of a clip; longer ways are cut in half
LIMBS = ((1, 2), (2, 3), (4, 5), (5, 6), (11, 12), (12, 13), (14, 15), (15, 16))

CMU = (
    "CMU Graphics Lab: free for all uses, may be included in commercial products, not resold directly even in "
    "converted form. The data used in this project was obtained from mocap.cs.cmu.edu. The database was created with "
    "funding from NSF EIA-0196217."
)
HELD_OUT = (
    *("CMU01", "CMU06", "CMU07", "CMU09", "CMU14", "CMU16", "CMU49"),  # in CMU's text set or the starter set, perhaps
    *("SNU-s_001", "SNU-s_003", "SNU-s_024"),
)
"""Subjects that our own training leaves out, to measure on."""
CHOSEN_ON = ("CMU05", "SNU-s_006", "SNU-s_018")
"""Others, on whom networks and ways to train are compared before they learn from these too."""


# -- joints ----------------------------------------------------------------------------------------------------------
# A place in the file's skeleton: a joint, or the point that goes so far along from one joint to another
Place = str | tuple[str, str, float]
_LEGS = ("Hips", "RightUpLeg", "RightLeg", "RightFoot", "LeftUpLeg", "LeftLeg", "LeftFoot")
_ARMS = ("LeftArm", "LeftForeArm", "LeftHand", "RightArm", "RightForeArm", "RightHand")
_BETWEEN = ("LeftShoulder", "RightShoulder", 0.5)
SNU: tuple[Place, ...] = (*_LEGS, "Spine1", _BETWEEN, "Head", ("Head", "Head_site", 0.55), *_ARMS)
SNU_MARTIAL: tuple[Place, ...] = (*_LEGS, "Spine1", _BETWEEN, "Head", ("Neck", "Head", 2.1), *_ARMS)
WOODY: tuple[Place, ...] = (*_LEGS, ("Spine", "Spine1", 0.45), "Spine1", "Head", "Head_site", *_ARMS)
DAZ: tuple[Place, ...] = (
    *("hip", "rThigh", "rShin", "rFoot", "lThigh", "lShin", "lFoot", "abdomen", "neck", "head", "head_top"),
    *("lShldr", "lForeArm", "lHand", "rShldr", "rForeArm", "rHand"),
)
AVATAR: tuple[Place, ...] = tuple(
    "CC_Base_" + name
    for name in (
        *("Hip", "R_Thigh", "R_Calf", "R_Foot", "L_Thigh", "L_Calf", "L_Foot", "Spine01", "NeckTwist01", "NeckTwist02"),
        *("Head", "L_Upperarm", "L_Forearm", "L_Hand", "R_Upperarm", "R_Forearm", "R_Hand"),
    )
)
# of ASF skeletons, the bones whose ends are the joints
CMU_BONES: tuple[Place, ...] = (
    *("root", "rhipjoint", "rfemur", "rtibia", "lhipjoint", "lfemur", "ltibia", "lowerback", "thorax", "lowerneck"),
    *("upperneck", "lclavicle", "lhumerus", "lradius", "rclavicle", "rhumerus", "rradius"),
)
PAIRS_BONES: tuple[Place, ...] = (
    *("root", "rightuplegdummy", "rightupleg", "rightleg", "leftuplegdummy", "leftupleg", "leftleg"),
    *(("spinedummy", "spine", 0.45), "spine", "headdummy", "head"),
    *("leftshoulder1", "leftarm", "leftforearm", "rightshoulder", "rightarm", "rightforearm"),
)


def places(joints: dict[str, np.ndarray], wanted: tuple[Place, ...]) -> np.ndarray:
    """[T, 17, 3] from named joints [T, 3]."""

    def at(place: Place) -> np.ndarray:
        if isinstance(place, str):
            return joints[place]
        start, end, part = place
        return joints[start] + part * (joints[end] - joints[start])

    return np.stack([at(place) for place in wanted], 1)


def _named(motion: Bvh) -> dict[str, np.ndarray]:
    """Joints by name; DAZ's head gets a top, and "HEad", as some files write it, is "Head"."""
    if "head" in motion.names and "head_top" not in motion.names:
        head = motion.names.index("head")
        offsets = np.vstack((motion.offsets, (0, 11.0, 1.0)))
        names, parents = (*motion.names, "head_top"), (*motion.parents, head)
        motion = Bvh(names, parents, offsets, motion.channels, motion.frames, motion.frame_time)
    found = dict(zip(motion.names, motion.positions().transpose(1, 0, 2)))
    return {name.replace("HEad", "Head"): at for name, at in found.items()}


# -- sources ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Clip:
    """One recording: [T, 17, 3] metres, z up, ``fps`` frames per second."""

    name: str
    subject: str
    kind: str
    points: np.ndarray
    fps: float


class Repository:
    """Files of one commit: their paths, and the text of each."""

    def __init__(self, folder: Path):
        self.folder = folder
        listing = self._git("ls-tree", "-r", "-z", "HEAD").decode(errors="replace").split("\0")
        rows = [row.partition("\t") for row in listing if row]
        self.blobs = {path: about.split()[2] for about, _, path in rows if about.split()[1] == "blob"}

    def _git(self, *words: str) -> bytes:
        return git("-C", str(self.folder), *words)

    def text(self, path: str) -> str:
        return self._git("cat-file", "blob", self.blobs[path]).decode(errors="replace")

    def matching(self, pattern: str) -> list[str]:
        """Paths in order, each content once."""
        found = {}
        for path in sorted(self.blobs):
            if re.search(pattern, path, re.IGNORECASE):
                found.setdefault(self.blobs[path], path)
        return list(found.values())


def git(*words: str) -> bytes:
    """What ``git`` prints. Raises DataError with its last line where it fails or is not there."""
    try:
        asking = os.environ | {"GIT_TERMINAL_PROMPT": "0"}  # a host asks who you are about what it does not have
        return subprocess.run(("git", *words), check=True, capture_output=True, env=asking).stdout
    except FileNotFoundError:
        raise DataError("git: not found; it fetches the recordings, install it") from None
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise DataError(f"git {' '.join(words)}: {lines[-1]}") from None


def fetch(host: str, repository: str, commit: str, folder: Path) -> Repository:
    """One commit of a repository, without its history, into ``folder``; nothing is fetched that is there already."""
    if not (folder / ".git").is_dir():
        git("init", "-q", str(folder))
    try:
        git("-C", str(folder), "cat-file", "-e", f"{commit}^{{tree}}")
    except DataError:
        git("-C", str(folder), "fetch", "-q", "--depth", "1", f"{host}/{repository}", commit)
    git("-C", str(folder), "update-ref", "--no-deref", "HEAD", commit)
    return Repository(folder)


@dataclass(frozen=True)
class Source:
    """Files of one repository that go into one set.

    Args:
        repository, commit: where they are. files: a pattern of their paths. read: (path, repository) -> clip.
    """

    repository: str
    commit: str
    files: str
    read: Callable[[str, Repository], Clip]


def bvh(
    joints: tuple[Place, ...],
    *,
    subject: Callable[[str], str],
    kind: Callable[[str], str],
    scale: float | None = 0.01,
    fps: float | Callable[[str], float] | None = None,
    skip: int = 0,
    name: Callable[[str], str] = lambda path: Path(path).stem,
) -> Callable[[str, Repository], Clip]:
    """A reader of BVH files, y up.

    Args:
        scale: metres of a unit; None for inches where a thigh is shorter than 25 units, else centimetres.
        fps: where the file does not say it, or says it wrong. skip: frames of a rest pose at the beginning.
    """

    def read(path: str, files: Repository) -> Clip:
        motion = parse_bvh(files.text(path), path, cut=True)
        points = places(_named(motion), joints)
        thigh = np.median(np.linalg.norm(points[:, 1] - points[:, 2], axis=-1))
        metres = scale or (0.0254 if thigh < 25 else 0.01)
        rate = (fps(path) if callable(fps) else fps) or 1 / motion.frame_time
        return Clip(name(path), subject(path), kind(path), from_y_up(points * metres)[skip:], rate)

    return read


def cmu_amc(path: str, files: Repository) -> Clip:
    """``02_03.amc``, 120 frames per second, with its subject's skeleton ``02.asf``, wherever that is."""
    number, take = re.match(r"(\d+)_(\d+)", Path(path).name).groups()
    owners = [p for p in files.matching(r"\d\.asf$") if Path(p).stem.lstrip("0") == number.lstrip("0")]
    if not owners:
        raise DataError(f"{path}: no skeleton {number}.asf in the repository")
    skeleton = parse_asf(files.text(owners[0]), owners[0])
    joints = skeleton.positions(parse_amc(files.text(path), skeleton, path))
    return Clip(f"{int(number):02d}_{take}", f"CMU{int(number):02d}", "", from_y_up(places(joints, CMU_BONES)), 120.0)


PAIRS = "program/bin/data/"


def pairs_amc(path: str, files: Repository) -> Clip:
    """A file of the pairs, with one of five skeletons by its folder."""
    skeleton = f"{PAIRS}wd2.asf"
    if "/multi/" in path:
        skeleton = f"{PAIRS}multi/{Path(path).name[:3]}.asf"
    elif "SSBoxerMan" in path:
        skeleton = f"{PAIRS}1/SSBoxerMan/ss.asf"
    elif "session2and3" in path:
        skeleton = f"{PAIRS}1/session2and3/woody2.asf"
    bones, content = parse_asf(files.text(skeleton), skeleton), files.text(path)
    joints = {name.lower(): at for name, at in bones.positions(parse_amc(content, bones, path)).items()}
    rate = re.search(r"SAMPLES-PER-SECOND\s+([\d.]+)", content)
    kind = Path(path).stem.rstrip("_0123456789")
    points = from_y_up(places(joints, PAIRS_BONES))
    return Clip(path[len(PAIRS) : -4], "SNU-" + Path(skeleton).stem, kind, points, float(rate[1]) if rate else 30.0)


def _always(value: str) -> Callable[[str], str]:
    return lambda path: value


def _stem_part(prefix: str, length: int) -> Callable[[str], str]:
    return lambda path: prefix + Path(path).name[:length]


def _folder(path: str) -> str:
    return Path(path).parent.name


def _dancer(path: str) -> str:
    return ("CMU60" if int(path[-6:-4]) <= 15 else "CMU61") if "salsa" in path else "CMU94"


CMU_KINDS = {
    "CMU01": "playground",
    "CMU02": "various",
    "CMU03": "uneven ground",
    "CMU05": "modern dance",
    "CMU06": "basketball",
    "CMU07": "walking",
    "CMU09": "running",
    "CMU14": "boxing and daily life",
    "CMU16": "jumping, walking, running",
    "CMU17": "walking styles",
    "CMU29": "tai chi",
    "CMU49": "dance and gymnastics",
    "CMU60": "salsa",
    "CMU61": "salsa",
    "CMU69": "walking and turning",
    "CMU94": "indian dance",
    "CMU127": "action moves",
    "CMU135": "martial arts",
}
_YS2010 = ("snumrl/ys2010", "02ae02acb4064a56a8c6ca13dbdee1f70096c443")
_INTERACTIVE = ("snumrl/InteractiveAnimation", "0027fca40e3617b22357e3fb4430a2a8ee78ff50")
_APACHE = "Apache-2.0"
# set -> (terms, its sources)
SETS: dict[str, tuple[str, tuple[Source, ...]]] = {
    "snu_basketball": (
        f"{_APACHE} (LICENSE of snumrl/VSports; no separate notice at the motions)",
        (
            Source(
                "snumrl/VSports",
                "c35bc82db31cd7252ab3d0f78c3f941bae5e799b",
                r"basketData/motion/.*\.bvh$",
                bvh(SNU, subject=_stem_part("SNU-", 5), kind=_always("basketball")),
            ),
        ),
    ),
    "snu_two_persons_and_moves": (
        f"{_APACHE} (License of snumrl/TillingPatch)",
        (Source("snumrl/TillingPatch", "32d2ac2c2f35c291a5f7dea571fc91b9a2793dae", r"\.amc$", pairs_amc),),
    ),
    "snu_woody2": (
        f"{_APACHE} (LICENSE of snumrl/ys2010); {_APACHE} and MIT (License, LICENSE of "
        "snumrl/DataDrivenBipedController)",
        (
            Source(
                *_YS2010,
                r"^Data/woody2/Motion/(Physics2|VideoMotion)/.*\.bvh$",
                bvh(WOODY, subject=_always("SNU-wd2"), kind=_folder, scale=None, fps=30.0),
            ),
            Source(
                *_YS2010,
                r"^Data/woody2/Motion/(Samsung|samsung_boxing)/.*\.bvh$",
                bvh(
                    WOODY,
                    subject=lambda path: "SNU-boxman" if "boxing" in path else "SNU-wd2",
                    kind=lambda path: "boxing" if "boxing" in path else "games",
                    scale=0.0254,
                    fps=30.0,
                ),
            ),
            Source(
                "snumrl/DataDrivenBipedController",
                "68ecaa17790ebf3039ae8c0b91d21fab4829bb8c",
                r"Walking/rawmotion(_slope)?/[^/]*\.bvh$",
                bvh(WOODY, subject=_always("SNU-wd2"), kind=_always("walking"), fps=30.0),
            ),
        ),
    ),
    "snu_tennis": (
        f"{_APACHE} (LICENSE of snumrl/InteractiveAnimation)",
        (
            Source(
                *_INTERACTIVE,
                r"tennisData/motion/.*\.bvh$",
                bvh(WOODY, subject=_always("SNU-kang"), kind=_always("tennis"), fps=30.0),
            ),
        ),
    ),
    "snu_martial_arts": (
        "BSD-3-Clause, (c) 2020 NCSOFT Corporation & SNU R&D Foundation (LICENSE of snumrl/TimeCriticalResponse)",
        (
            Source(
                "snumrl/TimeCriticalResponse",
                "11f859239551e10ecec604e1fdd7c49d56349d8c",
                r"martial_arts_compact/motion/s_.*\.bvh$",
                bvh(SNU_MARTIAL, subject=_stem_part("SNU-", 5), kind=_always("martial arts")),
            ),
        ),
    ),
    "cmu_amc_11_subjects": (
        CMU,
        (
            Source(
                "maxxgx/motion-graphs", "45372d896ea84ca1b7f14b69f76d74f60106b8e3", r"(^|/)\d+_\d+[^/]*\.amc$", cmu_amc
            ),
        ),
    ),
    "cmu_amc_01": (
        CMU,
        (
            Source(
                "cyun9601/CMU-MOCAP-Data",
                "2bedcd3b002488f7053d2b8c42690beddbf6620a",
                r"(^|/)0*1_\d+[^/]*\.amc$",
                cmu_amc,
            ),
        ),
    ),
    "cmu_salsa_indian": (
        CMU,
        (
            Source(
                "papagina/Auto_Conditioned_RNN_motion",
                "fbb7f6414035fc5c6752e1c21b8d8c1f777b0eb8",
                r"train_data_bvh/(salsa|indian)/.*\.bvh$",
                bvh(
                    DAZ,
                    subject=_dancer,
                    kind=_folder,
                    fps=lambda path: 60.0 if "salsa" in path else 120.0,
                    name=lambda path: f"{_folder(path)}_{Path(path).stem}",
                ),
            ),
        ),
    ),
    "cmu_69": (
        CMU,
        (
            Source(
                *_INTERACTIVE,
                r"^mrl.motion.neural/walkTest/motion/.*\.bvh$",
                bvh(SNU, subject=_always("CMU69"), kind=_always("walking"), fps=30.0),
            ),
        ),
    ),
    "cmu_06_07_avatar": (
        CMU,
        (
            Source(
                "DragonForgedTheArtist/IClone-CMU-Mocap",
                "79529f962ade3274163af53cd92179cee2ed9407",
                r"subjects/00[67]/.*\.bvh$",
                bvh(AVATAR, subject=lambda path: "CMU" + Path(path).name[1:3], kind=_always("walking"), skip=1),
            ),
        ),
    ),
}


# -- clips -----------------------------------------------------------------------------------------------------------
def stretches(clip: Clip) -> Iterator[Clip]:
    """A recording cut where a joint leaps, resampled to 50 if it has more than 61 frames per second; long ones only."""
    fast = clip.fps > 61
    speed = np.linalg.norm(np.diff(clip.points, axis=0), axis=-1).max(1) * clip.fps
    count = 0
    for part in np.split(clip.points, 1 + np.flatnonzero(speed > LEAP)):
        if len(part) <= 2:
            continue
        points = resample(part, clip.fps) if fast else part
        fps = FPS if fast else clip.fps
        if len(points) >= SHORTEST * fps:
            name = clip.name + (f"#{count}" if count else "")
            count += 1
            for half in _near(points):
                yield Clip(name, clip.subject, CMU_KINDS.get(clip.subject, clip.kind), half, fps)


def _near(points: np.ndarray) -> list[np.ndarray]:
    """A clip, or where it leads too far from its middle, its halves as far as they do not."""
    if np.abs(centred(points)).max() <= FARTHEST:
        return [points]
    half = len(points) // 2
    return [p for p in (points[:half], points[half:]) if len(p) >= 15 and np.abs(centred(p)).max() <= FARTHEST]


def centred(points: np.ndarray) -> np.ndarray:
    """Points with the middle of the root's way at x = y = 0."""
    points = points.copy()
    points[..., :2] -= (points[:, 0, :2].min(0) + points[:, 0, :2].max(0)) / 2
    return points


def t_pose(points: np.ndarray) -> np.ndarray:
    """[T] frames with both arms straight out to the sides: a calibration, no motion."""

    def length(a: int, b: int) -> np.ndarray:
        return np.linalg.norm(points[:, a] - points[:, b], axis=-1)

    out = np.ones(len(points), bool)
    for shoulder, elbow, wrist in ((11, 12, 13), (14, 15, 16)):
        upper, lower = points[:, elbow] - points[:, shoulder], points[:, wrist] - points[:, elbow]
        upper = upper / np.linalg.norm(upper, axis=-1, keepdims=True)
        lower = lower / np.linalg.norm(lower, axis=-1, keepdims=True)
        out &= (np.abs(upper[:, 2]) < 0.26) & ((upper * lower).sum(-1) > 0.94)
    arms = sum(length(*pair) for pair in LIMBS[4:]) + length(11, 14)
    return out & (length(13, 16) > 0.93 * arms)


def cleaned(clip: Clip, floor: bool) -> Clip | None:
    """A clip without T-poses at its ends, on the floor, the root between the hips; None where nothing is left.

    Args:
        floor: put it on the floor even where it is nearly there.
    """
    points = clip.points
    lengths = np.stack([np.linalg.norm(points[:, a] - points[:, b], axis=-1) for a, b in LIMBS], -1)
    if re.search(r"t[_-]?pose", clip.name, re.IGNORECASE) or lengths.std(0).max() > 0.012:
        return None
    moving = np.flatnonzero(~t_pose(points))
    if not len(moving) or moving[-1] + 1 - moving[0] < SHORTEST * clip.fps:
        return None
    points = points[moving[0] : moving[-1] + 1].copy()
    lowest = np.percentile(points[..., 2].min(1), 5)
    if floor or not -0.3 <= lowest <= 0.35:
        points[..., 2] -= lowest - 0.06
    points = centred(points)
    points[:, 0] = (points[:, 1] + points[:, 4]) / 2
    return Clip(clip.name, clip.subject, clip.kind, points, clip.fps)


def clips_of(source: Source, files: Repository, floor: bool) -> Iterator[Clip]:
    """What a source's files hold, cleaned; files that hold something else are left out."""
    for path in files.matching(source.files):
        try:
            clip = source.read(path, files)
        except (DataError, KeyError):  # a prop, another skeleton
            continue
        for part in stretches(clip):
            if (found := cleaned(part, floor)) is not None:
                yield found


def chosen(clips: list[Clip], kept: list[list], name: str) -> list[Clip]:
    """The clips that the list names, in its order; the rest is there twice, elsewhere too.

    Raises:
        DataError: one that is not there, as many frames long.
    """
    found, left = [], list(clips)
    for wanted, frames in kept:
        at = next((i for i, c in enumerate(left) if c.name == wanted and abs(len(c.points) - frames) <= 2), None)
        if at is None:
            lengths = [len(c.points) for c in clips if c.name == wanted]
            raise DataError(f"{name}: expected a clip {wanted} of {frames} frames, found {lengths or 'none'}")
        found.append(left.pop(at))
    return found


def write(folder: Path, name: str, clips: list[Clip]) -> None:
    """One set as ``name.npz``: positions [frames, 17, 3] int16 in ``unit``, ``lengths`` of the clips, ..."""
    terms, sources = SETS[name]
    write_npz(
        folder / f"{name}.npz",
        positions=np.concatenate([np.round(c.points / UNIT).astype(np.int16) for c in clips]),
        lengths=np.array([len(c.points) for c in clips]),
        unit=np.float32(UNIT),
        fps=np.float32([c.fps for c in clips]),
        names=np.array([c.name for c in clips]),
        subjects=np.array([c.subject for c in clips]),
        kinds=np.array([c.kind for c in clips]),
        source=np.array([f"{s.repository}@{s.commit}" for s in sources]),
        terms=np.array(terms),
    )


# -- reading ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Recording:
    """[T, 17, 3] metres, z up, 50 frames per second, of a subject in a set."""

    subject: str
    set: str
    points: np.ndarray


def load(folder: str | Path) -> list[Recording]:
    """Everything in a folder that ``main`` wrote; clips with broken shoulders are left out.

    Raises:
        DataError: no sets there, or a malformed one.
    """
    paths = sorted(Path(folder).glob("*.npz"))
    if not paths:
        raise DataError(f"{folder}: no .npz files; python -m train.data.open_motion {folder} fetches them")
    found = []
    for path in paths:
        data = read_npz(path, "positions", "lengths", "unit", "fps", "subjects")
        positions, lengths = data["positions"], data["lengths"]
        if positions.ndim != 3 or positions.shape[1:] != (17, 3) or lengths.sum() != len(positions):
            want = f"[{lengths.sum()} frames, 17, 3] by its lengths"
            raise DataError(f"{path}: expected positions {want}, got {list(positions.shape)}")
        motions = np.split(positions, lengths.cumsum()[:-1])
        for motion, fps, subject in zip(motions, data["fps"], data["subjects"], strict=True):
            points = motion.astype(np.float32) * np.float32(data["unit"])
            if np.linalg.norm(points[:, 11] - points[:, 14], axis=-1).mean() < 0.15:
                continue
            even = abs(float(fps) - FPS) < 0.01
            found.append(
                Recording(str(subject), path.stem, points if even else resample(points, fps).astype(np.float32))
            )
    return found


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="python -m train.data.open_motion", description=__doc__.split("\n\n")[0])
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write to")
    parser.add_argument(
        "--sets", metavar="LIST", default=",".join(SETS), help=f"comma list (default: {','.join(SETS)})"
    )
    parser.add_argument("--clones", metavar="DIR", type=Path, help="keep what git fetches here, and look here first")
    parser.add_argument("--host", default=HOST, help="where the repositories are (default: %(default)s)")
    options = parser.parse_args(argv)
    names = options.sets.split(",")
    if unknown := [name for name in names if name not in SETS]:
        raise ValueError(f"--sets: no set {unknown[0]!r}{nearest(unknown[0], SETS)}")
    kept = json.loads(KEPT.read_text())
    with tempfile.TemporaryDirectory() as temporary:
        clones = options.clones or Path(temporary)
        for name in names:
            terms, sources = SETS[name]
            clips = []
            for source in sources:
                folder = clones / source.repository.replace("/", "+")
                folder.mkdir(parents=True, exist_ok=True)
                files = fetch(options.host, source.repository, source.commit, folder)
                clips += clips_of(source, files, floor=name == "cmu_06_07_avatar")
            clips = chosen(clips, kept[name], name)
            write(options.out, name, clips)
            minutes = sum(len(c.points) / c.fps for c in clips) / 60
            print(f"{options.out / name}.npz: {len(clips)} clips, {minutes:.1f} min; {terms}", flush=True)
    with write_aside(options.out / "TERMS.md") as aside:
        aside.write_text("".join(f"- {name}: {SETS[name][0]}\n" for name in names))
    return 0


if __name__ == "__main__":
    run_cli(main)
