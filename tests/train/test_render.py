import base64
import json
import os
import re
import signal
import subprocess
import sys
import time
from argparse import ArgumentParser
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from posekernels.people import paint, pictures
from posekernels.people.commands.lift import together
from posekernels.pose.skeleton import H36M_17, Skeleton
from posekernels.train import render
from posekernels.train.evaluate import target_of
from posekernels.train.lifting import LiftingJob
from posekernels.train.place import Place
from tests.people.films import film_in, numbers, walker
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


def test_a_picture_shows_left_right_and_the_image():
    image = pictures.picture(panels(), 0, 200)
    assert image.size == (400, 218)
    assert {paint.LEFT, paint.RIGHT, paint.PEOPLE[0]} <= colours(image.crop((200, 18, 400, 218)))
    assert paint.DARK in colours(image.crop((0, 18, 200, 218)))
    bare = pictures.picture([pictures.Panel("Truth", np.full((1, 17, 3), np.nan), H36M_17)], 0, 200)
    assert not {paint.LEFT, paint.RIGHT} & colours(bare), "nobody there"


def test_left_limbs_are_ringed():
    shown = colours(pictures.picture(panels()[1:], 0, 360))
    assert paint.RINGS in shown
    mirrored = Skeleton("x", H36M_17.joints, H36M_17.parents, (), ())
    assert paint.RINGS not in colours(pictures.picture([pictures.Panel("x", MOTION[:1], mirrored)], 0, 360))


def test_height_is_up_left_is_left_from_behind_and_near_is_large():
    eye = paint.Eye((0, 0, 0.9), 0.0, 2.5, 400, 300)  # from +x
    middle, head, left, near = eye([(0, 0, 0.9), (0, 0, 1.6), (0, 0.5, 0.9), (1, 0, 0.9)])
    np.testing.assert_allclose(middle[:2], (200, 150), atol=1e-9)
    assert head[1] < 150 and left[0] > 200 and near[2] < middle[2] and near[3] > middle[3]
    assert middle[3] == pytest.approx(300 / 2.5), "2.5 metres fill the height"
    assert np.isnan(eye((50, 0, 0.9))[0]), "behind the eye"


def on_a_roof() -> np.ndarray:
    """[120, 17, 3]: somebody who hops on a roof for 2 s, is not seen, and then walks on the ground."""
    world = walker(120, 30, (0, 0), 0.4)
    world[:60, :, 2] += 2.2 + 0.15 * np.abs(np.sin(np.arange(60) / 3))[:, None]
    world[60:68] = np.nan
    return world


def test_the_view_goes_up_to_a_roof_and_does_not_hop():
    world = on_a_roof()
    low = world - np.where(np.arange(120) < 60, 2.2, 0)[:, None, None] * (0, 0, 1)
    for points in (world, low):
        panel = pictures.Panel("", points, H36M_17)
        for t in (t for t in range(120) if not 60 <= t < 68):
            middle = (*panel.focus[t], panel.heights[t])
            seen = paint.Eye(middle, panel.azimuth, panel.side / panel.zoom, 200, 200)(points[t])
            assert (seen[:, :2] > 0).all() and (seen[:, :2] < 200).all(), t
        assert np.abs(np.diff(panel.heights[:40])).max() < 0.015 < 0.04 < np.abs(np.diff(points[:40, 0, 2])).max()
    assert panel.heights == pytest.approx(pictures.CUBE / 2, abs=0.01), "on the ground the view stays"
    both = together([world, walker(120, 30, (2, 3), 3.0)])
    assert np.nanmax(world[..., 2]) < both.heights[0] + both.side / both.zoom / 2


def test_all_cores_draw_what_one_draws(tmp_path, monkeypatch):
    frames = pictures.ENOUGH
    many = list(pictures._pictures(panels(frames), range(frames), 64, False))
    monkeypatch.setattr(pictures, "ENOUGH", frames + 1)
    one = list(pictures._pictures(panels(frames), range(frames), 64, False))
    assert len(many) == len(one) == frames
    assert all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(many, one))


def test_a_shadow_out_of_the_picture_is_none():
    image, foot = Image.new("RGB", (80, 80), "white"), np.array([[0.0, 0.0, 0.1]])
    paint.shadows(image, foot, foot, [(0, 0, 0.05, 0.05, 0, 0, 1)], lambda _: np.array([[-1000.0, -1000.0, 0, 100]]))
    assert np.asarray(image).min() == 255


@pytest.mark.parametrize("suffix, how", [("gif", signal.SIGTERM), ("mp4", signal.SIGINT)])
def test_nothing_is_left_of_a_drawing_that_is_stopped(tmp_path, suffix, how):
    if suffix == "mp4":
        pytest.importorskip("av", reason="PyAV is not installed (extra video)")
    script = (
        "import sys, numpy as np\n"
        "from posekernels.cli import run_cli\n"
        "from posekernels.people import pictures\n"
        "from posekernels.pose.skeleton import H36M_17\n"
        "panel = pictures.Panel('x', np.random.default_rng(0).normal(0, 0.4, (9000, 17, 3)), H36M_17)\n"
        "run_cli(lambda: pictures.save(sys.argv[1], [panel], 30, size=200) and 0)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / f"x.{suffix}")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True) as process:
        while not any(tmp_path.iterdir()) and process.poll() is None:
            time.sleep(0.02)
        time.sleep(0.5)  # into the drawing
        assert process.poll() is None
        process.send_signal(how)
        assert process.wait(60) == 130
        assert b"Traceback" not in process.stderr.read()
    assert not list(tmp_path.iterdir())
    with pytest.raises(ProcessLookupError):  # none of its workers is left
        os.killpg(process.pid, 0)


def test_the_death_of_a_process_that_draws_is_told_in_one_line(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})  # so that this process draws nothing itself
    monkeypatch.setattr(pictures, "_draw", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    frames = pictures.ENOUGH
    with pytest.raises(ValueError, match="^drawing: a process that draws ended on its own"):
        list(pictures._pictures(panels(frames), range(frames), 64, False))


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


def test_a_gif_written_in_pieces_is_the_same_gif(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})  # no workers
    shown = []
    for piece in (64, 3):
        monkeypatch.setattr(pictures, "GIF_PIECE", piece)
        gif, frames = Image.open(pictures.save(tmp_path / f"{piece}.gif", panels(10), 25, size=48)), []
        for i in range(gif.n_frames):
            gif.seek(i)
            frames.append((gif.info["duration"], gif.convert("RGB").tobytes()))
        shown.append((gif.info["loop"], frames))
    assert shown[0] == shown[1] and len(shown[0][1]) == 10


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
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(ValueError, match=r"pip install .posekernels\[video\]"):
        pictures.save(tmp_path / "a.mp4", panels(), 50)
    assert not list(tmp_path.iterdir())


def test_mp4_can_be_read_back(tmp_path):
    pytest.importorskip("av", reason="PyAV is not installed (extra video)")
    path = pictures.save(tmp_path / "a.mp4", panels(6), 50, size=101)
    frames = pictures.read_video(path, 5, skip=1)
    assert len(frames) == 5 and frames[0].shape == (110, 202, 3)
    with pytest.raises(ValueError, match="expected 7 images after the first 0, got 6"):
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


def test_a_page_plays_the_video_from_the_chosen_frame_on(tmp_path, data):
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    writer = ffmpeg.write_frames(str(tmp_path / "v.mp4"), (64, 48), fps=50, macro_block_size=2)
    writer.send(None)
    for _ in range(12):
        writer.send(bytes(64 * 48 * 3))
    writer.close()
    chosen = ("--viz-video", tmp_path / "v.mp4", "--viz-skip", 2, "--viz-start", 1, "--viz-limit", 8)
    (path,) = render.render(Perfect(), data, options("--render", "a.html", *chosen, "--viz-downsample", 2), tmp_path)
    film = film_in(path)
    assert film["video"]["src"] == "v.mp4" and [b["pale"] for b in film["bodies"]] == [False, True]
    np.testing.assert_allclose(film["times"], (3 + 2 * np.arange(4)) / 50)
    job = LiftingJob()
    for video, words in (("v.mp4", "12 images, the clip needs 13"), ("gone.mp4", "gone.mp4: no such video")):
        chosen = "--render", "a.html", "--viz-video", tmp_path / video, "--viz-skip", 2, "--viz-limit", 11
        with pytest.raises(ValueError, match=words):  # before anything is evaluated
            job.check(SimpleNamespace(data=data, options=options(*chosen)))


def test_a_page_shows_the_hypotheses_of_those_who_have_some(tmp_path, data):
    class Several(Perfect):
        def hypotheses(self, clip, first_pose, samples):
            assert first_pose == sum(len(c.keypoints) for c in data.test[: [c is clip for c in data.test].index(True)])
            poses = self.predict(clip)
            off = torch.arange(samples) / 100
            yield slice(None), poses[:, None] + off[:, None, None] * torch.tensor([0.0, -1.0, 0.0]), poses

    chosen = ("--viz-action", data.test[1].action, "--viz-start", 3, "--viz-downsample", 2)
    (path,) = render.render(Several(), data, options("--render", "a.html", *chosen), tmp_path)
    film = film_in(path)
    points, cloud = (numbers(film["bodies"][0][kind], film["frames"]) for kind in ("world", "cloud"))
    up = (cloud.reshape(-1, 20, 17, 3) - points.reshape(-1, 1, 17, 3)).mean((0, 2))  # the camera's -y, a little tilted
    np.testing.assert_allclose(np.linalg.norm(up, axis=-1), np.arange(20) / 100, atol=2e-3)
    assert up[-1, 2] > 0.15
    (path,) = render.render(Perfect(), data, options("--render", "b.html", *chosen), tmp_path)
    assert film_in(path)["bodies"][0]["cloud"] is None


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
