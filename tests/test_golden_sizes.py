"""Golden cases of sizes that none of the given ones has: the handlers take them, on the reference and on kernels."""

import numpy as np
import pytest
import torch

from posekernels import models, use_backend
from posekernels.models.load import published_state
from posekernels.pose.skeleton import H36M_16
from tests import golden
from tests.golden_cases.diffpose import skeleton_of

BONES_5 = [[0, 1], [0, 2], [2, 3], [4, 2]]


def graph(hid=16, layers=2, heads=2, coords=(5, 5), joints=17):
    return {
        "hid_dim": hid,
        "num_layer": layers,
        "n_head": heads,
        "coords_dim": coords,
        "n_pts": joints,
        "dropout": 0.25,
    }


def mixste(frames, joints=17, **change):
    sizes = {
        "num_frame": frames,
        "num_joints": joints,
        "in_chans": 2,
        "embed_dim_ratio": 16,
        "depth": 2,
        "num_heads": 4,
    }
    return sizes | {"mlp_ratio": 2.0, "qkv_bias": True, "qk_scale": None, "drop_path_rate": 0.1} | change


def strided(frames, strides, **change):
    config = {"frames": frames, "stride_num": strides, "layers": 1, "channel": 24, "d_hid": 40, "heads": 3}
    return config | {"n_joints": 17, "out_joints": 17} | change


def strided_net(c):
    sizes = {"channels": c["channel"], "hidden": c["d_hid"], "joints": c["n_joints"], "out_joints": c["out_joints"]}
    sizes |= {"frames": c["frames"], "strides": c["stride_num"], "layers": c["layers"], "heads": c["heads"]}
    return models.create("strided_transformer", **sizes)


def denoiser(c):
    model, name = c["model"], c.get("module", "GCNdiff").lower()
    sizes = {"channels": model["hid_dim"], "layers": model["num_layer"], "heads": model["n_head"]}
    sizes |= {"in_channels": model["coords_dim"][0], "skeleton": skeleton_of(c, model["n_pts"])}
    return models.create(name, **sizes)


def mixste_net(c):
    m = c["model"]
    sizes = {"frames": m["num_frame"], "joints": m["num_joints"], "channels": m["embed_dim_ratio"], "depth": m["depth"]}
    return models.create("mixste", **sizes, heads=m["num_heads"], mlp_ratio=m["mlp_ratio"], qkv_bias=m["qkv_bias"])


def modulated_net(c):
    skeleton = {"skeleton": H36M_16} if c["joints"] == 16 else {}
    if c["model"] == "LinearModel":
        return models.create("variance_linear", hidden=c["linear_size"], stages=c["num_stage"], **skeleton)
    name = "mgcn_lw" if c["model"] == "MGCN_lw" else "variance_gcn"
    return models.create(name, hidden=c["hid_dim"], depth=c["num_layers"], outputs=c["coords_dim"][1], **skeleton)


def mlp(system, joints=4, history=12, future=5, norm="spatial", distill=2, **change):
    config = {"kind": "forward", "num_layers": 3, "joints": joints, "dim": 3 * joints, "input_length": history}
    config |= {"norm_axis": norm, "with_normalization": True, "spatial_fc_only": False, "target_length": future}
    return config | ({"distill_layer_num": distill} if system == "pkd" else {"temporal_fc": False}) | change


def mlp_net(system):
    def make(c):
        norm = c["norm_axis"] if c["with_normalization"] else "none"
        sizes = {"joints": c["joints"], "history": c["input_length"], "blocks": c["num_layers"], "norm": norm}
        sizes |= {"mix": "spatial" if c["spatial_fc_only"] else "temporal", "future": c["target_length"]}
        sizes |= {"distill_blocks": c["distill_layer_num"]} if system == "pkd" else {"temporal_only": c["temporal_fc"]}
        return models.create(system, **sizes)

    return make


def rie(widths, **change):
    config = {"filter_widths": widths, "stage": 1, "latent_features": 6, "channels": 10, "causal": False}
    return config | {"form": "strided", "dropout": 0.2, "num_joints_in": 17, "mode": "eval"} | change


def rie_net(c):
    sizes = {"filter_widths": c["filter_widths"], "stage": c["stage"], "causal": c["causal"]}
    return models.create("rie", latent=c["latent_features"], channels=c["channels"], **sizes)


VARIANCE = {"model": "ModulatedGCN", "hid_dim": 12, "num_layers": 2, "coords_dim": (2, 1), "joints": 17}
STEP = {"loss": "mean squared error", "optimizer": "Adam", "amsgrad": True, "lr": 1e-3}
SAMPLING = {"samples": 1, "alpha": 0.01, "sigma_floor": 1.0, "joints": 17}
DIFFUSION = {"beta_schedule": "quad", "beta_start": 1e-4, "beta_end": 2e-2, "num_diffusion_timesteps": 21}
NOISY = {"skip_type": "quad", "test_num_diffusion_timesteps": 20, "test_timesteps": 4, "eta": 1.0}

# name: (system, config, network whose published names the weights have, {input: shape}, {output: shape})
CASES = {
    "strided, two frames left": (
        "strided_transformer",
        strided(27, [3, 5]),
        strided_net,
        {"x": (2, 27, 17, 2)},
        {"encoder": (2, 27, 24), "ste_1": (2, 2, 24), "single": (2, 2, 17, 3)},
    ),
    "strided, four layers, the first without stride, some frames kept": (
        "strided_transformer",
        strided(9, [1, 3, 3, 1]),
        strided_net,
        {"x": (1, 9, 17, 2), "kept_frames": (2,)},
        {"vte": (1, 2, 24), "ste_0": (1, 9, 24), "full": (1, 9, 17, 3), "single": (1, 1, 17, 3)},
    ),
    "strided, other joints": (
        "strided_transformer",
        strided(5, [5], n_joints=13, out_joints=6, layers=2),
        strided_net,
        {"x": (3, 5, 13, 2)},
        {"single": (3, 1, 6, 3), "full": (3, 5, 6, 3)},
    ),
    "gcndiff of five joints, joint 4 before its parent, odd width": (
        "diffpose",
        {"module": "GCNdiff", "model": graph(15, 2, 3, joints=5), "edges": BONES_5},
        denoiser,
        {"x": (1, 5, 5), "t": (1,)},
        {"y": (1, 5, 5), "temb.dense.0": (1, 60), "atten_layers.1.self_attn": (1, 5, 15)},
    ),
    "gcnpose of another width": (
        "diffpose",
        {"module": "GCNpose", "model": graph(24, 1, 3, (2, 3))},
        denoiser,
        {"x": (1, 17, 2)},
        {"y": (1, 17, 3), "gconv_layers.0": (1, 17, 24), "graph_net_laplacian_0": (17, 17)},
    ),
    "mixste without qkv bias": (
        "diffpose",
        {"module": "MixSTE2", "model": mixste(9, 5, qkv_bias=False, mlp_ratio=1.5)},
        mixste_net,
        {"x": (2, 9, 5, 2)},
        {"y": (2, 9, 5, 3)},
    ),
    "ddim with noise": (
        "diffpose",
        {"model": graph(), "diffusion": DIFFUSION, "runs": {"a": NOISY}, "eta": 0.0},
        denoiser,
        {"x": (3, 17, 5), "a.eps": (4, 3, 17, 5)},
        {"a.xs": (5, 3, 17, 5), "a.x0": (4, 3, 17, 5), "a.seq": (4,)},
    ),
    "mgcn_lw of 16 joints": (
        "ws_anl",
        VARIANCE | {"model": "MGCN_lw", "coords_dim": (2, 3), "joints": 16, "non_local": False},
        modulated_net,
        {"x": (1, 1, 16, 2)},
        {"y": (1, 1, 16, 3), "input_layer": (1, 16, 12), "layer1": (1, 16, 12)},
    ),
    "modulated gcn of 16 joints": (
        "ws_anl",
        VARIANCE | {"coords_dim": (2, 3), "joints": 16},
        modulated_net,
        {"x": (2, 1, 16, 2)},
        {"y": (2, 1, 16, 3)},
    ),
    "a lifter's training step": (
        "ws_anl",
        VARIANCE | STEP | {"model": "MGCN_lw", "loss": "mean joint distance"},
        modulated_net,
        {"x": (3, 1, 17, 2), "target": (3, 1, 17, 1)},
        {
            "loss": (),
            "loss_after_step": (),
            "grad.gconv_output.adj2": (17, 17),
            "state.gconv_input.0.bn.running_var": (12,),
        },
    ),
    "a linear model's training step": (
        "ws_anl",
        STEP | {"model": "LinearModel", "linear_size": 10, "num_stage": 2, "dropout": 0.0, "joints": 17},
        modulated_net,
        {"x": (3, 1, 17, 2), "target": (3, 1, 17, 1)},
        {"loss": (), "grad.w1.weight": (10, 34)},
    ),
    "a linear model of 16 joints": (
        "ws_anl",
        {"model": "LinearModel", "linear_size": 10, "num_stage": 2, "dropout": 0.5, "joints": 16},
        modulated_net,
        {"x": (1, 1, 16, 2)},
        {"y": (1, 1, 16, 1), "stage1": (1, 10)},
    ),
    "htnet of several frames": (
        "ws_anl",
        {"model": "HTNet", "depth": 1, "channels": 24, "mlp_hidden": 20},
        lambda c: models.create("htnet", depth=1, channels=24, hidden=20),
        {"x": (2, 3, 17, 2)},
        {"y": (6, 1, 17, 3), "block0_ipc": (6, 17, 8), "block0": (6, 17, 24)},
    ),
    "one sample around mgcn_lw": (
        "ws_anl",
        SAMPLING | {"lifter": "MGCN_lw", "hid_dim": 8, "num_layers": 1},
        lambda c: models.create("mgcn_lw", hidden=8, depth=1),
        {"x": (1, 2, 1, 17, 2), "sigma": (1, 2, 1, 17, 1), "noise": (1, 2, 1, 17, 2)},
        {"hypotheses_2d": (2, 1, 17, 2), "lifted": (2, 1, 17, 3), "poses": (1, 1, 17, 3), "single_pose": (1, 1, 17, 3)},
    ),
    "pkd where coordinates and slots are as many": (
        "pkd",
        mlp("pkd", spatial_fc_only=True),
        mlp_net("pkd"),
        {"motion": (2, 12, 12)},
        {"prediction": (2, 12, 12), "posterior": (2, 12, 12), "motion": (2, 5, 12)},
    ),
    "pkd without distiller blocks": (
        "pkd",
        mlp("pkd", 5, 9, 9, "all", 0),
        mlp_net("pkd"),
        {"motion": (1, 9, 15)},
        {"prediction": (1, 9, 15), "posterior": (1, 9, 15), "motion": (1, 9, 15)},
    ),
    "simlpe alone": (
        "simlpe",
        mlp("simlpe", 5, 10, norm="temporal", temporal_fc=True, spatial_fc_only=True),
        mlp_net("simlpe"),
        {"motion": (1, 10, 15)},
        {"prediction": (1, 10, 15), "motion": (1, 5, 15)},
    ),
    "simlpe without norm": (
        "simlpe",
        mlp("simlpe", with_normalization=False),
        mlp_net("simlpe"),
        {"motion": (3, 12, 12)},
        {"prediction": (3, 12, 12), "motion": (3, 5, 12)},
    ),
    "simlpe rolled out from 20 frames": (
        "simlpe",
        mlp("simlpe", 22, 20, 10, evaluated_length=25, reported_frames=[1, 25]),
        mlp_net("simlpe"),
        {"window": (1, 45, 96)},
        {"motion25": (1, 25, 66), "mpjpe": (25,), "reported": (2,)},
    ),
    "rie of mixed widths": (
        "rie",
        rie([5, 1, 3], stage=3),
        rie_net,
        {"keypoints": (1, 15, 17, 2)},
        {"pose": (1, 1, 17, 3), "fused": (1, 5, 6), "tta": (1, 1, 17, 3)},
    ),
    "rie of one width": (
        "rie",
        rie([7]),
        rie_net,
        {"keypoints": (2, 7, 17, 2)},
        {"pose": (2, 1, 17, 3), "local": (2, 5, 6), "global": (2, 6)},
    ),
    "causal rie, dilated, on its window": (
        "rie",
        rie([3, 3], form="dilated", causal=True),
        rie_net,
        {"keypoints": (2, 9, 17, 2)},
        {"pose": (2, 1, 17, 3), "local_whole": (2, 5, 6)},
    ),
    "causal rie, a sequence": (
        "rie",
        rie([3, 3], form="dilated", causal=True),
        rie_net,
        {"keypoints": (1, 12, 17, 2)},
        {"pose": (12, 17, 3), "pose_valid": (4, 17, 3), "local_whole": (4, 5, 6)},
    ),
}


def drawn(net: torch.nn.Module) -> dict[str, np.ndarray]:
    """Weights under published names, away from where training starts."""
    weights = {}
    for name, tensor in published_state(net).items():
        noise = 0.2 * torch.randn(tensor.shape)
        positive = "running_var" in name or "A_hat" in name
        weights[name] = (
            tensor + (noise.abs() if positive else noise) if tensor.is_floating_point() else tensor
        ).numpy()
    return weights


@pytest.mark.parametrize("name", CASES)
def test_other_sizes_are_taken(name):
    system, config, make, inputs, outputs = CASES[name]
    torch.manual_seed(0)
    arrays = {f"in.{n}": torch.randn(shape).numpy() for n, shape in inputs.items()}
    arrays |= {f"in.{n}": np.arange(*inputs[n]) + 1 for n in ("kept_frames", "t") if n in inputs}
    arrays |= {f"out.{n}": np.zeros(shape, np.float32) for n, shape in outputs.items()}
    case = golden.Case(name, system, config, {}, drawn(make(config)), arrays)
    handler = next(h for h in golden.handlers() if h.matches(case))
    found = []
    for backend in ("reference", "auto"):
        with use_backend(backend):
            found.append({n: torch.as_tensor(handler.run(case)[n]).detach() for n in outputs})
    for output, shape in outputs.items():
        reference, kernels = (f[output] for f in found)
        assert reference.shape == shape and reference.isfinite().all(), output
        assert golden.relative_error(kernels, reference.numpy()) < 1e-4, output


@pytest.mark.parametrize(
    "change",
    [
        {"model": "MGCN_lw", "non_local": True},
        {"coords_dim": (3, 1)},
        {"joints": 14},
        {"model": "HTNet", "gcn_hidden": 256},
        {"model": "HTNet", "heads": 4},
    ],
)
def test_what_was_never_published_is_unsupported(change):
    config = VARIANCE | {"depth": 1, "channels": 24, "mlp_hidden": 8} | change
    case = golden.Case("", "ws_anl", config, {}, {}, {"in.x": np.zeros((1, 1, 17, 2)), "out.y": np.zeros(1)})
    assert golden.run(case, golden.handlers()) == ("unsupported", {})
