"""The comparison of lifters: what is left out, and that it goes on where it stopped."""

import json

import numpy as np
import pytest

from posekernels.archive import DataError
from posekernels.train import lifters
from posekernels.train.data import open_motion
from posekernels.train.data.motion import load_starter
from posekernels.train.recipes.any_camera import AnyCameraRecipe, motions


def test_networks_are_compared_on_subjects_that_they_did_not_learn_from(tmp_path, capsys, monkeypatch):
    long = sorted(motions(load_starter().train), key=len)[-3:]
    clips = [
        open_motion.Clip(f"clip{n}", subject, "walking", open_motion.centred(motion), 50.0)
        for n, (motion, subject) in enumerate(zip(long, ("CMU69", "CMU01", lifters.CHOSEN_ON[0])))
    ]
    open_motion.write(tmp_path / "motion", "cmu_69", clips)
    learnt = []
    make = AnyCameraRecipe.make_loader

    def watched(recipe, rank, world):
        learnt.append([r.subject for r in recipe.recordings if r.subject not in recipe.held_out])
        return make(recipe, rank, world)

    monkeypatch.setattr(AnyCameraRecipe, "make_loader", watched)
    small = "--strides 3 3 --layers 1 --channels 16 --hidden 16 --heads 2 -b 8 -lr 1e-3"
    monkeypatch.setattr(lifters, "NETWORKS", {"one": small, "two": f"{small} --network mixste"})
    given = ["--motion", str(tmp_path / "motion"), "--seconds", "1", "--out", str(tmp_path / "out")]
    assert lifters.main([*given, "--networks", "one"]) == 0
    assert lifters.main(given) == 0
    assert learnt == [["CMU69"], ["CMU69"]], "each network is trained once"
    table = (tmp_path / "out/README.md").read_text()
    assert "| one | " in table and "| two | " in table and table in capsys.readouterr().out
    found = json.loads((tmp_path / "out/lifters.json").read_text())["networks"]
    assert all(np.isfinite(r["P1"]) and r["P1"] >= r["P2"] > 0 and r["ms"] > 0 for r in found.values())
    with pytest.raises(ValueError, match="of 1 s"):
        lifters.main([*given[:-3], "2", *given[-2:]])
    monkeypatch.setattr(lifters, "CHOSEN_ON", ("SNU-s_006",))
    with pytest.raises(DataError, match="none of SNU-s_006 in it, on whom networks are tested"):  # before it trains
        lifters.main([*given[:-1], str(tmp_path / "other"), "--networks", "one"])
    assert len(learnt) == 2
