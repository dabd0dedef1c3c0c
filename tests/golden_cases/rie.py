"""System ``rie``."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from posekernels.models.load import published_names
from posekernels.pose.skeleton import H36M_17
from tests.golden import Case, Handler
from tests.golden_cases import published


def network(case: Case):
    c = case.config
    return published(
        case,
        "rie",
        filter_widths=c["filter_widths"],
        stage=c["stage"],
        latent=c["latent_features"],
        channels=c["channels"],
        dropout=c["dropout"],
        causal=c["causal"],
    )


def results(net, windows: torch.Tensor) -> dict:
    local = net.features(windows)[0]
    outputs = {
        "pose": net(windows),
        "tta": (net(windows) + H36M_17.mirror(net(H36M_17.mirror(windows)))) / 2,
        "local": torch.cat(local, dim=1),
        "global": net.features(windows)[1][:, 0],
    }
    return outputs | ({"fused": torch.cat(net.fused_features(local), dim=1)} if net.stage > 1 else {})


@torch.no_grad()
def window(case: Case) -> dict:
    net, x = network(case), torch.from_numpy(case["keypoints"])
    return results(net, x) | {"local_whole": torch.cat(net.local_features_dilated(x), dim=1)}


@torch.no_grad()
def sequence(case: Case) -> dict:
    net, x = network(case), torch.from_numpy(case["keypoints"])
    pad = (net.frames - 1) // 2
    left, right = (2 * pad, 0) if net.causal else (pad, pad)
    padded = F.pad(x.permute(0, 2, 3, 1).flatten(1, 2), (left, right), mode="replicate")
    padded = padded.unflatten(1, (17, 2)).permute(0, 3, 1, 2)
    windows = padded[0].unfold(0, net.frames, 1).permute(0, 3, 1, 2)
    outputs = results(net, windows)
    outputs |= {name: outputs[name][:, 0] for name in ("pose", "tta")}
    outputs["pose_valid"] = outputs["pose"][left : x.shape[1] - right]
    outputs["local_whole"] = torch.cat(net.local_features_dilated(x)).transpose(0, 1)
    return outputs


def training_step(case: Case) -> dict:
    net = network(case).train()
    net.fc_dropout = 0.0  # the case was made with every dropout off
    # float64: rounding noise of float32 gradients would decide the sign of Adam's first steps
    net.double()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.momentum = 0.1
    for encoder in net.encoders.modules():
        if isinstance(encoder, torch.nn.BatchNorm1d):
            encoder.momentum = case.config["bn_momentum_local"]
    net.requires_grad_(True)
    if case.config["frozen_encoders"]:
        net.encoders.requires_grad_(False)
        net.whole_body.requires_grad_(False)
    x, target = (torch.from_numpy(case[n]).double() for n in ("keypoints", "target"))
    ours = published_names(net)
    optimizer = torch.optim.AdamW(
        [p for p in net.parameters() if p.requires_grad], lr=case.config.get("lr", 1e-3), amsgrad=True
    )
    pose = net(x)
    loss = (pose - target).norm(dim=-1).mean()
    loss.backward()
    outputs = {"pose": pose.detach()}
    state = {n: net.get_buffer(ours[n]).clone() for n in ours if "running" in n}
    grads = {n: net.get_parameter(ours[n]).grad for n in case.config["param_order"]}
    norms = [0.0 if g is None else g.norm().item() for g in grads.values()]
    outputs["grad_norms"] = np.array(norms)
    optimizer.step()
    again = (net(x) - target).norm(dim=-1).mean()
    outputs["losses"] = np.array([loss.item(), again.item()])
    for name in case.outputs:
        kind, _, parameter = name.partition(".")
        if kind == "grad":
            outputs[name] = grads[parameter]
        elif kind == "state":
            outputs[name] = state[parameter]
        elif kind == "step":  # to be compared only where the gradient is not rounding noise
            stepped, want = net.get_parameter(ours[parameter]).detach(), torch.from_numpy(case.arrays[f"out.{name}"])
            outputs[name] = torch.where(grads[parameter].abs() > 1e-5, stepped, want.double())
    return outputs


def of(mode: str):
    """Cases of this system with Human3.6M's parts; for others none were published."""
    return lambda c: c.system == "rie" and c.config["mode"] == mode and c.config.get("num_joints_in", 17) == 17


HANDLERS = [
    Handler(of("train"), training_step),
    Handler(lambda c: of("eval")(c) and c.arrays["out.pose"].ndim == 3, sequence),
    Handler(of("eval"), window),
]
