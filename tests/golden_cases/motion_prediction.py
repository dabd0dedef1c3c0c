"""PKD and siMLPe: forward passes, training steps, evaluation, windows."""

from __future__ import annotations

import numpy as np
import torch

from posekernels.models import create, load
from posekernels.models.load import published_names
from posekernels.pose.kinematics import CMU_BODY, H36M_BODY, forward_kinematics
from posekernels.train.data import forecasting as data
from posekernels.train.recipes import pkd
from tests.golden import Against, Case, Handler
from tests.golden_cases import tensors

LAYOUTS = {"h36m": data.H36M, "cmu": data.CMU, "3dpw": data.PW3D}


def network(case: Case):
    """Built from the manifest's configuration, the weights loaded."""
    c = case.config
    config = {
        "joints": c["joints"],
        "history": c["input_length"],
        "blocks": c["num_layers"],
        "norm": c["norm_axis"] if c["with_normalization"] else "none",
        "mix": "spatial" if c["spatial_fc_only"] else "temporal",
    }
    if case.system == "pkd":
        config["distill_blocks"] = c["distill_layer_num"]
    else:
        config["temporal_only"] = c.get("temporal_fc", False)
    future = c.get("target_length", c.get("step", 10))
    return load(tensors(case.weights), create(case.system, future=future, **config))


@torch.no_grad()
def forward(case: Case) -> dict:
    net = network(case)
    motion = torch.from_numpy(case["motion"])
    dct = net.transform @ motion
    if "in.dct" in case.arrays:
        assert torch.allclose(dct, torch.from_numpy(case["dct"]), atol=1e-5)
        dct = torch.from_numpy(case["dct"])
    found = net.coefficients(dct)
    found = found if isinstance(found, tuple) else (found,)
    return dict(zip(("prediction", "posterior"), found)) | {"motion": net(motion.unflatten(-1, (-1, 3))).flatten(2)}


@torch.no_grad()
def roll_out(case: Case) -> dict:
    """The roll-out over 25 frames, its error, the figures that papers report; siMLPe's forward pass too."""
    net, name = network(case), case.config.get("dataset", "h36m")
    layout = LAYOUTS[name]
    window = case["window"] if "in.window" in case.arrays else case["window32"]
    window = torch.from_numpy(window).view(*window.shape[:2], layout.joints, 3)
    observed = window[:, : net.history, list(layout.used)]
    predicted = pkd.network_forecast(net)(observed, case.config["evaluated_length"])
    mpjpe = pkd.errors_of(predicted, window, layout).mpjpe_mm
    decimals = 1 if case.system == "simlpe" else layout.decimals
    reported = np.round(mpjpe[[f - 1 for f in case.config.get("reported_frames", layout.reported)]], decimals)
    out = {"motion25": predicted.flatten(2), "mpjpe": mpjpe, "reported": reported}
    if "prediction" in case.outputs:
        out["prediction"] = net.coefficients(torch.from_numpy(case["dct"]))
    return out


def train_step(case: Case) -> dict:
    c, ours = case.config, None
    observed, target = (torch.from_numpy(case[n]).unflatten(-1, (-1, 3)).double() for n in ("input", "target"))
    out = {}

    def by_published_name(net, tensors: dict) -> dict:
        """{published name: one block's part} of tensors that are keyed by our (stacked) parameter names."""
        result = {}
        for published, name in ours.items():
            stack, _, rest = name.partition(".")
            number, _, leaf = rest.partition(".")
            stacked = tensors.get(f"{stack}.{leaf}" if leaf else name)
            if stacked is not None:
                part = stacked[int(number)] if leaf else stacked
                result[published] = part.reshape(net.state_dict()[name].shape)
        return result

    def losses(net, step):
        if step == 1:
            return pkd.first_losses(net, observed, target, c["similar_weight"])
        return pkd.second_losses(net, observed, target)

    net = network(case).double()
    ours = published_names(net)
    names = [n.removeprefix("out.grad1.") for n in case.arrays if n.startswith("out.grad1.")]
    for step in (1, 2):
        net.zero_grad()
        result = losses(net, step)
        result["loss"].backward()
        gradients = by_published_name(net, {n: p.grad for n, p in net.named_parameters()})
        out |= {f"loss{step}{'_' + n if n != 'loss' else ''}": v.reshape(1) for n, v in result.items()}
        norms = [float(gradients[n].norm()) if gradients.get(n) is not None else -1.0 for n in case.manifest["state"]]
        out[f"grad{step}_norm"] = np.array(norms)
        for n in names:
            # The bias before a norm over the other axis cancels: rounding, against the gradient of its own weight.
            cancels = n.endswith("fc0.fc.bias") and {net.motion.norm, net.motion.mix} == {"spatial", "temporal"}
            weight = gradients[n.replace("bias", "weight")] if cancels else None
            out[f"grad{step}.{n}"] = Against(gradients[n], float(weight.norm())) if cancels else gradients[n]

    net = network(case).double()
    before = {n: t.clone() for n, t in net.state_dict().items()}
    optimizer = pkd.make_optimizer(net)
    rates = []
    for iteration in range(c["iterations"]):
        for group in optimizer.param_groups:
            group["lr"] = pkd.LEARNING_RATE * pkd.rate_factor(iteration, 30_000)
        rates.append(optimizer.param_groups[0]["lr"])
        for step in (1, 2):
            loss = losses(net, step)["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            out.setdefault(f"iter_loss{step}", []).append(loss.item())
    out["iter_lr"] = np.array(rates)
    out |= {f"iter_loss{s}": np.array(out[f"iter_loss{s}"]) for s in (1, 2)}
    after = net.state_dict()
    deltas = (n.removeprefix("out.delta.") for n in case.arrays if n.startswith("out.delta."))
    return out | {f"delta.{n}": after[ours[n]] - before[ours[n]] for n in deltas}


def motions(case: Case, body) -> list[data.Motion]:
    result = []
    for n, name in enumerate(case.config["files"]):
        rows = torch.from_numpy(case[name])[::2]
        positions = forward_kinematics(rows, body).numpy() / 1000
        result.append(data.Motion("", name.rpartition("_")[0], n + 1, positions))
    return result


def windows(case: Case) -> dict:
    dataset = case.config["dataset"]
    layout = LAYOUTS[dataset]
    if dataset == "3dpw":
        clips = []
        for person in range(case.config["people"]):
            positions = case[f"person{person}"].reshape(-1, layout.joints, 3)
            clips.append(data.Motion("", "sequence", person, positions - positions[:, :1]))
    else:
        clips = motions(case, {"h36m": H36M_BODY, "cmu": CMU_BODY}[dataset])
    if dataset == "h36m":
        for clip in clips:
            clip.action = "walking"
    train = data.training_windows(data.ForecastData("case", layout, clips, clips))
    groups = data.evaluation_windows(data.ForecastData("case", layout, clips, clips))
    evaluation = list(groups.values())
    position = {id(w): i for i, w in enumerate(evaluation)}
    index = [(position[id(w)] if len(evaluation) > 1 else i[0], i[1]) for w in evaluation for i in w.index]
    assert len(index) == case.config.get("eval_count", len(index))
    last = [w for w in evaluation if len(w)][-1]
    whole = last.take([-1]).flatten(2)
    first = train.take([0, -1] if case.arrays["out.train_input"].shape[0] == 2 else [0]).flatten(2)
    return {
        "eval_index": np.array(index, np.float32),
        "eval_input": whole[:, : data.OBSERVED],
        "eval_target": whole[:, data.OBSERVED :],
        "train_index": train.index.astype(np.float32),
        "train_input": first[:, : data.OBSERVED],
        "train_target": first[:, data.OBSERVED :],
    }


def indices(case: Case) -> dict:
    frames, c = case["frames"].astype(int).reshape(-1, 2), case.config
    return {
        "first_256": np.array([data.drawn_pair(tuple(pair), 128, c["input_length"]) for pair in frames]),
        "first_8": np.array([data.drawn_pair(tuple(pair), 4, c["input_length"]) for pair in frames]),
        "first_cmu_8": np.array([data.drawn_cmu(pair[0], future=c["target_length"]) for pair in frames]),
    }


def kind(*kinds: str):
    return lambda case: case.system in ("pkd", "simlpe") and case.config.get("kind") in kinds


HANDLERS = [
    Handler(lambda c: kind("forward")(c) and "in.motion" in c.arrays, forward),
    Handler(lambda c: kind("forward", "evaluate")(c) and "motion25" in c.outputs, roll_out),
    Handler(lambda c: kind("train_step")(c) and c.system == "pkd", train_step),
    Handler(kind("dataset"), windows),
    Handler(kind("test_indices"), indices),
]
