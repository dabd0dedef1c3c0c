import pytest
import torch

from posekernels import models
from posekernels.models.lifting import windows


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return models.create("strided_transformer", frames=9, strides=(3, 3), layers=1).eval()


@pytest.fixture(scope="module")
def clip():
    return torch.randn(14, 17, 2, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def offline(net, clip, frame, upto):
    """The pose of ``frame`` when the video ends at ``upto``, through the plain forward pass."""
    pose = net(windows(clip[:upto], net.frames)[frame][None])[0, 0]
    pose[0] = 0
    return pose


@pytest.mark.parametrize("causal", [False, True])
def test_windows_lie_where_the_network_answers(clip, causal):
    torch.manual_seed(0)
    net = models.create("rie", filter_widths=(3, 3), latent=4, channels=6, causal=causal).eval()
    before = 8 if causal else 4
    padded = torch.cat((clip[:1].expand(before, -1, -1), clip, clip[-1:].expand(8 - before, -1, -1)))
    with torch.no_grad():
        want = net(padded.unfold(0, 9, 1).permute(0, 3, 1, 2))[:, 0]
    want[:, 0] = 0
    torch.testing.assert_close(models.lift(net, clip, mirrored=False), want, atol=1e-5, rtol=0)
    stream = models.stream(net)
    assert stream.latency == 8 - before
    poses = [stream.push(frame) for frame in clip]
    poses = torch.stack([p for p in poses if p is not None] + stream.finish())
    torch.testing.assert_close(poses, want, atol=1e-5, rtol=0)


@pytest.mark.parametrize("latency", [0, 1, 4])
def test_stream_equals_offline(net, clip, latency):
    stream = models.stream(net, latency)
    poses = [stream.push(frame) for frame in clip]
    assert poses[:latency] == [None] * latency
    poses = poses[latency:] + stream.finish()
    assert len(poses) == len(clip)
    for frame, pose in enumerate(poses):
        torch.testing.assert_close(
            pose, offline(net, clip, frame, min(frame + latency + 1, len(clip))), atol=1e-5, rtol=0
        )


def test_full_latency_equals_lift(net, clip):
    for mirrored in (False, True):
        stream = models.stream(net, mirrored=mirrored)
        poses = [stream.push(frame) for frame in clip]
        poses = torch.stack([p for p in poses if p is not None] + stream.finish())
        torch.testing.assert_close(poses, models.lift(net, clip, mirrored=mirrored), atol=1e-5, rtol=0)


def test_people_side_by_side(net, clip):
    both = torch.stack((clip, clip.flip(0)), 1)
    stream, alone = models.stream(net, 2), models.stream(net, 2)
    for frame in both:
        pose, single = stream.push(frame), alone.push(frame[0])
        assert (pose is None) == (single is None)
        if pose is not None:
            torch.testing.assert_close(pose[0], single, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="held 2 people, this one holds 3"):
        stream.push(torch.zeros(3, 17, 2))


def test_a_short_video_and_the_next(net, clip):
    stream = models.stream(net)
    for length in (1, 3):
        assert all(stream.push(frame) is None for frame in clip[:length])
        poses = torch.stack(stream.finish())
        torch.testing.assert_close(poses, models.lift(net, clip[:length], mirrored=False), atol=1e-5, rtol=0)


def test_bad_requests(net):
    with pytest.raises(ValueError, match="latency must be 0 to 4"):
        models.stream(net, 5)
    for other in ("htnet", "mixste"):
        with pytest.raises(TypeError, match="stream: .* is not a network of windows"):
            models.stream(models.create(other).eval())
    with pytest.raises(TypeError, match="lift: GCNdiff is not a network that lifts"):
        models.lift(models.create("gcndiff").eval(), torch.zeros(9, 17, 2))
    for run in (models.lift, lambda net, _: models.stream(net)):
        with pytest.raises(ValueError, match=r"27 to 3 frames, not to 1 \(27 -> 9 -> 3\)"):
            run(models.create("strided_transformer", frames=27, strides=(3, 3), layers=1).eval(), torch.zeros(9, 17, 2))
    with pytest.raises(ValueError, match=r"net.eval\(\)"):
        models.stream(models.create("strided_transformer", frames=9, strides=(9,)))
    with pytest.raises(ValueError, match=r"\[J, 2\]"):
        models.stream(net).push(torch.zeros(17, 3))
    with pytest.raises(ValueError, match="keypoints must be"):
        models.lift(net, torch.zeros(0, 17, 2))


def test_other_joints(net, clip):
    """As many as the network has, mirrored where left and right are known."""
    for run in (models.lift, lambda n, c: models.stream(n).push(c[0])):
        with pytest.raises(ValueError, match="must have 17 joints, got 16"):
            run(net, clip[:, :16])
    config = {"frames": 9, "strides": (9,), "layers": 1, "channels": 8}
    fifteen = models.create("strided_transformer", joints=15, out_joints=15, **config).eval()
    assert models.lift(fifteen, clip[:, :15]).shape == (14, 15, 3)
    other = models.create("strided_transformer", joints=16, out_joints=15, **config).eval()
    assert models.lift(other, clip[:, :16], mirrored=False).shape == (14, 15, 3)
    with pytest.raises(ValueError, match="pass mirrored=False"):
        models.lift(other, clip[:, :16])
