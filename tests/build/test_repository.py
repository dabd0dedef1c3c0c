"""What stands around the code: it parses, agrees with the package, and asks what it should."""

import re
import tomllib
from pathlib import Path

import pytest

import posekernels

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_dependency_has_a_floor():
    asked = [*PROJECT["build-system"]["requires"], *PROJECT["project"]["dependencies"]]
    asked += [r for extra in PROJECT["project"]["optional-dependencies"].values() for r in extra]
    bare = [r for r in asked if not r.startswith("posekernels[") and not re.search(r">=\s*\d", r.partition(";")[0])]
    assert not bare, f"no lowest version: {bare}"


def test_citation_is_of_this_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == PROJECT["project"]["version"] == posekernels.__version__
    assert cited["license"] == PROJECT["project"]["license"] and cited["authors"] and cited["title"]


def test_reports_come_with_info():
    forms = sorted(p for p in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml") if p.name != "config.yml")
    assert forms
    for path in forms:
        form = yaml.safe_load(path.read_text())
        asked = {field["id"]: field for field in form["body"]}
        assert "posekernels info" in asked["info"]["attributes"]["description"], path.name
        assert asked["info"]["validations"]["required"], path.name


def test_hooks_are_what_ci_checks():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    asked = (ROOT / ".ci/run").read_text()
    for hook in hooks:
        program = hook["entry"].split()[0]
        assert program in asked and any(need.startswith(program) for need in hook["additional_dependencies"])
        assert [
            need
            for need in hook["additional_dependencies"]
            if need in PROJECT["project"]["optional-dependencies"]["dev"]
        ]


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.cuda"])
def test_images_copy_what_there_is(name):
    text = (ROOT / name).read_text()
    assert "Nobody has built this image yet" in text  # take it out once somebody has
    for extra in re.search(r"\[([a-z0-9,]+)\]\"", text)[1].split(","):
        assert extra in PROJECT["project"]["optional-dependencies"], extra
