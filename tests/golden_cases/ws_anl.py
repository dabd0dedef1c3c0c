"""System ``ws_anl``: MGCN_lw, the variance models, sampling, multi-hypothesis metrics, targets, 3DHP."""

from __future__ import annotations

import numpy as np
import torch

from posekernels.models.load import published_names
from posekernels.models.ws_anl import WsAnl, with_mirror
from posekernels.ops import merge_hypotheses, procrustes_error
from posekernels.pose.hypotheses import AUC_31, AUC_150, HypothesisScores, auc, pck
from posekernels.pose.skeleton import H36M_17
from posekernels.train.data.mpi_inf_3dhp import make_clips
from posekernels.train.recipes.ws_anl import sigma_targets
from tests.golden import Case, Handler
from tests.golden_cases import SKELETONS, published, record
from tests.golden_cases.graph_networks import published_sizes


def network(case: Case):
    c = case.config
    if c["model"] == "LinearModel":
        size = {"hidden": c["linear_size"], "stages": c["num_stage"], "dropout": c["dropout"]}
        return published(case, "variance_linear", skeleton=SKELETONS[c["joints"]], **size)
    name = "mgcn_lw" if c["model"] == "MGCN_lw" else "variance_gcn"
    size = {"hidden": c["hid_dim"], "depth": c["num_layers"], "outputs": c["coords_dim"][1]}
    return published(case, name, skeleton=SKELETONS[c["joints"]], **size)


def forward(case: Case) -> dict:
    net = network(case)
    if case.config["model"] == "LinearModel":
        names = {"embed": "batch_norm1"} | {f"stages.{i}": f"stage{i}" for i in range(len(net.stages))}
    else:
        names = {"input": "input_layer"} | {f"layers.{i}": f"layer{i}" for i in range(len(net.layers))}
    seen, x = record(net, names), torch.from_numpy(case["x"])
    net(x)  # with gradients it runs module by module, and the hooks see what is inside
    with torch.no_grad():
        seen["y"] = net(x)
    return seen


LOSSES = {
    "mean squared error": lambda y, target: (y - target).square().mean(),
    "mean joint distance": lambda y, target: (y - target).norm(dim=-1).mean(),
}


def training_step(case: Case) -> dict:
    net = network(case).train()
    loss_of, ours = LOSSES[case.config["loss"]], published_names(net)
    x, target = torch.from_numpy(case["x"]).requires_grad_(), torch.from_numpy(case["target"])
    optimizer = torch.optim.Adam(net.parameters(), lr=case.config["lr"], amsgrad=case.config["amsgrad"])
    y = net(x)
    loss = loss_of(y, target)
    loss.backward()
    found = {"y": y, "loss": loss, "grad_x": x.grad}
    for output in case.outputs:
        kind, _, name = output.partition(".")
        if kind == "grad":
            found[output] = net.get_parameter(ours[name]).grad.clone()
        elif kind == "state":
            found[output] = net.state_dict()[ours[name]].clone()
    optimizer.step()
    found["loss_after_step"] = loss_of(net(x), target)
    return found


def sampling(case: Case) -> dict:
    c = case.config
    if c["lifter"] == "HTNet":
        lifter = published(case, "htnet", depth=c["depth"], channels=c["channels"], hidden=c["mlp_hidden"])
    else:
        lifter = published(case, "mgcn_lw", hidden=c["hid_dim"], depth=c["num_layers"])
    net = WsAnl(lifter, None).eval()
    S, x = c["samples"], torch.from_numpy(case["x"]).squeeze(2)
    B = x.shape[0]
    noise = torch.from_numpy(case["noise"]).view(S, B, 2, 17, 2).transpose(0, 1)  # published order: hypothesis first
    sigma = torch.from_numpy(case["sigma"]).view(B, 2, 17)
    seen = {}
    lifter.register_forward_hook(lambda _m, inputs, result: seen.update(z=inputs[0], lifted=result))
    with torch.no_grad():
        poses = net(x, S, alpha=c["alpha"], sigma=sigma, noise=noise, chunk=2 * S * B)
        published_order = {
            name: seen[key].view(B, S, 2, 1, 17, -1).transpose(0, 1).reshape(2 * S * B, 1, 17, -1)
            for name, key in (("hypotheses_2d", "z"), ("lifted", "lifted"))
        }
        single = merge_hypotheses(lifter(x.flatten(0, 1)[:, None]).view(B, 2, 17, 3), H36M_17.mirrored)
    return {"poses": poses, "single_pose": single[:, None], **published_order}


def metrics(case: Case) -> dict:
    c = case.config
    poses, target = torch.from_numpy(case["poses"]), torch.from_numpy(case["target"]).squeeze(1)
    scores, as_published = HypothesisScores(with_pck=True), HypothesisScores(c["batches"])
    for s in (scores, as_published):
        s.add(poses, target, c["actions"])
    by_action, by_action_published = scores.per_action(), as_published.per_action()
    errors = (poses - target[:, None]).norm(dim=-1).mean(-1)
    aligned = procrustes_error(poses, target[:, None])
    correct = pck(poses, target, c["pck_threshold_m"])

    def column(table, name):
        return np.array([table[action][name] for action in c["action_order"]])

    return {
        "mpjpe_all": errors,
        "p_mpjpe_all": aligned,
        "pck_all": correct,
        "best_mpjpe": errors.amin(1),
        "best_p_mpjpe": aligned.amin(1),
        "best_pck": correct.amax(1),
        "p1_by_action_mm": column(by_action, "P1"),
        "p2_by_action_mm_per_pose": column(by_action, "P2"),
        "p2_by_action_mm_published": column(by_action_published, "P2"),
        "p1_mm": np.array(scores.average()["P1"]),
        "p2_mm_published": np.array(as_published.average()["P2"]),
        "pck_percent": 100 * correct.amax(1).mean(),
        "auc150_first_percent": 100 * auc(poses, target, AUC_150)[:, 0].mean(),
        "auc31_first_percent": 100 * auc(poses, target, AUC_31)[:, 0].mean(),
    }


def targets(case: Case) -> dict:
    distance, mean, target = sigma_targets(torch.from_numpy(case["gt"]), torch.from_numpy(case["pred"]))
    return {"distance": distance, "mean_distance": mean, "target": target}


def fusion(case: Case) -> dict:
    c = case.config
    subjects = c["subjects"]
    positions, keypoints = (
        {s: {c["action"]: [case[f"{kind}.{s}"]]} for s in subjects} for kind in ("positions_3d", "positions_2d")
    )
    clips = make_clips(positions, keypoints, subjects)
    x = torch.cat([with_mirror(torch.from_numpy(clip.keypoints)) for clip in clips])
    return {"input_2d": x[:, :, None], "gt_3d": np.concatenate([clip.positions for clip in clips])[:, None]}


def supported(case: Case) -> bool:
    """A network of this system as far as it was published: no non-local block, 2D joints in."""
    c = case.config
    known = c.get("model") in ("MGCN_lw", "ModulatedGCN", "LinearModel") and c["joints"] in SKELETONS
    return known and not c.get("non_local") and c.get("coords_dim", [2])[0] == 2


def trained(case: Case) -> bool:
    """Adam on a loss that we know, without random numbers."""
    c = case.config
    known = "loss" in case.outputs and c.get("loss") in LOSSES and c.get("optimizer") == "Adam"
    return known and (c["model"] != "LinearModel" or c["dropout"] == 0)


def sampled(case: Case) -> bool:
    c = case.config
    known = case.system == "ws_anl" and c.get("lifter") in ("HTNet", "MGCN_lw")
    return known and published_sizes(c) and c.get("sigma_floor", 1) == 1


HANDLERS = [
    Handler(lambda c: supported(c) and trained(c), training_step),
    Handler(lambda c: supported(c) and "loss" not in c.outputs, forward),
    Handler(sampled, sampling),
    Handler(lambda c: c.system == "ws_anl" and "p_mpjpe_all" in c.outputs, metrics),
    Handler(lambda c: c.system == "ws_anl" and c.outputs == {"distance", "mean_distance", "target"}, targets),
    Handler(lambda c: c.system == "ws_anl" and c.config.get("dataset") == "3dhp" and "gt_3d" in c.outputs, fusion),
]
