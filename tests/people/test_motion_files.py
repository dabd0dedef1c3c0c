"""TRC, C3D, BVH and glTF as other programs read them: gaps, clocks, axes, units, and what lies between two frames."""

import base64
import dataclasses
import json

import numpy as np
import pytest

from posekernels.extras import MissingExtra
from posekernels.people import motion_files, pose_files
from posekernels.people.lifter import Person
from posekernels.people.world import Lifted
from posekernels.pose.camera import camera_to_world
from posekernels.pose.skeleton import H36M_17
from posekernels.train.data.bvh import read_bvh
from posekernels.train.data.motion import load_starter


def person_of(clip, frames=30, identity=1) -> Person:
    poses = clip.positions[:frames].copy()
    poses[:, 1:] += poses[:, :1]
    world = camera_to_world(poses, clip.orientation, clip.translation).astype(np.float32)
    return Person(identity, poses[..., :2], np.ones(poses.shape[:2]), poses - poses[:, :1], world)


@pytest.fixture(scope="module")
def person() -> Person:
    return person_of(load_starter().test[0])


@pytest.fixture(scope="module")
def late(person) -> Person:
    """Somebody who enters at frame 3, is gone in frames 10 and 11, and whose last joint is unseen in frame 20."""
    world = person.world + np.array([1, 0, 0], np.float32)
    world[:3], world[10:12] = np.nan, np.nan
    return dataclasses.replace(person, identity=2, world=world)


def lifted(*people):
    return Lifted(list(people), 50.0, (1000, 1000), "clip.mp4")


def y_up(points):
    return np.stack((points[..., 0], points[..., 2], -points[..., 1]), -1)


# -- markers ---------------------------------------------------------------------------------------------------------
def test_trc_is_y_up_metres_with_a_cell_for_every_number(person, tmp_path):
    [path] = pose_files.write(tmp_path / "x.trc", lifted(person))
    lines = path.read_text().splitlines()
    assert lines[3].split("\t")[2::3][:2] == ["pelvis", "right_hip"] and "\tm\t" in lines[2]
    rows = np.array([[float(v) for v in line.split("\t")] for line in lines[5:]])
    assert rows.shape == (30, 2 + 51)
    np.testing.assert_allclose(rows[:, 1], np.arange(30) / 50, atol=1e-5)
    points = rows[:, 2:].reshape(30, 17, 3)
    np.testing.assert_allclose(points, y_up(person.world), atol=1e-5)
    assert (points[:, 10, 1] > points[:, 3, 1]).all(), "the head is above the ankle"


def test_gaps_of_trc_load_in_opensim(person, late, tmp_path):
    opensim = pytest.importorskip("opensim", reason="OpenSim's own reader is not installed (pip install opensim)")
    opensim.Logger.setLevelString("error")
    [path] = pose_files.write(tmp_path / "x.trc", lifted(person, late))
    table = opensim.TimeSeriesTableVec3(str(path))
    assert (table.getNumRows(), table.getNumColumns()) == (30, 34)
    np.testing.assert_allclose(table.getIndependentColumn(), np.arange(30) / 50, atol=1e-5)
    labels = list(table.getColumnLabels())
    for who in (person, late):
        at = labels.index(f"p{who.identity}_head")
        head = np.array([table.getRowAtIndex(t)[at].to_numpy() for t in range(30)])
        np.testing.assert_allclose(head, y_up(who.world)[:, 10], atol=1e-5)


def test_c3d_is_z_up_millimetres_with_gaps(person, late, tmp_path):
    ezc3d = pytest.importorskip("ezc3d", reason="the package ezc3d is not installed")
    [path] = pose_files.write(tmp_path / "x.c3d", lifted(person, late))
    file = ezc3d.c3d(str(path))
    about, points = file["parameters"]["POINT"], file["data"]["points"]
    assert about["UNITS"]["value"] == ["mm"] and about["RATE"]["value"] == [50.0]
    assert about["LABELS"]["value"][10] == "p1_head" and points.shape == (4, 34, 30)
    np.testing.assert_allclose(points[:3, :17].transpose(2, 1, 0), person.world * 1000, rtol=1e-5, atol=1e-2)
    gone = np.isnan(late.world).any((1, 2))
    assert (file["data"]["meta_points"]["residuals"][0, 17:] < 0).all(0).tolist() == gone.tolist()


def test_c3d_without_its_package_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ezc3d", None)
    with pytest.raises(MissingExtra, match="writing .c3d needs ezc3d: pip install .posekernels.c3d."):
        pose_files.check_target(tmp_path / "x.c3d")


# -- BVH -------------------------------------------------------------------------------------------------------------
def test_bvh_has_fixed_bones_and_puts_joints_where_they_were(person, tmp_path):
    [path] = pose_files.write(tmp_path / "x.bvh", lifted(person))
    motion = read_bvh(path)
    joints = [i for i, name in enumerate(motion.names) if not name.endswith("_site")]
    order = [motion.names[i] for i in joints]
    assert sorted(order) == sorted(H36M_17.joints) and motion.frame_time == pytest.approx(0.02)
    points = motion.positions()
    bones = [(motion.parents[i], i) for i in joints if motion.parents[i] >= 0]
    lengths = np.stack([np.linalg.norm(points[:, a] - points[:, b], axis=-1) for a, b in bones], 1)
    assert np.ptp(lengths, axis=0).max() < 1e-6
    wanted = y_up(person.world)[:, [H36M_17.joints.index(name) for name in order]]
    off = np.linalg.norm(points[:, joints] - wanted, axis=-1)
    assert off.mean() < 0.015 and off.max() < 0.06, "the recording's own bones are rigid, so little moves"


def test_everybody_has_one_clock(person, late, tmp_path):
    paths = pose_files.write(tmp_path / "x.bvh", lifted(person, late))
    assert [p.name for p in paths] == ["x.bvh", "x-2.bvh"]
    motion = read_bvh(paths[1])
    assert len(motion.frames) == 30
    assert (motion.frames[:3, 3:] == 0).all(), "at rest until they enter"
    np.testing.assert_allclose(motion.frames[:3, :3], np.repeat(motion.frames[3:4, :3], 3, 0))
    np.testing.assert_array_equal(motion.frames[10:12], np.repeat(motion.frames[9:10], 2, 0))
    alone = read_bvh(paths[0])
    here, there = alone.positions()[[5, 25]], motion.positions()[[5, 25]]
    np.testing.assert_allclose(there - here, np.broadcast_to((1.0, 0, 0), here.shape), atol=0.01)


def starter_clips():
    data = load_starter()
    return list({(c.action, len(c.positions)): c for c in [*data.train, *data.test]}.values())


def test_bvh_between_two_frames_is_between_two_poses(tmp_path):
    """A player interpolates angles: half way, joints are near the middle of where they were, in every clip."""
    for clip in starter_clips():
        [path] = pose_files.write(tmp_path / "x.bvh", lifted(person_of(clip, 10**6)))
        motion = read_bvh(path)
        assert np.abs(np.diff(motion.frames[:, 3:], axis=0)).max() < 180, clip.action
        points = motion.positions()
        half = dataclasses.replace(motion, frames=(motion.frames[1:] + motion.frames[:-1]) / 2).positions()
        off = np.linalg.norm(half - (points[1:] + points[:-1]) / 2, axis=-1)
        assert off.max() < 0.04, f"{clip.action}: {off.max():.3f} m at frame {off.max(1).argmax()}"


def test_bvh_is_read_alike_by_two_other_readers(person, tmp_path):
    bvh = pytest.importorskip("bvh", reason="the package bvh is not installed")
    bvhio = pytest.importorskip("bvhio", reason="the package bvhio is not installed")
    clip = next(c for c in starter_clips() if c.action == "Backflip")  # in which some joints need another order of axes
    [path] = pose_files.write(tmp_path / "x.bvh", lifted(person_of(clip, 60)))
    motion = read_bvh(path)
    assert {motion.channels[i][1][0] for i in range(3, len(motion.channels), 3)} == {"X", "Z"}, "several orders of axes"
    other = bvh.Bvh(path.read_text())
    assert other.nframes == 60 and other.frame_time == pytest.approx(0.02)
    for joint, kind in motion.channels:
        name = motion.names[joint]
        column = motion.channels.index((joint, kind))
        assert float(other.frame_joint_channel(40, name, kind)) == pytest.approx(motion.frames[40, column], abs=1e-4)
    root, points = bvhio.readAsHierarchy(str(path)), motion.positions()
    for frame in (0, 40):
        root.loadPose(frame)
        for joint, _, _ in root.layout():
            place = points[frame, motion.names.index(joint.Name)]
            np.testing.assert_allclose(np.array(joint.PositionWorld), place, atol=1e-4, err_msg=joint.Name)


@pytest.mark.parametrize("order", ["ZXY", "XYZ", "YXZ", "XZY", "YZX", "ZYX"])
def test_angles_mean_the_rotation_in_every_order(order):
    turns = np.linalg.qr(np.random.default_rng(0).normal(size=(200, 3, 3)))[0]
    turns *= np.sign(np.linalg.det(turns))[:, None, None]
    turns[:3] = np.eye(3), motion_files._about(0, np.array([90.0]))[0], motion_files._about(1, np.array([-90.0]))[0]
    back = np.eye(3)
    for axis, angle in zip(order, motion_files._euler(turns, order).T):
        back = back @ motion_files._about("XYZ".index(axis), angle)
    np.testing.assert_allclose(back, turns, atol=1e-6)


# -- glTF ------------------------------------------------------------------------------------------------------------
class Scene:
    """A glTF file read by its specification: ``array(accessor)``, and ``places(t)`` of all nodes at a frame."""

    def __init__(self, path):
        if path.suffix == ".glb":
            content = path.read_bytes()
            assert content[:4] == b"glTF" and int.from_bytes(content[8:12], "little") == len(content)
            length = int.from_bytes(content[12:16], "little")
            self.json, self.binary = json.loads(content[20 : 20 + length]), content[28 + length :]
        else:
            self.json = json.loads(path.read_text())
            self.binary = base64.b64decode(self.json["buffers"][0]["uri"].partition(",")[2])
        assert len(self.binary) == self.json["buffers"][0]["byteLength"]

    def array(self, accessor):
        about = self.json["accessors"][accessor]
        view = self.json["bufferViews"][about["bufferView"]]
        raw = self.binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
        kind = {5126: np.float32, 5121: np.uint8}[about["componentType"]]
        return np.frombuffer(raw, kind).reshape(about["count"], -1)

    def places(self, t):
        """{name: 4 x 4 matrix in the world} at frame ``t``."""
        nodes = [dict(node) for node in self.json["nodes"]]
        [animation] = self.json["animations"]
        for channel in animation["channels"]:
            sampler = animation["samplers"][channel["sampler"]]
            target = channel["target"]
            nodes[target["node"]][target["path"]] = self.array(sampler["output"])[t].tolist()
        found = {}

        def visit(number, above):
            node = nodes[number]
            x, y, z, w = node.get("rotation", (0, 0, 0, 1))
            own = np.eye(4)
            own[:3, :3] = [
                [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
            ]
            own[:3, :3] *= node.get("scale", (1, 1, 1))
            own[:3, 3] = node.get("translation", (0, 0, 0))
            found[node["name"]] = above @ own
            for child in node.get("children", ()):
                visit(child, above @ own)

        for root in self.json["scenes"][0]["nodes"]:
            visit(root, np.eye(4))
        return found


@pytest.mark.parametrize("suffix", [".glb", ".gltf"])
def test_gltf_moves_joints_and_skin_as_the_bvh_does(person, late, suffix, tmp_path):
    people = lifted(person, late)
    [path] = pose_files.write(tmp_path / f"x{suffix}", people)
    scene, first = Scene(path), read_bvh(pose_files.write(tmp_path / "x.bvh", people)[0])
    joint = {name: i for i, name in enumerate(first.names)}
    for t in (0, 17, 29):
        places = scene.places(t)
        for name in H36M_17.joints:
            np.testing.assert_allclose(places[f"p1_{name}"][:3, 3], first.positions()[t, joint[name]], atol=1e-4)
    visible = [np.linalg.det(scene.places(t)["person 2 skeleton"]) for t in range(30)]
    np.testing.assert_array_equal(np.array(visible) > 0, np.isfinite(late.world).all((1, 2)))
    skin, [primitive] = scene.json["skins"][0], scene.json["meshes"][0]["primitives"]
    inverse = scene.array(skin["inverseBindMatrices"]).reshape(17, 4, 4).transpose(0, 2, 1)
    names = [scene.json["nodes"][n]["name"] for n in skin["joints"]]
    places = scene.places(17)
    vertices = scene.array(primitive["attributes"]["POSITION"])
    owners = scene.array(primitive["attributes"]["JOINTS_0"])[:, 0]
    moved = [(places[names[j]] @ inverse[j] @ [*v, 1])[:3] for v, j in zip(vertices, owners)]
    tips = np.array(moved).reshape(16, 8, 3, 3)[..., 2, :][:, 1]  # of the bones, one after the other
    np.testing.assert_allclose(tips, [places[f"p1_{n}"][:3, 3] for n in H36M_17.joints[1:]], atol=1e-4)


def test_gltf_is_what_its_reader_takes(person, late, tmp_path):
    pygltflib = pytest.importorskip("pygltflib", reason="the package pygltflib is not installed")
    for suffix in (".glb", ".gltf"):
        file = pygltflib.GLTF2().load(str(pose_files.write(tmp_path / f"x{suffix}", lifted(person, late))[0]))
        assert len(file.skins) == len(file.meshes) == 2 and len(file.animations[0].channels) == 2 * 13 + 1
