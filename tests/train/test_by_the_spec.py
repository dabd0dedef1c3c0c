"""What training and testing compute, written down once more in NumPy and float64, from the files on."""

import copy
import dataclasses
import json
import pickle

import numpy as np
import pytest
import torch

from posekernels.archive import write_npz
from posekernels.models import create, rie
from posekernels.models.load import published_state, save_published
from posekernels.pose.camera import humaneva_cameras
from posekernels.train import h36m, humaneva, mpi_inf_3dhp, pw3d
from posekernels.train.evaluate import target_of
from posekernels.train.loop import prepare
from posekernels.train.place import Place
from tests.train.synthetic import synthetic
from tests.train.test_published_p2 import aligned_error

LEFT, RIGHT = [4, 5, 6, 11, 12, 13], [1, 2, 3, 14, 15, 16]


def mirror(points):
    points = np.array(points, np.float64)
    points[..., 0] *= -1
    points[..., LEFT + RIGHT, :] = points[..., RIGHT + LEFT, :]
    return points


def scores(predicted, target):
    """(P1, P2, P3, MPJVE) in mm of one sequence [T, J, 3]."""
    scale = (predicted * target).sum((1, 2)) / (predicted**2).sum((1, 2))
    scaled = scale[:, None, None] * predicted
    velocity = np.diff(predicted, axis=0) - np.diff(target, axis=0)
    far = [np.linalg.norm(d, axis=-1).mean() for d in (predicted - target, scaled - target, velocity)]
    aligned = np.mean([aligned_error(p, t) for p, t in zip(predicted, target)])
    return 1000 * np.array([far[0], aligned, far[1], far[2]])


def table(sequences):
    """{group: figures} and their plain mean, of [(action, predicted, target)]: a sequence counts by its frames."""
    found = {}
    for action, predicted, target in sequences:
        found.setdefault(action.split(" ")[0], []).append((len(target), scores(predicted, target)))
    rows = {a: sum(n * s for n, s in parts) / sum(n for n, _ in parts) for a, parts in found.items()}
    return rows, np.mean(list(rows.values()), 0)


def check(report, want, rel=1e-4):
    rows, figures = want
    assert {a: list(row.values())[:4] for a, row in report.rows.items()} == {
        a: pytest.approx(list(row), rel=rel) for a, row in rows.items()
    }
    assert list(report.figures.values())[:4] == pytest.approx(list(figures), rel=rel)


def recipe_of(model, data, *options):
    chosen, recipe = h36m.JOB.parse(["--model", model, *options, "--device", "cpu"])
    recipe = recipe(chosen, data)
    prepare(recipe, chosen, Place())
    recipe.model.eval()
    return recipe


def doubled(batch):
    changes = {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)}
    return dataclasses.replace(
        batch, **{n: v.double() for n, v in changes.items() if isinstance(v, torch.Tensor) and v.is_floating_point()}
    )


# -- MixSTE ------------------------------------------------------------------------------------------------------------
MIXSTE = ["-f", "9", "-cs", "16", "--depth", "1", "--heads", "2", "-b", "36"]
WEIGHTS = [1, 1, 2.5, 2.5, 1, 2.5, 2.5, 1, 1, 1, 1.5, 1.5, 4, 4, 1.5, 4, 4]


@pytest.mark.parametrize("repeated", [False, True])
def test_mixste_is_tested_in_chunks(repeated):
    recipe = recipe_of("mixste", synthetic(30), *MIXSTE, *["--published_repeated_frames"][: int(repeated)])
    net, F, sequences = copy.deepcopy(recipe.model).double(), 9, []
    for clip in recipe.data.test:
        n, target = len(clip.keypoints), target_of(clip).astype(np.float64)
        starts = [*range(0, n - F, F), n - F] if n > F else [0]
        rows = np.minimum(np.array(starts)[:, None] + np.arange(F), n - 1)  # a short clip is filled with its last frame
        with torch.no_grad():
            plain, mirrored = (net(torch.from_numpy(f(clip.keypoints[rows]))).numpy() for f in (np.float64, mirror))
        poses = (plain + mirror(mirrored)) / 2  # its own root stays, as any joint of VideoPose3D's
        if repeated:
            sequences.append((clip.action, poses.reshape(-1, 17, 3), target[rows.ravel()]))
        else:
            last = n - (len(starts) - 1) * F  # of the last chunk only what no other has
            whole = np.concatenate((*poses[:-1], poses[-1][F - last :] if n > F else poses[-1][:n]))
            sequences.append((clip.action, whole, target))
    assert {len(c.keypoints) for c in recipe.data.test} == {22, 7}, "chunks overlap, and one is filled"
    check(recipe.evaluate(recipe.place), table(sequences))


def test_mixste_learns_by_its_loss_times_its_loss():
    recipe = recipe_of("mixste", synthetic(30), *MIXSTE)
    recipe.model.double()
    batch = doubled(next(iter(recipe.make_loader(0, 1))))
    assert len(batch.keypoints) == 4, "36 frames are 4 chunks of 9"
    recipe.loss_step(batch)["loss"].backward()
    seen = [p.grad.clone() for p in recipe.model.parameters()]
    predicted = recipe.model(batch.keypoints)
    target = batch.poses.numpy().copy()
    target[:, :, 0] = 0
    p, total = predicted.detach().numpy(), {"position": 0.0, "smoothness": 0.0, "velocity": 0.0}
    B, T = p.shape[:2]
    for b, t, j in np.ndindex(B, T, 17):
        total["position"] += WEIGHTS[j] * np.linalg.norm(p[b, t, j] - target[b, t, j]) / (B * T * 17)
        if t:
            step, should = p[b, t, j] - p[b, t - 1, j], target[b, t, j] - target[b, t - 1, j]
            total["smoothness"] += WEIGHTS[j] * (step**2).sum() / (B * (T - 1) * 17 * 3)
            total["velocity"] += np.linalg.norm(step - should) / (B * (T - 1) * 17)
    loss = total["position"] + 0.5 * total["smoothness"] + 2 * total["velocity"]
    found = recipe.loss_step(batch)
    assert found["sum"].item() == pytest.approx(loss, rel=1e-9)
    assert {n: found[n].item() for n in total} == pytest.approx(total, rel=1e-9)
    w, goal = torch.tensor(WEIGHTS).double(), torch.from_numpy(target)
    again = (w * (predicted - goal).norm(dim=-1)).mean() + 0.5 * (w[:, None] * predicted.diff(dim=1) ** 2).mean()
    again = again + 2 * (predicted.diff(dim=1) - goal.diff(dim=1)).norm(dim=-1).mean()
    for got, want in zip(seen, torch.autograd.grad(again, list(recipe.model.parameters()))):
        torch.testing.assert_close(got, want * loss, rtol=1e-7, atol=1e-12)
    published, kind = h36m.JOB.parse(["--model", "mixste", "--data-root", "there"])
    recipe = kind(published, synthetic(12))
    recipe.model = torch.nn.Linear(1, 1)
    (optimizer,) = recipe.make_optimizers()
    group = optimizer.param_groups[0]
    assert (type(optimizer).__name__, group["lr"], group["weight_decay"]) == ("AdamW", 4e-5, 0.1)
    assert (published.epochs, recipe.chunks, recipe.lr_factor(7, 0)) == (120, 4, 0.99**7)


# -- GCNdiff -----------------------------------------------------------------------------------------------------------
GRAPH = ["--hid_dim", "8", "--num_layer", "1", "--n_head", "2", *MIXSTE[:8]]


@pytest.mark.parametrize("setting", ["video", "frame"])
def test_gcndiff_learns_the_scaled_noise(setting):
    recipe = recipe_of("diffpose", synthetic(30), "--setting", setting, *GRAPH, "-b", "7")
    recipe.refining = True
    recipe.model.double()
    batch = doubled(next(iter(recipe.make_loader(0, 1))))
    n = len(batch.pose)
    torch.manual_seed(5)
    found = recipe.loss_step(batch)
    torch.manual_seed(5)
    uniform, half = torch.rand(n, 17).numpy(), torch.randint(51, (n // 2 + 1,)).numpy()
    unit = torch.randn(n, 17, 5, dtype=torch.float64).numpy()
    mixture, pose = batch.mixture.numpy(), batch.pose.numpy()
    betas = np.linspace(1e-4, 1e-3, 51).astype(np.float32)
    bars = np.cumprod(1 - np.float64(betas), dtype=np.float64).astype(np.float32)
    tau = np.concatenate((half, 50 - half))[:n]
    x, noise = np.zeros((n, 17, 5)), np.zeros((n, 17, 5))
    for b, j in np.ndindex(n, 17):
        component = next(m for m, c in enumerate(np.cumsum(mixture[b, j, :, 0])) if c > uniform[b, j])
        row = mixture[b, j, component]
        x[b, j] = *row[1:3], *(pose[b, j] - pose[b, 0])
        scale = (0.5, 0.5, 1, 1, 1) if setting == "video" else (*row[3:], 1, 1, 1)
        noise[b, j] = unit[b, j] * scale
    keep = np.float64(bars[tau])[:, None, None]
    x_t = np.sqrt(keep) * x + np.sqrt(1 - keep) * noise
    with torch.no_grad():
        guess = recipe.model.denoiser(torch.from_numpy(x_t), torch.from_numpy(tau).double()).numpy()
    assert found.item() == pytest.approx(((noise - guess) ** 2).sum((1, 2)).mean(), rel=1e-6)


def test_gcndiff_learns_as_published():
    options, kind = h36m.JOB.parse(["--model", "diffpose", "--data-root", "there", "--model_pose_path", "there"])
    recipe = kind(options, synthetic(12))
    recipe.model = torch.nn.Linear(1, 1)
    (optimizer,) = recipe.make_optimizers()
    group = optimizer.param_groups[0]
    assert (type(optimizer).__name__, group["lr"], group["eps"], group["weight_decay"]) == ("Adam", 1e-3, 1e-8, 0)
    assert not group["amsgrad"] and group["betas"] == (0.9, 0.999)
    assert (recipe.clip_norm, recipe.ema_rate, options.epochs, options.batch_size) == (1.0, 0.999, 80, 1024)
    assert [recipe.lr_factor(e, 0) for e in (0, 1, 60, 61, 79)] == pytest.approx([1, 1, 1, 0.9, 0.9])


# -- 3DPW --------------------------------------------------------------------------------------------------------------
def pkd(w, x, blocks, distill):
    """[B, 50, D] metres -> the next 10 frames, by the formulas, from weights under their published names."""
    k, i = np.arange(50)[:, None], np.arange(50)
    C = np.where(k == 0, np.sqrt(1 / 50), np.sqrt(2 / 50)) * np.cos(np.pi * (i + 0.5) * k / 50)

    def norm(y, axis, name):
        y = y - y.mean(axis, keepdims=True)
        return y / np.sqrt((y**2).mean(axis, keepdims=True) + 1e-5) * w[f"{name}.alpha"] + w[f"{name}.beta"]

    def over_time(y, name):
        return y @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    h = np.swapaxes(over_time(C @ x, "motion_fc_in"), 1, 2)
    main, posterior = h, h
    for b in range(blocks):
        p = f"MLPBlocks.{b}"
        y = norm(over_time(main, f"{p}.fc_temporal.fc"), 2, f"{p}.norm_temporal")
        main = main + norm(over_time(main + y, f"{p}.fc0.fc"), 1, f"{p}.norm0")
    for b in range(distill):
        p = f"PosteriorKnowledgeDistiller.{b}"
        posterior = posterior + norm(over_time(posterior, f"{p}.fc0.fc"), 1, f"{p}.norm0")
    Y = over_time(np.swapaxes(main, 1, 2), "motion_fc_out")
    Y = Y + over_time(np.swapaxes(posterior, 1, 2), "motion_fc_for_distill")
    return (np.linalg.inv(C) @ Y)[:, :10] + x[:, -1:]


def test_3dpw_is_tested_on_all_windows_pooled(tmp_path):
    random = np.random.default_rng(0)
    lengths = {"train": [[60]], "test": [[90, 74], [77], [80, 200]]}
    people = {}
    for part, files in lengths.items():
        (tmp_path / part).mkdir()
        for number, frames in enumerate(files):
            people[part, number] = [
                0.5 * random.standard_normal(72) + random.normal(0, 0.02, (n, 72)).cumsum(0) for n in frames
            ]
            with open(tmp_path / part / f"walk_{number}.pkl", "wb") as file:
                pickle.dump({"jointPositions": people[part, number]}, file)
    torch.manual_seed(0)
    net = create("pkd", joints=23, blocks=2, distill_blocks=1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(parameter.normal_(0, 0.05) + (parameter.dim() > 2))
    save_published(net, tmp_path / "net.pth")
    argv = ["--data-root", tmp_path, "--evaluate", tmp_path / "net.pth", "--out", tmp_path / "out"]
    assert pw3d.main([str(a) for a in argv]) == 0
    w = {n: t.double().numpy() for n, t in published_state(net).items()}
    windows = []
    for (part, _), group in people.items():
        for joints in group if part == "test" else ():
            joints = joints.reshape(-1, 24, 3)
            joints = joints - joints[:, :1]
            windows += [joints[s : s + 75] for s in range(len(joints) - 74)]
    windows = np.stack(windows)
    assert len(windows) == 16 + 3 + 6 + 126
    seen, future = windows[:, :50, 1:].reshape(-1, 50, 69), []
    for _ in range(3):
        future.append(pkd(w, seen, 2, 1))
        seen = np.concatenate((seen[:, 10:], future[-1]), 1)
    future = np.concatenate(future, 1)[:, :25].reshape(-1, 25, 23, 3)
    far = 1000 * np.linalg.norm(future - windows[:, 50:, 1:], axis=-1)
    error = far.sum(-1).mean(0) / 24  # joint 0 cannot be wrong, and counts
    saved = json.loads((tmp_path / "out/evaluation.json").read_text())
    want = {str(40 * f): error[f - 1] for f in (5, 10, 15, 20, 25)}
    want["mean"] = np.mean(list(want.values()))
    assert saved["figures"] == pytest.approx(want, rel=1e-4)
    assert saved["all, used joints only"] == pytest.approx({n: v * 24 / 23 for n, v in want.items()}, rel=1e-4)
    still = 1000 * np.linalg.norm(windows[:, 49:50] - windows[:, 50:], axis=-1).mean((0, 2))
    assert saved["repeat the last frame"]["1000"] == pytest.approx(still[24], rel=1e-5)


# -- HumanEva-I --------------------------------------------------------------------------------------------------------
def test_humaneva_is_tested_on_walking_jog_and_box(tmp_path):
    random = np.random.default_rng(0)
    actions = {
        "Walking 1 chunk0": 6,
        "Walking 1 chunk2": 3,
        "Jog 1 chunk1": 4,
        "Box 1 chunk0": 5,
        "Gestures 1 chunk0": 4,
    }
    positions, keypoints = {}, {}
    for subject in (f"{part}/S{n}" for part in ("Train", "Validate") for n in (1, 2, 3)):
        positions[subject] = {a: random.normal(0, 0.4, (n, 15, 3)) + (0, 0, 1) for a, n in actions.items()}
        keypoints[subject] = {a: [random.uniform(0, 480, (n + 1, 15, 2)) for _ in range(3)] for a, n in actions.items()}
    metadata = {"num_joints": 15, "keypoints_symmetry": [[2, 3, 4, 8, 9, 10], [5, 6, 7, 11, 12, 13]]}
    write_npz(tmp_path / "data_3d_humaneva15.npz", positions_3d=positions)
    write_npz(tmp_path / "data_2d_humaneva15_gt.npz", positions_2d=keypoints, metadata=metadata)
    sizes = ["-arc", "3", "-ch", "4", "-lfd", "4", "--stage", "1"]
    options, recipe = humaneva.JOB.parse(["--data-root", str(tmp_path), *sizes])
    recipe = recipe(options, humaneva.JOB.load(options))

    def guess(uv):  # whatever looks at the 2D
        return np.stack((uv[..., 0], uv[..., 1], uv[..., 0] * uv[..., 1]), -1)

    recipe.predict = lambda clip: guess(clip.keypoints)
    sequences = {}
    for subject in ("Validate/S1", "Validate/S2", "Validate/S3"):
        for action, world in positions[subject].items():
            for camera, pixels in zip(humaneva_cameras(subject), keypoints[subject][action]):
                w, *v = (float(c) for c in camera.orientation)
                v = -np.array(v)  # the inverse rotation
                at = np.float64(np.float32(world)) - np.float64(camera.translation)
                seen = at + 2 * (w * np.cross(v, at) + np.cross(v, np.cross(v, at)))
                target = seen - seen[:, :1]
                uv = np.float64(np.float32(pixels[: len(world)])) * 2 / 640 - (1, 480 / 640)
                if not action.startswith("Gestures"):
                    sequences.setdefault(subject, []).append((action, guess(uv), target))
    report = recipe.evaluate(Place())
    check(report, table([s for part in sequences.values() for s in part]))
    assert set(report.rows) == {"Walking", "Jog", "Box"}
    for subject, part in sequences.items():
        check(report.by_subject[subject], table(part))


# -- RIE's second stage ------------------------------------------------------------------------------------------------
def test_rie_stage_2_freezes_what_is_published(monkeypatch):
    monkeypatch.setattr(rie, "HIDDEN", 16)
    options = ["-arc", "3,3,3,3,3", "-ch", "4", "-lfd", "4"]
    one = recipe_of("rie", synthetic(12), *options)
    one.start_stage(0, None)
    before = {n: t.clone() for n, t in one.model.state_dict().items()}
    one.start_stage(1, before)
    free = [n for n, p in one.model.named_parameters() if p.requires_grad]
    frozen = [n for n, p in one.model.named_parameters() if not p.requires_grad]
    assert (len(free), len(frozen)) == (140, 167)
    assert {n.split(".")[0] for n in free} == {"fusions", "decoders"}
    now = one.model.state_dict()
    assert all(torch.equal(before[n], now[n]) for n in frozen)
    (optimizer,) = one.make_optimizers()
    group = optimizer.param_groups[0]
    assert (type(optimizer).__name__, group["lr"], group["weight_decay"], group["amsgrad"]) == (
        "AdamW",
        1e-3,
        0.01,
        True,
    )
    assert sum(len(g["params"]) for g in optimizer.param_groups) == 140
    assert (one.causal_shift, one.pad) == (0, 121)


def test_rie_stage_2_learns_from_centred_windows(monkeypatch):
    monkeypatch.setattr(rie, "HIDDEN", 16)
    recipe = recipe_of("rie", synthetic(12), "-arc", "3,3", "-ch", "4", "-lfd", "4", "-b", "7")
    recipe.start_stage(0, None)
    recipe.start_stage(1, recipe.model.state_dict())
    recipe.model.double()
    batch = doubled(next(iter(recipe.make_loader(0, 1))))
    windows, target = [], []
    for number, first, end, mirrored in batch.rows:
        clip = recipe.data.train[number]
        frames = np.clip(np.arange(first - 4, first + 5), 0, len(clip.keypoints) - 1)
        assert end == first + 1
        pair = [np.float64(clip.keypoints[frames]), np.float64(clip.positions[first : first + 1])]
        pair[1][:, 0] = 0
        x, y = map(mirror, pair) if mirrored else pair
        windows.append(x)
        target.append(y)
    assert {m for *_, m in batch.rows} == {0, 1}
    start, means = copy.deepcopy(recipe.model.state_dict()), {}
    for epoch in (0, 7):
        recipe.model.load_state_dict(start)
        recipe.start_epoch(epoch)
        recipe.model.train()  # the frozen part too: its dropout acts, its statistics move
        torch.manual_seed(3)
        loss = recipe.loss_step(batch)
        means[epoch] = {n: t for n, t in recipe.model.state_dict().items() if n.endswith("first_norm.running_mean")}
        means[epoch] |= {n: t for n, t in recipe.model.state_dict().items() if n.endswith("expand_norm.running_mean")}
        means[epoch] = {n: t.clone() for n, t in means[epoch].items()}
    torch.manual_seed(3)
    with torch.no_grad():
        predicted = recipe.model(torch.from_numpy(np.stack(windows))).numpy()
    assert loss.item() == pytest.approx(np.linalg.norm(predicted - np.stack(target), axis=-1).mean(), rel=1e-9)
    settled = np.exp(-7 / recipe.options.epochs * np.log(0.1 / 0.001))  # after a rate of 0.1; statistics began at 0
    for name, moved in means[0].items():
        share = settled if name.startswith("encoders.") else 1
        torch.testing.assert_close(means[7][name], moved * share, rtol=1e-6, atol=1e-12)
        assert moved.abs().max() > 1e-4
    loss.backward()
    moving = {n.split(".")[0] for n, p in recipe.model.named_parameters() if p.grad is not None}
    assert moving == {"fusions", "decoders"}


# -- MPI-INF-3DHP ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("samples", [0, 5])
def test_pck_and_auc_of_all_six_sequences(tmp_path, samples):
    random = np.random.default_rng(0)
    poses, points = {}, {}
    for n, subject in enumerate(("TS1", "TS2", "TS3", "TS4", "TS5", "TS6")):
        poses[subject] = {"Seq1": [random.normal(0, 0.13, (3 + 2 * n, 17, 3)) + (0, 0, 4)]}
        points[subject] = {"Seq1": [random.uniform(500, 900, (4 + 2 * n, 17, 2))]}
    write_npz(tmp_path / "data_3d_3dhp.npz", positions_3d=poses)
    write_npz(tmp_path / "data_2d_3dhp_gt.npz", positions_2d=points)
    argv = ["--data-root", str(tmp_path), "--lifter", "mgcn_lw", "--lifter_checkpoint", "x", "--device", "cpu"]
    argv += ["--multihyp_test", "--samples", "5", "--alpha", "0.05", "--variance_checkpoint", "x"] if samples else []
    options, recipe = mpi_inf_3dhp.JOB.parse(argv)
    recipe = recipe(options, mpi_inf_3dhp.JOB.load(options))
    options.lifter_checkpoint = options.variance_checkpoint = None  # drawn weights will do
    prepare(recipe, options, Place())
    recipe.model.eval()
    net, first, figures = copy.deepcopy(recipe.model.lifter).double(), 0, []
    for clip, (subject, taken) in zip(recipe.data.test, poses.items()):
        world = np.float64(np.float32(taken["Seq1"][0]))
        size = (1920, 1080) if subject in ("TS5", "TS6") else (2048, 2048)
        uv = np.float64(np.float32(points[subject]["Seq1"][0][: len(world)])) * 2 / size[0] - (1, size[1] / size[0])
        target = world - world[:, :1]
        if samples:
            with torch.no_grad():
                found = np.concatenate([p.double().numpy() for _, p, _ in recipe.hypotheses(clip, first, samples)])
            first += len(world)
        else:
            with torch.no_grad():
                plain, mirrored = (net(torch.from_numpy(x)[:, None]).numpy() for x in (uv, mirror(uv)))
            found = (plain + mirror(mirrored)) / 2
            found[:, :, 0] = 0
        far = np.linalg.norm(found - target[:, None], axis=-1)  # [T, S, 17]
        pck = (far < 0.15).mean(-1).max(1)
        auc = np.mean([(far < mm / 1000).mean(-1) for mm in range(0, 151, 5)], 0).max(1)
        p2 = [min(aligned_error(pose, t) for pose in poses_) for poses_, t in zip(found, target)]
        figures += list(zip(1000 * far.mean(-1).min(1), 1000 * np.array(p2), 100 * pck, 100 * auc))
    want = dict(zip(("P1", "P2", "PCK", "AUC"), np.mean(figures, 0)))  # of frames, not of sequences
    got = recipe.evaluate_hypotheses(Place(), with_pck=True).average()
    assert len(figures) == sum(3 + 2 * n for n in range(6)) and 5 < want["PCK"] < 95
    assert {name: got[name] for name in want} == pytest.approx(want, rel=5e-6)
