"""Where a run's records go beside log.jsonl: one small hook, and Weights & Biases behind it."""

import json
import sys
from argparse import Namespace
from types import SimpleNamespace

import pytest

from posekernels.extras import MissingExtra
from posekernels.train.run_folder import Log, WeightsAndBiases, sinks_of

RECORDS = [{"epoch": 1, "step": 3, "loss": 0.5, "P1": 80.0}, {"epoch": 2, "step": 6, "loss": 0.25, "P1": 70.0}]


def test_a_hook_of_ones_own_gets_every_record(tmp_path):
    class Mine:
        seen, closed = [], False

        def add(self, record):
            self.seen.append(record)

        def close(self):
            self.closed = True

    mine = Mine()
    log = Log(tmp_path, [], [mine])
    for record in RECORDS:
        log.add(record)
    log.close()
    assert mine.seen == RECORDS and mine.closed
    assert [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()] == RECORDS


class Stand:
    """What wandb.init is asked for, and a run that keeps what is logged."""

    def __init__(self):
        self.asked, self.logged = [], []

    def init(self, **how):
        self.asked.append(how)
        return SimpleNamespace(id=how["id"] or "fresh1", log=self.logged.append, finish=lambda: None)


def test_a_resumed_run_goes_on_in_the_same_one(tmp_path, monkeypatch):
    wandb = Stand()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    options = Namespace(tensorboard=False, wandb="poses", lr=0.1)
    for resumed in (False, True, False):
        (sink,) = sinks_of(tmp_path, options, resumed)
        for record in RECORDS:
            sink.add(record)
        sink.close()
    assert [how["id"] for how in wandb.asked] == [None, "fresh1", None] and wandb.logged == RECORDS * 3
    assert wandb.asked[0]["project"] == "poses" and wandb.asked[0]["config"]["lr"] == 0.1
    assert sinks_of(tmp_path, Namespace(tensorboard=False, wandb=None), False) == []


def test_wandb_itself_takes_it_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed: 80 MB that CI does without (extra wandb)")
    for name, value in {"MODE": "offline", "SILENT": "true", "DISABLE_CODE": "true", "DISABLE_GIT": "true"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    sink = WeightsAndBiases(tmp_path, "poses", {"lr": 0.1}, False)
    for record in RECORDS:
        sink.add(record)
    assert sink.run.summary["P1"] == 70.0
    sink.close()
    (written,) = tmp_path.rglob("*.wandb")
    assert written.stat().st_size > 0 and (tmp_path / "wandb-id.txt").read_text().strip() == sink.run.id


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtra, match=r'--wandb needs wandb: pip install "posekernels\[wandb\]"'):
        sinks_of(tmp_path, Namespace(tensorboard=False, wandb="poses"), False)
