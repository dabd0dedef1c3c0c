import base64
import json
import re
from argparse import ArgumentParser

import numpy as np
import pytest
import torch
from PIL import Image

from posekernels.people import pictures
from posekernels.pose.skeleton import H36M_17
from posekernels.train import render
from posekernels.train.evaluate import target_of
from posekernels.train.place import Place
from tests.train.synthetic import synthetic, world_of

MOTION = world_of(synthetic(40).test[0])


@pytest.fixture(scope="module")
def data():
    return synthetic(20)


def panels(frames=4):
    pixels = np.full((frames, 17, 2), 400.0) + np.arange(17)[:, None] * 10
    return [pictures.Panel("Input", pixels, H36M_17), pictures.Panel("Truth", MOTION[:frames], H36M_17)]


def colours(image) -> set[str]:
    return {f"#{r:02x}{g:02x}{b:02x}" for r, g, b in np.asarray(image.convert("RGB")).reshape(-1, 3)}


def test_a_picture_shows_bones_in_their_colours():
    image = pictures.picture(panels(), 0, 200)
    assert image.size == (400, 218)
    assert {pictures.LEFT, pictures.RIGHT, pictures.MIDDLE} <= colours(image.crop((200, 18, 400, 218)))
    assert "#000000" in colours(image.crop((0, 18, 200, 218)))


def test_height_is_up_and_left_is_left_from_behind():
    pose = np.zeros((1, 17, 3), np.float32)
    pose[0, :, 2] = 0.9
    pose[0, 10] = (0, 0, 1.6)  # head
    pose[0, 13] = (0, 0.5, 0.9)  # left wrist, at +y: to the right as seen from +x (azimuth 0)
    view = pictures._view(0.0)
    right, down, _ = (pose[0] @ view.T).T
    assert down[10] < down[0] and right[13] > right[0]


def test_gif_keeps_real_time(tmp_path):
    for fps, frames, shown in ((50, 10, 10), (30, 10, 10), (120, 12, 4)):
        path = pictures.save(tmp_path / f"{fps}.gif", panels(frames), fps, size=48)
        gif = Image.open(path)
        total = 0
        for i in range(gif.n_frames):
            gif.seek(i)
            total += gif.info["duration"]
        assert gif.n_frames <= shown
        assert total == pytest.approx(1000 * frames / fps, abs=10)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["120.gif", "30.gif", "50.gif"]


def test_html_is_one_file_that_holds_the_poses(tmp_path):
    path = pictures.save(tmp_path / "a.html", panels(5), 25, title="<script>alert(1)</script>")
    text = path.read_text()
    assert "<script>alert" not in text
    film = json.loads(re.search(r'<script type="application/json" id="film">(.*?)</script>', text)[1])
    assert film["fps"] == 25 and [b["name"] for b in film["bodies"]] == ["Truth"] and film["size"] == [1000, 1000]
    track = film["bodies"][0]["world"]
    whole = np.frombuffer(base64.b64decode(track["data"]), "<i2").reshape(5, 17, 3)
    np.testing.assert_allclose(whole * track["scale"] + track["offset"], MOTION[:5], atol=6e-4)


def test_refusals(tmp_path):
    with pytest.raises(ValueError, match=r"\.gif, \.mp4, \.html"):
        pictures.save(tmp_path / "a.avi", panels(), 50)
    with pytest.raises(ValueError, match="same number of frames"):
        pictures.save(tmp_path / "a.gif", [panels(2)[0], panels(3)[1]], 50)
    with pytest.raises(ValueError, match="infinity"):
        pictures.Panel("x", np.full((1, 17, 3), np.inf), H36M_17)
    with pytest.raises(ValueError, match="17 joints, points have 16"):
        pictures.Panel("x", np.zeros((1, 16, 3)), H36M_17)
    assert not list(tmp_path.iterdir())


def test_mp4_without_its_package_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "imageio_ffmpeg", None)
    with pytest.raises(ValueError, match=r"pip install .posekernels\[video\]"):
        pictures.save(tmp_path / "a.mp4", panels(), 50)
    assert not list(tmp_path.iterdir())


def test_mp4_can_be_read_back(tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    path = pictures.save(tmp_path / "a.mp4", panels(6), 50, size=101)
    frames = pictures.read_video(path, 5, skip=1)
    assert len(frames) == 5 and frames[0].shape == (110, 202, 3)
    with pytest.raises(ValueError, match="7 wanted"):
        pictures.read_video(path, 7)


def test_to_world_undoes_the_camera(data):
    clip = data.test[0]
    camera = clip.positions.copy()
    camera[:, 1:] += camera[:, :1]
    np.testing.assert_allclose(pictures.to_world(camera, clip.orientation, clip.translation), world_of(clip), atol=1e-5)
    grounded = pictures.to_world(target_of(clip), clip.orientation)
    assert grounded[..., 2].min() == 0 and (grounded[:, 10, 2] > grounded[:, 3, 2]).all()
    level = pictures.to_world(target_of(clip))
    assert (level[:, 10, 2] > level[:, 3, 2]).all()


@pytest.mark.parametrize("camera, azimuth", [(0, 70), (1, -70), (2, 110), (3, -110)])
def test_azimuths_are_close_to_the_published_ones(camera, azimuth):
    from posekernels.pose.camera import h36m_cameras

    assert abs(pictures.azimuth_of(h36m_cameras("S9")[camera].orientation) - azimuth) < 25


def test_downsample_averages_groups():
    points = np.arange(10.0).reshape(5, 1, 2)
    np.testing.assert_array_equal(pictures.downsample(points, 2), [[[1, 2]], [[5, 6]]])
    assert pictures.downsample(points, 9).shape == (1, 1, 2)


class Perfect:
    """A recipe that predicts the ground truth."""

    name = "perfect"
    place = Place()
    model = torch.nn.Identity()

    def predict(self, clip):
        return torch.from_numpy(target_of(clip))


def options(*arguments):
    parser = ArgumentParser()
    render.add_arguments(parser)
    return parser.parse_args(list(map(str, arguments)))


def test_render_draws_the_chosen_frames(tmp_path, data):
    chosen = ("--viz-subject", "S9", "--viz-action", "Sitting 1", "--viz-camera", 2, "--viz-start", 1, "--viz-limit", 4)
    chosen += ("--viz-downsample", 2, "--viz-size", 1, "--viz-export", "p.npy")
    written = render.render(Perfect(), data, options("--render", "a.gif", *chosen), tmp_path)
    assert [p.name for p in written] == ["p.npy", "a.gif"]
    clip = next(c for c in data.test if c.action == "Sitting 1" and c.camera == 2)
    exported = np.load(tmp_path / "p.npy")
    np.testing.assert_array_equal(exported, target_of(clip)[1:5])
    gif = Image.open(tmp_path / "a.gif")
    assert gif.size == (3 * 72, 72 + 6) and gif.n_frames == 2 and gif.info["duration"] == 40
    render.render(Perfect(), data, options("--render", "b.gif", "--viz-no-ground-truth", "--viz-size", 1), tmp_path)
    assert Image.open(tmp_path / "b.gif").size[0] == 2 * 72


def test_published_form_of_the_command():
    """``--render`` asks, ``--viz-output`` says where to."""
    for words in (("--render", "--viz-output", "a.gif"), ("--viz-output", "a.gif", "--render"), ("--render", "a.gif")):
        assert options(*words).render == "a.gif"
    assert options().render is None


def test_a_picture_must_go_somewhere(data):
    with pytest.raises(ValueError, match="--render: to which file"):
        render.check(data, options("--render"))
    render.check(data, options("--render", "--viz-export", "p.npy"))


def test_prediction_and_truth_stand_in_the_same_world(data):
    clip = data.test[0]
    shown = render.panels_of(clip, target_of(clip), data)
    assert [p.title for p in shown] == ["Input", "Prediction", "Ground truth"]
    np.testing.assert_allclose(shown[1].points, world_of(clip), atol=1e-5)
    np.testing.assert_allclose(shown[2].points, world_of(clip), atol=1e-5)


def test_clips_that_are_not_there(data):
    for arguments, message in (
        (("S8", None, 0), "--viz-subject: no 'S8'"),
        ((None, "Walkin", 0), "did you mean 'Walking'"),
        ((None, None, 1), "--viz-camera: no 1"),
    ):
        with pytest.raises(ValueError, match=message):
            render.choose_clip(data.test, *arguments)
    with pytest.raises(ValueError, match="--viz-start"):
        render.render(Perfect(), data, options("--render", "a.gif", "--viz-start", 99), None)
