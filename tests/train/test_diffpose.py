"""DiffPose's and MixSTE's training: stages, losses, mixture files, published configurations, what is refused."""

import dataclasses
import warnings

import numpy as np
import pytest
import torch

from posekernels import models
from posekernels.archive import DataError, read_checkpoint
from posekernels.models.diffpose import PUBLISHED_SAMPLING
from posekernels.models.load import published_state
from posekernels.people.lifter import load_lifter
from posekernels.train import h36m
from posekernels.train.data import mixture, published
from posekernels.train.evaluate import target_of
from posekernels.train.loop import prepare
from posekernels.train.place import Place
from posekernels.train.recipes import _diffpose_yaml, mixste
from posekernels.train.recipes.diffpose import drawn, pick_components, timestep_pairs
from tests.train import fake_h36m
from tests.train.synthetic import synthetic

SMALL = ["-k", "gt", "-b", "32", "-f", "9", "-cs", "8", "--depth", "1", "--heads", "2", "--seed", "3"]
GRAPH = ["--hid_dim", "8", "--num_layer", "1", "--n_head", "2", "--pose_epochs", "1", "-e", "1"]


@pytest.fixture
def train(tmp_path):
    subjects = ("S1", "S5", "S6", "S7", "S8", "S9", "S11")
    fake_h36m.write(tmp_path, *fake_h36m.tables(subjects, {"Walking": 6}))

    def run(model, out, *options, sizes=()):
        places = ["--data-root", str(tmp_path), "--out", str(tmp_path / out)]
        return h36m.main(["--model", model, *SMALL, *sizes, *places, *map(str, options)])

    run.folder = tmp_path
    return run


def weights(path, prefix=""):
    return {n.removeprefix(prefix): t for n, t in read_checkpoint(path)["weights"].items() if n.startswith(prefix)}


def test_two_stages_and_one(train, capsys):
    assert train("diffpose", "frame", "--setting", "frame", sizes=GRAPH) == 0
    assert "P1 before" in capsys.readouterr().out
    first, last = train.folder / "frame/best-stage1.pt", train.folder / "frame/best.pt"
    assert all(torch.equal(t, weights(last)[n]) for n, t in weights(first).items() if n.startswith("initial."))
    moved = [n for n, t in weights(first, "denoiser.").items() if not torch.equal(t, weights(last, "denoiser.")[n])]
    assert "conv_out.weight" in moved
    # A pose network that is there already: one stage.
    train("diffpose", "again", "--setting", "frame", "--model_pose_path", first, sizes=GRAPH)
    assert not (train.folder / "again/best-stage1.pt").exists()
    assert "ema" in read_checkpoint(last) and read_checkpoint(last)["ema"] is not None
    train("diffpose", "test", "--evaluate", last, sizes=GRAPH)
    with pytest.raises(ValueError, match="expected mixste or diffpose"):
        rie = read_checkpoint(last) | {"model": "rie"}
        torch.save(rie, train.folder / "rie.pt")
        train("diffpose", "wrong", "--model_pose_path", train.folder / "rie.pt", sizes=GRAPH)


def test_video_on_a_mixste_run_and_published_denoiser(train):
    train("mixste", "mixste", "-e", 1)
    pose = train.folder / "mixste/best.pt"
    train("diffpose", "video", "--model_pose_path", pose, "--eta", 1, "--test_times", 2, sizes=GRAPH)
    assert all(torch.equal(t, weights(train.folder / "video/best.pt", "initial.")[n]) for n, t in weights(pose).items())
    # The denoiser in the published container, tested with that pose network.
    from posekernels import models

    denoiser = models.create("gcndiff", channels=8, layers=1, heads=2)
    denoiser.load_state_dict(weights(train.folder / "video/best.pt", "denoiser."))
    state = {f"module.{n}": t for n, t in published_state(denoiser).items()}
    torch.save([state, {}, 1, 1], train.folder / "published.pth")
    published = train.folder / "published.pth"
    train("diffpose", "test", "--evaluate", published, "--model_pose_path", pose, sizes=GRAPH)
    with pytest.raises(ValueError, match="--model_pose_path"):
        train("diffpose", "test", "--evaluate", published, sizes=GRAPH)


def test_sampling_is_the_published_one_of_the_2d_input(tmp_path):
    subjects = ("S1", "S5", "S6", "S7", "S8", "S9", "S11")
    for source in ("gt", "cpn_ft_h36m_dbb"):
        fake_h36m.write(tmp_path, *fake_h36m.tables(subjects, {"Walking": 2}), source)
    for source, arguments in (("cpn", ()), ("cpn", ("-k", "cpn_ft_h36m_dbb")), ("gt", ("-k", "gt"))):
        options, recipe = h36m.JOB.parse(["--model", "diffpose", "--data-root", str(tmp_path), *arguments])
        assert recipe(options, h36m.JOB.load(options)).sampling == PUBLISHED_SAMPLING["video", source]


def test_long_clips_train_on_few_and_are_refused_where_they_do_not_fit(monkeypatch):
    def recipe(*arguments, root=None):
        options, recipe = h36m.JOB.parse(["--model", "mixste", "--device", "cpu", *arguments])
        options.data_root = root
        return recipe(options, synthetic(12))

    for frames, root, chunks in ((27, None, 16), (5000, None, 1), (243, "there", 4), (81, "there", 12)):
        monkeypatch.setattr(mixste, "free_memory", lambda: None)
        assert recipe("-f", str(frames), root=root).chunks == chunks
    with pytest.raises(ValueError, match="--batch-size 16: counts frames, and a chunk has 27"):
        recipe("-f", "27", "-b", "16")
    monkeypatch.setattr(mixste, "free_memory", lambda: 8 << 30)
    recipe("-f", "5000")
    with pytest.raises(
        ValueError, match=r"--batch-size: 16 chunks of 5000 frames.* 35.* GiB .* 8.0 GiB are free: at most 3 fit"
    ):
        recipe("-f", "5000", "-b", "80000")
    with pytest.raises(ValueError, match="--pose_batch_size: 16 .*not even one"):
        recipe("--model", "diffpose", "-f", "50000", "--pose_batch_size", "16")
    recipe("-f", "5000", "-b", "80000", "--evaluate", "nothing.pt")  # nothing is trained


def test_mixste_loss_by_hand():
    target = torch.zeros(1, 3, 17, 3)
    predicted = target.clone()
    predicted[0, 1, 13, 0] = 0.2  # a wrist (weight 4) leaps by 20 cm and back
    losses = mixste.mixste_loss(predicted, target)
    assert losses["position"].item() == pytest.approx(4 * 0.2 / (3 * 17))
    assert losses["smoothness"].item() == pytest.approx(4 * 2 * 0.04 / (2 * 17 * 3))
    assert losses["velocity"].item() == pytest.approx(2 * 0.2 / (2 * 17))
    want = losses["position"] + 0.5 * losses["smoothness"] + 2 * losses["velocity"]
    assert losses["loss"].item() == pytest.approx(want.item())
    assert mixste.mixste_loss(predicted[:, :1] + 1, target[:, :1])["velocity"] == 0


def test_components_and_timesteps():
    weights = torch.tensor([0.2, 0.5, 0.3]).expand(4, 1, 3)
    mixtures = torch.cat((weights[..., None], torch.zeros(4, 1, 3, 4)), -1)
    uniform = torch.tensor([[0.1], [0.2], [0.69], [0.9999999]])
    assert pick_components(mixtures, uniform).flatten().tolist() == [0, 1, 1, 2]
    half = torch.tensor([0, 7, 50])
    assert timestep_pairs(half, 51, 5).tolist() == [0, 7, 50, 50, 43]


def test_jitter_finds_the_noise_under_the_motion():
    rng = np.random.default_rng(0)
    time = np.arange(2000)[:, None, None] / 50
    motion = np.concatenate((np.sin(2 * time), np.cos(3 * time)), -1) * 0.4
    noisy = motion + rng.normal(0, [0.01, 0.02], motion.shape)
    np.testing.assert_allclose(mixture.jitter(noisy.astype(np.float32))[0], [0.01, 0.02], rtol=0.1)
    assert (mixture.jitter(motion[:2]) == mixture.FLOOR).all()


def test_mixture_files(train, capsys):
    root = train.folder
    assert mixture.main(["--data-root", str(root), "-k", "gt"]) == 0
    file = mixture.mixture_file(root, "gt")
    table = mixture.read_mixture(file)
    first = table["S1"]["Walking"][0]
    assert first.shape[1:] == (17, 3, 5) and (first[..., 0] == [1, 0, 0]).all() and (first[..., 3:] >= 0).all()
    data = h36m.JOB.load(h36m.JOB.parse(["--data-root", str(root), "-k", "gt"])[0])
    found = mixture.clip_mixtures(file, data.train)
    np.testing.assert_allclose(found[0][:, :, 0, 1:3], data.train[0].keypoints, atol=1e-6)
    train("diffpose", "mixed", "--setting", "frame", "--mixture", "gt", sizes=GRAPH)
    with pytest.raises(DataError, match="python -m train.data.mixture"):
        mixture.mixture_file(root, "cpn")
    with pytest.raises(DataError, match=r"expected \[T, K, M, 5\]"):
        mixture.read_mixture(root / "data_2d_h36m_gt.npz")
    with pytest.raises(ValueError, match="--mixture needs"):
        train("diffpose", "no", "--mixture", "gt", "--downsample", 2, sizes=GRAPH)


PUBLISHED = """
data: {dataset: human36m, dataset_path: ./data/data_3d_h36m.npz, num_joints: 17, num_workers: 32}
model: {hid_dim: 16, emd_dim: 96, coords_dim: [5, 5], num_layer: 1, n_head: 2, n_pts: 17, dropout: 0.25, ema: True,
        ema_rate: 0.99, resamp_with_conv: True, var_type: fixedsmall}
diffusion: {beta_schedule: linear, beta_start: 1e-4, beta_end: 1e-3, num_diffusion_timesteps: 51}
training: {batch_size: 1024, n_epochs: 80, num_workers: 32}
testing: {test_times: 1, test_timesteps: 2, test_num_diffusion_timesteps: 12}
optim: {optimizer: Adam, lr: 2e-5, eps: 1e-8, amsgrad: false, grad_clip: 1.0, lr_gamma: 0.9, decay: 60}
"""


def test_a_published_command_line_tests(train, capsys):
    pose, denoiser = train.folder / "gcnpose.pth", train.folder / "gcndiff.pth"
    sizes = {"channels": 8, "layers": 1, "heads": 2}
    torch.save([published_state(models.create("gcnpose", **sizes)), {}, 1, 2], pose)
    torch.save([published_state(models.create("gcndiff", **sizes)), {}, 1, 2], denoiser)
    files = ["--model_pose_path", pose, "--model_diff_path", denoiser]
    with pytest.raises(ValueError, match="exclude each other"):
        train("diffpose", "test", "--setting", "frame", *files, "--resume", sizes=GRAPH)
    with pytest.warns(UserWarning, match="--ni"):
        assert train("diffpose", "test", "--setting", "frame", *files, "--doc", "test", "--ni", sizes=GRAPH) == 0
    assert "P1 before" in capsys.readouterr().out and not (train.folder / "test/last.pt").exists()


def test_drawn_components_and_a_missing_mixture_are_known_before_training(train, capsys):
    file = mixture.make(train.folder, "gt")
    frame = ["--setting", "frame", "--seed", "5", "--viz-export", "poses.npy"]
    drawing = [*frame, "--test_mixture", "gt"]
    assert train("diffpose", "plain", *frame, sizes=GRAPH) == 0
    assert train("diffpose", "same", *drawing, sizes=GRAPH) == 0
    with np.load(file, allow_pickle=True) as stored:
        content = dict(stored)
    for action in content["positions_2d"].item().values():
        for view in (view for views in action.values() for view in views):
            view[:, :, 1] = view[:, :, 0] + (0, 200, 0, 0, 0)  # all the weight to a component that is off by 200 pixels
            view[:, :, 0, 0] = 0
    np.savez(file, **content)
    assert train("diffpose", "other", *drawing, sizes=GRAPH) == 0
    folders = [train.folder / name for name in ("plain", "same", "other")]
    for wanted in ("evaluation.json", "poses.npy"):  # what is drawn is what was tested
        plain, same, other = ((folder / wanted).read_bytes() for folder in folders)
        assert plain == same and plain != other
    best = train.folder / "other/best.pt"
    root = ["--data-root", str(train.folder), "-k", "gt"]
    assert h36m.main(["--model", "diffpose", *root, "--model_diff_path", str(best)]) == 0  # the run's sizes, not given
    with pytest.raises(ValueError, match="nowhere_gmm.npz: no such file"):
        train("diffpose", "missing", *frame, "--mixture", "nowhere", sizes=GRAPH)
    assert not (train.folder / "missing").exists()
    with pytest.raises(ValueError, match="frame"):
        train("diffpose", "video", "--test_mixture", "gt", sizes=GRAPH)
    for data in train.folder.glob("data_*.npz"):
        data.unlink()
    assert load_lifter(None, best).name == "diffpose"  # what is lifted needs no test data


def test_drawn_components_follow_their_weights():
    clip = synthetic(12).test[0]
    T = len(clip.keypoints)
    components = np.zeros((T, 17, 3, 5), np.float32)
    components[..., 0], components[..., 1] = (0.5, 0.0, 0.5), (0, 1, 2)
    found = drawn([clip, clip], [components] * 2, 1)
    us = np.concatenate([c.keypoints[..., 0].ravel() for c in found])
    assert set(us) == {0, 2} and 0.3 < (us == 2).mean() < 0.7
    assert np.array_equal(
        us, np.concatenate([c.keypoints[..., 0].ravel() for c in drawn([clip] * 2, [components] * 2, 1)])
    )


def test_published_configuration(tmp_path):
    file = tmp_path / "published.yml"
    file.write_text(PUBLISHED)
    with pytest.warns(UserWarning, match=r"without effect.*optim\.lr \(the command line rules"):
        options, _ = h36m.JOB.parse(["--model", "diffpose", "--n_head", "4", "--config", str(file), "-e", "3"])
    assert options.hid_dim == 16 and options.test_timesteps == 2 and options.beta_start == 1e-4
    assert options.n_head == 4 and options.epochs == 3, "the command line comes first"
    assert options.lr == 1e-3 and options.clip == 1.0


FRAME = ["--exp", "exp", "--doc", "test", "--ni", "--batch_size", "1024", "--device", "cpu"]


def test_the_published_frame_command_in_its_folder(train, monkeypatch, capsys):
    """Only mixtures lie in ./data; the configuration names them, the pose network tells the setting."""
    root = train.folder
    monkeypatch.chdir(root)
    (root / "data").mkdir()
    (root / "configs").mkdir()
    (root / "data_3d_h36m.npz").rename(root / "data/data_3d_h36m.npz")
    plain = root / "data_2d_h36m_gt.npz"
    for source in ("gt", "cpn"):
        plain.rename(root / f"data/data_2d_h36m_{source}.npz")
        mixture.make(root / "data", source).rename(root / f"data/data_2d_h36m_{source}_gmm.npz")
        (root / f"data/data_2d_h36m_{source}.npz").rename(plain)
    paths = "dataset: human36m, dataset_path_train_2d: ./data/data_2d_h36m_gt_gmm.npz, "
    paths += "dataset_path_test_2d: ./data/data_2d_h36m_cpn_gmm.npz"
    (root / "configs/cpn.yml").write_text(PUBLISHED.replace("dataset: human36m", paths))
    torch.save([published_state(models.create("gcnpose", layers=1)), {}, 1, 2], root / "gcn_xyz_cpn.pth")
    torch.save([published_state(models.create("gcndiff", layers=1)), {}, 1, 2], root / "diffpose_uvxyz_cpn.pth")
    sizes = ["--hid_dim", "96", "--num_layer", "1", "--n_head", "4"]
    files = ["--model_pose_path", "gcn_xyz_cpn.pth", "--model_diff_path", "diffpose_uvxyz_cpn.pth"]
    words = ["--model", "diffpose", *sizes, "--config", "cpn.yml", *files, *FRAME]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options, recipe = h36m.JOB.parse(words)
        assert (options.setting, options.mixture, options.test_mixture) == ("frame", "gt", "cpn")
        assert options.keypoints == "cpn_gmm"
        told = "--config: names the 2D gt_gmm to learn from, cpn_gmm to test on; using -k cpn_gmm, --mixture gt"
        assert told in capsys.readouterr().out
        assert h36m.main([*words, "--out", "mixtures"]) == 0
        plain.rename(root / "data/data_2d_h36m_cpn.npz")
        assert h36m.JOB.parse(words)[0].keypoints == "cpn"
        assert h36m.main([*words, "--out", "plain"]) == 0
    found = [(root / out / "evaluation.json").read_text() for out in ("mixtures", "plain")]
    assert found[0].replace("cpn_gmm", "cpn") == found[1]


def test_a_mixture_counts_as_its_heaviest_component():
    rows = np.random.default_rng(0).normal(size=(4, 17, 3, 5)).astype(np.float32)
    found = published._heaviest(rows)
    for t, k in np.ndindex(4, 17):
        assert found[t, k].tolist() == max(rows[t, k].tolist())[1:3]
    assert published._heaviest(rows[:, :, 0]).shape == (4, 17, 5)


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("hid_dim: 16", "hid_dmi: 16", "did you mean 'model.hid_dim'"),
        ("dataset: human36m", "dataset: h3wb", "data.dataset must be human36m"),
        ("n_epochs: 80", "n_epochs: many", "training.n_epochs must be a whole number, got 'many'"),
        ("amsgrad: false", "amsgrad: 1", "true or false"),
        ("\ndata:", "\ndata: [", "is not YAML"),
        ("data: {", "data: 3 #", "sections"),
    ],
)
def test_bad_configurations(tmp_path, old, new, message):
    file = tmp_path / "bad.yml"
    file.write_text(PUBLISHED.replace(old, new, 1))
    with pytest.raises(ValueError, match=message), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _diffpose_yaml.read(file)


def test_bad_timesteps(train):
    for options, message in [
        (("--test_timesteps", 13, "--test_num_diffusion_timesteps", 12), "at most limit=12"),
        (("--test_num_diffusion_timesteps", 60), r"0\.\.50"),
    ]:
        with pytest.raises(ValueError, match=message):
            train("diffpose", "no", *options, sizes=GRAPH)


def test_every_clip_is_refined_once_and_frames_of_two_chunks_count_twice_where_asked():
    data = synthetic(20)
    data.test = data.test[:2]

    def evaluate(*options):
        chosen, recipe = h36m.JOB.parse(["--model", "diffpose", *SMALL, *GRAPH, *options])
        recipe = recipe(chosen, data)
        prepare(recipe, chosen, Place())
        seen = []

        def estimates(clip, **_):
            seen.append(len(clip.keypoints))
            return torch.zeros(seen[-1], 17, 3), torch.zeros(1, seen[-1], 17, 3)

        recipe.estimates = estimates
        figures = recipe.evaluate(recipe.place).figures
        assert figures["P1"] == figures["P1 before"]
        return seen, figures["P1"]

    for options, frames in (((), [*range(12)]), (("--published_repeated_frames",), [*range(9), *range(3, 12)])):
        seen, error = evaluate(*options)
        assert seen == [len(frames)] * 2
        far = [1000 * np.linalg.norm(target_of(clip)[frames], axis=-1).mean() for clip in data.test]
        assert error == pytest.approx(np.mean(far), rel=1e-5)
    short = mixste.with_repeats(dataclasses.replace(data.test[0], keypoints=np.arange(5)[:, None, None]), 9)
    assert short.keypoints.flatten().tolist() == [0, 1, 2, 3, 4, 4, 4, 4, 4]
    with pytest.raises(ValueError, match="--setting video"):
        evaluate("--setting", "frame", "--published_repeated_frames")
