"""``--published_p2`` of every system, against the published accumulation written out in NumPy, float64."""

import numpy as np
import pytest
import torch

from posekernels.train import h36m
from posekernels.train.evaluate import target_of
from posekernels.train.loop import prepare
from posekernels.train.place import Place
from tests.train.synthetic import synthetic

GRAPH = ["--hid_dim", "8", "--num_layer", "1", "--n_head", "2", "--pose_epochs", "1"]
SYSTEMS = {
    "htnet": ["--layers", "1", "--channel", "24", "--d_hid", "16"],
    "mgcn_lw": ["--hid_dim", "16", "--num_layers", "1"],
    "ws_anl": ["--lifter", "mgcn_lw"],
    "ws_anl --multihyp_test": ["--train", "--lifter", "mgcn_lw", "--samples", "7", "--alpha", "0.02"],
    "strided_transformer": ["--frames", "9", "--strides", "3,3", "--layers", "1", "--channel", "32", "--d_hid", "24"],
    "diffpose --setting frame": GRAPH,
}


def aligned_error(pose: np.ndarray, target: np.ndarray) -> float:
    """Mean distance of pose [J, 3] to target after the best similarity transform, by the SVD of the spec."""
    mean_t, mean_p = target.mean(0), pose.mean(0)
    T, P = target - mean_t, pose - mean_p
    size_t, size_p = np.linalg.norm(T), np.linalg.norm(P)
    U, s, Vt = np.linalg.svd((T / size_t).T @ (P / size_p))
    V = Vt.T
    if np.linalg.det(V @ U.T) < 0:
        V[:, -1] *= -1
        s[-1] *= -1
    R, scale = V @ U.T, s.sum() * size_t / size_p
    return np.linalg.norm(scale * pose @ R + mean_t - scale * mean_p @ R - target, axis=-1).mean()


def published_table(poses, targets, actions, batch):
    """{action: P2 in mm}: poses [N, S, J, 3] in the order of the test, a batch at a time."""
    sums = {}
    for start in range(0, len(poses), batch):
        rows = range(start, min(start + batch, len(poses)))
        best = [min(aligned_error(pose, targets[n]) for pose in poses[n]) for n in rows]
        if len({actions[n] for n in rows}) == 1:  # credited at once
            credit = {actions[start]: (sum(best), len(best))}
        else:  # each pose is credited with what the whole batch has on average
            credit = {}
            for n in rows:
                total, count = credit.get(actions[n], (0.0, 0))
                credit[actions[n]] = total + np.mean(best), count + 1
        for action, (total, count) in credit.items():
            before = sums.get(action.split(" ")[0], (0.0, 0))
            sums[action.split(" ")[0]] = before[0] + total, before[1] + count
    return {action: 1000 * total / count for action, (total, count) in sums.items()}


def recipe_of(system: str, *options: str):
    name, *more = system.split()
    argv = ["--model", name, *more, *SYSTEMS.get(system, []), *options, "-b", "10", "--device", "cpu"]
    chosen, recipe = h36m.JOB.parse(argv)
    recipe = recipe(chosen, synthetic(17))
    prepare(recipe, chosen, Place())
    recipe.model.eval()
    return recipe


def outputs(recipe) -> np.ndarray:
    """[N, S, J, 3] float64 of all test clips."""
    first, found = 0, []
    for clip in recipe.data.test:
        if getattr(recipe.options, "multihyp_test", False):
            found += [p for _, p, _ in recipe.hypotheses(clip, first, recipe.options.samples)]
        else:
            found.append(recipe.predict(clip)[:, None])
        first += len(clip.keypoints)
    return torch.cat(found).double().numpy()


@pytest.mark.parametrize("system", SYSTEMS)
def test_p2_as_published_and_right(system):
    right, published = (recipe_of(system, *more) for more in ((), ("--published_p2",)))
    with torch.no_grad():
        reports = [recipe.evaluate(recipe.place) for recipe in (right, published)]
        poses = outputs(right)
    targets = np.concatenate([target_of(clip) for clip in right.data.test]).astype(np.float64)
    actions = [clip.action for clip in right.data.test for _ in clip.keypoints]
    for report, batch in zip(reports, (1, 10)):  # a batch of one pose mixes nothing
        want = published_table(poses, targets, actions, batch)
        assert {a: row["P2"] for a, row in report.rows.items()} == pytest.approx(want, rel=2e-5)
        assert report.figures["P2"] == pytest.approx(np.mean(list(want.values())), rel=2e-5)
    plain, mixed = (r.rows["Sitting"]["P2"] for r in reports)
    assert abs(plain - mixed) > 0.01, "the flaw shows on these clips"
    assert reports[0].rows["Walking"]["P1"] == reports[1].rows["Walking"]["P1"]


class Part(Place):
    """One of several processes, which run one after the other here."""

    def gather(self, value):
        self.others[self.rank] = value
        return [self.others[rank] for rank in sorted(self.others)]


@pytest.mark.parametrize("system", ["htnet", "ws_anl --multihyp_test"])
def test_processes_share_the_test_and_keep_its_batches(system):
    recipe = recipe_of(system, "--published_p2")
    whole, others = recipe.evaluate(Place()), {}
    for rank in (2, 1, 0):  # the last one has what all found
        place = Part(rank=rank, world=3)
        object.__setattr__(place, "others", others)
        report = recipe.evaluate(place)
    assert report.rows == whole.rows


@pytest.mark.parametrize("model, why", [("rie", "action by action"), ("mixste", "clip"), ("diffpose", "clip by clip")])
def test_systems_whose_p2_mixes_nothing_say_so(model, why):
    options, recipe = h36m.JOB.parse(["--model", model, "--published_p2"])
    with pytest.raises(ValueError, match=f"--published_p2: nothing to reproduce, .*{why}"):
        recipe(options, synthetic(12))
