"""Whole networks at small sizes on compiled GPU kernels: what they make of poses, and one step of training."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from unittest import mock

import torch
from torch import Tensor, nn

from posekernels import _dispatch, models, use_backend
from posekernels.models import graph, htnet, rie
from posekernels.models.diffpose import Diffusion, FrameDiffPose, Sampling, VideoDiffPose
from posekernels.models.ws_anl import WsAnl, with_mirror
from posekernels.testing import relative_error
from tests.ptx.device import gpu

# Norm-wise, against float64, where plain PyTorch's own result in this dtype is not further off.
BOUND = {torch.float32: 1e-4, torch.bfloat16: 3e-2}


@dataclass(frozen=True)
class Network:
    """One network, small.

    Args:
        make: () -> the network.
        shape: of its input, keypoints or poses.
        more: further inputs.
        trains: whether a step of training is run; without dropout, whose masks PyTorch draws otherwise.
        backend: whose kernels.
        dtype: they run in.
    """

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    more: tuple[Tensor, ...] = ()
    trains: bool = True
    backend: str = "triton"
    dtype: torch.dtype = torch.float32
    call: Callable[[nn.Module, Tensor], Tensor] = field(default=lambda net, x: net(x))


def _diffpose(kind: type, initial: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        denoiser = models.create("gcndiff", channels=16, layers=1, heads=2).eval()
        return kind(initial().eval(), denoiser, Diffusion(), Sampling(steps=2, limit=12))

    return make


def _small(name: str, **config) -> Callable[[], nn.Module]:
    return lambda: models.create(name, **config)


def _frame():
    return models.create("gcnpose", channels=16, layers=1, heads=2)


def _video():
    return models.create("mixste", frames=9, channels=16, depth=1, heads=2)


def _hypotheses(net: WsAnl, x: Tensor) -> Tensor:
    """In inference [B, S, J, 3]; in training how far the variance model is from what the frozen lifter gives."""
    if net.training:
        return net.sigma(with_mirror(x)) - net.single(x).norm(dim=-1)[:, None]
    return net(x, samples=3, alpha=0.1)


NETWORKS = {
    "htnet": Network(_small("htnet", depth=1, channels=24, hidden=8), (3, 1, 17, 2)),
    "pkd": Network(
        _small("pkd", joints=4, history=12, future=3, blocks=2, distill_blocks=1), (3, 12, 4, 3), dtype=torch.bfloat16
    ),
    "strided_transformer": Network(
        _small("strided_transformer", frames=27, layers=1, channels=16, hidden=24), (2, 27, 17, 2)
    ),
    "rie": Network(_small("rie", filter_widths=(3, 3), channels=12, latent=8, stage=3), (2, 9, 17, 2)),
    "gcnpose": Network(_frame, (3, 17, 2)),
    "gcndiff": Network(
        _small("gcndiff", channels=16, layers=1, heads=2), (3, 17, 5), call=lambda net, x: net(x, torch.full((3,), 7))
    ),
    "mixste": Network(_video, (2, 9, 17, 2)),
    "mgcn_lw": Network(_small("mgcn_lw", hidden=8, depth=1), (3, 1, 17, 2)),
    "variance_gcn": Network(_small("variance_gcn", hidden=8, depth=1), (3, 1, 17, 2)),
    "ws_anl": Network(
        _small("ws_anl", sizes={"depth": 1, "channels": 24, "hidden": 8}, variance_sizes={"hidden": 8, "depth": 1}),
        (2, 17, 2),
        call=_hypotheses,
    ),
    "frame diffpose": Network(_diffpose(FrameDiffPose, _frame), (2, 17, 2), trains=False),
    "video diffpose": Network(_diffpose(VideoDiffPose, _video), (1, 9, 17, 2), trains=False),
}


def _fixed_dropout():
    """What is 0.1 whatever the options, left out too: HTNet's, and that of the diffusion networks."""
    stack = contextlib.ExitStack()
    for module in (htnet, graph):
        stack.enter_context(mock.patch.object(module, "dropout", lambda x, rate, training=True: x))
    return stack


def _made(name: str) -> tuple[nn.Module, Tensor]:
    """With weights that look trained: none of the zeros and ones that networks begin with."""
    torch.manual_seed(0)
    with mock.patch.object(rie, "HIDDEN", 16):
        net = NETWORKS[name].make()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.03 * torch.randn_like(parameter))
    for module in net.modules():
        for what, value in vars(module).items():
            if isinstance(value, float) and ("drop" in what or what in ("rate", "p")):
                setattr(module, what, 0.0)
    return net, torch.rand(NETWORKS[name].shape) - 0.5


def _tensors(result) -> list[Tensor]:
    if isinstance(result, Tensor):
        return [result]
    values = result.values() if isinstance(result, dict) else getattr(result, "__dict__", None) or result
    values = values.values() if isinstance(values, dict) else values
    return [t for value in values if value is not None for t in _tensors(value)]


def answer(name: str, training: bool, dtype: torch.dtype) -> list[Tensor]:
    """What the network gives, and in training its gradients and its weights after a step of SGD."""
    net, x = _made(name)
    network = NETWORKS[name]
    net, x = net.to(network.dtype).to(dtype).train(training), x.to(network.dtype).to(dtype)
    with torch.set_grad_enabled(training):
        results = _tensors(network.call(net, x))
    if not training:
        return results
    sum(y.square().mean() for y in results).backward()
    gradients = torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])
    torch.optim.SGD(net.parameters(), lr=0.1 / gradients.norm().item()).step()
    with torch.no_grad():
        after = _tensors(network.call(net.eval(), x))
    return [*(y.detach() for y in results), gradients, *after]


def check(name: str, training: bool = False, **options) -> str:
    """What ran, in words; options as ``Device`` takes them.

    Raises:
        AssertionError: another answer than float64's, or no kernel was launched.
    """
    torch.set_num_threads(1)
    network = NETWORKS[name]
    backend = network.backend
    with use_backend("reference"), _fixed_dropout():
        want, plain = (answer(name, training, dtype) for dtype in (torch.float64, network.dtype))
    with contextlib.ExitStack() as stack:
        device = stack.enter_context(gpu(**options))
        stack.enter_context(_fixed_dropout())
        for kernels in _dispatch.OPS.values():
            if not {"triton", "cuda"} & kernels.keys():  # an op that is PyTorch's on a GPU
                stack.enter_context(mock.patch.dict(kernels, {backend: kernels["reference"]}))
        stack.enter_context(use_backend(backend))
        got = answer(name, training, network.dtype)
    assert device.launches, f"{name} launches no kernel"
    for n, (a, b, c) in enumerate(zip(got, want, plain, strict=True)):
        error, bound = relative_error(a, b), max(BOUND[network.dtype], 4 * relative_error(c, b))
        assert error <= bound, f"result {n} of {name}: relative error {error:.1e}, of {bound:.1e}"
    kernels = {launch.kernel.name for launch in device.launches}
    return f"{len(kernels)} kernels, {len(device.launches)} launches"
