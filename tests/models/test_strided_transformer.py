import pytest
import torch

from posekernels import models, use_backend
from posekernels.models.load import published_state
from posekernels.models.strided_refine import back_project


@pytest.mark.parametrize("frames, count", [(27, 4_014_438), (81, 4_069_734), (243, 4_235_622), (351, 4_346_214)])
def test_parameter_counts_are_the_published_ones(frames, count):
    net = models.create("strided_transformer", frames=frames)
    assert sum(p.numel() for p in net.parameters()) == count
    assert sum(p.numel() for p in models.create("strided_refine").parameters()) == 140_322


@pytest.mark.parametrize(
    "config, words",
    [
        ({"frames": 100}, ["frames=100", "27, 81, 243, 351", "strides"]),
        ({"frames": 26, "strides": (2, 13)}, ["odd", "26"]),
        ({"frames": 27, "heads": 7}, ["heads", "256", "7"]),
        ({"frames": 27, "strides": (0, 27)}, ["strides", "at least 1"]),
        ({"frames": 27, "layers": -1}, ["layers", "at least 0"]),
        ({"frames": 27, "joints": 0}, ["joints", "at least 1"]),
    ],
)
def test_bad_configurations_name_both_sides(config, words):
    with pytest.raises(ValueError) as error:
        models.create("strided_transformer", **config)
    assert all(word in str(error.value) for word in words)


def test_strides_alone_fix_the_frames():
    net = models.create("strided_transformer", strides=(3, 3, 3, 3), layers=1).eval()
    assert net.frames == 81
    assert net(torch.zeros(2, 81, 17, 2)).shape == (2, 1, 17, 3)


@pytest.mark.parametrize("strides, left", [((3, 3), 3), ((1, 2, 4, 5), 1), ((2, 1), 14), ((5,), 6)])
def test_strides_may_leave_more_than_one_frame(strides, left):
    torch.manual_seed(0)
    net = models.create("strided_transformer", frames=27, strides=strides, layers=1, channels=32, hidden=48).eval()
    x, found = torch.randn(2, 27, 17, 2), []
    for backend in ("reference", "auto"):
        with torch.no_grad(), use_backend(backend):
            found.append(net(x, full=True))
    assert found[0][0].shape == (2, left, 17, 3) and found[0][1].shape == (2, 27, 17, 3)
    for got, want in zip(found[1], found[0]):
        torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("shape", [(2, 26, 17, 2), (2, 27, 16, 2), (27, 17, 2), (2, 27, 17, 3)])
def test_bad_windows_name_both_sides(shape):
    net = models.create("strided_transformer", frames=27).eval()
    with pytest.raises(ValueError) as error:
        net(torch.zeros(shape))
    assert "27, 17, 2" in str(error.value) and str(list(shape)) in str(error.value)


def test_checkpoint_of_another_length_is_refused_whole():
    short = published_state(models.create("strided_transformer", frames=27))
    net = models.create("strided_transformer", frames=351)
    before = {n: t.clone() for n, t in net.state_dict().items()}
    with pytest.raises(models.CheckpointError) as error:
        models.load(short, net)
    assert "[1, 27, 256]" in str(error.value) and "[1, 351, 256]" in str(error.value)
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())


def test_a_published_checkpoint_survives_a_round_trip():
    state = published_state(models.create("strided_transformer", frames=27))
    assert len(state) == 125
    again = published_state(models.load(state, models.create("strided_transformer", frames=27)))
    assert again.keys() == state.keys() and all(torch.equal(again[n], state[n]) for n in state)


def test_blocks_start_as_copies_as_published():
    net = models.create("strided_transformer", frames=27)
    q = net.vanilla[0].attention.query.weight
    assert torch.equal(q, net.vanilla[2].attention.output.weight)
    assert torch.equal(net.strided[0].attention.query.weight, net.strided[2].attention.value.weight)
    assert not torch.equal(q, net.strided[0].attention.query.weight)
    assert not torch.equal(net.strided[0].conv.weight, net.strided[1].conv.weight)


def test_training_reaches_every_parameter_that_is_read():
    torch.manual_seed(0)
    net = models.create("strided_transformer", frames=9, strides=(3, 3), layers=1).train()
    single, full = net(torch.randn(3, 9, 17, 2), full=True)
    (single.square().mean() + full.square().mean()).backward()
    unread = {n for n, p in net.named_parameters() if p.grad is None}
    assert unread == {n for n, p in net.named_parameters() if not p.requires_grad}
    assert unread == {n for n in dict(net.named_parameters()) if n.startswith("unread")} | {"strided_positions.2"}


def test_dropout_follows_the_global_seed():
    net = models.create("strided_transformer", frames=9, strides=(9,), layers=1).train()
    x = torch.randn(2, 9, 17, 2)
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(net(x))
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


def test_refine_mixes_x_and_y_only():
    torch.manual_seed(0)
    refine = models.create("strided_refine").eval()
    x, y = torch.randn(4, 1, 17, 3), torch.randn(4, 1, 17, 3)
    out = refine(x, y)
    assert torch.equal(out[..., 2], x[..., 2])
    low, high = torch.minimum(x, y)[..., :2] - 1e-6, torch.maximum(x, y)[..., :2] + 1e-6
    assert ((out[..., :2] >= low) & (out[..., :2] <= high)).all()
    with pytest.raises(ValueError, match="back-projection"):
        refine(x, y[:, :, :16])


def test_back_projection_inverts_projection():
    torch.manual_seed(0)
    pose = torch.randn(3, 1, 17, 3) * 0.3
    pose[:, :, 0] = 0
    root = torch.tensor([0.2, -0.1, 4.0]).expand(3, 1, 3)
    camera = torch.tensor([2.3, 2.2, 0.02, -0.03]).expand(3, 4)
    points = pose + root[:, :, None]
    keypoints = points[..., :2] / points[..., 2:] * camera[:, None, None, :2] + camera[:, None, None, 2:]
    torch.testing.assert_close(back_project(pose, keypoints, camera, root), pose, atol=1e-5, rtol=0)
