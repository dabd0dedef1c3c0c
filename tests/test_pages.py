"""What the README and the pages of docs/ show is run as it stands there; the site is built with warnings as errors."""

import re
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest

from posekernels.people import detect
from posekernels.people.commands import lift
from posekernels.people.tracking import Sighting
from tests import pages

ROOT = pages.ROOT
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.fixture(scope="module")
def samples():
    return runpy.run_path(str(ROOT / "docs/samples.py"))


@pytest.fixture
def folder(tmp_path, samples, monkeypatch):
    """The files that pages speak of, and somebody in clip.mp4: whoever is in the samples."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POSEKERNELS_CACHE", str(tmp_path / "cache"))
    samples["write"](tmp_path)
    film(tmp_path / "clip.mp4", len(samples["pixels"]("coco-17")))
    (tmp_path / "FOLDER").mkdir()
    for name in ("a.mp4", "b.mp4", "FOLDER/c.mp4"):
        shutil.copy(tmp_path / "clip.mp4", tmp_path / name)
    shutil.copy(tmp_path / "plain.npy", tmp_path / "FOLDER")
    shutil.copy(tmp_path / "coco.json", tmp_path / "keypoints.json")
    points = samples["pixels"]("blazepose-33")
    monkeypatch.setattr(lift, "finder", lambda options: Knows(points))
    return tmp_path


class Knows(detect.Finder):
    """Finds in each image the person of the samples, who is not on it."""

    layout = "blazepose-33"

    def __init__(self, points):
        super().__init__()
        self.points = points.astype(np.float32)

    def find(self, image): ...

    def follow(self, image, region): ...

    def __call__(self, image):
        self.frame += 1
        seen = self.points[(self.frame - 1) % len(self.points)]
        return [Sighting(seen[:, :2] * (64 / 1000), seen[:, 2])]


def film(path: Path, frames: int) -> None:
    """A grey video of 64 x 64 pixels at 25 frames per second."""
    av = pytest.importorskip("av", reason="PyAV is not installed (extra video)")
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 64
        for t in range(frames):
            image = np.full((64, 64, 3), 60 + t % 100, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        out.mux(stream.encode())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_of_a_page_runs(page, folder):
    pages.check(page)


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "bench/README.md", "csrc/README.md", "tests/ptx/README.md"])
def test_blocks_of_pages_for_maintainers_hold(page):
    pages.check(ROOT / page, parsed=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere_in_a_clone_too(page):
    """Where pages are read as they lie here, nothing that the site makes is there, and no link is given words."""
    links = re.findall(r"(?<!`)\[([^\]\n]*)\]\(([^)\s]+)\)", page.read_text())
    assert not [where for words, where in links if not words.strip()]
    made = [ROOT / "docs" / name for name in ("made", "ops")]
    for _, where in links:
        if "://" in where or where.startswith("#"):
            continue
        file = (page.parent / where.partition("#")[0]).resolve()
        assert file.exists() and not any(file.is_relative_to(folder) for folder in made), where
    outside = re.sub(r"^(```.*?^```$|<!-- site\n.*?\n-->$)", "", page.read_text(), flags=re.M | re.S)
    assert "<iframe" not in outside and "<a " not in outside


def test_a_block_that_fails_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for text, message in (
        ("```python\n1 / 0\n```\n", "x.md, line 1: .*ZeroDivisionError"),
        ("a\n\n```sh\nposekernels lift --nothing\n```\n", "x.md, line 3: .*error"),
        ("<!-- parsed: long -->\n```\npython -m train.h36m --epoch 3\n```\n", "line 2: .*exit code 2"),
        ("```sh\nfrobnicate\n```\n", "no program that is known"),
        ("```python\nprint(1)\n```\n\n```text\n2\n```\n", "not printed: 2"),
        ('```\npip install ".[nothing]"\n```\n', "nothing"),
        ("```rust\n```\n", "a block of 'rust'"),
        ("1. as\n\n   ```cpp\n   int x = y;\n   ```\n", "line 3: .*y"),
        ("```json\n{\n```\n", "JSONDecodeError"),
    ):
        (tmp_path / "x.md").write_text(text)
        with pytest.raises(AssertionError, match=f"(?s){message}"):
            pages.check(tmp_path / "x.md")
    (tmp_path / "x.md").write_text("<!-- parsed: long -->\n```\npython -m train.h36m --epochs 3  # all of it\n```\n")
    pages.check(tmp_path / "x.md")


def test_the_site_is_built_without_a_warning(tmp_path):
    application = pytest.importorskip("sphinx.cmd.build", reason="Sphinx is not installed (extra docs)")
    assert (
        application.main(
            ["-q", "-W", "--keep-going", "-d", f"{tmp_path}/doctrees", str(ROOT / "docs"), f"{tmp_path}/site"]
        )
        == 0
    )
    site = tmp_path / "site"
    ops = [path.parent.name for path in (ROOT / "posekernels/ops").glob("*/README.md")]
    assert ops and not [op for op in ops if not (site / f"ops/{op}.html").is_file()]
    lift, ahead = ((site / f"{name}.html").read_text() for name in ("lift", "forecast"))
    offered = re.findall(r'<a class="reference download internal"[^>]* href="([^"]+)"', lift)
    assert {"openpose.zip", "plain.npy", "swing.npz", "swing.gltf"} <= {Path(file).name for file in offered}
    assert all((site / file).is_file() for file in offered) and (site / "swing.html").is_file()
    assert '<a href="swing.html">' in lift and 'src="swing.html"' in lift and "Drag to turn it" in lift
    assert 'src="next.html"' in ahead and "joints.npy</" in ahead
    assert 'href="ops/best_hypothesis.html"' in (site / "hypotheses.html").read_text()
    elsewhere = re.compile(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="(?:https?:)?//')
    assert not [page.name for page in site.rglob("*.html") if elsewhere.search(page.read_text())]
