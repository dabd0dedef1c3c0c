"""One door for weights: what it takes, in which containers, and what it refuses in which words."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from posekernels import models
from posekernels.models.load import SHIPPED, About, published_names, published_state, save_weights

SMALL = {  # the least that a network's file can be recognised with
    "gcndiff": {"layers": 1},
    "gcnpose": {"layers": 1},
    "htnet": {"depth": 1, "channels": 24, "hidden": 8},
    "mgcn_lw": {"hidden": 8, "depth": 1},
    "mixste": {"frames": 3, "depth": 1},
    "pkd": {"blocks": 2, "distill_blocks": 1},
    "rie": {"filter_widths": (3,), "channels": 4, "latent": 5},
    "simlpe": {"blocks": 2},
    "strided_refine": {},
    "strided_transformer": {"frames": 27, "layers": 1, "channels": 16, "hidden": 8},
    "variance_gcn": {"hidden": 8, "depth": 1},
    "variance_linear": {"hidden": 8},
}


@pytest.fixture(scope="module", autouse=True)
def narrow():
    """RIE's constant width, of 15 million numbers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("posekernels.models.rie.HIDDEN", 16)
        yield


@pytest.fixture(scope="module", params=models.names())
def small(request):
    """(name, a small network of it, drawn anew)."""
    torch.manual_seed(0)
    net = models.create(request.param, **SMALL[request.param])
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    return request.param, net


def same(net, other):
    mine, others = net.state_dict(), other.state_dict()
    return mine.keys() == others.keys() and all(torch.equal(tensor, others[name]) for name, tensor in mine.items())


@pytest.mark.parametrize("what", SHIPPED)
def test_names_that_ship(what):
    net = models.load(what, device="cpu")
    assert isinstance(net.about, About) and net.about.made and not net.training
    assert eval(repr(net.about)) == net.about
    assert ("fps=" in repr(net.about)) == bool(net.about.fps) == what.startswith("forecaster")


CONTAINERS = {
    "bare": lambda state: state,
    "state_dict": lambda state: {"epoch": 3, "lr": 0.1, "state_dict": state, "optimizer": {"state": {}}},
    "model_pos": lambda state: {"model_pos": state},
    "model": lambda state: {"model": state},
    "net": lambda state: {"net": state},
    "list": lambda state: [state, {"lr": 0.1}, 3, 100],
    "nested": lambda state: [{"state_dict": {"model": state}}],
    "module.": lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
    "_orig_mod.": lambda state: {f"_orig_mod.{name}": tensor for name, tensor in state.items()},
    "both": lambda state: {"net": {f"module._orig_mod.{name}": tensor for name, tensor in state.items()}},
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_nameless_file_in_any_container_is_its_network(tmp_path, small, container):
    name, net = small
    torch.save(CONTAINERS[container](published_state(net)), tmp_path / "file.pth")
    again = models.load(tmp_path / "file.pth")
    assert again.about.network == name and same(net, again) and not again.training
    assert same(net, models.load(tmp_path / "file.pth", models.create(name, **SMALL[name])))


def test_wrapped_networks_as_they_save_themselves():
    net = models.create("htnet", **SMALL["htnet"])
    names = {ours: published for published, ours in published_names(net).items()}
    for wrapped in (torch.compile(net), nn.DataParallel(net), nn.DataParallel(torch.compile(net))):
        state = {}
        for name, tensor in wrapped.state_dict().items():
            bare = name.replace("module.", "").replace("_orig_mod.", "")
            state[name.replace(bare, names[bare])] = tensor
        assert state.keys() != published_state(net).keys() and same(net, models.load(state))


# -- what the published programs read ---------------------------------------------------------------------------------
def parallel(state):
    """The bare state of what must have been saved from a data-parallel wrapper."""
    assert all(name.startswith("module.") for name in state)
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def plain(state):
    assert not any(name.startswith("module.") for name in state)
    return state


READS = {  # how each program comes from the loaded file to the state dict that it loads strictly; the others: plain
    "gcndiff": lambda file: parallel(file[0]),
    "gcnpose": lambda file: parallel(file[0]),
    "mixste": lambda file: parallel(file["model_pos"]),
    "rie": lambda file: plain(file["model_pos"]),
}


def test_the_published_program_reads_what_is_written(tmp_path, small):
    name, net = small
    models.save_published(net, tmp_path / "net.pth")
    file = torch.load(tmp_path / "net.pth", weights_only=True)
    state = READS.get(name, plain)(file)
    want = {published: net.state_dict()[ours] for published, ours in published_names(net).items()}
    if name == "gcnpose":  # strict, and its class stores a time embedding
        C = 96
        shapes = {"0.weight": (4 * C, C), "0.bias": (4 * C,), "1.weight": (4 * C, 4 * C), "1.bias": (4 * C,)}
        want |= {f"temb.dense.{part}": torch.zeros(shape) for part, shape in shapes.items()}
    if name in ("mixste", "rie"):  # "this model was trained for ... epochs"
        assert isinstance(file["epoch"], int)
    assert state.keys() == want.keys() and all(torch.equal(state[n], tensor) for n, tensor in want.items())
    assert isinstance(file, list) == (name in ("gcndiff", "gcnpose")) and list(tmp_path.iterdir()) == [
        tmp_path / "net.pth"
    ]
    assert same(net, models.load(tmp_path / "net.pth"))


PUBLISHED = [  # network, its published size, tensors in its file and numbers in them, batch norms' counters too
    ("gcndiff", {}, 123, 1_025_674),
    ("gcnpose", {}, 113, 839_432),
    ("htnet", {}, 139, 3_048_489),
    ("mgcn_lw", {}, 85, 160_009),
    ("mixste", {}, 204, 33_783_811),
    ("pkd", {"joints": 22, "blocks": 48, "distill_blocks": 12}, 486, 333_186),
    ("pkd", {"joints": 25, "blocks": 48, "distill_blocks": 6}, 438, 306_000),
    ("pkd", {"joints": 23, "blocks": 48, "distill_blocks": 6}, 438, 302_742),
    ("rie", {"filter_widths": (3,) * 5, "stage": 1, "channels": 4, "latent": 4}, 432, None),  # it is narrow here
    ("rie", {"filter_widths": (3,) * 5, "stage": 3, "channels": 4, "latent": 4}, 547, None),
    ("rie", {"filter_widths": (3, 3, 3), "stage": 1, "channels": 4, "latent": 4}, 312, None),
    ("simlpe", {"joints": 22, "blocks": 48}, 196, 137_580),
    ("strided_refine", {}, 4, 140_322),
    ("strided_transformer", {"frames": 27}, 125, 4_014_438 + 1539),
    ("strided_transformer", {"frames": 351}, 125, 4_346_214 + 1539),
    ("variance_gcn", {}, 85, 1_103_717),
    ("variance_linear", {}, 23, 12_436),
]


@pytest.mark.parametrize("name, size, tensors, numbers", PUBLISHED)
def test_published_files_have_the_published_size(name, size, tensors, numbers):
    state = published_state(models.create(name, **size))
    assert len(state) == tensors
    assert numbers is None or sum(t.numel() for t in state.values()) == numbers


def test_a_system_is_written_network_by_network(tmp_path):
    net = models.create("ws_anl", sizes=SMALL["htnet"], variance_sizes=SMALL["variance_gcn"])
    with pytest.raises(ValueError, match=r"several networks with a file each: save .lifter and .variance"):
        models.save_published(net, tmp_path / "net.pth")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name, config",
    [
        ("ws_anl", {"lifter": "mgcn_lw", "sizes": SMALL["mgcn_lw"], "variance_sizes": SMALL["variance_linear"]}),
        ("diffpose", {"setting": "frame", "initial": {"layers": 1}, "denoiser": {"layers": 1}}),
    ],
)
def test_a_system_in_one_file_of_ours(tmp_path, name, config):
    net = models.create(name, **config)
    save_weights(net, tmp_path / "a.safetensors", About(*net.created, made="here"))
    again = models.load(tmp_path / "a.safetensors")
    assert same(net, again) and again.about == About(name, config, made="here")


# -- what is refused --------------------------------------------------------------------------------------------------
def refused(words, *arguments, **options):
    with pytest.raises(ValueError, match=words) as error:
        models.load(*arguments, **options)
    assert "\n" not in str(error.value), "one line"


def test_what_is_not_there_or_not_known(tmp_path):
    refused("liftr: no such file, and no weights of that name ship .*did you mean 'lifter'", "liftr")
    refused("a folder; name a file in it .*best.pt", tmp_path)
    refused("no network named 'htnt'; did you mean 'htnet'", "lifter", "htnt")
    refused("lifter: weights of strided_transformer, not of htnet", "lifter", "htnet")
    torch.save({"a.weight": torch.zeros(3, 4), "b": torch.zeros(2)}, tmp_path / "a.pth")
    for network in (None, "htnet"):
        refused(
            rf"a.pth: weights of {network or 'no network that is known'}\? It holds a.weight \[3, 4\], b \[2\]. "
            "What can be loaded: lifter, .*best.pt of a run; .safetensors of ours; published files of gcndiff,",
            tmp_path / "a.pth",
            network,
        )
    refused("diffpose is several networks with a published file each", tmp_path / "a.pth", "diffpose")
    (tmp_path / "b.safetensors").write_bytes(b"no")
    refused("b.safetensors: not a readable safetensors file", tmp_path / "b.safetensors")
    header = {"posekernels": '{"network": "htnet", "config": {}, "sees": "pixels"}'}
    save_file({"a": torch.zeros(2)}, tmp_path / "c.safetensors", header)
    refused("c.safetensors: .*sees must be one of person, screen, got 'pixels'", tmp_path / "c.safetensors")
    save_file({"a": torch.zeros(2)}, tmp_path / "d.safetensors", {"posekernels": "[" * 100_000})
    refused("d.safetensors: not a readable safetensors file", tmp_path / "d.safetensors")


@pytest.mark.parametrize("given", [False, True])
def test_a_file_of_another_network_says_of_which(tmp_path, small, given):
    name, net = small
    models.save_published(net, tmp_path / "file.pth")
    for other in ("htnet", "rie", "simlpe"):
        if other != name and given:
            words = rf"file.pth: does not fit .* looks like a file for create\('{name}'"
            refused(words, tmp_path / "file.pth", models.create(other, **SMALL[other]))
        elif other != name:
            refused(f"file.pth: weights of {name}, not of {other}", tmp_path / "file.pth", other)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(small, value):
    name, net = small
    state = {n: t.clone() for n, t in published_state(net).items()}
    broken = next(n for n in reversed(published_names(net)) if state[n].is_floating_point())
    state[broken].view(-1)[-1] = value
    other = models.create(name, **SMALL[name])
    before = {n: t.clone() for n, t in other.state_dict().items()}
    refused(f"holds NaN or infinity in {broken}; nothing was loaded", state, other)
    assert all(torch.equal(t, before[n]) for n, t in other.state_dict().items())


def test_nothing_is_loaded_partially():
    net = models.create("htnet", depth=1, channels=24, hidden=8)
    state = published_state(models.create("htnet", depth=1, channels=24, hidden=8))
    before = {n: t.clone() for n, t in net.state_dict().items()}
    state["fcn.bias"] = torch.zeros(4)
    state["extra"] = torch.zeros(1)
    state["pos_embed"] = state["pos_embed"].long()
    del state["fcn.weight"]
    words = (
        r"missing fcn.weight \[3, 24\]; unexpected extra; fcn.bias is \[4\], the network has \[3\]; "
        "pos_embed is torch.int64, the network has torch.float32"
    )
    refused(words, state, net)
    assert all(torch.equal(before[n], t) for n, t in net.state_dict().items())


def test_names_that_fall_together_without_their_prefixes():
    refused("the same tensor twice", {"w": torch.zeros(2), "module.w": torch.ones(2)})


@pytest.mark.parametrize("name", models.names())
def test_files_of_another_kind_are_refused_in_words(tmp_path, name):
    """A list as DiffPose's trainer writes it, with something else in it than the network's tensors; and no list."""
    file, net = tmp_path / "file.pth", models.create(name, **SMALL[name])
    of_lists = [{"a": torch.zeros(2)}, {}, 3, 4, {}], {"model_pos": [1]}, [], {}
    for checkpoint in (*of_lists, {"state_dict": 3}, {3: torch.zeros(2)}, 3, torch.zeros(2), None):
        torch.save(checkpoint, file)
        for network in (None, name, net):
            refused("file.pth", file, network)


def test_a_file_of_another_program_is_no_network_of_models():
    with pytest.raises(TypeError, match="Linear: no network of models.create"):
        models.load({"weight": torch.zeros(2, 2)}, nn.Linear(2, 2))


# -- sizes ------------------------------------------------------------------------------------------------------------
SIZES = [
    ("rie", {"filter_widths": (3, 5, 1), "stage": 3, "latent": 6, "channels": 10}),
    ("rie", {"filter_widths": (3,), "stage": 1, "latent": 5, "channels": 4, "skeleton": "humaneva-15"}),
    ("strided_transformer", {"frames": 27, "layers": 1, "channels": 16, "hidden": 24}),
    ("strided_transformer", {"frames": 81, "layers": 2, "channels": 8, "hidden": 9, "joints": 15, "out_joints": 16}),
    ("strided_refine", {"joints": 15}),
    ("htnet", {"depth": 2, "channels": 48, "hidden": 7}),
    ("mgcn_lw", {"hidden": 5, "depth": 3, "outputs": 3}),
    ("variance_gcn", {"hidden": 6, "depth": 0, "outputs": 3, "skeleton": "h36m-16"}),
    ("variance_linear", {"hidden": 9, "stages": 2}),
    ("mixste", {"frames": 9, "depth": 1}),
    ("gcndiff", {"layers": 2, "in_channels": 4, "out_channels": 3}),
    ("gcnpose", {"layers": 2, "in_channels": 3}),
    ("pkd", {"joints": 21, "blocks": 1, "distill_blocks": 1}),
]


@pytest.mark.parametrize("name, config", SIZES)
def test_a_published_file_tells_its_own_size(tmp_path, name, config):
    net = models.create(name, **config)
    models.save_published(net, tmp_path / "net.pth")
    again = models.load(tmp_path / "net.pth", name)
    assert again.about.network == name and same(net, again)


def test_a_file_of_another_size_says_which(tmp_path):
    file = tmp_path / "net.pth"
    models.save_published(models.create("rie", filter_widths=(3,), stage=2, latent=6, channels=4), file)
    refused(
        r"create\('rie', stage=3, latent=6\)$", file, models.create("rie", filter_widths=(3,), latent=5, channels=4)
    )
    models.save_published(models.create("strided_transformer", frames=27), file)
    refused(r"create\('strided_transformer', frames=27\)$", file, models.create("strided_transformer", frames=81))
    models.save_published(models.create("strided_transformer", frames=9, strides=(3, 3), layers=1, channels=8), file)
    refused("net.pth: a strided_transformer of 9 frames and 2 strided layers: no such strides are published", file)


@pytest.mark.parametrize("name", ["gcndiff", "gcnpose", "mixste"])
def test_heads_that_a_file_does_not_hold_are_not_guessed(tmp_path, name):
    net = models.create(name, channels=16, heads=2, **SMALL[name])
    models.save_published(net, tmp_path / "net.pth")
    refused(rf"net.pth: a {name} of 16 channels: .* create\('{name}', .*channels=16, heads=...\)", tmp_path / "net.pth")
    assert same(net, models.load(tmp_path / "net.pth", models.create(name, channels=16, heads=2, **SMALL[name])))


def test_a_file_that_is_incomplete_says_of_what(tmp_path):
    state = published_state(models.create("htnet", **SMALL["htnet"]))
    del state["Hiremixer.blocks.0.mlp.fc1.weight"]
    refused("looks like a file of ws_anl, but is incomplete .*mlp.fc1.weight", state)


@pytest.mark.parametrize("device", ["cuda:99", "nowhere"])
def test_a_device_that_is_not_here_is_told(device):
    with pytest.raises(ValueError, match=f"load: device '{device}' cannot be used here: "):
        models.load("pkd_cmu", device=device)
