"""What is fetched out of wheels, and ``posekernels demo``."""

import re
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from posekernels.archive import DataError
from posekernels.people import detect, fetch
from posekernels.people.commands import demo


def source(package, requirement, member, content):
    sha256 = fetch.digest(package.read_bytes())
    return fetch.Source(requirement, package.name, sha256, {member: fetch.digest(content)})


@pytest.fixture
def pinned(tmp_path, monkeypatch):
    """A video in a wheel of our own, which the environment names."""
    monkeypatch.setenv("POSEKERNELS_CACHE", str(tmp_path / "cache"))
    wheel = tmp_path / "some-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("some/demo.mp4", b"a film")
    monkeypatch.setenv("SOME_WHEEL", str(wheel))
    return replace(
        demo.VIDEO,
        sources=(source(wheel, "sports2d==0.8.34", "some/demo.mp4", b"a film"),),
        variable="SOME_WHEEL",
    )


@pytest.mark.parametrize("page", ["README.md", "docs/first-steps.md"])
def test_pages_tell_how_much_is_fetched_for_the_detector(page):
    text = (Path(__file__).parents[2] / page).read_text()
    about = text[text.index("BlazePose (") :].partition(")")[0]
    assert re.findall(r"\d+ MB", about) == re.findall(r"\d+ MB", detect.NETWORKS.size)


def test_there_is_a_place_to_keep_it(pinned, tmp_path, monkeypatch):
    monkeypatch.setenv("POSEKERNELS_CACHE", "off")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="POSEKERNELS_CACHE=off: there is no place to keep the demo's video"):
        pinned.get()
    assert not (tmp_path / "off").exists()


def test_it_is_fetched_once(pinned, tmp_path, monkeypatch):
    (path,) = pinned.get()
    assert path.read_bytes() == b"a film" and "BSD" in (path.parent / "NOTICE").read_text()
    monkeypatch.setenv("SOME_WHEEL", str(tmp_path / "gone.whl"))
    assert pinned.get() == [path]
    path.write_bytes(b"damaged")
    with pytest.raises(DataError, match="gone.whl: not the pinned some-1"):
        pinned.get()


@pytest.mark.parametrize(
    "changed, message", [("sha256", "not the pinned some-1"), ("files", "demo.mp4 is not the pinned")]
)
def test_another_wheel_is_refused(pinned, changed, message, tmp_path):
    other = {"sha256": "0" * 64, "files": {"some/demo.mp4": "0" * 64}}[changed]
    with pytest.raises(DataError, match=message):
        replace(pinned, sources=(replace(pinned.sources[0], **{changed: other}),)).get()
    assert not list(tmp_path.rglob("*.mp4"))


def test_no_index_is_one_line(pinned, monkeypatch):
    monkeypatch.delenv("SOME_WHEEL")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(DataError, match=r"\(pip, sports2d==0\.8\.34: .*name it with SOME_WHEEL") as refused:
        pinned.get()
    assert "\n" not in str(refused.value)


def test_npm_has_what_the_index_of_wheels_has_not(pinned, tmp_path, monkeypatch, capfd):
    """The second source: another package, another digest, found by a program of another name."""
    (tmp_path / "bin").mkdir()
    package = tmp_path / "owner-film-1.tgz"
    (tmp_path / "film").write_bytes(b"the same film, packed anew")
    with tarfile.open(package, "w:gz") as archive:
        archive.add(tmp_path / "film", "package/film")
    second = source(package, "@owner/film@1", "package/film", b"the same film, packed anew")
    npm = tmp_path / "bin" / "npm"
    npm.write_text(
        f'#!/bin/sh\n[ "$1 $2 $3 $5" = "pack --silent --pack-destination @owner/film@1" ] && cp {package} "$4"\n'
    )
    npm.chmod(0o755)
    both = replace(pinned, sources=(*pinned.sources, second))
    monkeypatch.delenv("SOME_WHEEL")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DataError, match="npm, @owner/film@1: npm is not installed"):
        both.get()
    monkeypatch.setenv("PATH", f"{npm.parent}:/bin:/usr/bin")
    (path,) = both.get()
    assert path.name == "demo.mp4" and path.read_bytes() == b"the same film, packed anew"
    monkeypatch.setenv("PATH", "")
    assert both.get() == [path]  # kept: neither is asked again
    monkeypatch.setenv("SOME_WHEEL", str(package))
    path.unlink()
    assert both.get() == [path]  # the variable takes either package


def test_demo_lifts_the_video_beside_what_it_writes(pinned, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "VIDEO", pinned)
    monkeypatch.chdir(tmp_path)
    asked = []
    monkeypatch.setattr(demo.lift, "run", lambda options, outs, beside: asked.append((options, outs)) or options)
    with pytest.raises(SystemExit):
        demo.main(["--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "INPUT" not in told, "it brings its own"
    assert "takes longer and finds some people a few frames earlier" in told
    assert "at one moment (default 2)" in told and "default 4" not in told
    assert demo.main([]) == 0
    options, outs = asked[-1]
    assert (options.input, options.people, [str(o) for o in outs]) == ("demo.mp4", 2, ["demo.html"])
    assert (tmp_path / "demo.mp4").read_bytes() == b"a film"
    (tmp_path / "there").mkdir()
    assert demo.main(["-o", "there/x.gif", "--people", "1", "--panel", "99"]) == 0
    options, _ = asked[-1]
    assert (options.input, options.people, options.panel) == ("there/demo.mp4", 1, 99)
    (tmp_path / "demo.mp4").write_bytes(b"my own")
    with pytest.raises(ValueError, match="a different video of this name is here"):
        demo.main([])
    assert (tmp_path / "demo.mp4").read_bytes() == b"my own"
    with pytest.raises(ValueError, match="--pannel"):
        demo.main(["--pannel", "9"])
