import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses import FakeTensorMode

from posekernels.models import CheckpointError, create, load
from posekernels.models.diffpose import (
    Diffusion,
    FrameDiffPose,
    Sampling,
    VideoDiffPose,
    beta_schedule,
)
from posekernels.models.lifting import chunked, stitched
from posekernels.models.load import published_state
from posekernels.ops import denoise_loop, graph_transformer, transformer_block
from posekernels.pose.skeleton import H36M_17
from posekernels.prepared import repack


def small_denoiser():
    torch.manual_seed(0)
    net = create("gcndiff", channels=16, layers=2, heads=2).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter).abs())
    return net


def small_video():
    return VideoDiffPose(create("mixste", frames=9, channels=16, depth=2, heads=2).eval(), small_denoiser())


def test_the_fused_network_is_the_network():
    net = small_denoiser().eval()
    x = torch.randn(3, 17, 5)
    with torch.no_grad():
        for t in (torch.tensor([7, 7, 7]), torch.tensor([7, 2, 7]), torch.tensor([2.5, 2.5, 2.5])):
            want = net.layer_by_layer(x, net.time_embedding(t))
            torch.testing.assert_close(net(x, t), want, rtol=1e-4, atol=1e-5)
        assert torch.equal(net(x, t), graph_transformer(x, net.prepared(), net.time_shifts([2.5])[0]))
        assert net(x[:0], t[:0]).shape == (0, 17, 5)
        traced = torch.jit.trace(net, (x, torch.tensor([7, 7, 7])))
        torch.testing.assert_close(traced(x, t), net(x, t), rtol=1e-4, atol=1e-5)


def test_what_was_prepared_in_inference_mode_meets_gradients_later():
    net = create("gcndiff", layers=1).eval()
    x, coefficients = torch.randn(2, 17, 5), torch.rand(2, 5)

    def gradient():
        leaf = x.clone().requires_grad_()
        y = denoise_loop(leaf, net.prepared(), net.time_shifts([7, 3]), coefficients)
        return torch.autograd.grad(y.square().sum(), leaf)[0]

    with torch.inference_mode():
        net.prepared(), net.time_shifts([7, 3])
    got = gradient()
    repack(net)
    assert torch.equal(got, gradient())


def test_prepared_weights_follow_the_parameters():
    net = small_denoiser()
    before, shifts = net.prepared(), net.time_shifts([3])
    assert net.prepared() is before and net.time_shifts([3]) is shifts
    with torch.no_grad():
        net.attention[0].attention.key.weight.mul_(2)
        net.blocks[0].time.weight.mul_(2)
    assert not torch.equal(net.prepared().qkv_weight, before.qkv_weight)
    assert not torch.equal(net.time_shifts([3]), shifts)


def test_published_containers(tmp_path):
    net, ema = small_denoiser(), small_denoiser()
    with torch.no_grad():
        ema.conv_in.bias.add_(1)
    state = {f"module.{n}": t for n, t in published_state(net).items()}
    file = tmp_path / "ckpt.pth"
    torch.save([state, {"lr": 1e-3}, 3, 100, published_state(ema)], file)
    for source, want, options in ((file, net, {}), (file, ema, {"ema": True}), (state, net, {})):
        other = load(source, create("gcndiff", channels=16, layers=2, heads=2), **options)
        torch.testing.assert_close(other.state_dict(), want.state_dict())
    with pytest.raises(CheckpointError, match="list of 4"):
        load([state, {}, 3, 100], net, ema=True)


@pytest.mark.parametrize("frames, joints, channels, bias", [(5, 17, 16, True), (35, 4, 16, False), (3, 33, 260, True)])
def test_mixste_in_training_is_mixste(frames, joints, channels, bias):
    """Few tokens, many, and heads too wide for ``joint_attention``: results and gradients of the op's reference."""
    net = create("mixste", frames=frames, joints=joints, channels=channels, depth=1, heads=2, qkv_bias=bias).double()
    x = torch.randn(2, frames, joints, channels, dtype=torch.float64, requires_grad=True)
    for block, over_frames in ((net.spatial[0], False), (net.temporal[0], True)):
        got = block.train()(x, net.spatial_norm, over_frames=over_frames)
        groups = x.transpose(1, 2) if over_frames else x
        want = transformer_block(groups, *block.weights(net.spatial_norm), heads=2, eps=1e-6, backend="reference")
        want = want.transpose(1, 2) if over_frames else want
        leaves = [x, *block.parameters()]
        for a, b in zip(*(torch.autograd.grad(y.square().sum(), leaves) for y in (got, want)), strict=True):
            torch.testing.assert_close(a, b)


def test_mixste_file_with_a_numpy_random_state(tmp_path):
    net = create("mixste", frames=9, channels=16, depth=1, heads=2)
    state = {f"module.{n}": t for n, t in published_state(net).items()}
    file = tmp_path / "mixste.bin"
    torch.save({"epoch": 1, "lr": 1e-3, "random_state": np.random.RandomState(1), "model_pos": state}, file)
    other = load(file, create("mixste", frames=9, channels=16, depth=1, heads=2))
    torch.testing.assert_close(other.state_dict(), net.state_dict())
    longer = create("mixste", frames=27, channels=16, depth=1, heads=2)
    with pytest.raises(CheckpointError, match=r"create\('mixste', frames=9"):
        load(file, longer)


def test_swapped_checkpoints_are_told():
    for net, other in (("gcndiff", "gcnpose"), ("gcnpose", "gcndiff")):
        with pytest.raises(CheckpointError, match=f"it looks like a file for create\\('{other}'"):
            load(published_state(create(other)), create(net))


def test_gcnpose_keeps_the_tensors_nobody_reads():
    net = create("gcnpose", channels=16, layers=1, heads=2)
    unused = {"temb.dense.0.weight": torch.randn(64, 16), "temb.dense.0.bias": torch.randn(64)}
    load([published_state(net) | unused, {}, 0, 0], net)
    assert all(torch.equal(published_state(net)[name], tensor) for name, tensor in unused.items())


@given(n=st.integers(1, 40), frames=st.integers(1, 13))
def test_chunks_go_back_together(n, frames):
    clip = torch.arange(n * 6.0).view(n, 2, 3)
    chunks = chunked(clip, frames)
    assert chunks.shape == (-(-n // frames), frames, 2, 3)
    assert torch.equal(stitched(chunks, n), clip)


def test_mirror_is_its_own_inverse():
    x = torch.randn(3, 17, 2)
    assert torch.equal(H36M_17.mirror(H36M_17.mirror(x)), x)
    assert torch.equal(H36M_17.mirror(x)[:, 4, 0], -x[:, 1, 0])


def test_clip_of_any_length():
    net = small_video()
    for n in (1, 9, 20):
        pose = net.lift(torch.randn(n, 17, 2))
        assert pose.shape == (n, 17, 3) and (pose[:, 0] == 0).all() and pose.isfinite().all()


def test_starts_in_eval_mode():
    net = FrameDiffPose(
        create("gcnpose", channels=8, layers=1, heads=2), create("gcndiff", channels=8, layers=1, heads=2)
    )
    assert torch.equal(net(torch.ones(2, 17, 2)).xyz, net(torch.ones(2, 17, 2)).xyz)
    assert not any(module.training for module in net.modules()) and net.train().initial.training


def test_under_autocast_and_out_of_it_again():
    net, clip = small_video(), torch.randn(11, 17, 2) * 0.3
    with torch.autocast("cpu", torch.bfloat16):
        rough = net.lift(clip)
    fine = net.lift(clip)
    assert (rough.float() - fine).norm() < 3e-2 * fine.norm()


def test_buffers_keep_their_dtype_wherever_they_are_moved():
    for net in (Diffusion(), create("gcndiff", channels=16, layers=1, heads=2)):
        want = {
            name: buffer.clone()
            for name, buffer in net.named_buffers()
            if name in ("alpha_bar", "time_embedding.frequencies")
        }
        assert want
        net.half()
        assert all(torch.equal(net.get_buffer(name), buffer) for name, buffer in want.items())
        net.to("meta").double().to_empty(device="cpu")
        assert all(net.get_buffer(name).dtype == torch.float32 for name in want)


def test_pieces_change_nothing(monkeypatch):
    net, clip = small_video(), torch.randn(47, 17, 2) * 0.3
    want, called = net.lift(clip), []
    monkeypatch.setattr("posekernels.models.lifting.CHUNK_FRAMES", 20)
    net.initial.register_forward_hook(lambda _, given, __: called.append(len(given[0])))
    torch.testing.assert_close(net.lift(clip), want)
    assert called == [2] * 6  # six chunks of nine frames, and their mirror images


@pytest.mark.parametrize("dtype, bound", [(torch.float64, 1e-5), (torch.bfloat16, 3e-2)])
def test_in_other_dtypes(dtype, bound):
    net, clip = small_video(), torch.randn(11, 17, 2) * 0.3
    net.sampling = Sampling(3, 12)
    want, times = net.lift(clip), net.denoiser.time_shifts([7, 50])
    net.to(dtype)
    got = net.lift(clip.to(dtype))
    assert got.dtype == dtype and (got.double() - want).norm() < bound * want.norm()
    assert (net.denoiser.time_shifts([7, 50]).double() - times).norm() < bound / 3 * times.norm()
    t = torch.tensor([0, 50])
    noisy = net.diffusion.add_noise(torch.zeros(2, 17, 5, dtype=dtype), torch.ones(2, 17, 5, dtype=dtype), t)
    torch.testing.assert_close(noisy[:, 0, 0].double(), torch.tensor([0.01, 0.16634]).double(), rtol=5e-3, atol=0)


def test_mirrored_input_gives_mirrored_estimate():
    net = small_video()
    chunks = torch.randn(2, 9, 17, 2)
    with torch.no_grad():
        torch.testing.assert_close(net.estimate(H36M_17.mirror(chunks)), H36M_17.mirror(net.estimate(chunks)))


def test_hypotheses():
    net = FrameDiffPose(create("gcnpose", channels=16, layers=1, heads=2).eval(), small_denoiser())
    uv = torch.randn(4, 17, 2)
    same = net(uv, Sampling(steps=2, limit=12, hypotheses=3))
    torch.testing.assert_close(same.hypotheses[0], same.hypotheses[2])
    noisy = Sampling(steps=2, limit=12, eta=1.0, hypotheses=3)
    noise = torch.randn(2, 12, 17, 5)
    drawn = net(uv, noisy, noise=noise)
    assert not torch.allclose(drawn.hypotheses[0], drawn.hypotheses[1])
    torch.testing.assert_close(drawn.xyz, drawn.hypotheses.mean(0))
    with pytest.raises(ValueError, match="seed or noise"):
        net(uv, noisy)


def test_ddim_undoes_the_noise_it_is_told():
    """With the true noise as prediction, every step of the chain lands on the forward process at its timestep."""
    diffusion = Diffusion()
    x, e = torch.randn(2, 17, 5), torch.randn(2, 17, 5)
    timesteps, coefficients = diffusion.coefficients(Sampling(steps=5, limit=50))
    assert timesteps == [40, 30, 20, 10, 0]
    state = diffusion.add_noise(x, e, torch.tensor([40, 40]))
    for t, c in zip([*timesteps[1:], None], coefficients):
        torch.testing.assert_close(c[0] * state + c[1] * e, x, rtol=1e-4, atol=1e-5)
        state = c[2] * state + c[3] * e
        want = x if t is None else diffusion.add_noise(x, e, torch.tensor([t, t]))
        torch.testing.assert_close(state, want, rtol=1e-4, atol=1e-5)


def test_quadratic_timesteps_are_numpys():
    """The published program squares NumPy's points; truncated, torch's differ in 88 of these."""
    for limit in range(1, 120):
        for steps in range(1, limit + 1):
            want = [int(s) for s in np.linspace(0, np.sqrt(limit * 0.8), steps) ** 2]
            assert Sampling(steps, limit, "quad").sequence == want


def test_pure_noise_has_no_pose_in_it():
    Diffusion("jsd").coefficients(Sampling(50, 50))
    with pytest.raises(ValueError, match="timestep 50 leaves nothing"):
        Diffusion("jsd").coefficients(Sampling(51, 51))


def test_more_noise_than_ddpm():
    """Only as long as a timestep can hold it: the coefficients are numbers, or the request is refused."""
    assert Diffusion().coefficients(Sampling(steps=50, limit=50, eta=1.2))[1].isfinite().all()
    for schedule in ("linear", "quad", "const", "sigmoid"):
        assert Diffusion(schedule).coefficients(Sampling(steps=50, limit=50, eta=1.0))[1].isfinite().all()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: Sampling(eta=float("nan")), "eta must be"),
        (lambda: Sampling(eta=-0.1), "eta must be"),
        (lambda: Diffusion().coefficients(Sampling(steps=50, limit=50, eta=1.5)), "eta=1.5 asks for more noise"),
        (lambda: Sampling(steps=7, limit=6), "at most limit=6"),
        (lambda: Sampling(skip="quadratic"), "did you mean 'quad'"),
        (lambda: Diffusion().coefficients(Sampling(steps=2, limit=52)), r"0\.\.50 .*got 51"),
        (lambda: beta_schedule("linaer"), "did you mean 'linear'"),
        (lambda: beta_schedule("linear", 0.5, 1.5), r"\(0, 1\]"),
        (lambda: chunked(torch.zeros(0, 17, 2), 9), "at least one frame"),
        (lambda: small_video()(torch.zeros(1, 5, 17, 2)), "built for 9 frames"),
        (lambda: create("gcndiff", channels=10, heads=4), "multiple of heads=4"),
        (lambda: small_denoiser()(torch.zeros(2, 17, 3), torch.zeros(2)), r"\[B, 17, 5\]"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_gcndiff_asks_stand_ins_for_no_values():
    net, t = create("gcndiff", channels=8, layers=1).eval(), torch.full((3,), 4)
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert net(mode.from_tensor(torch.zeros(3, 17, 5)), mode.from_tensor(t)).shape == (3, 17, 5)
