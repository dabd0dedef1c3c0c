"""System ``strided_transformer``: the network, its refine module, evaluation, windows and the video demo."""

from __future__ import annotations

import numpy as np
import torch

from posekernels.models import create, lift, load
from posekernels.models.lifting import windows
from posekernels.models.load import published_names
from posekernels.models.strided_refine import back_project
from posekernels.pose.camera import normalise_screen, rotate
from posekernels.pose.hypotheses import HypothesisScores
from posekernels.pose.keypoints import coco_scores_to_h36m, coco_to_h36m, detected, revise_legs
from posekernels.pose.metrics import mpjpe, p_mpjpe
from posekernels.pose.skeleton import H36M_17
from tests.golden import Case, Handler
from tests.golden_cases import record, tensors

SYSTEM = "strided_transformer"


def networks(case: Case):
    """(main network, refine module or None), in eval mode, each loaded from its own published names."""
    c = case.config
    weights = tensors(case.weights)
    main = {n: w for n, w in weights.items() if not n.startswith("post_refine.")}
    rest = {n: w for n, w in weights.items() if n not in main}
    net = create(
        "strided_transformer",
        frames=c["frames"],
        strides=tuple(c["stride_num"]),
        layers=c["layers"],
        channels=c["channel"],
        hidden=c["d_hid"],
        heads=c["heads"],
        joints=c["n_joints"],
        out_joints=c["out_joints"],
    )
    refine = load(rest, create("strided_refine", joints=c["n_joints"])) if rest else None
    return load(main, net), refine


def tensor(case: Case, name: str) -> torch.Tensor:
    return torch.from_numpy(case[name])


@torch.no_grad()
def activations(case: Case) -> dict:
    net, _ = networks(case)
    names = {f"vanilla.{i}": f"vte_{i}" for i in range(len(net.vanilla))}
    names |= {f"strided.{i}": f"ste_{i}" for i in range(len(net.strided))}
    seen = record(net, names)
    x = tensor(case, "x")
    single, full = net(x, full=True)
    seen |= {"encoder": net.embedding(x), "vte": seen[f"vte_{len(net.vanilla) - 1}"], "single": single, "full": full}
    for name, a in seen.items():  # some cases keep some frames only of what has all of them
        if a.shape[1] == net.frames and name in case.outputs and case.arrays[f"out.{name}"].shape[1] != net.frames:
            seen[name] = a[:, tensor(case, "kept_frames")]
    return seen


@torch.no_grad()
def flip_eval(case: Case) -> dict:
    net, _ = networks(case)
    plain, other = net(tensor(case, "x"), full=True), net(tensor(case, "x_flip"), full=True)
    single, full = ((a + net.skeleton.mirror(b)) / 2 for a, b in zip(plain, other))
    return {"single_plain": plain[0], "single_mirrored_raw": other[0], "single": single, "full": full}


@torch.no_grad()
def refine(case: Case) -> dict:
    net, module = networks(case)
    x, target, camera = tensor(case, "x"), tensor(case, "target"), tensor(case, "camera")
    prediction = (net(x) + net.skeleton.mirror(net(net.skeleton.mirror(x)))) / 2
    centre = x[:, net.frames // 2, None]
    rooted = back_project(prediction, centre, camera, target[:, :, 0])
    refined = module(prediction, rooted)
    at_zero, zero_target = refined.clone(), target.clone()
    at_zero[:, :, 0] = zero_target[:, :, 0] = 0
    return {
        "prediction": prediction,
        "back_projected": rooted,  # relative to the root already; the published program then zeroes the root again
        "back_projected_rooted": rooted,
        "score": module.weights(prediction, rooted),
        "refined": refined,
        "refined_rooted": at_zero,
        "loss": mpjpe(refined, zero_target),
        "error": mpjpe(at_zero, zero_target, per_frame=True),
    }


def train_loss(case: Case) -> dict:
    c = case.config
    net, _ = networks(case)
    net.double()  # Adam's first steps follow the signs of gradients, rounding noise included
    x, target = tensor(case, "x").double(), tensor(case, "target").double()
    target[:, :, 0] = 0
    centre = target[:, net.frames // 2, None]

    def losses():
        single, full = net(x, full=True)
        return single, full, mpjpe(full, target), mpjpe(single, centre)

    single, full, loss_full, loss_single = losses()
    (loss_full + loss_single).backward()
    ours = published_names(net)
    grads = {name: net.get_parameter(ours[name]).grad.clone() for name in c["grad_names"]}
    out = {"single": single, "full": full, "loss_full": loss_full, "loss_single": loss_single}
    out |= {"loss": loss_full + loss_single, "grad_norm": torch.stack([g.norm() for g in grads.values()])}
    out |= {f"grad.{n}": g for n, g in grads.items()}
    for name, where in c["grad_slices"].items():
        index = tuple(
            slice(*(int(p) if p else None for p in part.split(":"))) if ":" in part else int(part)
            for part in where.strip("[]").replace(" ", "").split(",")
        )
        out[f"grad_slice.{name}"] = grads[name][index]
    o = c["optimiser"]
    optimizer = torch.optim.Adam(
        [p for p in net.parameters() if p.requires_grad],
        lr=o["lr"],
        betas=tuple(o["betas"]),
        eps=o["eps"],
        weight_decay=o["weight_decay"],
        amsgrad=o["amsgrad"],
    )
    steps = []
    for _ in range(o["steps"]):
        optimizer.zero_grad()
        loss = sum(losses()[2:])
        loss.backward()
        optimizer.step()
        steps.append(loss.detach())
    return out | {"loss_steps": torch.stack(steps)}


def eval_metrics(case: Case) -> dict:
    predicted, target = tensor(case, "prediction").double(), tensor(case, "target").double()
    order = np.argsort(case["batch"], kind="stable")
    errors = HypothesisScores(np.unique(case["batch"], return_counts=True)[1].tolist())
    errors.add(predicted[order], target[order, 0], [case.config["labels"][i] for i in order])
    table = errors.per_action()
    p1, p2 = ([table[a][m] for a in case.config["actions"]] for m in ("P1", "P2"))
    return {
        "mpjpe": mpjpe(predicted, target, per_frame=True)[:, 0],
        "p_mpjpe": p_mpjpe(predicted, target, per_frame=True)[:, 0],
        "p1_by_action_mm": np.array(p1),
        "p2_by_action_mm": np.array(p2),
        "p1_mm": np.float64(errors.average()["P1"]),
        "p2_mm": np.float64(errors.average()["P2"]),
    }


def mirror_pair(points: torch.Tensor) -> torch.Tensor:
    """[N, ...] -> [N, 2, ...]: plain, mirrored."""
    return torch.stack((points, H36M_17.mirror(points)), 1)


def windows_case(case: Case) -> dict:
    width, height = case["image_size"].tolist()
    size, chosen = case.config["frames"], tensor(case, "frames")
    target = tensor(case, "target")
    focal = tensor(case, "raw_focal") * 2 / width
    camera = torch.cat(
        (focal, normalise_screen(tensor(case, "raw_center"), width, height), tensor(case, "raw_distortion"))
    )
    mirrored = camera * torch.tensor([1, 1, -1, 1, 1, 1, 1, -1, 1])
    keypoints = windows(normalise_screen(tensor(case, "keypoints_px"), width, height), size)[chosen]
    return {
        "camera_vector": camera,
        "window_2d": mirror_pair(keypoints),
        "window_3d": mirror_pair(windows(target, size)[chosen]),
        "camera": torch.stack((camera, mirrored)).expand(len(chosen), 2, 9),
        "single_3d": mirror_pair(target[chosen, None]),
    }


@torch.no_grad()
def demo(case: Case) -> dict:
    net, _ = networks(case)
    width, height = case["image_size"].tolist()
    keypoints = normalise_screen(tensor(case, "keypoints"), width, height)
    poses = lift(net, keypoints)
    display = rotate(poses, torch.tensor(case.config["quaternion"], dtype=torch.float32))
    display[..., 2] -= display[..., 2].amin(-1, keepdim=True)
    return {
        "windows": mirror_pair(windows(keypoints, net.frames)[tensor(case, "window_frames")]),
        "pose_3d": poses,
        "display": display,
    }


def coco(case: Case) -> dict:
    keypoints, scores = tensor(case, "keypoints"), tensor(case, "scores")
    present = keypoints.flatten(1).sum(1) != 0
    keypoints, scores = keypoints[present], scores[present]
    converted, confidence = coco_to_h36m(keypoints), coco_scores_to_h36m(scores)
    valid = detected(converted)
    out = {"keypoints": converted, "scores": confidence, "revised": revise_legs(converted, confidence)}
    out["normalised"] = normalise_screen(converted, *case["image_size"].tolist())
    return out | {f"valid_frames_{i}": person.nonzero()[:, 0] for i, person in enumerate(valid)}


def of_system(*outputs: str):
    return lambda c: c.system == SYSTEM and set(outputs) <= c.outputs


HANDLERS = [
    Handler(of_system("keypoints", "revised"), coco),
    Handler(of_system("pose_3d", "windows"), demo),
    Handler(of_system("window_2d"), windows_case),
    Handler(of_system("p2_by_action_mm"), eval_metrics),
    Handler(of_system("loss_steps"), train_loss),
    Handler(of_system("refined"), refine),
    Handler(of_system("single_mirrored_raw"), flip_eval),
    Handler(lambda c: of_system("single")(c) and "in.x" in c.arrays, activations),
]
