"""Readers and converters of free motion, on small files written by hand, and on the real ones where they are."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from posekernels.archive import DataError
from posekernels.train.data import open_motion
from posekernels.train.data.asf import parse_amc, parse_asf
from posekernels.train.data.bvh import parse_bvh

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "motion"

ASF = """:version 1.10
:name test
:units
  mass 1.0
  length 0.5
  angle deg
:root
   order TX TY TZ RX RY RZ
   axis XYZ
   position 0 1 0
   orientation 0 0 0
:bonedata
  begin
     id 1
     name upper
     direction 0 -1 0
     length 2
     axis 0 0 90 XYZ
     dof rx rz
  end
  begin
     id 2
     name lower
     direction 0 -1 0
     length 1
     axis 0 0 0 XYZ
  end
:hierarchy
  begin
    root upper
    upper lower
  end
"""
AMC = """#comment
:FULLY-SPECIFIED
:DEGREES
1
root 0 0 0 0 0 0
upper 0 0
2
root 1 2 3 0 0 90
upper 90 0
"""


def test_asf_and_amc_by_hand():
    skeleton = parse_asf(ASF, "test.asf")
    places = skeleton.positions(parse_amc(AMC, skeleton, "test.amc"))
    inch = 0.0254 / 0.5
    np.testing.assert_allclose(places["root"], inch * np.array([[0, 1, 0], [1, 3, 3]]))
    np.testing.assert_allclose(places["upper"][0], inch * np.array([0, -1, 0]), atol=1e-9)
    np.testing.assert_allclose(places["lower"][0], inch * np.array([0, -2, 0]), atol=1e-9)
    # the second frame: the bone turns by 90 degrees about its own x axis, which is the world's y, so it stays; then the
    # root turns by 90 degrees about z, and down becomes +x
    np.testing.assert_allclose(places["upper"][1], inch * np.array([3, 3, 3]), atol=1e-9)
    np.testing.assert_allclose(places["lower"][1], inch * np.array([4, 3, 3]), atol=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("upper 90 0", "upper 90"), "line 9: expected 2 numbers, got 'upper 90'"),
        (("upper 90 0", "other 90 0"), "expected a bone of the skeleton"),
        (("upper 90 0", ""), "2 frames, not all with upper"),
        (("upper 90 0", "upper 90 x"), "not an AMC file"),
    ],
)
def test_wrong_amc_is_refused_by_line(change, message):
    skeleton = parse_asf(ASF, "test.asf")
    with pytest.raises(DataError, match=message):
        parse_amc(AMC.replace(*change), skeleton, "test.amc")


@pytest.mark.parametrize("gone", [":hierarchy", "order TX TY TZ RX RY RZ", "length 2", "axis 0 0 90 XYZ"])
def test_wrong_asf_is_refused(gone):
    with pytest.raises(DataError, match="test.asf: not an ASF file"):
        parse_asf(ASF.replace(gone, ""), "test.asf")


def bvh_text(frames: int, channels: str = "3 Zrotation Xrotation Yrotation") -> str:
    """A person of the martial arts set who walks along z, and turns the left arm a little more each frame."""
    tree = {
        "Hips": ("Spine1", "RightUpLeg", "LeftUpLeg"),
        "Spine1": ("Neck", "LeftShoulder", "RightShoulder"),
        "Neck": ("Head",),
        "LeftShoulder": ("LeftArm",),
        "RightShoulder": ("RightArm",),
    } | {
        f"{side}{a}": (f"{side}{b}",)
        for side in ("Left", "Right")
        for a, b in (("Arm", "ForeArm"), ("ForeArm", "Hand"), ("UpLeg", "Leg"), ("Leg", "Foot"))
    }
    at = {"Hips": (0, 0, 0), "Spine1": (0, 30, 0), "Neck": (0, 25, 0), "Head": (0, 10, 2)}
    for side, x in (("Left", 1), ("Right", -1)):
        at |= {f"{side}Shoulder": (5 * x, 20, 0), f"{side}Arm": (13 * x, 0, 0), f"{side}ForeArm": (5 * x, -28, 0)}
        at |= {f"{side}Hand": (0, -25, 0), f"{side}UpLeg": (9 * x, 0, 0), f"{side}Leg": (0, -42, 0)}
        at |= {f"{side}Foot": (0, -41, 0)}
    order: list[str] = []

    def write(name: str, word: str) -> str:
        order.append(name)
        own = "6 Xposition Yposition Zposition Zrotation Xrotation Yrotation" if name == "Hips" else channels
        inner = "".join(write(child, "JOINT") for child in tree.get(name, ())) or "End Site { OFFSET 0 0 0 }\n"
        return f"{word} {name} {{\n OFFSET {' '.join(map(str, at[name]))}\n CHANNELS {own}\n{inner}}}\n"

    text = "HIERARCHY\n" + write("Hips", "ROOT")
    rows = []
    for t in range(frames):
        row = [0, 95, 4 * t, 0, 0, 0]
        for name in order[1:]:
            row += [0, 2 * t if name == "LeftArm" else 0, 0]
        rows.append(" ".join(map(str, row)))
    return text + f"MOTION\nFrames: {frames}\nFrame Time: 0.0333333\n" + "\n".join(rows) + "\n"


def committed(folder: Path, files: dict[str, str | bytes]) -> str:
    """A git repository of these files; its commit."""
    for place, content in files.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(content.encode() if isinstance(content, str) else content)

    def git(*words: str) -> str:
        who = ("-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "uploadpack.allowAnySHA1InWant=true")
        return subprocess.run(["git", "-C", folder, *who, *words], check=True, capture_output=True, text=True).stdout

    git("init", "-q")
    git("add", "-A")
    git("commit", "-q", "-m", "motion")
    git("config", "uploadpack.allowAnySHA1InWant", "true")
    return git("rev-parse", "HEAD").strip()


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A host with one repository, and a table with one set of it."""
    files = {f"martial_arts_compact/motion/s_001_{n}.bvh": bvh_text(40 + n) for n in (1, 2)}
    files["martial_arts_compact/motion/s_001_3.bvh"] = files["martial_arts_compact/motion/s_001_1.bvh"]  # twice
    files["martial_arts_compact/motion/s_sword.bvh"] = "HIERARCHY\nno person\n"
    files["other/motion/s_001_9.bvh"] = bvh_text(50)
    commit = committed(tmp_path / "host/owner/moves", files)
    terms, (source,) = open_motion.SETS["snu_martial_arts"]
    source = open_motion.Source("owner/moves", commit, source.files, source.read)
    monkeypatch.setattr(open_motion, "SETS", {"moves": (terms, (source,))})
    kept = tmp_path / "kept.json"
    kept.write_text(json.dumps({"moves": [["s_001_1", 41], ["s_001_2", 42]]}))
    monkeypatch.setattr(open_motion, "KEPT", kept)
    return tmp_path / "host"


def test_one_command_fetches_and_converts(host, tmp_path, capsys):
    out, clones = tmp_path / "out", tmp_path / "clones"
    options = [str(out), "--host", f"file://{host}", "--clones", str(clones)]
    assert open_motion.main(options) == 0
    assert "2 clips" in (said := capsys.readouterr().out) and "BSD-3-Clause" in said
    assert "BSD-3-Clause" in (out / "TERMS.md").read_text()
    data = np.load(out / "moves.npz")
    assert data["names"].tolist() == ["s_001_1", "s_001_2"] and data["lengths"].tolist() == [41, 42]
    assert data["subjects"].tolist() == ["SNU-s_001"] * 2
    first = data["positions"][:41] * float(data["unit"])
    np.testing.assert_allclose(first[:, 0, 2], 0.95, atol=1e-3)  # hips above the floor, z up
    np.testing.assert_allclose(first[-1, 0, :2] - first[0, 0, :2], (0, -1.6), atol=2e-3)  # walks along -y
    np.testing.assert_allclose(first[0, 11] - first[0, 14], (0.36, 0, 0), atol=2e-3)
    assert (first[1:, 13, 1] < first[:-1, 13, 1] + 1e-3).all(), "the left hand goes forwards"
    assert np.linalg.norm(first[-1, 16] - first[-1, 15], axis=-1) == pytest.approx(0.25, abs=2e-3)
    # once fetched, nothing is asked of the host again
    host.rename(tmp_path / "gone")
    assert open_motion.main(options) == 0
    recordings = open_motion.load(out)
    assert [r.subject for r in recordings] == ["SNU-s_001"] * 2 and recordings[0].set == "moves"
    assert len(recordings[0].points) == pytest.approx(41 / 30 * 50, abs=2), "50 per second"


def test_what_is_not_there_is_told(host, tmp_path):
    open_motion.KEPT.write_text(json.dumps({"moves": [["s_001_1", 99]]}))
    with pytest.raises(DataError, match=r"moves: expected a clip s_001_1 of 99 frames, found \[41\]"):
        open_motion.main([str(tmp_path / "out"), "--host", f"file://{host}"])
    with pytest.raises(DataError, match="git .*fetch.*owner/moves"):
        open_motion.main([str(tmp_path / "out"), "--host", f"file://{tmp_path}/nowhere"])
    with pytest.raises(ValueError, match="no set 'move'; did you mean 'moves'"):
        open_motion.main([str(tmp_path / "out"), "--sets", "move"])
    with pytest.raises(DataError, match=r"no \.npz files; python -m train\.data\.open_motion"):
        open_motion.load(tmp_path)


def walking(frames: int, fps: float = 30.0) -> open_motion.Clip:
    motion = parse_bvh(bvh_text(frames), "test")
    points = open_motion.places(open_motion._named(motion), open_motion.SNU_MARTIAL)
    return open_motion.Clip("walk", "X", "walking", open_motion.from_y_up(points * 0.01), fps)


def test_recordings_are_cut_at_leaps():
    clip = walking(60)
    clip.points[30:] += 2  # 3.5 m in a frame
    assert [(c.name, len(c.points)) for c in open_motion.stretches(clip)] == [("walk", 30), ("walk#1", 30)]
    clip.points[:17] -= 5  # what is left between two leaps is shorter than half a second
    assert [len(c.points) for c in open_motion.stretches(clip)] == [17, 30]


def test_t_poses_at_the_ends_are_no_motion():
    clip = walking(60)
    for shoulder, elbow, wrist, side in ((11, 12, 13, 1), (14, 15, 16, -1)):
        clip.points[:20, elbow] = clip.points[:20, shoulder] + (0.28 * side, 0, 0)
        clip.points[:20, wrist] = clip.points[:20, shoulder] + (0.53 * side, 0, 0)
    clip.points[:, 12] = clip.points[:, 11] + 0.28 * unit(clip.points[:, 12] - clip.points[:, 11])
    clip.points[:, 15] = clip.points[:, 14] + 0.28 * unit(clip.points[:, 15] - clip.points[:, 14])
    for elbow, wrist in ((12, 13), (15, 16)):
        clip.points[:, wrist] = clip.points[:, elbow] + 0.25 * unit(clip.points[:, wrist] - clip.points[:, elbow])
    assert open_motion.t_pose(clip.points).tolist() == [True] * 20 + [False] * 40
    assert len(open_motion.cleaned(clip, floor=False).points) == 40
    assert open_motion.cleaned(open_motion.Clip("my_tpose", "X", "", clip.points, 30.0), floor=False) is None


def unit(v: np.ndarray) -> np.ndarray:
    return v / np.linalg.norm(v, axis=-1, keepdims=True)


PLACES = {  # where the raw files lie in their repositories
    "Auto_Conditioned_RNN_motion__10.bvh": ("cmu_salsa_indian", "train_data_bvh/salsa/10.bvh"),
    "DataDrivenBipedController__woddy2_wide_ext_walk1.bvh": (
        "snu_woody2",
        "Walking/rawmotion/woddy2_wide_ext_walk1.bvh",
    ),
    "IClone-CMU-Mocap__007_12.bvh": ("cmu_06_07_avatar", "subjects/007/007_12.bvh"),
    "InteractiveAnimation__tennis_KangTennisF19.bvh": ("snu_tennis", "tennisData/motion/tennis_KangTennisF19.bvh"),
    "TimeCriticalResponse__s_005_3_1.bvh": ("snu_martial_arts", "martial_arts_compact/motion/s_005_3_1.bvh"),
    "VSports__s_003_6_1.bvh": ("snu_basketball", "basketData/motion/s_003_6_1.bvh"),
    "motion-graphs__02_03.amc": ("cmu_amc_11_subjects", "02/02_03.amc"),
    "ys2010__boxing_boxman_stand_dir_upper_left.bvh": (
        "snu_woody2",
        "Data/woody2/Motion/samsung_boxing/boxing_boxman_stand_dir_upper_left.bvh",
    ),
}


@pytest.mark.skipif(not (REAL / "raw").is_dir(), reason=f"no raw recordings in {REAL / 'raw'}")
@pytest.mark.parametrize("raw", PLACES)
def test_real_files_come_out_as_converted_before(raw, tmp_path):
    name, place = PLACES[raw]
    files = {place: (REAL / "raw" / raw).read_bytes()}
    if raw.endswith(".amc"):
        files["02/02.asf"] = (REAL / "raw" / "motion-graphs__02.asf").read_bytes()
    committed(tmp_path, files)
    repository = open_motion.Repository(tmp_path)
    floor = name == "cmu_06_07_avatar"
    clips = [c for source in open_motion.SETS[name][1] for c in open_motion.clips_of(source, repository, floor)]
    data = np.load(REAL / f"{name}.npz")
    motions = dict(zip(data["names"].tolist(), np.split(data["positions"], data["lengths"].cumsum()[:-1])))
    assert clips
    for clip in clips:
        np.testing.assert_allclose(clip.points, motions[clip.name] * float(data["unit"]), atol=1e-3)
