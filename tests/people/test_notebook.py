"""Lifting in Python, what a notebook shows of it, and rerun's recordings."""

import html
import re
import subprocess
import sys

import numpy as np
import pytest

from posekernels import people
from posekernels.extras import MissingExtra
from posekernels.people import pose_files
from posekernels.people.commands import lift as command
from posekernels.people.player import Body, Film
from posekernels.pose.layouts import from_h36m
from posekernels.pose.skeleton import H36M_17
from posekernels.train.data.motion import load_starter
from tests.people.films import film_in, walker


@pytest.fixture(scope="module")
def keypoints(tmp_path_factory):
    walk = (load_starter("gt", "Swing").test[0].keypoints[:80:2] + 1) * 500
    path = tmp_path_factory.mktemp("keypoints") / "swing.npy"
    np.save(path, from_h36m(walk, "coco-17").astype(np.float32))
    return path


@pytest.fixture(scope="module")
def lifted(keypoints):
    return people.lift(keypoints, fps=25, size="1000x1000", people=1)


def shown(thing, tmp_path):
    """The data of the page in a notebook's frame."""
    (inside,) = re.findall(r'^<iframe srcdoc="([^"]*)" [^<>]*></iframe>$', thing._repr_html_())
    (tmp_path / "page.html").write_text(html.unescape(inside))
    return film_in(tmp_path / "page.html")


def test_lift_in_python_is_the_command(keypoints, lifted, tmp_path):
    arguments = [str(keypoints), "--fps", "25", "--size", "1000x1000", "-o", str(tmp_path / "x.npz")]
    assert command.main(arguments) == 0
    np.testing.assert_array_equal(pose_files.read(tmp_path / "x.npz").people[0].world, lifted.people[0].world)
    with pytest.raises(ValueError, match="--smoth"):
        people.lift(keypoints, smoth=1)
    with pytest.raises(ValueError, match="--smooth must be from 0 to 60 seconds"):
        people.lift(keypoints, smooth=-1)


def test_a_notebook_shows_people_and_forecasts(lifted, tmp_path):
    film = shown(lifted, tmp_path)
    assert (film["frames"], film["now"], film["bodies"][0]["name"]) == (40, None, "Person 1")
    ahead = people.forecast(lifted, 0.4, at=1.4)
    assert (ahead.now, ahead.frames) == (35, 45) and not np.isfinite(ahead.people[0].points[35:]).any()
    np.testing.assert_array_equal(ahead.people[0].world[:35], lifted.people[0].world[:35])
    film = shown(ahead, tmp_path)
    assert (film["frames"], film["now"]) == (45, 35)
    with pytest.raises(ValueError, match="the motion, which lasts 1.6 s"):
        people.forecast(lifted, at=9)


def test_a_title_cannot_leave_its_frame(tmp_path):
    film = Film('"><script>alert(1)</script>', 25, H36M_17, [Body("A", walker(5, 25, (0, 0), 0))])
    assert shown(film, tmp_path)["title"] == film.title and "<script>" not in film._repr_html_()


def test_rerun_reads_what_is_logged(keypoints, tmp_path, capsys):
    pytest.importorskip("rerun", reason="rerun is not installed: 500 MB that CI does without (extra rerun)")
    file = tmp_path / "x.rrd"
    options = ["--fps", "25", "--size", "1000x1000", "-o", str(tmp_path / "x.npz"), "--rerun", str(file)]
    assert command.main([str(keypoints), *options]) == 0
    assert f"wrote {file}" in capsys.readouterr().err
    said = subprocess.run(
        ["rerun", "rrd", "print", "-vv", str(file)], capture_output=True, text=True, check=True
    ).stdout
    for entity in ("/world/person 1", "/image/person 1"):
        assert entity.replace(" ", "\\ ") in said or entity in said
    assert "Points3D:positions" in said and "ViewCoordinates:xyz" in said and "AnnotationContext:context" in said
    subprocess.run(["rerun", "rrd", "verify", str(file)], check=True, capture_output=True)


def test_rerun_that_cannot_be_is_told_before_the_work(keypoints, tmp_path, monkeypatch):
    arguments = [str(keypoints), "-o", str(tmp_path / "x.npz"), "--rerun"]
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(MissingExtra, match=r'--rerun needs rerun: pip install "posekernels\[rerun\]"'):
        command.main(arguments)
    monkeypatch.setitem(sys.modules, "rerun", sys)
    with pytest.raises(ValueError, match="expected a name that ends in .rrd"):
        command.main([*arguments, "x.txt"])
    assert not list(tmp_path.iterdir())
