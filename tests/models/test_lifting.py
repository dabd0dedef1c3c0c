"""The contract of everything that lifts: a pose for every frame of a clip of any length, mirroring around it."""

import warnings

import numpy as np
import pytest
import torch

from posekernels import models
from posekernels.models.diffpose import DiffPose, FrameDiffPose, Sampling, VideoDiffPose
from posekernels.models.lifting import Lifts, pace, window_rows
from posekernels.models.ws_anl import WsAnl
from posekernels.pose.camera import normalise_screen
from posekernels.pose.keypoints import STANDING, centre_on_person
from posekernels.pose.skeleton import H36M_17, HUMANEVA_15

SMALL = {
    "gcnpose": {"channels": 8, "layers": 1, "heads": 2},
    "htnet": {"depth": 1, "channels": 24, "hidden": 8},
    "mgcn_lw": {"hidden": 8, "depth": 1},
    "mixste": {"frames": 5, "channels": 8, "depth": 1, "heads": 2},
    "rie": {"filter_widths": (3, 3), "latent": 4, "channels": 6},
    "strided_transformer": {"frames": 9, "strides": (3, 3), "layers": 1, "channels": 8, "hidden": 8},
}
SYSTEMS = {
    "ws_anl": {"sizes": SMALL["htnet"], "variance_sizes": {"hidden": 8, "depth": 1}},
    "diffpose video": {"setting": "video", "initial": SMALL["mixste"], "denoiser": SMALL["gcnpose"]},
    "diffpose frame": {"setting": "frame", "initial": SMALL["gcnpose"], "denoiser": SMALL["gcnpose"]},
}


def made(name: str) -> Lifts:
    torch.manual_seed(0)
    return models.create(name.partition(" ")[0], **(SMALL | SYSTEMS)[name]).eval()


def one_by_one(net: Lifts, clip: torch.Tensor) -> torch.Tensor:
    """Every frame of [T, J, 2] through a call of its own, by the plain ``forward``."""
    if isinstance(net, WsAnl):
        return torch.cat([net.single(frame[None]) for frame in clip])
    if isinstance(net, FrameDiffPose):
        return torch.cat([net(frame[None]).xyz for frame in clip])
    if net.frames == 1:
        return torch.cat([net(f[None] if net.created[0] == "gcnpose" else f[None, None]).view(1, 17, 3) for f in clip])
    if net.target is not None:
        rows = window_rows(len(clip), net.frames, net.target)
        return torch.cat([net(clip[row][None])[:, 0] for row in rows])
    found = []
    for start in range(0, len(clip), net.frames):
        first = max(min(start, len(clip) - net.frames), 0)
        frames = torch.arange(first, first + net.frames).clamp(max=len(clip) - 1)
        poses = net(clip[frames][None])
        found.append((poses.xyz if isinstance(net, VideoDiffPose) else poses)[0, start - first : len(clip) - first])
    return torch.cat(found)


@pytest.mark.parametrize("frames", [1, 5, 13])
@pytest.mark.parametrize("name", [*SMALL, *SYSTEMS])
def test_a_pose_for_every_frame(name, frames):
    net, clips = made(name), 0.3 * torch.randn(2, frames, 17, 2)
    poses = net.lift(clips)
    assert poses.shape == (2, frames, 17, 3)
    with torch.no_grad():
        for clip, pose in zip(clips, poses):
            torch.testing.assert_close(pose, one_by_one(net, clip), rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(pose, net.lift(clip), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [*SMALL, *SYSTEMS])
def test_mirrored_and_averaged_once_around_it(name):
    net, clip = made(name), 0.3 * torch.randn(7, 17, 2)
    want = net.lift(clip)
    if not net.mirrors:
        want = (want + H36M_17.mirror(net.lift(H36M_17.mirror(clip)))) / 2
    want[:, 0] = 0
    found = models.lift(net, clip)
    torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-5)
    if not isinstance(net, DiffPose):  # whose refinement has a left and a right
        torch.testing.assert_close(models.lift(net, H36M_17.mirror(clip)), H36M_17.mirror(found), rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match=r"net.eval\(\)"):
        net.train().lift(clip)


def test_every_network_says_whether_it_lifts():
    lifts = {name for name in models.names() if isinstance(models.create(name), Lifts)}
    assert lifts == set(SMALL) and {name.partition(" ")[0] for name in SYSTEMS} == set(models.systems())
    for name in (*SMALL, *SYSTEMS):
        net = made(name)
        assert net.takes(H36M_17) and not net.takes(HUMANEVA_15) and net.sees == "screen" and net.frames >= 1
    assert not models.create("mgcn_lw", outputs=1).takes(H36M_17)
    assert not models.create("mixste", in_channels=3).takes(H36M_17)


@pytest.mark.parametrize("name", [*SMALL, *SYSTEMS])
@pytest.mark.parametrize("shape", [(0, 17, 2), (17, 2), (4, 17, 3), (4, 16, 2)])
def test_other_shapes_are_refused(name, shape):
    net = made(name)
    for lift in (net.lift, lambda keypoints: models.lift(net, keypoints)):
        with pytest.raises(ValueError, match="lift: keypoints must"):
            lift(torch.zeros(shape))
    assert net.lift(torch.zeros(0, 4, 17, 2)).shape == (0, 4, 17, 3)


def test_diffpose_lifts_with_its_own_sampling_and_noise():
    net, clip = made("diffpose video"), 0.3 * torch.randn(30, 17, 2)
    still = net.lift(clip)
    net.sampling, net.seed = Sampling(2, 12, eta=1.0, hypotheses=2), 3
    noisy = net.lift(clip)
    assert torch.equal(noisy, net.lift(clip)) and not torch.allclose(noisy, still)
    net.seed = 4
    assert not torch.equal(noisy, net.lift(clip))


def test_windows_of_every_nth_frame_are_those_of_the_clips_between():
    torch.manual_seed(0)
    net = models.create("strided_transformer", strides=(3, 3), layers=1, channels=16, hidden=16, heads=2).eval()
    clips = torch.randn(2, 11, 17, 2)
    for mirrored in (True, False):
        found = models.lift(net, clips, mirrored=mirrored, apart=3)
        for first in range(3):
            alone = models.lift(net, clips[:, first::3], mirrored=mirrored)
            torch.testing.assert_close(found[:, first::3], alone, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(models.lift(net, clips[0], mirrored=mirrored, apart=3), found[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(models.lift(net, clips[:, :2], apart=5), models.lift(net, clips[:, :2], apart=2))
    with pytest.raises(ValueError, match="lift: apart must be an integer of at least 1, got 0"):
        models.lift(net, clips, apart=0)
    with pytest.raises(TypeError, match="lift: apart must be an integer, got 2.5"):
        models.lift(net, clips, apart=2.5)
    torch.testing.assert_close(models.lift(net, clips, apart=np.int64(2)), models.lift(net, clips, apart=2))


@pytest.mark.parametrize(
    ("sees", "strides", "fps", "wanted"),
    [
        ("person", (3, 3), 25, (1, 1)),
        ("person", (3, 3), 30, (1, 2)),
        ("person", (3, 3), 60, (1, 3)),
        ("person", (3, 3), 5, (4, 1)),
        ("person", (3, 3, 3), 25, (2, 1)),
        ("person", (3, 3, 3), 240, (1, 5)),
        ("person", (3, 9, 9), 50, (1, 1)),
        ("screen", (3, 3), 240, (1, 1)),
        ("screen", (3, 3), 10, (5, 1)),
    ],
)
def test_pace_of_a_video(sees, strides, fps, wanted):
    net = models.create("strided_transformer", strides=strides, layers=1, channels=16, hidden=16, heads=2)
    net.sees = sees
    assert pace(net, fps) == wanted
    assert pace(models.create("htnet"), fps) == (1, 1)


PIXELS = 100 * STANDING + torch.tensor([700.0, 400]) + torch.arange(9.0)[:, None, None]  # someone walks, [9, 17, 2]
PERSON, SCREEN = centre_on_person(PIXELS)[0], normalise_screen(PIXELS, 1280, 720)
AWAY = torch.arange(9)[:, None, None] == 4  # in a frame nobody is there


def windows_that_see(what: str) -> Lifts:
    net = made("strided_transformer")
    net.sees = what
    return net


@pytest.mark.parametrize(
    ("sees", "keypoints"),
    [
        ("person", PIXELS),
        ("person", SCREEN),
        ("person", PIXELS - PIXELS[:, :1]),
        ("person", PERSON + 0.1),
        ("person", PERSON.expand(2, -1, -1, -1) * 9),
        ("screen", PIXELS),
        ("screen", PIXELS.expand(2, -1, -1, -1)),
        ("person", PIXELS.masked_fill(AWAY, torch.nan)),
        ("screen", PIXELS.masked_fill(AWAY, torch.nan)),
    ],
)
def test_keypoints_that_cannot_be_what_a_network_sees_are_refused(sees, keypoints):
    net = windows_that_see(sees)
    wanted = "centre_on_person" if sees == "person" else "normalise_screen"
    for call in (net.lift, lambda k: models.lift(net, k), lambda k: models.lift(net, k.numpy())):
        with pytest.raises(ValueError, match=rf"lift: this network sees .*{wanted}\("):
            call(keypoints)
    stream = models.stream(net)
    with pytest.raises(ValueError, match=rf"stream: this network sees .*{wanted}\("):
        stream.push(keypoints[..., 0, :, :])


@pytest.mark.parametrize(
    ("sees", "keypoints"),
    [
        ("person", PERSON),
        ("person", PERSON[:1]),
        ("person", torch.zeros(9, 17, 2)),  # nobody was found
        ("person", PERSON.masked_fill(AWAY, torch.nan)),
        ("screen", SCREEN.masked_fill(AWAY, torch.nan)),
        ("screen", torch.full((9, 17, 2), torch.nan)),
        ("screen", SCREEN),
        ("screen", 2 * SCREEN),  # partly outside the image
        ("screen", torch.zeros(9, 17, 2)),
        ("screen", SCREEN[:1] - SCREEN[:1, :1]),  # in the middle of one image
    ],
)
def test_keypoints_that_a_network_sees_pass_without_a_word(sees, keypoints):
    net = windows_that_see(sees)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        poses = models.lift(net, keypoints)
        models.stream(net).push(keypoints[0])
    assert poses.shape == (len(keypoints), 17, 3)


@pytest.mark.parametrize("name", ["htnet", "rie", "strided_transformer", "mixste"])
def test_keypoints_of_another_dtype_are_refused_by_name(name):
    net = made(name)
    with pytest.raises(TypeError, match="lift: keypoints must be float32 as the weights, got float64"):
        models.lift(net, SCREEN.double())
    if net.target is not None:
        with pytest.raises(TypeError, match="stream: keypoints must be float32 as the weights, got float16"):
            models.stream(net).push(SCREEN[0].half())


def test_a_person_for_a_network_that_sees_the_screen_is_warned_of():
    net = windows_that_see("screen")
    with pytest.warns(UserWarning, match=r"joint 0 is at 0 in every frame.*normalise_screen\(") as told:
        models.lift(net, PERSON)
    assert len(told) == 1 and told[0].filename == __file__


def test_arrays_come_back_as_arrays():
    net = windows_that_see("person")
    want = models.lift(net, PERSON).numpy()
    for keypoints in (PERSON.numpy(), PERSON.flip(0).double().numpy()[::-1]):
        found = models.lift(net, keypoints)
        assert isinstance(found, np.ndarray) and found.dtype == np.float32
        np.testing.assert_array_equal(found, want)
    for call in (net.lift, models.stream(net).push):
        with pytest.raises(TypeError, match="keypoints must be a torch.Tensor, got numpy.ndarray"):
            call(PERSON.numpy())
    with pytest.raises(TypeError, match="lift: keypoints must be a torch.Tensor, got builtins.list"):
        models.lift(net, PERSON.tolist())
