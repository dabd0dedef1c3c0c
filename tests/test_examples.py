"""examples/ on small inputs: each program as its first line calls it, the notebook cell by cell."""

import json
import runpy
import sys

import pytest
import torch

from posekernels import models
from posekernels.people import detect, pose_files
from posekernels.people.commands import lift
from tests import pages
from tests.test_pages import Knows, folder, samples  # noqa: F401 (fixtures)


def go(capsys, *words) -> str:
    pages.command(["python", *map(str, words)], parsed=False)
    return capsys.readouterr().out


def test_a_video_to_a_page(folder, capsys):  # noqa: F811
    said = go(capsys, "examples/video_to_page.py", "clip.mp4", "clip.html")
    assert "person 1: 75 frames, from" in said and "clip.mp4" in (folder / "clip.html").read_text()


def test_keypoints_to_bvh(folder, capsys):  # noqa: F811
    said = go(capsys, "examples/keypoints_to_bvh.py", "coco.json", "walk.bvh")
    assert "taken for coco-17" in said and (folder / "walk.bvh").read_text().startswith("HIERARCHY")


def test_a_webcam_loop_on_a_file(folder, samples, capsys, monkeypatch):  # noqa: F811
    monkeypatch.setattr(detect, "BlazePose", lambda people: Knows(samples["pixels"]("blazepose-33")))
    lines = go(capsys, "examples/webcam.py", "clip.mp4").splitlines()
    assert len(lines) == 70 and lines[-1].startswith("frame 70: left knee ")  # 5 of 75 are still awaited


def test_200_hypotheses_as_a_cloud(folder, capsys):  # noqa: F811
    net = models.create("ws_anl", lifter="mgcn_lw")
    about = {"network": "ws_anl", "config": {"lifter": "mgcn_lw"}}
    run = {"format": "posekernels-train-1", "model": "ws_anl", "about": about, "weights": net.state_dict()}
    torch.save(run, "best.pt")
    said = go(capsys, "examples/hypotheses_cloud.py", "best.pt", "cloud.html")
    assert "over 200 poses" in said and '"cloud":{' in (folder / "cloud.html").read_text()


def test_a_forecast(folder, capsys):  # noqa: F811
    lift.main(["coco.json", "--fps", "25", "-o", "people.npz"])
    said = go(capsys, "examples/forecast_people.py", "people.npz", "next.html")
    assert "person 1, 0.5 s ahead: " in said and (folder / "next.html").exists()


@pytest.mark.parametrize(
    "name",
    ["forecast_people", "hypotheses_cloud", "keypoints_to_bvh", "lift_with_ray", "video_to_page", "webcam"],
)
def test_without_its_arguments_an_example_says_its_usage(monkeypatch, name):
    if name == "lift_with_ray":
        pytest.importorskip("ray.data", reason="Ray is not installed with its data part (extra ray)")
    path = str(pages.ROOT / f"examples/{name}.py")
    monkeypatch.setattr(sys, "argv", [path])
    with pytest.raises(SystemExit, match=f"python examples/{name}.py "):
        runpy.run_path(path)


def test_a_network_of_ones_own(folder, capsys):  # noqa: F811
    *_, last = go(capsys, "examples/own_network.py", 40).splitlines()
    mine, mean = (float(part.split(" mm")[0].split()[-1]) for part in last.split(";"))
    assert mine < mean, "forty steps beat the mean pose"


def test_lightning_fabric_owns_the_loop(folder, capsys):  # noqa: F811
    pytest.importorskip("lightning_fabric", reason="Lightning Fabric is not installed (extra fabric)")
    small = ["-a", "Swing", "--every", "10", "--epochs", "1", "--layers", "1", "--channel", "24", "--d_hid", "32"]
    said = go(capsys, "examples/fabric_loop.py", *small, "--device", "cpu", "--out", "mine.pt")
    assert "epoch 1: loss 0." in said and "P1 " in said
    assert torch.load(folder / "mine.pt")["model"]


def test_the_notebook(folder):  # noqa: F811
    book = json.loads((pages.ROOT / "examples/first_look.ipynb").read_text())
    cells, names = [c for c in book["cells"] if c["cell_type"] == "code"], {}
    assert cells and not any(cell["outputs"] for cell in cells)
    shown = []
    for cell in cells:
        *lines, last = "".join(cell["source"]).splitlines()
        exec("\n".join(lines), names)
        try:
            result = eval(last, names)
        except SyntaxError:
            exec(last, names)
        else:
            shown.append(result)
    html = [thing._repr_html_() for thing in shown if hasattr(thing, "_repr_html_")]
    assert len(html) == 3 and all(text.startswith("<iframe srcdoc=") for text in html)
    assert pose_files.read("people.npz").frames == 75
