"""What a page holds, without a browser; ``test_page.py`` opens it in one."""

import base64

import numpy as np
import pytest

from posekernels.people.player import Body, Film, camera_of, page, solids, write
from posekernels.pose.skeleton import H36M_16, H36M_17, H36M_32
from tests.people.films import FOCAL, SIZE, film, film_in, numbers, seen, walker

WALK = walker(40, 30, (0.4, 1.0), 0.6)


def test_positions_are_kept_to_the_millimetre(tmp_path):
    world = WALK.copy()
    world[:5], world[12:20], world[30, 4] = np.nan, np.nan, np.nan
    path = write(tmp_path / "x.html", Film("x", 30, H36M_17, [Body("Person 1", world, seen(world)[0])], SIZE))
    body = film_in(path)["bodies"][0]
    assert body["present"] == [[5, 12], [20, 40]] and body["world"]["start"] == 5
    np.testing.assert_allclose(numbers(body["world"], 40).reshape(40, 17, 3), world, atol=5.1e-4)
    np.testing.assert_allclose(numbers(body["pixels"], 40).reshape(40, 17, 2), seen(world)[0], atol=0.051)


def test_wide_worlds_get_a_wider_step(tmp_path):
    world = WALK * 100
    body = film_in(write(tmp_path / "x.html", Film("x", 30, H36M_17, [Body("Person 1", world)])))["bodies"][0]
    step = np.ptp(world, axis=(0, 1)).max() / 65000
    np.testing.assert_allclose(numbers(body["world"], 40).reshape(40, 17, 3), world, atol=0.51 * step)


@pytest.mark.parametrize("name", ["{{film}}", "</script><script>alert(1)</script>", "{{title}} & <b>", "\\u0041 \\1"])
def test_names_are_only_names(tmp_path, name):
    path = write(tmp_path / "x.html", Film(name, 30, H36M_17, [Body(name, WALK)]))
    assert film_in(path)["title"] == name and film_in(path)["bodies"][0]["name"] == name
    assert path.read_text().count("<script") == 4 and "<script>alert" not in path.read_text()


def test_the_video_is_a_link_or_inside(tmp_path):
    (tmp_path / "films").mkdir()
    video = tmp_path / "films" / "été #1 50%.mp4"
    video.write_bytes(b"pictures")
    linked = write(tmp_path / "x.html", film(1, video=video))
    assert film_in(linked)["video"] == {"name": video.name, "src": "films/%C3%A9t%C3%A9%20%231%2050%25.mp4"}
    inside = write(tmp_path / "y.html", film(1, video=video), embed=True)
    assert film_in(inside)["video"]["src"] is None
    assert base64.b64encode(b"pictures").decode() in inside.read_text()


def test_ten_seconds_of_two_people_are_under_a_megabyte(tmp_path):
    assert write(tmp_path / "x.html", film(2, frames=300)).stat().st_size < 300_000


def test_the_camera_is_found(tmp_path):
    pixels, poses = seen(WALK)
    camera = camera_of(poses, WALK, pixels, SIZE)
    assert camera.focal == pytest.approx(FOCAL, rel=0.03)
    np.testing.assert_allclose(camera.position, (0, -6.5, 1.6), atol=0.3)
    np.testing.assert_allclose(camera.turn[:, 2], (0, 1, 0), atol=1e-6)
    assert camera_of(poses[:2], WALK[:2], pixels[:2], SIZE) is None
    noise = np.random.default_rng(0).uniform(0, SIZE, pixels.shape)
    assert camera_of(poses, WALK, noise, SIZE) is None


@pytest.mark.parametrize("skeleton", [H36M_17, H36M_16, H36M_32])
def test_every_layout_has_limbs(skeleton):
    rods = solids(skeleton)
    joints = {j for rod in rods for j in rod[:2]}
    assert joints >= set(skeleton.left) | set(skeleton.right) and all(r > 0 for rod in rods for r in rod[2:4])
    sides = {rod[1]: rod[4] for rod in rods if rod[4] in (1, 2)}
    assert all(sides[j] == 1 for j in skeleton.left if j in sides)
    assert all(sides[j] == 2 for j in skeleton.right if j in sides) and len(sides) >= 8


@pytest.mark.parametrize(
    "made, message",
    [
        (lambda: Film("x", 30, H36M_17, []), "at least one body, got none"),
        (lambda: Film("x", 30, H36M_17, [Body("p", WALK[:0])]), r"world must be \[T >= 1, 17, 3\], got \[0, 17, 3\]"),
        (lambda: Film("x", 30, H36M_17, [Body("p", WALK), Body("q", WALK[:9])]), r"q: world must be \[40, 17, 3\]"),
        (lambda: Film("x", 30, H36M_17, [Body("p", WALK, WALK)]), r"pixels must be \[40, 17, 2\], got \[40, 17, 3\]"),
        (lambda: Film("x", 30, H36M_17, [Body("p", WALK, hypotheses=WALK)]), r"must be \[40, S, 17, 3\]"),
        (lambda: Film("x", 0, H36M_17, [Body("p", WALK)]), "frames per second must be positive, got 0"),
        (lambda: Film("x", 30, H36M_17, [Body("p", WALK)], times=[0.0]), "1 times for 40 frames"),
    ],
)
def test_refusals(made, message):
    with pytest.raises(ValueError, match=message):
        made()


def test_infinity_is_a_gap(tmp_path):
    world = WALK.copy()
    world[3, 2] = np.inf
    text = page(Film("x", 30, H36M_17, [Body("p", world)]), tmp_path / "x.html")
    assert "Infinity" not in text.split('id="film">')[1].split("</script>")[0]


def test_a_film_that_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(OSError):
        write(tmp_path / "x.html", film(1, video=tmp_path / "gone.mp4"), embed=True)
    assert not list(tmp_path.iterdir())
