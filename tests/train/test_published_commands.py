"""Every option of the published programs: done, taken with a word on why it does nothing, or refused with what to use.

The options of MixSTE that its paper's spec does not name are those of the programs that it goes back to.
"""

import shlex
import warnings

import numpy as np
import pytest
import torch

from posekernels.archive import read_checkpoint, write_npz
from posekernels.cli import Notice, run_cli
from posekernels.models import create
from posekernels.models.load import load, published_state
from posekernels.train import cmu, h36m, humaneva, mpi_inf_3dhp, pw3d
from posekernels.train.data.mpi_inf_3dhp import make_clips
from posekernels.train.loop import prepare
from posekernels.train.place import Place
from tests.train import fake_h36m
from tests.train.synthetic import synthetic

# option and value -> what the run's options must then say; or why it does nothing; or what to use in its place
DATA = {"-k gt": ("keypoints", "gt"), "-a Walking": ("actions", "Walking"), "--subset 0.5": ("subset", 0.5)}
DATA |= {
    "--keypoints gt": ("keypoints", "gt"),
    "--actions Sit": ("actions", "Sit"),
    "--downsample 2": ("downsample", 2),
}
SPLIT = {"-str S1": ("subjects_train", "S1"), "--subjects-train S5": ("subjects_train", "S5")}
SPLIT |= {"-ste S9": ("subjects_test", "S9"), "--subjects-test S11": ("subjects_test", "S11")}
RATES = {"--lr 0.001": ("lr", 0.001), "-lrd 0.9": ("lr_decay", 0.9), "--lr_decay 0.9": ("lr_decay", 0.9)}
LARGE = {"--lr_decay_large 0.5": ("lr_decay_large", 0.5), "--large_decay_epoch 5": ("large_decay_epoch", 5)}
ONE_FRAME = {"--stride 1": None, "--crop_uv 0": None, "--reverse_augmentation False": None}
ONE_FRAME |= {"--stride 2": "only 1 works", "--crop_uv 1": "only 0 works", "--reverse_augmentation True": "only false"}
TORCH = {"--batch_size 64": ("batch_size", 64), "--nepoch 21": ("epochs", 20), "--seed 1": ("seed", 1)}
TORCH |= {"--root_path ROOT": ("data_root", "ROOT"), "--dataset h36m": None, "--gpu 0": Notice, "--workers 4": Notice}
VIEWS = {"--render x.gif": ("render", "x.gif"), "--viz-output x.mp4": ("render", "x.mp4")}
VIEWS |= {"--viz-subject S9": ("viz_subject", "S9"), "--viz-action Walking": ("viz_action", "Walking")}
VIEWS |= {"--viz-camera 2": ("viz_camera", 2), "--viz-video x.mp4": ("viz_video", "x.mp4")}
VIEWS |= {"--viz-skip 3": ("viz_skip", 3), "--viz-export x.npy": ("viz_export", "x.npy")}
VIEWS |= {"--viz-bitrate 3000": ("viz_bitrate", 3000), "--viz-no-ground-truth": ("viz_no_ground_truth", True)}
VIEWS |= {"--viz-limit 9": ("viz_limit", 9), "--viz-downsample 2": ("viz_downsample", 2)}
VIEWS |= {"--viz-size 5": ("viz_size", 5.0)}
VIDEOPOSE3D = {
    **DATA,
    **SPLIT,
    **VIEWS,
    "-d h36m": None,
    "--dataset h36m": None,
    "-c folder": ("checkpoint", "folder"),
    "--checkpoint folder": ("checkpoint", "folder"),
    "--checkpoint-frequency 10": Notice,
    "--by-subject": ("by_subject", True),
    "--export-training-curves": Notice,
    "-e 80": ("epochs", 80),
    "--epochs 80": ("epochs", 80),
    "-b 1024": ("batch_size", 1024),
    "--batch-size 1024": ("batch_size", 1024),
    "-lr 0.001": ("lr", 0.001),
    "--learning-rate 0.001": ("lr", 0.001),
    "-lrd 0.95": ("lr_decay", 0.95),
    "--lr-decay 0.95": ("lr_decay", 0.95),
    "-no-da": ("data_augmentation", False),
    "--no-data-augmentation": ("data_augmentation", False),
    "-no-tta": ("test_augmentation", False),
    "--no-test-time-augmentation": ("test_augmentation", False),
    "--no-eval": ("eval_every", 10**9),
    "--dense": Notice,
    "--disable-optimizations": Notice,
    "--warmup 1": Notice,
    "--linear-projection": Notice,
    "--no-bone-length": Notice,
    "--no-proj": Notice,
    "-r x.bin": "--resume needs --out",
    "--resume x.bin": "--resume needs --out",
    "--evaluate x.bin": "x.bin: no such checkpoint",
}
PROGRAMS = {
    "rie": {
        **VIDEOPOSE3D,
        "-s 1": ("stride", 1),
        "--stride 3": "--stride: only 1 works",
        "-drop 0.2": ("dropout", 0.2),
        "--dropout 0.2": ("dropout", 0.2),
        "-arc 3,3,3": ("architecture", (3, 3, 3)),
        "--architecture 3,3,3": ("architecture", (3, 3, 3)),
        "--causal": ("causal", True),
        "-ch 256": ("channels", 256),
        "--channels 256": ("channels", 256),
        "--stage 1": ("stage", "1"),
        "-lfd 512": ("latent_features_dim", 512),
        "--latent-features-dim 512": ("latent_features_dim", 512),
        "-p x.bin": "-p/--pretrain is for --stage 2",
        "--stage 2 --pretrain x.bin": "-p/--pretrain: no such file x.bin",
        "--stage 3 -ft x.bin": "-ft/--finetune: no such file x.bin",
        "--finetune x.bin": "-ft/--finetune is for --stage 3",
        "-d humaneva15": "use python -m train.humaneva",
    },
    "mixste": {
        **VIDEOPOSE3D,
        "-cf 20": Notice,
        "-l log/default": Notice,
        "--log log/default": Notice,
        "--nolog": Notice,
        "-gpu 0": Notice,
        "-sun S2": Notice,
        "--subjects-unlabeled S2": Notice,
        "-mloss 100000": Notice,
        "--min_loss 100000": Notice,
        "-s 27 -f 27": ("stride", 27),
        "--stride 81": "--stride must be --frames, 243",
        "-f 81": ("frames", 81),
        "--number-of-frames 81": ("frames", 81),
        "-cs 512": ("channels", 512),
        "-dep 8": ("depth", 8),
        "-drop 0": Notice,
        "--dropout 0": Notice,
        "-arc 3,3,3": Notice,
        "--architecture 3,3,3": Notice,
        "-ch 1024": Notice,
        "--causal": "--model rie --causal",
        "--coverlr": "give --lr beside --resume",
        "--ftpath folder": "--resume goes on",
        "--compare": "--render draws one network",
    },
    "htnet": {
        **DATA,
        **RATES,
        **LARGE,
        **ONE_FRAME,
        **TORCH,
        "--layers 3": ("layers", 3),
        "--channel 240": ("channel", 240),
        "--d_hid 1024": ("d_hid", 1024),
        "--data_augmentation True": ("data_augmentation", True),
        "--test_augmentation True": ("test_augmentation", True),
        "--frames 1": Notice,
        "--n_joints 17": Notice,
        "--out_joints 17": Notice,
        "--in_channels 2": Notice,
        "--out_channels 3": Notice,
        "--out_all 1": Notice,
        "-n name": Notice,
        "--model_name name": Notice,
        "--reload": "no .pth file in --previous_dir",
        "--reload --previous_dir ckpt/cpn": "no .pth file in --previous_dir ckpt/cpn",
        "--train": ("train", True),
        "--test 1": Notice,
        "--previous ckpt": Notice,
        "--viz try": Notice,
        "-previous_best_threshold 60": Notice,
        "-previous_name x": Notice,
        "--drop 0.2": Notice,
        "--min_lr 1e-6": Notice,
        "--lr_min 0": Notice,
        "--refine": Notice,
        "--lr_refine 1e-5": Notice,
        "--refine_train_reload": Notice,
        "--refine_test_reload": Notice,
        "--previous_refine_name x": Notice,
        "--figure demo.jpg": "posekernels lift FILE",
        "--video demo.mp4": "posekernels lift FILE",
    },
    "ws_anl": {
        **DATA,
        **RATES,
        **LARGE,
        **ONE_FRAME,
        **TORCH,
        "--shhpe_model mgcn_lw --train": ("lifter", "mgcn_lw"),
        "--train": ("train", True),
        "--mutilhyp_test --train": ("multihyp_test", True),
        "--sample_nums 200": ("samples", 200),
        "--alpha 0.005": ("alpha", 0.005),
        "--dataset 3dhp": "use python -m train.mpi_inf_3dhp",
        "--save_ckpt_path folder": Notice,
        "--data_augmentation True": Notice,
        "--test_augmentation True": Notice,
        "--out_all 1": Notice,
        "--drop 0.2": Notice,
        "--min_lr 1e-6": Notice,
        "--lr_min 0": Notice,
        "--reload_sigma": Notice,
    },
    "strided_transformer": {
        **DATA,
        **RATES,
        **LARGE,
        **TORCH,
        "--layers 3": ("layers", 3),
        "--channel 256": ("channel", 256),
        "--d_hid 512": ("d_hid", 512),
        "--data_augmentation True": ("data_augmentation", True),
        "--reverse_augmentation True": ("reverse_augmentation", True),
        "--test_augmentation True": ("test_augmentation", True),
        "--crop_uv 0": ("crop_uv", 0),
        "--crop_uv 1": "--crop_uv: only 0 works",
        "-s 1": ("stride", 1),
        "--stride 2": "--stride: only 1 works",
        "--train 1": Notice,
        "--test": "need --previous_dir",
        "--lr_refine 1e-5": Notice,
        "--frames 27": ("frames", 27),
        "--pad 13": Notice,
        "--refine": ("refine", True),
        "--reload": "need --previous_dir",
        "--reload --previous_dir checkpoint/pretrained": ("previous_dir", "checkpoint/pretrained"),
        "--refine --refine_reload --previous_dir x": ("refine_reload", True),
        "--checkpoint folder": Notice,
        "--n_joints 17": Notice,
        "--out_joints 17": Notice,
        "--out_all 1": ("out_all", 1),
        "--in_channels 2": Notice,
        "--out_channels 3": Notice,
        "-previous_best_threshold 60": Notice,
        "-previous_name x": Notice,
        "-previous_refine_name x": Notice,
        "--video sample_video.mp4": "posekernels lift FILE",
    },
    "diffpose": {
        **SPLIT,
        "--seed 19960903": ("seed", 19960903),
        "--config x.yml": "--config: cannot read x.yml",
        "--exp exp": Notice,
        "--doc test": Notice,
        "--verbose info": Notice,
        "--ni": Notice,
        "--actions *": ("actions", "*"),
        "-sun S2": Notice,
        "--subjects-unlabeled S2": Notice,
        "-f 243": ("frames", 243),
        "--number-of-frames 243": ("frames", 243),
        "-mloss 100000": Notice,
        "--min_loss 100000": Notice,
        "--skip_type uniform": ("skip_type", "uniform"),
        "--eta 0.0": ("eta", 0.0),
        "--sequence": Notice,
        "--n_head 4": ("n_head", 4),
        "--dim_model 96": Notice,
        "--n_layer 5": Notice,
        "--dropout 0.25": ("dropout", 0.25),
        "--downsample 1": ("downsample", 1),
        "--model_pose_path x.bin": ("model_pose_path", "x.bin"),
        "--model_diff_path x.pth": "x.pth: no such checkpoint",
        "--train": Notice,
        "--batch_size 1024": ("batch_size", 1024),
        "--lr 1e-3": ("lr", 1e-3),
        "--lr_gamma 0.9": ("lr_gamma", 0.9),
        "--decay 60": ("decay", 60),
        "--test_times 1": ("test_times", 1),
        "--test_timesteps 1": ("test_timesteps", 1),
        "--test_num_diffusion_timesteps 6": ("test_num_diffusion_timesteps", 6),
    },
}
PKD = {
    "--num 48": ("num", 48),
    "--distill_layer_num 6": ("distill_layer_num", 6),
    "--similar_weight 0.1": ("similar_weight", 0.1),
    "--iter 10000": ("iter", 10000),
    "--spatial-fc": ("spatial_fc", True),
    "--temporal-only": Notice,
    "--exp-name x": Notice,
    "--weight 1.0": Notice,
    "--model-pth x.pth": "x.pth: no such checkpoint",
}
SIMLPE = {
    "--num 48": ("num", 48),
    "--seed 888": ("seed", 888),
    "--exp-name x": Notice,
    "--temporal-only": ("temporal_only", True),
    "--spatial-fc": ("spatial_fc", True),
    "--layer-norm-axis spatial": ("layer_norm_axis", "spatial"),
    "--with-normalization": ("with_normalization", True),
    "--weight 1.0": Notice,
    "--model-pth x.pth": "x.pth: no such checkpoint",
}
ON_3DHP = {w: want for w, want in PROGRAMS["ws_anl"].items() if "--train" not in w}
ON_3DHP |= {
    "--dataset 3dhp": None,
    "--dataset h36m": "use python -m train.h36m",
    "-k hrnet_coco": ("keypoints", "hrnet_coco"),
}
ON_3DHP |= {
    "--shhpe_model mgcn_lw": "no ckpt/shhpe_model_mgcn_lw.pth",
    "--mutilhyp_test": "no ckpt/shhpe_model_htnet.pth",
}
ON_3DHP |= {"--train": "use python -m train.h36m --model ws_anl --train", "--subset 0.5": Notice}
HUMANEVA = PROGRAMS["rie"] | {"-d humaneva15": None}
HUMANEVA |= dict.fromkeys(("-d h36m", "--dataset h36m"), "use python -m train.h36m")
ROWS = [(h36m, model, words, want) for model, options in PROGRAMS.items() for words, want in options.items()]
ROWS += [(cmu, "pkd", words, want) for words, want in PKD.items()]
ROWS += [(pw3d, "pkd", words, want) for words, want in PKD.items()]
ROWS += [(h36m, "pkd", words, want) for words, want in PKD.items()]
ROWS += [(h36m, "simlpe", words, want) for words, want in SIMLPE.items()]
ROWS += [(mpi_inf_3dhp, None, words, want) for words, want in ON_3DHP.items()]
ROWS += [(humaneva, "rie", words, want) for words, want in HUMANEVA.items()]


@pytest.fixture(scope="module")
def data():
    return synthetic(12)


@pytest.mark.parametrize(
    "program, model, words, want", ROWS, ids=[f"{p.__name__.split('.')[-1]} {m} {w}" for p, m, w, _ in ROWS]
)
def test_every_option_has_its_answer(tmp_path, monkeypatch, data, program, model, words, want):
    monkeypatch.chdir(tmp_path)
    where = [] if "--root_path" in words else ["--data-root", "there"]
    argv = [*(["--model", model] if model else []), *where, *shlex.split(words)]
    job = program.job_of(argv) if program is h36m else program.JOB
    lifts = job in (h36m.JOB, humaneva.JOB, mpi_inf_3dhp.JOB)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            options, recipe = job.parse(argv)
            if lifts:
                monkeypatch.setattr(job, "load", lambda options: data)
                monkeypatch.setattr("posekernels.train.job.fit", lambda *_: None)
            if job.trains and lifts:
                recipe(options, data)
            if isinstance(want, str):
                job.run(argv)
        except ValueError as refusal:
            assert isinstance(want, str) and want in str(refusal) and len(str(refusal).splitlines()) == 1
            return
    told = [str(w.message) for w in said if issubclass(w.category, Notice)]
    assert not isinstance(want, str), "expected to be refused"
    if want is Notice:
        assert len(told) == 1 and told[0].startswith(f"{words.split()[0]}: without effect: ")
    else:
        assert told == []
        assert want is None or getattr(options, want[0]) == want[1]


# -- the published command line of WS-ANL's test -----------------------------------------------------------------------
def published_files(folder, lifter="mgcn_lw", variance="variance_linear"):
    torch.manual_seed(0)
    folder.mkdir(parents=True)
    torch.save(published_state(create(lifter)), folder / f"shhpe_model_{lifter}.pth")
    torch.save(published_state(create(variance)), folder / f"avg_model_{lifter}.pth")


def run(capsys, main, *arguments) -> tuple[int, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        run_cli(lambda: main([str(a) for a in arguments]))
    out = capsys.readouterr()
    return end.value.code or 0, out.out, out.err


TEST = ["--model", "ws_anl", "--shhpe_model", "mgcn_lw", "--sample_nums", "4", "--mutilhyp_test"]


@pytest.mark.parametrize("place", ["ckpt", "dataset/ckpt"])
def test_the_published_test_of_ws_anl_tests_and_never_trains(tmp_path, monkeypatch, capsys, data, place):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(h36m, "load_starter", lambda keypoints, **_: data)
    for argv, missing in ((TEST, "shhpe_model_mgcn_lw"), (TEST[:4], "shhpe_model_mgcn_lw")):
        code, _, error = run(capsys, h36m.main, *argv)
        assert code == 2 and f"no ckpt/{missing}.pth (looked in ., data, dataset, datasets)" in error
        assert "--lifter_checkpoint" in error and "--train" in error
    published_files(tmp_path / place)
    code, printed, error = run(capsys, h36m.main, *TEST)
    assert code == 0 and "reprojected P1" in printed and "training" not in printed, error
    told = "".join(
        f"no --{n}_checkpoint: using {place}/{file}_model_mgcn_lw.pth\n"
        for n, file in (("lifter", "shhpe"), ("variance", "avg"))
    )
    assert told in printed
    named = ["--lifter_checkpoint", f"{place}/shhpe_model_mgcn_lw.pth", "--evaluate", f"{place}/avg_model_mgcn_lw.pth"]
    assert run(capsys, h36m.main, *TEST, *named)[1] == printed.replace(told, "")
    code, single, error = run(capsys, h36m.main, *TEST[:4])  # as published: one pose, from what was detected
    assert code == 0 and "MPJVE" in single and "training" not in single, error
    assert {p.name for p in tmp_path.iterdir()} == {place.split("/")[0]}, "no run was begun"
    (tmp_path / place / "avg_model_mgcn_lw.pth").unlink()
    code, _, error = run(capsys, h36m.main, *TEST)
    assert code == 2 and "no ckpt/avg_model_mgcn_lw.pth" in error


def test_the_published_training_of_ws_anl_is_around_the_lifter_in_ckpt(tmp_path, monkeypatch, capsys, data):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(h36m, "load_starter", lambda keypoints, **_: data)
    argv = ["--model", "ws_anl", "--shhpe_model", "mgcn_lw", "--train", "--nepoch", "2", "--no-progress"]
    brief = ["--lifter_epochs", "1", "--out"]
    code, printed, error = run(capsys, h36m.main, *argv, *brief, "alone")
    missing = "no --lifter_checkpoint, and no ckpt/shhpe_model_mgcn_lw.pth (looked in ., data, dataset, datasets)"
    assert code == 0 and f"{missing}: the lifter is trained first\n" in printed, error
    published_files(tmp_path / "ckpt")
    code, printed, error = run(capsys, h36m.main, *argv, *brief, "around")
    assert code == 0 and "no --lifter_checkpoint: using ckpt/shhpe_model_mgcn_lw.pth\n" in printed, error
    lifter = create("mgcn_lw")
    load(tmp_path / "ckpt/shhpe_model_mgcn_lw.pth", lifter)
    weights = read_checkpoint(tmp_path / "around/best.pt")["weights"]
    assert all(torch.equal(weights[f"lifter.{n}"], t) for n, t in lifter.state_dict().items())
    assert not (tmp_path / "around/best-stage1.pt").exists()


def test_htnet_trains_on_from_what_it_reloads(tmp_path, monkeypatch, capsys, data):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(h36m, "load_starter", lambda keypoints, **_: data)
    (tmp_path / "ckpt").mkdir()
    net = create("htnet", depth=1, channels=24, hidden=16)
    torch.save(published_state(net), tmp_path / "ckpt/model_1_4890.pth")
    argv = ["--layers", "1", "--channel", "24", "--d_hid", "16", "--reload", "--previous_dir", "ckpt"]
    code, printed, error = run(capsys, h36m.main, *argv)
    assert code == 0 and "--reload: ckpt/model_1_4890.pth\n" in printed and "training" not in printed, error
    still = ["--train", "--nepoch", "2", "--lr", "0", "--no-progress", "--out", "on"]
    code, printed, error = run(capsys, h36m.main, *argv, *still)
    assert code == 0 and "training htnet" in printed, error
    weights = read_checkpoint(tmp_path / "on/best.pt")["weights"]
    assert all(torch.equal(weights[n], t) for n, t in net.state_dict().items())


def test_actions_and_downsample_on_3dhp():
    poses = {"TS1": {"Seq1": [np.arange(4 * 51.0).reshape(4, 17, 3)], "Other": [np.zeros((2, 17, 3))]}}
    points = {"TS1": {"Seq1": [np.full((5, 17, 2), 700.0)], "Other": [np.full((2, 17, 2), 700.0)]}}
    (clip,) = make_clips(poses, points, ["TS1"], "Seq", 3)
    assert clip.keypoints.shape == (2, 17, 2)
    np.testing.assert_array_equal(clip.positions[:, 0], poses["TS1"]["Seq1"][0][[0, 3], 0])
    with pytest.raises(ValueError, match="no action 'Seq2'; did you mean 'Seq1'"):
        make_clips(poses, points, ["TS1"], "Seq2")


def test_the_published_test_on_3dhp(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, _, error = run(capsys, mpi_inf_3dhp.main, *TEST[2:], "--dataset", "3dhp", "-k", "hrnet_coco")
    assert code == 2 and "no data_3d_3dhp.npz in ./data, ./dataset, ./datasets: --data-root DIR" in error
    published_files(tmp_path / "ckpt")
    random = np.random.default_rng(0)
    poses = {s: {"Seq1": [random.normal(size=(2, 17, 3)) * 0.3]} for s in mpi_inf_3dhp.SUBJECTS}
    points = {s: {"Seq1": [random.uniform(500, 900, (2, 17, 2))]} for s in mpi_inf_3dhp.SUBJECTS}
    (tmp_path / "dataset").mkdir()
    write_npz(tmp_path / "dataset/data_3d_3dhp.npz", positions_3d=poses)
    write_npz(tmp_path / "dataset/data_2d_3dhp_hrnet_coco.npz", positions_2d=points)
    code, printed, error = run(capsys, mpi_inf_3dhp.main, *TEST[2:], "--dataset", "3dhp", "-k", "hrnet_coco")
    assert code == 0 and "12 frames, best of 4, alpha 0.01" in printed, error
    assert printed.startswith("no --data-root: using ./dataset\nno --lifter_checkpoint: using ckpt/shhpe_model_mgcn_lw")


def test_ws_anl_tests_the_mean_of_a_pose_and_its_mirror_image(data):
    argv = ["--model", "ws_anl", "--lifter", "mgcn_lw", "--device", "cpu"]
    options, recipe = h36m.JOB.parse(argv)
    recipe = recipe(options, data)
    prepare(recipe, options, Place())
    recipe.model.eval()
    clip = data.test[0]
    single = torch.cat([single for _, _, single in recipe.hypotheses(clip, 0, 0)])
    torch.testing.assert_close(recipe.predict(clip)[:, 1:], single[:, 1:])


# -- published folders -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("folder", ["data", "dataset", "datasets"])
def test_published_folders_are_looked_in(tmp_path, monkeypatch, capsys, folder):
    monkeypatch.chdir(tmp_path)
    h36m.JOB.parse([])
    printed = capsys.readouterr().out
    assert printed.startswith(
        "no --data-root, and no data_3d_h36m.npz in ./data, ./dataset, ./datasets: using the star"
    )
    (tmp_path / folder).mkdir()
    fake_h36m.write(tmp_path / folder, *fake_h36m.tables(("S1", "S5", "S6", "S7", "S8", "S9", "S11"), {"Walking": 3}))
    options, _ = h36m.JOB.parse(["-k", "gt"])
    assert options.data_root == folder and options.batch_size == 512, "and sizes are the published ones"
    assert capsys.readouterr().out == f"no --data-root: using ./{folder}\n"
    assert h36m.JOB.load(options).name == "Human3.6M (gt)"
    options, _ = h36m.JOB.parse(["-k", "gt", "--data-root", "elsewhere"])
    assert options.data_root == "elsewhere" and capsys.readouterr().out == ""
    (tmp_path / folder / "cmu_mocap").mkdir()
    assert cmu.JOB.parse([])[0].data_root == folder
    with pytest.raises(ValueError, match=r"no --data-root, and no data_3d_humaneva15.npz in ./data, ./dataset, ./dat"):
        humaneva.JOB.parse([])


@pytest.mark.parametrize(
    "words",
    [
        "--model diffpose --model_pose_path x.bin",
        "--model ws_anl --lifter_checkpoint x.pth",
        "--model ws_anl --lifter mgcn_lw --evaluate here.pth --variance_checkpoint x.pth",
        "--model strided_transformer --reload --previous_dir x",
    ],
)
def test_a_checkpoint_that_is_not_there_is_missed_before_the_data_are_read(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    torch.save(published_state(create("variance_linear")), tmp_path / "here.pth")
    monkeypatch.setattr(h36m.JOB, "load", lambda options: pytest.fail("the data were read"))
    code, _, error = run(capsys, h36m.main, *words.split(), "--data-root", "there")
    option, name = words.split()[-2:]
    assert code == 2 and error.endswith(f"error: {option} {name}: no such file or folder\n")


def test_published_checkpoints_and_configurations_are_looked_for(tmp_path, monkeypatch, capsys, data):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(h36m, "load_starter", lambda keypoints, **_: data)
    size = ["--layers", "1", "--channel", "24", "--d_hid", "16"]
    (tmp_path / "checkpoint").mkdir()
    torch.save(published_state(create("htnet", depth=1, channels=24, hidden=16)), tmp_path / "checkpoint/x.pth")
    code, printed, error = run(capsys, h36m.main, *size, "--evaluate", "x.pth")
    assert code == 0 and "--evaluate: checkpoint/x.pth\n" in printed, error
    (tmp_path / "mine").mkdir()
    (tmp_path / "checkpoint/x.pth").rename(tmp_path / "mine/x.pth")
    assert run(capsys, h36m.main, *size, "--evaluate", "x.pth")[0] == 2
    rie = ["--model", "rie", "-arc", "3", "-ch", "8", "-lfd", "8", "--stage", "1"]
    torch.save(
        {"model_pos": published_state(create("rie", filter_widths=(3,), stage=1, latent=8, channels=8))},
        tmp_path / "mine/gt_pretrained.bin",
    )
    code, printed, error = run(capsys, h36m.main, *rie, "-c", "mine", "--evaluate", "gt_pretrained.bin")
    assert code == 0 and "--evaluate: mine/gt_pretrained.bin\n" in printed, error
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/human36m.yml").write_text("model: {hid_dim: 16}")
    assert h36m.JOB.parse(["--model", "diffpose", "--config", "human36m.yml"])[0].hid_dim == 16
