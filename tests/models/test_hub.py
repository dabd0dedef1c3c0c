"""Weights on the Hugging Face hub: huggingface_hub reads a folder made as its cache is, with no network."""

import shutil
import sys

import pytest
import torch

from posekernels import models
from posekernels.archive import CheckpointError
from posekernels.extras import MissingExtra
from posekernels.models.hub import shipped_card
from posekernels.pose.keypoints import centre_on_person

hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed (extra hub)")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The hub's cache, offline; what is pushed goes there as if it had been fetched."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    class Local:
        def create_repo(self, repository, *, private, exist_ok):
            assert exist_ok and private is False

        def upload_folder(self, *, repo_id, folder_path, commit_message):
            place = tmp_path / f"models--{repo_id.replace('/', '--')}"
            revision = "0" * 40
            shutil.copytree(folder_path, place / "snapshots" / revision)
            (place / "refs").mkdir()
            (place / "refs/main").write_text(revision)

    monkeypatch.setattr(hub, "HfApi", Local)
    return tmp_path


def test_what_is_pushed_is_loaded(cache):
    name = models.push_to_hub("lifter", "me/lifter")
    net, mine = models.load(name), models.load("lifter")
    assert name == "hf:me/lifter" and net.about == mine.about and net.sees == "person"
    keypoints, _, _ = centre_on_person(torch.rand(30, 17, 2))
    assert torch.equal(net.lift(keypoints), mine.lift(keypoints))
    card = next(cache.rglob("README.md")).read_text()
    assert card.startswith("---\nlibrary_name: posekernels\n") and "license: mit\n---" in card
    assert 'models.load("hf:me/lifter")' in card and "380 minutes of motion" in card and "forecaster" not in card
    assert all(shipped_card(name) for name in ("lifter", "forecaster", "forecaster_lifted", "pkd_cmu"))


def test_cards_of_other_weights_claim_nothing_that_is_not_known(cache, tmp_path):
    models.save_published(models.create("simlpe"), tmp_path / "simlpe.pth")
    net = models.load(tmp_path / "simlpe.pth")
    models.push_to_hub(net, "me/simlpe", card="Theirs.")
    card = next((cache / "models--me--simlpe").rglob("README.md")).read_text()
    assert "license" not in card and card.endswith("\nTheirs.\n") and "network: `simlpe`" in card
    with pytest.raises(ValueError, match="nothing is known of this network"):
        models.push_to_hub(models.create("simlpe"), "me/other")
    with pytest.raises(ValueError, match="expected owner/name, got 'me'"):
        models.push_to_hub(net, "me")


def test_a_published_file_of_a_repository_and_a_revision(cache, tmp_path):
    place = cache / "models--they--theirs/snapshots" / ("1" * 40)
    (place / "old").mkdir(parents=True)
    net = models.create("simlpe")
    models.save_published(net, place / "old/model.pth")
    (cache / "models--they--theirs/refs").mkdir()
    (cache / "models--they--theirs/refs/v1").write_text("1" * 40)
    again = models.load("hf:they/theirs@v1/old/model.pth")
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize(
    "name, message",
    [("hf:nobody/nothing", "hf:nobody/nothing: cannot be fetched"), ("hf:lifter", "expected hf:owner/name")],
)
def test_what_is_not_there_is_one_line(cache, name, message):
    with pytest.raises(CheckpointError, match=message) as refused:
        models.load(name)
    assert "\n" not in str(refused.value)


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtra, match=r'needs huggingface_hub: pip install "posekernels\[hub\]"'):
        models.load("hf:me/lifter")
