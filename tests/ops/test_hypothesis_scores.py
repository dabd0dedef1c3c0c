"""``merge_hypotheses``, ``best_hypothesis`` and ``procrustes`` on every backend here."""

import numpy as np
import pytest
import torch

from posekernels import _dispatch
from posekernels.ops import best_hypothesis, merge_hypotheses, procrustes, procrustes_error
from posekernels.pose.skeleton import H36M_16, H36M_17
from posekernels.testing import assert_within_budget, guarded, require

BACKENDS = ("reference", "cpu", "triton", "cuda")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def compare(call, tensors, device, backend, seed=5):
    """``call(tensors, backend)`` and its gradients, against the reference in float64."""
    exact = [t.double().requires_grad_() for t in tensors]
    mine = [guarded(t.to(device)).requires_grad_() for t in tensors]
    want, got = call(*exact, "reference"), call(*mine, backend)
    assert_within_budget(got, want)
    assert_within_budget(call(*[guarded(t.to(device), strided=True) for t in tensors], backend), want)
    g = normal(*want.shape, seed=seed).to(got.dtype)
    grads = torch.autograd.grad(want, exact, g.double())
    for a, b in zip(torch.autograd.grad(got, mine, g.to(device)), grads):
        assert_within_budget(a, b, what="gradient")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("root", [0, 3, None])
@pytest.mark.parametrize("shape", [(0, 2), (1, 1), (5, 2), (2, 37, 2)])
@pytest.mark.parametrize("skeleton", [H36M_17, H36M_16], ids=["17", "16"])
def test_merge(backend, root, shape, skeleton):
    device = require("merge_hypotheses", backend)
    poses = normal(*shape, skeleton.num_joints, 3)
    compare(lambda p, b: merge_hypotheses(p, skeleton.mirrored, root=root, backend=b), [poses], device, backend)


def test_merge_by_hand():
    poses = normal(4, 2, 17, 3)
    back = poses[:, 1, list(H36M_17.mirrored)].clone()
    back[..., 0] *= -1
    want = (poses[:, 0] + back) / 2
    want[:, 0] = 0
    torch.testing.assert_close(merge_hypotheses(poses, H36M_17.mirrored), want)
    poses[2, 0, 4, 1] = torch.nan
    assert merge_hypotheses(poses, H36M_17.mirrored).isnan().sum() == 1


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("B,S,J", [(0, 3, 17), (1, 1, 1), (4, 200, 17), (9, 5, 16)])
def test_best(backend, B, S, J):
    device = require("best_hypothesis", backend)
    poses, target = normal(B, S, J, 3), normal(B, J, 3, seed=1)
    compare(lambda p, t, b: best_hypothesis(p, t, backend=b).error, [poses, target], device, backend)
    compare(lambda p, t, b: best_hypothesis(p, t, backend=b).errors, [poses, target], device, backend)
    got = best_hypothesis(poses.to(device), target.to(device), backend=backend)
    assert torch.equal(got.index, got.errors.argmin(1)) and torch.equal(got.error, got.errors.amin(1))


@pytest.mark.parametrize("backend", BACKENDS)
def test_best_at_the_target_and_with_nan(backend):
    device = require("best_hypothesis", backend)
    poses, target = normal(3, 4, 17, 3).to(device), normal(3, 17, 3, seed=1).to(device)
    poses[0, 2] = target[0]
    poses[1, 1, 3, 0] = torch.nan
    poses.requires_grad_()
    best = best_hypothesis(poses, target, backend=backend)
    assert best.index[0] == 2 and best.error[0] == 0 and best.error[1].isnan() and best.index[1] == 1
    (grad,) = torch.autograd.grad(best.error[0], poses)
    assert (grad[0] == 0).all()  # a NaN pose has NaN gradients, whatever they are multiplied by


def published_alignment(poses, target):
    """P-MPJPE as the published evaluations write it, in NumPy (Procrustes by SVD)."""
    mp, mt = poses.mean(1, keepdims=True), target.mean(1, keepdims=True)
    p, t = poses - mp, target - mt
    np_, nt = np.linalg.norm(p, axis=(1, 2), keepdims=True), np.linalg.norm(t, axis=(1, 2), keepdims=True)
    u, s, vt = np.linalg.svd((t / nt).transpose(0, 2, 1) @ (p / np_))
    v = vt.transpose(0, 2, 1).copy()
    sign = np.sign(np.linalg.det(v @ u.transpose(0, 2, 1)))
    v[:, :, -1] *= sign[:, None]
    s[:, -1] *= sign
    scale = s.sum(1)[:, None, None] * nt / np_
    return scale * p @ (v @ u.transpose(0, 2, 1)) + mt


def awkward_poses():
    """Random, mirrored, flat, straight, perfect, turned by half a circle, tiny and far-away poses."""
    target = normal(9, 17, 3).double()
    poses = target + 0.3 * normal(9, 17, 3, seed=1).double()
    poses[1] = target[1] * torch.tensor([-1.0, 1, 1])
    poses[2, :, 2] = 0
    target[3, :, 2] = poses[3, :, 2] = 0
    poses[4] = target[4]
    poses[5] = target[5] * torch.tensor([-1.0, -1, 1])
    poses[6] *= 1e-3
    poses[7] += 5
    poses[8] = -target[8]
    return poses, target


@pytest.mark.parametrize("backend", BACKENDS)
def test_procrustes_is_the_published_alignment(backend):
    device = require("procrustes", backend)
    poses, target = awkward_poses()
    want = published_alignment(poses.numpy(), target.numpy())
    got = procrustes(poses.float().to(device), target.float().to(device), backend=backend).cpu().double()
    assert (got - torch.from_numpy(want)).abs().max() < 3e-6
    errors = procrustes_error(poses.float().to(device), target.float().to(device), backend=backend).cpu().double()
    assert (errors - (torch.from_numpy(want) - target).norm(dim=-1).mean(-1)).abs().max() < 1e-6


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("B,S,J", [(0, 3, 17), (3, 4, 17), (2, 1, 4), (11, 9, 16)])
def test_procrustes_and_gradients(backend, B, S, J):
    device = require("procrustes", backend)
    poses, target = normal(B, S, J, 3), normal(B, 1, J, 3, seed=1)
    for function in (procrustes, procrustes_error):
        compare(lambda p, t, b, f=function: f(p, t, backend=b), [poses, target], device, backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size, other", [(1e-17, 1.0), (1e15, 1e-17)])
def test_procrustes_of_poses_in_units_of_their_own(backend, size, other):
    device = require("procrustes", backend)
    poses, target = size * normal(3, 4, 17, 3), other * normal(3, 1, 17, 3, seed=1)
    compare(lambda p, t, b: procrustes_error(p, t, backend=b), [poses, target], device, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_procrustes_of_points_and_nan(backend):
    device = require("procrustes", backend)
    poses, target = normal(3, 17, 3), normal(3, 17, 3, seed=1)
    poses[0], poses[1, 3, 1] = 0, torch.nan
    got = procrustes(poses.to(device), target.to(device), backend=backend).cpu()
    torch.testing.assert_close(got[0], target[0].mean(0).expand(17, 3))
    assert got[1].isnan().all() and not got[2].isnan().any()
    assert procrustes_error(poses.to(device), target.to(device), backend=backend).isnan().tolist() == [
        False,
        True,
        False,
    ]


@pytest.mark.parametrize("op", ["merge_hypotheses", "best_hypothesis", "procrustes"])
def test_16_bits_on_triton(op):
    device = require(op, "triton")
    poses, target = normal(3, 2, 17, 3).half(), normal(3, 17, 3, seed=1).half()
    if op == "merge_hypotheses":
        compare(lambda p, b: merge_hypotheses(p, H36M_17.mirrored, backend=b), [poses], device, "triton")
    elif op == "best_hypothesis":
        compare(lambda p, t, b: best_hypothesis(p, t, backend=b).errors, [poses, target], device, "triton")
    else:
        compare(lambda p, t, b: procrustes(p, t[:, None], backend=b), [poses, target], device, "triton")


def test_procrustes_gradcheck():
    poses, target = normal(2, 3, 6, 3).double().requires_grad_(), normal(2, 1, 6, 3, seed=1).double().requires_grad_()
    assert torch.autograd.gradcheck(procrustes, (poses, target))
    equal_extents = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]]).double()
    assert torch.autograd.gradcheck(procrustes, (equal_extents.clone().requires_grad_(), equal_extents))


@pytest.mark.parametrize(
    "call,words",
    [
        (lambda: merge_hypotheses(torch.zeros(2, 3, 17, 3), H36M_17.mirrored), "1 or 2"),
        (lambda: merge_hypotheses(torch.zeros(2, 2, 17, 3), range(1, 18)), "own inverse"),
        (lambda: merge_hypotheses(torch.zeros(2, 2, 17, 3), H36M_17.mirrored, root=17), "root must be"),
        (lambda: best_hypothesis(torch.zeros(2, 0, 17, 3), torch.zeros(2, 17, 3)), "S, J >= 1"),
        (lambda: best_hypothesis(torch.zeros(2, 3, 17, 3), torch.zeros(3, 17, 3)), "target must be"),
        (lambda: procrustes(torch.zeros(2, 17, 2), torch.zeros(2, 17, 2)), "poses must be"),
        (lambda: procrustes(torch.zeros(2, 17, 3), torch.zeros(3, 17, 3)), "target must be"),
    ],
)
def test_refusals(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_auto_takes_the_kernel_that_asks_the_cache_for_less():
    assert list(_dispatch.OPS["best_hypothesis"]) == ["cpu", "cuda", "triton", "reference"]
