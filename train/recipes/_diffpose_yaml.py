"""The YAML configurations of the published DiffPose programs, as ``--config`` takes them (diffpose section 11)."""

from __future__ import annotations

import argparse
import re
import warnings
from pathlib import Path

from posekernels.checks import nearest
from posekernels.cli import Notice
from posekernels.extras import needs

from ..published_folders import CONFIGS, find_file

OPTIONS = {  # YAML key -> our option
    "model.hid_dim": "hid_dim",
    "model.num_layer": "num_layer",
    "model.n_head": "n_head",
    "model.dropout": "dropout",
    "model.ema_rate": "ema_rate",
    "diffusion.beta_schedule": "beta_schedule",
    "diffusion.beta_start": "beta_start",
    "diffusion.beta_end": "beta_end",
    "diffusion.num_diffusion_timesteps": "num_diffusion_timesteps",
    "training.n_epochs": "epochs",
    "testing.test_times": "test_times",
    "testing.test_timesteps": "test_timesteps",
    "testing.test_num_diffusion_timesteps": "test_num_diffusion_timesteps",
    "optim.optimizer": "optimizer",
    "optim.eps": "optim_eps",
    "optim.weight_decay": "weight_decay",
    "optim.amsgrad": "amsgrad",
    "optim.grad_clip": "clip",
}
FIXED = {  # the only value that the published programs, and ours, take
    "data.dataset": "human36m",
    "model.n_pts": 17,
    "model.coords_dim": [5, 5],
    "optim.beta1": 0.9,
}
FILES = {"data.dataset_path_train_2d": "config_train_2d", "data.dataset_path_test_2d": "config_test_2d"}
SWITCH = "model.ema"  # false: no running mean, whatever the rate
WITHOUT_EFFECT = {  # and why
    "data.dataset_path": "--data-root says where the data are",
    "data.num_joints": "never read",
    "data.num_workers": "never read",
    "model.emd_dim": "never read: the time embedding is 4 hid_dim wide",
    "model.resamp_with_conv": "never read",
    "model.var_type": "never read",
    "training.batch_size": "the command line rules: --batch-size",
    "training.num_workers": "nothing here needs workers",
    "training.n_iters": "never read",
    "training.snapshot_freq": "never read",
    "training.validation_freq": "never read",
    "optim.lr": "the command line rules: --lr",
    "optim.lr_gamma": "the command line rules: --lr_gamma",
    "optim.decay": "the command line rules: --decay",
}


def read(path: str | Path) -> dict:
    """{our option: value} of a file; warns of the settings that have no effect, here as in the published programs.

    Under ``config_train_2d`` and ``config_test_2d`` the sources of 2D: "gt_gmm" for data_2d_h36m_gt_gmm.npz.

    Raises:
        ValueError: no such file, not YAML, an unknown key (the nearest is told), a value of the wrong kind.
    """
    yaml = needs("yaml", "yaml", "--config")
    try:
        content = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise ValueError(f"--config: cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"--config: {path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not all(isinstance(v, dict) for v in content.values()):
        raise ValueError(f"--config: {path} must hold sections (data, model, diffusion, ...) of keys")
    known = {*OPTIONS, *FIXED, *FILES, *WITHOUT_EFFECT, SWITCH}
    flat = {f"{section}.{key}": value for section, keys in content.items() for key, value in keys.items()}
    for key in flat:
        if key not in known:
            raise ValueError(f"--config: {path} has an unknown key {key}{nearest(key, known)}")
    for key, value in FIXED.items():
        if key in flat and flat[key] != value:
            raise ValueError(f"--config: {path}: {key} must be {value}, got {flat[key]!r}")
    idle = {k: why for k, why in WITHOUT_EFFECT.items() if k in flat}
    if idle:
        told = "; ".join(f"{k} ({why})" for k, why in idle.items())
        warnings.warn(f"{path}: without effect: {told}", Notice, stacklevel=2)
    found = {}
    for key, option in OPTIONS.items():
        if key in flat:
            found[option] = _number(path, key, flat[key])
    for key, option in FILES.items():
        if source := re.fullmatch(r"data_2d_h36m_(.+)\.npz", Path(str(flat.get(key))).name):
            found[option] = source[1]
    if flat.get(SWITCH) is False:
        found["ema_rate"] = 0.0
    return found


def _number(path, key: str, value):
    if key in ("diffusion.beta_schedule", "optim.optimizer"):
        return value
    if key == "optim.amsgrad":
        if not isinstance(value, bool):
            raise ValueError(f"--config: {path}: {key} must be true or false, got {value!r}")
        return value
    whole = key.rpartition(".")[2] in ("hid_dim", "num_layer", "n_head", "n_epochs") or "timesteps" in key
    whole = whole or key == "testing.test_times"
    try:
        number = float(value)  # YAML reads 1e-4 as text
        if isinstance(value, bool) or (whole and number != int(number)):
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(
            f"--config: {path}: {key} must be a{' whole' if whole else ''} number, got {value!r}"
        ) from None
    return int(number) if whole else number


class Load(argparse.Action):
    """``--config FILE``: its settings stand in for options that are not on the command line, before or after it."""

    def __call__(self, parser, namespace, values, option_string=None):
        setattr(namespace, self.dest, values)
        for option, value in read(find_file(values, CONFIGS)).items():
            if getattr(namespace, option, None) is None:  # an option that comes later replaces it
                setattr(namespace, option, value)
