"""RIE's ops in CUDA C++: emulated on the CPU thread by thread, and as they are on a GPU; its launches on Triton too."""

import pytest
import torch

from posekernels import _native, freeze, use_backend
from posekernels.models.rie import RIE
from posekernels.ops.relative_encoding import cuda as encoding
from posekernels.ops.relative_encoding import reference as encoding_reference
from posekernels.ops.strided_temporal_conv import cuda as conv
from posekernels.ops.strided_temporal_conv import reference as conv_reference
from posekernels.ops.temporal_networks import TemporalNetworks
from posekernels.ops.temporal_networks import cuda as networks
from posekernels.ops.temporal_networks import reference as networks_reference
from posekernels.testing import assert_within_budget, guarded, require
from tests.cuda_emulation import EmulatedModule, cuda_device
from tests.ops.calls import working_calls
from tests.ops.test_relative_encoding_triton import SHAPES
from tests.ops.test_strided_temporal_conv import SIZES, inputs
from tests.ops.test_temporal_networks import CHAINS, chain

DTYPES = [torch.float32, torch.bfloat16]
device = cuda_device("strided_temporal_conv")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("B,T,J,F,parts", [s for s in SHAPES if len(s[4]) <= 16])  # the op refuses more
def test_relative_encoding(device, dtype, B, T, J, F, parts):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(B, T, J, F, generator=g).to(dtype)
    joints, sizes = [j for part in parts for j in part], [len(part) for part in parts]
    want = encoding_reference.relative_encoding(x.double(), joints, sizes)
    got = encoding.relative_encoding(guarded(x.to(device), strided=True), joints, sizes)
    grads = [torch.randn(y.shape, generator=g).to(dtype) for y in want]
    wanted = encoding_reference.relative_encoding_backward([u.double() for u in grads], x.double(), joints, sizes)
    grad = encoding.relative_encoding_backward([guarded(u.to(device)) for u in grads], x.to(device), joints, sizes)
    for a, b in zip([*got, grad], [*want, wanted], strict=True):
        assert_within_budget(a, b)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES[:4], ids=str)
def test_strided_temporal_conv(device, dtype, size):
    values = inputs(*size, stride=3, dtype=dtype)
    want = conv_reference.strided_temporal_conv(*([t.double() for t in v] for v in values.values()), 0.2, 3, 1)
    got = conv.strided_temporal_conv(*([guarded(t.to(device)) for t in v] for v in values.values()), 0.2, 3, 1)
    for a, b in zip(got, want, strict=True):
        assert a.dtype == dtype
        assert_within_budget(a, b)


@pytest.mark.parametrize("dtype", DTYPES)
def test_few_rows_share_their_depths(device, dtype):
    values = inputs(1, 1, 3, [200, 180], [70, 10], stride=3, dtype=dtype)
    want = conv_reference.strided_temporal_conv(*([t.double() for t in v] for v in values.values()), 0.2, 3, 1)
    given = [[guarded(t.to(device)) for t in v] for v in values.values()]
    first, again = (conv.strided_temporal_conv(*given, 0.2, 3, 1) for _ in range(2))
    assert conv._parts(first, [600, 540], 132) == (3, 2)
    for a, b, c in zip(first, again, want, strict=True):
        assert torch.equal(a, b)  # the sums are added in one order
        assert_within_budget(a, c)


def test_plain_weights_no_epilogue_and_rows_apart(device):
    g = torch.Generator().manual_seed(1)
    wide, weight = torch.randn(5, 1, 30, generator=g), [torch.randn(7, n, generator=g) for n in (12, 18)]
    slices = wide[:, :, :12], wide[:, :, 12:]  # of wider rows: read where they lie
    got = conv.strided_temporal_conv(
        [s.to(device) for s in slices], [w.to(device) for w in weight], [], [], [], [], 1.0, 1, 0
    )
    for y, x, w in zip(got, slices, weight, strict=True):
        assert_within_budget(y, x.double() @ w.double().T)


def test_weights_in_place_are_seen(device):
    x, weight = torch.ones(1, 3, 2, device=device), torch.ones(4, 2, 3, device=device)
    first = conv.strided_temporal_conv([x], [weight], [], [], [], [], 1.0, 1, 0)[0]
    weight.mul_(2)
    assert torch.equal(conv.strided_temporal_conv([x], [weight], [], [], [], [], 1.0, 1, 0)[0], 2 * first)


@pytest.mark.parametrize("case", [0, 1, 3])
def test_temporal_networks(device, case):
    xs, layers = chain(*CHAINS[case])
    made = TemporalNetworks(layers)
    want = networks_reference.temporal_networks(
        [x.double() for x in xs], [w.double() for w in made.weight], made.affine, *made.options
    )
    got = networks.temporal_networks(
        [x.to(device) for x in xs], [w.to(device) for w in made.weight], [a.to(device) for a in made.affine],
        *made.options,
    )  # fmt: skip
    for a, b in zip(got, want, strict=True):
        assert_within_budget(a, b)


def published_depth(monkeypatch):
    """RIE of 243 frames with few channels, and a window."""
    monkeypatch.setattr("posekernels.models.rie.HIDDEN", 8)
    torch.manual_seed(0)
    return RIE((3, 3, 3, 3, 3), stage=3, latent=4, channels=4).eval(), torch.randn(1, 243, 17, 2)


def test_a_forward_of_rie_is_19_launches(monkeypatch):
    """The launches that join features between are PyTorch's."""
    calls = []

    class Counting(EmulatedModule):
        def __getattr__(self, name):
            run = super().__getattr__(name)
            return lambda *args: (calls.append(name), run(*args))[1]

    monkeypatch.setattr(_native, "cuda", Counting)
    net, x = published_depth(monkeypatch)

    def run(xs, networks):
        return tuple(emulated(list(xs), networks.weight, networks.affine, *networks.options))

    emulated = networks.temporal_networks
    monkeypatch.setattr("posekernels.models.rie.temporal_networks", run)
    monkeypatch.setattr(
        "posekernels.models.rie.relative_encoding",
        lambda x, parts: encoding.relative_encoding(x, [j for p in parts for j in p], [len(p) for p in parts]),
    )
    with torch.no_grad():
        got = net(x)
    monkeypatch.undo()
    assert calls.count("relative_encoding_cuda") == 1
    assert calls.count("strided_temporal_conv_cuda") == 18
    with torch.no_grad():
        assert_within_budget(got, net.double()(x.double()))


def test_a_forward_of_rie_is_19_launches_of_triton(monkeypatch):
    device = require("temporal_networks", "triton")
    from posekernels.ops.strided_temporal_conv.triton import _conv_fwd_kernel

    net, x = published_depth(monkeypatch)
    net, x = freeze(net.to(device)), x.to(device)  # while calls are counted nothing is kept otherwise
    with torch.no_grad(), use_backend("triton"):
        got = net(x)
        calls = working_calls(lambda: net(x), _conv_fwd_kernel, monkeypatch)
    assert calls.count("encoding_fwd") == 1  # all parts
    assert calls.count("conv_fwd") == 18
    assert [c for c in calls if not c.endswith("_fwd")] == ["cat"] * 3 + ["index"]
    with torch.no_grad():
        assert_within_budget(got, net.double()(x.double()))
