"""``joint_attention`` and the ops over hypotheses in CUDA C++: emulated thread by thread, and as they are on a GPU."""

import pytest
import torch

from posekernels.pose.skeleton import H36M_16, H36M_17
from posekernels.testing import assert_within_budget, guarded
from tests.cuda_emulation import compare, cuda_device, draw, exact, modules

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
device = cuda_device("joint_attention")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    "B,N,H,D",
    [(5, 17, 8, 10), (3, 17, 5, 24), (1, 1, 1, 1), (5, 16, 3, 33), (9, 32, 1, 8), (2, 31, 2, 5), (33, 4, 2, 7)],
)
def test_joint_attention(device, dtype, masked, B, N, H, D):
    cuda, reference = modules("joint_attention")
    q, k, v, grad = (draw(B, N, H, D, seed=i, dtype=dtype, device=device) for i in range(4))
    mask = (draw(B, N, N, seed=5, device=device) > -0.3) if masked else None
    if masked:
        mask[:, 0] = False  # a query that may attend to nothing
    # Aligned, between NaN, and with strides: loads of four numbers, of two, and one by one.
    for wrap in (torch.clone, guarded, lambda t: guarded(t, strided=True)):
        given = [wrap(t) for t in (q, k, v)]
        assert_within_budget(
            cuda.joint_attention(*given, mask, 0.3), reference.joint_attention(*exact(q, k, v), mask, 0.3)
        )
        got = cuda.joint_attention_backward(grad, *given, mask, 0.3)
        compare(got, reference.joint_attention_backward(*exact(grad, q, k, v), mask, 0.3), "gradient")


def test_joint_attention_keeps_nan_in_its_head_and_takes_views(device):
    cuda, reference = modules("joint_attention")
    qkv = draw(4, 17, 3 * 8 * 10, device=device)
    q, k, v = qkv.unflatten(-1, (3, 8, 10)).unbind(-3)
    assert_within_budget(
        cuda.joint_attention(q, k, v, None, 0.5), reference.joint_attention(*exact(q, k, v), None, 0.5)
    )
    assert cuda.joint_attention(q[:0], k[:0], v[:0], None, 0.5).shape == (0, 17, 8, 10)
    qkv[2, 3, 80 + 14] = torch.nan  # a key of head 1
    y = cuda.joint_attention(q, k, v, None, 0.5)
    assert y[2, :, 1].isnan().all() and y.isnan().sum() == 17 * 10


@pytest.mark.parametrize("of", ["query", "key"])
def test_joint_attention_passes_nan_to_no_key_that_is_masked(device, of):
    cuda, reference = modules("joint_attention")
    q, k, v, grad = (draw(2, 17, 2, 10, seed=i, device=device) for i in range(4))
    mask = draw(2, 17, 17, seed=5, device=device) > 0
    if of == "query":
        q[1, 3, 0, 2] = torch.nan
    else:  # which no query sees, nor the 7 rows of a tile that are none
        k[1, 3, 0, 2], mask[1, :, 3] = torch.nan, False
    got = cuda.joint_attention_backward(grad, q, k, v, mask, 0.3)
    want = reference.joint_attention_backward(*exact(grad, q, k, v), mask, 0.3)
    assert [torch.equal(g.isnan(), w.isnan()) for g, w in zip(got, want)] == [True] * 3


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "B,S,V,J", [(2, 30, 2, 17), (3, 7, 1, 17), (1, 1, 1, 1), (2, 0, 2, 17), (1, 3, 2, 150), (4, 3, 2, 13)]
)
def test_sample_hypotheses(device, dtype, B, S, V, J):
    cuda, reference = modules("sample_hypotheses")
    x, sigma = (draw(*shape, seed=i, dtype=dtype, device=device) for i, shape in enumerate(((B, V, J, 2), (B, V, J))))
    if S:
        sigma[-1, 0, 0] = torch.nan
    options = (S, 0.5, -3, 2**32 - 1, 5)
    want = reference.sample_hypotheses(*exact(x, 2 * sigma), *options)
    assert_within_budget(cuda.sample_hypotheses(guarded(x), guarded(2 * sigma, strided=True), *options), want)
    if dtype == torch.float32 and S:  # the normals themselves
        zero, one = torch.zeros_like(x), torch.ones_like(sigma)
        bare = (S, 1.0, *options[2:])
        difference = cuda.sample_hypotheses(zero, one, *bare) - reference.sample_hypotheses(*exact(zero, one), *bare)
        assert difference.abs().max() < 1e-6


def test_sample_hypotheses_of_a_large_batch(device):
    cuda, reference = modules("sample_hypotheses")
    x, sigma = draw(700, 1, 2, 2, device=device), torch.ones(700, 1, 2, device=device)
    options = (1500, 0.1, 2**62, 7, 0)  # threads take several samples each
    got, want = cuda.sample_hypotheses(x, sigma, *options), reference.sample_hypotheses(x, sigma, *options)
    assert (got - want).abs().max() < 2e-6


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("root", [0, 3, -1])
@pytest.mark.parametrize("N,views", [(0, 2), (1, 1), (7, 1), (31, 2)])
def test_merge_hypotheses(device, dtype, root, N, views):
    cuda, reference = modules("merge_hypotheses")
    for skeleton in (H36M_17, H36M_16):
        J, mirrored = skeleton.num_joints, list(skeleton.mirrored)
        poses, grad = (
            draw(N, views, J, 3, dtype=dtype, device=device),
            draw(N, J, 3, seed=1, dtype=dtype, device=device),
        )
        if N:
            poses[-1, 0, 3, 1] = grad[-1, 3, 2] = torch.nan
        for wrap in (torch.clone, guarded):
            got = cuda.merge_hypotheses(wrap(poses), mirrored, root)
            assert_within_budget(got, reference.merge_hypotheses(poses.double(), mirrored, root))
            got = cuda.merge_hypotheses_backward(wrap(grad), views, mirrored, root)
            assert_within_budget(got, reference.merge_hypotheses_backward(grad.double(), views, mirrored, root))


def test_merge_hypotheses_of_many_joints(device):
    cuda, reference = modules("merge_hypotheses")
    mirrored = list(range(60))[::-1]
    poses = draw(3, 2, 60, 3, device=device)
    assert_within_budget(
        cuda.merge_hypotheses(poses, mirrored, 0), reference.merge_hypotheses(poses.double(), mirrored, 0)
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "B,S,J", [(3, 200, 17), (9, 5, 16), (1, 1, 1), (2, 40, 35), (1, 3, 150), (5, 32, 17), (0, 3, 17)]
)
def test_best_hypothesis(device, dtype, B, S, J):
    cuda, reference = modules("best_hypothesis")
    poses, target = draw(B, S, J, 3, dtype=dtype, device=device), draw(B, J, 3, seed=1, dtype=dtype, device=device)
    grad = draw(B, S, seed=2, dtype=dtype, device=device)
    for wrap in (torch.clone, guarded):
        error, index, errors = cuda.best_hypothesis(wrap(poses), wrap(target))
        assert_within_budget(errors, reference.best_hypothesis(*exact(poses, target))[2])
        assert torch.equal(index, errors.argmin(1)) and torch.equal(error, errors.amin(1))
        got = cuda.best_hypothesis_backward(wrap(grad), wrap(poses), wrap(target))
        compare(got, reference.best_hypothesis_backward(*exact(grad, poses, target)), "gradient")


@pytest.mark.parametrize("S", [4, 100])
def test_best_hypothesis_at_the_target_of_equals_and_with_nan(device, S):
    cuda, _ = modules("best_hypothesis")
    poses, target = draw(4, S, 17, 3, device=device), draw(4, 17, 3, seed=1, device=device)
    poses[0, 2] = target[0]
    poses[1, 3, 3, 0] = poses[1, 1, 0, 0] = torch.nan
    poses[2, 1:] = poses[2, :1]
    poses[3] = torch.inf
    error, index, _ = cuda.best_hypothesis(poses, target)
    assert index.tolist() == [2, 1, 0, 0] and error[0] == 0 and error[1].isnan() and error[3].isinf()
    grad_poses, _ = cuda.best_hypothesis_backward(torch.ones(4, S, device=device), poses, target)
    assert (grad_poses[0, 2] == 0).all() and grad_poses[1, 1, 0].isnan().all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "B,S,J", [(0, 3, 17), (70, 1, 17), (3, 40, 17), (2, 1, 4), (3, 3, 16), (66, 1, 40), (2, 2, 35)]
)
def test_procrustes(device, dtype, B, S, J):
    cuda, reference = modules("procrustes")
    poses, target = draw(B, S, J, 3, dtype=dtype, device=device), draw(B, J, 3, seed=1, dtype=dtype, device=device)
    poses = (poses + target[:, None]).contiguous()  # alike: the best rotation is well defined
    grad, grad_errors = (draw(*s, seed=2, dtype=dtype, device=device) for s in ((B, S, J, 3), (B, S)))
    want = reference.procrustes(*exact(poses, target), True)
    for wrap in (torch.clone, guarded):
        compare(cuda.procrustes(wrap(poses), wrap(target), True), want, "result")
        aligned, errors = cuda.procrustes(wrap(poses), wrap(target), False)
        assert aligned.numel() == 0
        assert_within_budget(errors, want[1])
        for given in ((grad, None), (None, grad_errors), (grad, grad_errors)):
            given = [t if t is None else wrap(t) for t in given]
            got = cuda.procrustes_backward(*given, wrap(poses), wrap(target))
            compare(got, reference.procrustes_backward(*exact(*given, poses, target)), "gradient")


@pytest.mark.parametrize("size, other", [(1e-17, 1.0), (1e15, 1e-17), (1e-30, 1e-30)])
def test_procrustes_of_poses_in_units_of_their_own(device, size, other):
    cuda, reference = modules("procrustes")
    target = draw(3, 17, 3, seed=1, device=device)
    poses = size * (target[:, None] + 0.5 * draw(3, 4, 17, 3, device=device))
    target = other * target
    grads = draw(3, 4, 17, 3, seed=2, device=device), draw(3, 4, seed=3, device=device)
    compare(cuda.procrustes(poses, target, True), reference.procrustes(*exact(poses, target), True), "result")
    got = cuda.procrustes_backward(*grads, poses, target)
    compare(got, reference.procrustes_backward(*exact(*grads, poses, target)), "gradient")


def test_procrustes_of_points_mirror_images_and_nan(device):
    cuda, reference = modules("procrustes")
    poses, target = draw(6, 1, 17, 3, device=device), draw(6, 17, 3, seed=1, device=device)
    poses[0], poses[1, 0, 3, 1] = 0, torch.nan
    poses[2, 0] = target[2] * torch.tensor([-1.0, 1, 1], device=device)
    poses[3, 0] = 1e-3 * target[3] + 5
    poses[4, 0] = -target[4]
    aligned, errors = cuda.procrustes(poses, target, True)
    want, _ = reference.procrustes(poses.double(), target.double(), True)
    assert (aligned - want)[[0, 2, 4, 5]].abs().max() < 3e-6
    assert (aligned - want)[3].abs().max() < 3e-3  # 5 metres away, a millimetre large
    assert aligned[1].isnan().all() and errors.isnan().flatten().tolist() == [i == 1 for i in range(6)]
