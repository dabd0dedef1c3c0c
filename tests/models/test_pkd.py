"""PKD and siMLPe: configurations, published names, files."""

from __future__ import annotations

import pytest
import torch

from posekernels.archive import read_checkpoint
from posekernels.models import CheckpointError, create, load, save_published
from posekernels.models.load import published_state
from posekernels.models.pkd import dct_matrix, roll_out
from posekernels.models.published.pkd import configuration


def randomised(net, seed=0):
    generator = torch.Generator().manual_seed(seed)
    state = {n: torch.randn(t.shape, generator=generator) * 0.2 + 0.1 for n, t in net.state_dict().items()}
    net.load_state_dict(state)
    return net


@pytest.mark.parametrize(
    "config, tensors, stored, active",
    [
        ({"joints": 22, "distill_blocks": 12}, 486, 333_186, 301_386),
        ({"joints": 25, "distill_blocks": 6}, 438, 306_000, 290_100),
        ({"joints": 23, "distill_blocks": 6}, 438, 302_742, 286_842),
    ],
)
def test_published_sizes(config, tensors, stored, active):
    net = create("pkd", **config)
    state = published_state(net)
    assert (len(state), sum(t.numel() for t in state.values())) == (tensors, stored)
    maps, norms = ("fc0.fc", "fc_temporal.fc"), ("norm_temporal", "norm0")
    order = [f"MLPBlocks.0.{part}.{leaf}" for part in maps for leaf in ("weight", "bias")]
    order += [f"MLPBlocks.0.{part}.{leaf}" for part in norms for leaf in ("alpha", "beta")]
    assert list(state)[:9] == [*order, "MLPBlocks.1.fc0.fc.weight"]  # a published file's, block by block
    assert sum(p.numel() for p in net.parameters()) == active
    assert state["MLPBlocks.0.norm0.alpha"].shape == (1, 3 * config["joints"], 1)
    assert state["PosteriorKnowledgeDistiller.5.norm_temporal.beta"].shape == (1, 1, 50)
    assert sum(p.numel() for p in create("simlpe").parameters()) == 137_580


CONFIGS = [
    ("pkd", {"joints": 5, "history": 12, "blocks": 3, "distill_blocks": 2, "norm": norm, "mix": mix})
    for norm in ("spatial", "temporal", "all", "none")
    for mix in ("temporal", "spatial")
] + [
    ("simlpe", {"joints": 5, "history": 12, "blocks": 3, "norm": norm, "mix": "temporal", "temporal_only": t})
    for norm in ("spatial", "all")
    for t in (False, True)
]


@pytest.mark.parametrize("name, config", CONFIGS, ids=str)
def test_file_roundtrip(tmp_path, name, config):
    net = randomised(create(name, future=4, **config))
    path = tmp_path / "net.pth"
    save_published(net, path)
    assert list(tmp_path.iterdir()) == [path]
    assert configuration(read_checkpoint(path)) == (name, config)
    again = load(path, create(name, future=4, **config))
    history = torch.randn(2, 12, 5, 3)
    with torch.no_grad():
        assert torch.equal(again(history), net(history))
        whole = sum(net.branches(history)) + history[:, -1:]
        assert torch.allclose(whole, net(history), atol=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), net.state_dict().values()))
    names = read_checkpoint(path)
    affine = f"{'MLPBlocks' if name == 'pkd' else 'motion_mlp.mlps'}.0.norm0."
    leaves = {n.removeprefix(affine) for n in names if n.startswith(affine)}
    assert leaves == {"all": {"weight", "bias"}, "none": set()}.get(config["norm"], {"alpha", "beta"})


def test_legacy_names_and_bad_files():
    net = randomised(create("simlpe", joints=4, history=12, future=3, blocks=2))
    legacy = {
        n.replace("motion_mlp.mlps", "motion_transformer.transformer"): t for n, t in published_state(net).items()
    }
    again = load(legacy, create("simlpe", joints=4, history=12, future=3, blocks=2))
    assert torch.equal(again.motion.weight, net.motion.weight)
    with pytest.raises(CheckpointError, match="nothing was loaded"):
        load(legacy, create("simlpe", joints=4, history=12, future=3, blocks=3))
    assert load(legacy).about.network == "simlpe" and configuration({"fc.weight": torch.zeros(2, 2)}) is None


def test_what_the_shapes_do_not_tell():
    square = {"joints": 4, "history": 12, "blocks": 1}
    assert configuration(published_state(create("pkd", **square)))[1]["mix"] == "temporal"
    spatial = create("simlpe", joints=4, blocks=1, mix="spatial")
    assert configuration(published_state(spatial))[1] == dict(
        joints=4, history=50, blocks=1, norm="spatial", mix="spatial", temporal_only=False
    )
    outer = create("simlpe", joints=4, history=9, future=5, blocks=1, mix="spatial", temporal_only=True)
    assert configuration(published_state(outer))[1] == dict(
        joints=4, history=9, blocks=1, norm="spatial", mix="spatial", temporal_only=True
    )
    nowhere = create("simlpe", joints=4, history=50, blocks=1, norm="temporal", temporal_only=True)
    with pytest.raises(CheckpointError, match="number of joints cannot be told"):
        configuration(published_state(nowhere))


def test_untrained_network_repeats_the_last_frame():
    history = torch.randn(1, 50, 22, 3)
    with torch.no_grad():
        assert torch.allclose(create("pkd")(history), history[:, -1:].expand(-1, 10, -1, -1), atol=1e-6)


def test_idle_tensors_are_kept_and_never_read():
    net = randomised(create("pkd", joints=4, history=9, future=3, blocks=2, distill_blocks=2))
    assert "distiller.pre_weight" not in dict(net.named_parameters())
    history = torch.randn(1, 9, 4, 3)
    before = net(history)
    net.distiller.pre_weight.fill_(float("nan"))
    assert torch.equal(net(history), before)
    assert published_state(net)["PosteriorKnowledgeDistiller.1.fc_temporal.fc.weight"].isnan().all()


def test_roll_out_feeds_back():
    net = randomised(create("simlpe", joints=4, history=9, future=3, blocks=2)).eval()
    history = torch.randn(2, 9, 4, 3)
    with torch.no_grad():
        first = net(history)
        second = net(torch.cat((history, first), 1)[:, -9:])
        assert torch.equal(roll_out(net, history, 5), torch.cat((first, second), 1)[:, :5])


def test_preliminary_prediction_alone():
    net = randomised(create("pkd", joints=4, history=9, future=3, blocks=2, distill_blocks=2))
    history = torch.randn(1, 9, 4, 3)
    want = net.branches(history)[0] + history[:, -1:]
    assert torch.allclose(net(history, posterior=False), want, atol=1e-5)


def test_dct_is_orthonormal():
    matrix = dct_matrix(50)
    assert torch.allclose(matrix @ matrix.T, torch.eye(50, dtype=torch.float64), atol=1e-13)


@pytest.mark.parametrize("config", [{"joints": 0}, {"norm": "rows"}, {"mix": "x"}, {"future": 51}, {"blocks": 2.5}])
def test_bad_configuration(config):
    with pytest.raises((ValueError, TypeError), match="pkd: "):
        create("pkd", **config)


def test_bad_history():
    with pytest.raises(ValueError, match=r"history must be \[B, 50, 22, 3\]"):
        create("pkd")(torch.zeros(1, 49, 22, 3))
