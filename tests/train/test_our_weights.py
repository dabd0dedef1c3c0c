"""The recipes of the weights that come with the project, and those weights themselves."""

import warnings
from argparse import Namespace

import numpy as np
import pytest
import torch

from posekernels import models
from posekernels.models.forecasting import with_path, without_path
from posekernels.models.load import SHIPPED, About, save_weights
from posekernels.people.lifter import lift_person, load_lifter
from posekernels.people.tracking import Track
from posekernels.pose.angles import knee_angles
from posekernels.pose.camera import looking_at, project, rotate
from posekernels.pose.keypoints import centre_on_person, one_trunk
from posekernels.pose.metrics import mpjpe, p_mpjpe
from posekernels.pose.skeleton import H36M_17
from posekernels.train import any_motion, h36m
from posekernels.train.data import open_motion
from posekernels.train.data.motion import load_starter
from posekernels.train.recipes.any_camera import (
    ADULT,
    AnyCameraRecipe,
    Draws,
    Views,
    detected,
    error,
    looking,
    motions,
    with_head,
)
from posekernels.train.recipes.any_motion import Stretches


@pytest.fixture(scope="module")
def starter():
    return load_starter()


@pytest.fixture(scope="module")
def recordings(starter):
    return motions(starter.train)


def test_recordings_are_taken_once_and_stand_on_the_ground(starter, recordings):
    performers = {(c.subject.partition("/")[0], c.action) for c in starter.train}
    assert len(recordings) == len(performers)
    for motion in recordings:
        assert abs(np.percentile(motion[..., 2].min(1), 50)) < 0.6 and motion[..., 2].max() < 4


def test_views_are_the_same_for_the_same_seed_and_shared_by_ranks(recordings):
    def first(rank, world, seed=1, epoch=0):
        views = Views(recordings, 9, 8, 2, seed, rank, world)
        views.set_epoch(epoch)
        return next(iter(views))

    whole, parts = first(0, 1), [first(rank, 2) for rank in (0, 1)]
    for i in (0, 1):
        assert torch.equal(whole[i][0::2], parts[0][i]) and torch.equal(whole[i][1::2], parts[1][i])
    assert not torch.equal(whole[0], first(0, 1, epoch=1)[0]) and not torch.equal(whole[0], first(0, 1, seed=2)[0])


def test_views_show_upright_people_of_natural_size(recordings):
    keypoints, poses = Views(recordings, 9, 256, 1, 1, 0, 1).batch(torch.Generator().manual_seed(0))
    assert keypoints.shape == (256, 9, 17, 2) and poses.shape == (256, 9, 17, 3)
    assert poses[:, :, 0].abs().max() == 0 and keypoints[:, :, 0].abs().max() == 0
    assert (poses[:, :, 10, 1] < poses[:, :, 3, 1]).float().mean() > 0.85, "heads above ankles: y points down"
    thigh = (poses[:, :, 1] - poses[:, :, 2]).norm(dim=-1)
    assert thigh.min() > 0.15 and thigh.max() < 0.7 and 0.35 < thigh.median() < 0.48, "children to tall adults"
    # 2D and 3D belong together: without perspective they differ by a scale, and by the detector's errors
    flat = poses[..., :2] / poses[..., :2].norm(dim=-1).mean((1, 2), keepdim=True)[..., None]
    assert (keypoints - flat).norm(dim=-1).median() < 0.25
    left, right = list(H36M_17.left), list(H36M_17.right)
    sides = (poses[:, :, left, 0] - poses[:, :, right, 0]).mean((1, 2))
    assert 0.3 < (sides > 0).float().mean() < 0.7, "seen from all around"


def test_poses_are_seen_where_the_image_says(recordings):
    """A pose turned towards its root and put at one depth projects onto the image, also at the image's edge."""
    views = Views(recordings, 9, 64, 1, 1, 0, 1)
    image, poses = views.seen(Draws(torch.Generator().manual_seed(3), 64))
    ray = image[:, :, 0]
    assert ray.abs().amax() > 0.5
    seen = looking_at(poses, ray)
    # (x + z rx) = u (Z + z): one z for all joints
    factor, right = ray[:, :, None] - image, image * seen[..., 2:] - seen[..., :2]
    depth = (factor * right).sum((-1, -2)) / factor.square().sum((-1, -2))
    assert depth.min() > 0.4
    off = (factor * depth[..., None, None] - right).norm(dim=-1) / depth[..., None]
    assert off.max() < 1e-3


def test_trunk_and_head_are_where_detectors_see_them(recordings):
    poses = Views(recordings, 9, 64, 1, 1, 0, 1).batch(torch.Generator().manual_seed(0))[1]
    torch.testing.assert_close(one_trunk(poses), poses, atol=1e-4, rtol=0)
    trunk = (poses[:, :, 8] - poses[:, :, 0]).norm(dim=-1)
    head = (poses[:, :, 10] - poses[:, :, 8]).norm(dim=-1)
    assert ((head / trunk).median(1).values - 0.55).abs().median() < 0.05
    ahead = torch.linalg.cross(poses[:, :, 11] - poses[:, :, 14], poses[:, :, 10] - poses[:, :, 8])
    nose = poses[:, :, 9] - (poses[:, :, 8] + poses[:, :, 10]) / 2
    assert ((ahead * nose).sum(-1) > 0).float().mean() > 0.95, "the nose is in front"


def test_errors_are_a_detectors(recordings):
    """Measured on BlazePose: 0.05 units of the person in the middle, more along the arms."""
    views = Views(recordings, 27, 256, 1, 1, 0, 1)
    draw = Draws(torch.Generator().manual_seed(0), 256)
    image, _ = views.seen(draw)
    found = detected(image.clone(), draw)
    unit = (image - image[:, :, :1]).norm(dim=-1).mean((1, 2))[:, None, None]
    error = (found - image).norm(dim=-1) / unit
    assert 0.03 < error.median() < 0.07
    joint = error.flatten(0, 1).median(0).values
    assert joint[[12, 13, 15, 16]].mean() > 1.15 * joint[[1, 4, 11, 14]].mean()
    assert 0.02 < (error > 0.25).float().mean() < 0.15, "now and then something else is taken for a joint"
    ankles = (found[:, :, 3] - image[:, :, 6]).norm(dim=-1) < 0.3 * (image[:, :, 3] - image[:, :, 6]).norm(dim=-1)
    swapped = ankles & ((image[:, :, 3] - image[:, :, 6]).norm(dim=-1) > 0.5 * unit[..., 0])
    assert swapped.any(1).float().mean() > 0.02 and swapped.all(1).float().mean() < 0.01, "for some frames"
    # what is wrong stays wrong for a while
    rest = error - error.mean(1, keepdim=True)
    assert (rest[:, 1:] * rest[:, :-1]).sum() / rest.square().sum() > 0.6


@pytest.mark.parametrize(("window", "wanted"), [(1, {0}), (9, {1, 2, 3}), (27, {1})])
def test_frames_of_a_window_are_one_to_three_frames_apart(recordings, window, wanted):
    views = Views(recordings[:1], window, 64, 1, 1, 0, 1)
    frames = torch.arange(views.frames, dtype=torch.float32).expand(64, -1)
    image, poses = views.picked(frames, frames + 100, Draws(torch.Generator().manual_seed(0), 64))
    assert torch.equal(poses, image + 100) and (image[:, window // 2] == views.frames // 2).all()
    assert {int(n) for n in image.diff(dim=1).unique()} == wanted - {0} and image.shape == (64, window)
    assert image.min() >= 0 and image.max() < views.frames <= 27


def test_some_windows_end_early_or_begin_late(recordings):
    """As live, and at the ends of a clip: the nearest frame stands for those that are not there, in 2D and in 3D."""
    views = Views(recordings, 9, 2000, 1, 1, 0, 1)
    draw = Draws(torch.Generator().manual_seed(0), 2000)
    frames = torch.arange(9.0).view(1, 9, 1, 1).expand(2000, 9, 17, 1)
    image, poses = views.ended(frames, frames, draw)
    assert torch.equal(image, poses) and (image[:, 4] == 4).all()
    first, last = image[:, 0, 0, 0].long(), image[:, -1, 0, 0].long()
    assert torch.equal(image[:, :, 0, 0], torch.arange(9.0).expand(2000, 9).clamp(first[:, None], last[:, None]))
    assert 0.08 < (last == 4).float().mean() < 0.16 and 0.15 < (last < 8).float().mean() < 0.28
    assert 0.04 < (first > 0).float().mean() < 0.1


@pytest.mark.parametrize("network", ["mixste", "rie", "htnet"])
def test_other_networks_learn_alike(network, tmp_path, capsys):
    sizes = [
        "--network",
        network,
        "--strides",
        "3",
        "--channels",
        "24",
        "--hidden",
        "16",
        "--heads",
        "2",
        "--layers",
        "1",
    ]
    options = [*sizes, "-e", "1", "--steps", "2", "-b", "4", "-a", "Walk", "--out", str(tmp_path / "run")]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # of people, for a network that sees the screen
        assert h36m.main(["--model", "any_camera", *options]) == 0
    assert "P1" in capsys.readouterr().out
    lifter = load_lifter(None, tmp_path / "run" / "best.pt")
    assert lifter.net.created[0] == network and lifter.net.sees == "person"


def test_rare_sets_are_drawn_as_often_as_their_share(recordings):
    two = [recordings[0][:100] * 0 + 1 + np.arange(17)[:, None], recordings[0][:100] * 0 + 3 + np.arange(17)[:, None]]
    views = Views(two, 3, 4000, 1, 1, 0, 1, [1.0, 3.0])
    picked = views.often[-1] * torch.rand(4000, generator=torch.Generator().manual_seed(0))
    second = views.recording[torch.searchsorted(views.often, picked.double())] == 1
    assert second.float().mean() == pytest.approx(0.75, abs=0.03)


def test_cameras_look_where_they_say():
    level = looking(torch.zeros(1), torch.zeros(1), torch.zeros(1))[0]
    assert torch.allclose(level @ torch.tensor([0.0, 1, 0]), torch.tensor([0.0, 0, 1])), "ahead is away"
    assert torch.allclose(level @ torch.tensor([0.0, 0, 1]), torch.tensor([0.0, -1, 0])), "up is -y"
    down = looking(torch.zeros(1), torch.tensor([0.3]), torch.zeros(1))[0]
    assert (down @ torch.tensor([0.0, 3, -1]))[1] < (level @ torch.tensor([0.0, 3, -1]))[1], "what lies low moves up"


def test_person_axes_turn_into_the_cameras():
    """A far person off-centre looks, in the turned camera, as in the middle of a straight one."""
    random = torch.Generator().manual_seed(0)
    pose = 0.3 * torch.randn(1, 17, 3, generator=random)
    pose[:, 0] = 0
    ray = torch.tensor([[0.35, -0.2]])
    turned = looking_at(pose, ray)
    torch.testing.assert_close(turned.norm(dim=-1), pose.norm(dim=-1))
    forward = looking_at(torch.tensor([[[0.0, 0, 1]]]), ray)[0, 0]
    torch.testing.assert_close(forward[:2] / forward[2], ray[0])
    intrinsics = torch.tensor([1.0, 1, 0, 0, 0, 0, 0, 0, 0])
    far = turned + 1000 * torch.cat((ray, torch.ones(1, 1)), -1)[:, None]
    seen, _, _ = centre_on_person(project(far, intrinsics)[None], 1)
    straight, _, _ = centre_on_person(pose[None, ..., :2], 1)
    assert (seen - straight).norm(dim=-1).mean() < 0.1
    assert rotate(pose, torch.tensor([1.0, 0, 0, 0])).equal(pose)


def test_centre_on_person_forgets_place_and_size():
    random = torch.Generator().manual_seed(0)
    points = torch.randn(2, 12, 17, 2, generator=random)
    person, centre, size = centre_on_person(points, 5)
    again, _, again_size = centre_on_person(points * 300 + torch.tensor([500.0, 200]), 5)
    torch.testing.assert_close(person, again, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(again_size, size * 300)
    torch.testing.assert_close(person * size[..., None, None] + centre[..., None, :], points)
    assert torch.equal(centre_on_person(torch.zeros(1, 3, 17, 2))[0], torch.zeros(1, 3, 17, 2))
    with pytest.raises(ValueError, match="odd"):
        centre_on_person(points, 4)


def test_recipe_trains_and_lift_takes_its_checkpoint(tmp_path, capsys):
    sizes = ["--strides", "3", "3", "--channels", "16", "--hidden", "16", "--heads", "2", "--layers", "1"]
    options = [*sizes, "-e", "2", "--steps", "3", "-b", "8", "-a", "Walk", "--out", str(tmp_path / "run")]
    assert h36m.main(["--model", "any_camera", *options]) == 0
    assert "P1" in capsys.readouterr().out
    lifter = load_lifter(None, tmp_path / "run" / "best.pt")
    assert lifter.net.frames == 9 and lifter.net.sees == "person"
    assert np.isfinite(lifter(np.random.default_rng(0).normal(500, 50, (4, 17, 2)), (1000, 1000), None)).all()


def test_every_weight_is_learnt_once_and_hidden_matrices_by_muon():
    sizes = {"strides": (3, 3), "layers": 1, "channels": 64, "hidden": 128, "heads": 2}
    recipe = AnyCameraRecipe(Namespace(lr=1e-3), None)
    recipe.model = net = models.create("strided_transformer", **sizes)
    adamw, muon = ({id(p) for group in o.param_groups for p in group["params"]} for o in recipe.make_optimizers())
    names = {id(p): name for name, p in net.named_parameters() if p.requires_grad}
    assert adamw | muon == names.keys() and not adamw & muon
    found = {names[i] for i in muon}
    assert {"vanilla.0.attention.query.weight", "vanilla.0.conv.weight", "strided.1.attention.output.weight"} <= found
    assert all(net.get_parameter(name).shape in {(64, 64), (128, 64), (64, 128)} for name in found)
    recipe.model = models.create("strided_transformer", **sizes | {"channels": 16, "hidden": 16})
    assert len(recipe.make_optimizers()) == 1


def test_size_and_turn_count_less_than_the_pose():
    """Errors of 6 cm each: of the size of somebody, of where they face, and of their pose."""
    poses = torch.from_numpy(np.stack([clip.positions[20] for clip in load_starter().test])).float()
    poses[:, 0] = 0
    angle = torch.tensor(0.1)
    turn = torch.stack((angle.cos(), torch.zeros(()), angle.sin(), torch.zeros(())))  # about the y axis
    bent = poses.clone()
    bent[:, [3, 6, 13, 16], 2] += 0.1
    large, turned, bent = (
        (torch.lerp(poses, other, 0.06 / mpjpe(other, poses)), poses)
        for other in (1.2 * poses, rotate(poses, turn), bent)
    )
    assert all(float(mpjpe(*pair)) == pytest.approx(0.06, rel=1e-3) for pair in (large, turned, bent))
    assert float(error(*large)) == pytest.approx(0.1 * 0.06, rel=0.01)
    assert 0.4 * 0.06 < error(*turned) < 0.6 * 0.06
    assert error(*bent) > 0.7 * 0.06


def test_recipe_goes_on_from_weights(tmp_path):
    """A run that begins with weights and learns nothing (a rate of almost 0) ends with them."""
    path = tmp_path / "begin.safetensors"
    sizes = {"strides": [3, 3], "layers": 1, "channels": 16, "hidden": 16, "heads": 2}
    net = models.create("strided_transformer", **sizes)
    save_weights(net, path, About("strided_transformer", sizes, sees="person"))
    options = ["--strides", "3", "3", "--channels", "16", "--hidden", "16", "--heads", "2", "-e", "1", "--steps", "1"]
    options += ["-b", "4", "-a", "Walk", "-lr", "1e-12", "--start-from", str(path)]
    assert h36m.main(["--model", "any_camera", *options, "--layers", "1", "--out", str(tmp_path / "run")]) == 0
    found = load_lifter(None, tmp_path / "run" / "last.pt").net.state_dict()
    torch.testing.assert_close(found["embed.weight"], net.state_dict()["embed.weight"])
    with pytest.raises(ValueError, match="--start-from .*begin.safetensors: of another size"):
        h36m.main(["--model", "any_camera", *options, "--layers", "2", "--out", str(tmp_path / "other")])


def test_forecaster_trains(tmp_path, capsys):
    sizes = ["--past", "5", "--future", "5", "--blocks", "2", "--distill-blocks", "1"]
    out = tmp_path / "run"
    assert any_motion.main([*sizes, "-e", "2", "--steps", "3", "-b", "8", "--out", str(out)]) == 0
    assert "standing still" in capsys.readouterr().out
    assert any_motion.main([*sizes, "--evaluate", str(out / "best.pt")]) == 0


def test_forecaster_learns_from_straight_knees_and_is_tested_as_captured(starter, recordings):
    data = any_motion.JOB.load(Namespace(data_root=None, motion=None))
    captured, learnt = (np.quantile(knee_angles(np.concatenate(found)), 0.97) for found in (recordings, data.train))
    assert learnt > captured + 1.5
    for tested, raw in zip(data.test, motions(starter.test), strict=True):
        np.testing.assert_allclose(knee_angles(tested), knee_angles(raw), atol=0.1)


def test_free_motion_trains_both_and_some_of_it_is_held_out(tmp_path, starter, recordings, capsys):
    """A folder as ``train.data.open_motion`` writes it, with a subject to learn from and one to measure on."""
    long = sorted(recordings, key=len)[-4:]
    clips = [
        open_motion.Clip(f"clip{n}", subject, "walking", open_motion.centred(motion), 50.0)
        for n, (motion, subject) in enumerate(zip(long, ("CMU69", "CMU69", "CMU69", "CMU01")))
    ]
    open_motion.write(tmp_path / "motion", "cmu_69", clips)
    free = ["--motion", str(tmp_path / "motion"), "-e", "1", "--steps", "2", "-b", "8"]
    sizes = ["--strides", "3", "3", "--channels", "16", "--hidden", "16", "--heads", "2", "--layers", "1"]
    assert h36m.main(["--model", "any_camera", *sizes, *free, "-a", "Walk", "--out", str(tmp_path / "lifter")]) == 0
    assert "held-out" in capsys.readouterr().out
    small = ["--past", "5", "--future", "5", "--blocks", "2", "--out", str(tmp_path / "forecaster")]
    assert any_motion.main([*free, *small]) == 0
    said = capsys.readouterr().out
    assert f"{len(recordings) + 3} recordings" in said and "open motion" in said


def test_path_and_back(recordings):
    world = torch.from_numpy(recordings[0][:20].copy())[None].double()
    motion = with_path(world, 9)
    assert motion[:, 9, 0].abs().max() == 0
    torch.testing.assert_close(without_path(motion, world[:, 9, 0]), world)
    past, future = Stretches(recordings, 5, 5, 16, 1, 1).batch(torch.Generator().manual_seed(0))
    assert past.shape == (16, 5, 17, 3) and future.shape == (16, 5, 17, 3)
    assert (future[:, 0, 0]).norm(dim=-1).max() < 0.4, "the path goes on where the past ends"


# -- the weights -----------------------------------------------------------------------------------------------------
def test_our_lifter_on_held_out_motion(starter):
    """Far from any published figure's data: a bound that broken weights or a broken pipeline would miss by far."""
    clip = next(c for c in starter.test if "walk" in c.action.lower())
    pixels = (clip.keypoints[::4] + 1) * 500
    target = clip.positions[::4].copy()
    target[:, 0] = 0
    lifter = load_lifter()
    focal = float(clip.intrinsics[0]) * 500
    poses = lifter(pixels.astype(np.float32), (1000, 1000), focal)
    error = float(p_mpjpe(torch.from_numpy(poses), torch.from_numpy(target))) * 1000
    assert error < 70, f"{error:.0f} mm"


def test_our_forecaster_beats_standing_still(starter):
    net = models.load("forecaster")
    worlds = [m[:: int(50 / net.about.fps)][: net.history + 10] for m in motions(starter.test)]
    worlds = np.stack([m for m in worlds if len(m) == net.history + 10])
    motion = with_path(torch.from_numpy(worlds).float(), net.history - 1)
    past, future = motion[:, : net.history], motion[:, net.history :]
    with torch.no_grad():
        found = net(past)[:, :10]
    still = (past[:, -1:] - future).norm(dim=-1).mean()
    assert (found - future).norm(dim=-1).mean() < 0.8 * still


@pytest.mark.parametrize("what", SHIPPED)
def test_our_weights_are_small_and_say_what_they_are(what):
    net = models.load(what)
    assert sum(p.numel() for p in net.parameters()) < 3_000_000 and net.about.made and not net.training


def standing() -> np.ndarray:
    """[17, 3] metres, z up: somebody who stands straight, arms down, with bones as detectors see them."""
    bones, points = ADULT.numpy(), np.zeros((17, 3))
    for (hip, knee, ankle), side in (((1, 2, 3), 1), ((4, 5, 6), -1)):
        points[hip] = side * bones[hip], 0, 0
        points[knee] = points[hip] - (0, 0, bones[knee])
        points[ankle] = points[knee] - (0, 0, bones[ankle])
    points[8] = 0, 0, bones[7] + bones[8]
    points[7], points[10] = points[8] / 2, points[8] + (0, 0, bones[9])
    for (shoulder, elbow, wrist), side in (((11, 12, 13), -1), ((14, 15, 16), 1)):
        points[shoulder] = points[8] + (side * bones[shoulder], 0, 0)
        points[elbow] = points[shoulder] - (0, 0, bones[elbow])
        points[wrist] = points[elbow] - (0, 0, bones[wrist])
    return with_head(torch.from_numpy(points), points[8, 2]).numpy()


def test_who_stands_straight_is_lifted_straight():
    """From all around, by a level camera and one that looks down. Lifters repeat how training's people stand."""
    lifter, body = load_lifter(), standing()
    for pitch in (0.0, 0.25):
        knees, off = [], []
        for yaw in 0.2 + np.arange(8) * np.pi / 4:
            turn = looking(*(torch.tensor([angle], dtype=torch.float32) for angle in (yaw, pitch, 0.0)))[0].numpy()
            seen = body @ turn.T + (0, 0, 4)
            pixels = seen[:, :2] / seen[:, 2:] * 1200 + (640, 360)
            track = Track(1, np.repeat(pixels[None].astype(np.float32), 30, 0), np.full((30, 17), 0.9, np.float32))
            person = lift_person(lifter, track, bridge=15, smooth=15, size=(1280, 720), focal=1200.0, fps=30.0)
            pose = torch.from_numpy(person.poses[15].astype(np.float64))
            knees += knee_angles(pose).tolist()
            off.append(1000 * float(p_mpjpe(pose[None], torch.from_numpy(seen - seen[0])[None])))
        assert min(knees) > 160 and np.mean(knees) > 168, knees
        assert max(off) < 40, off
