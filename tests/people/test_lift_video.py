"""Videos as they come: upright, sideways, of uneven rate, cut off, damaged. And the page in a real browser."""

import re
import shutil
import subprocess

import numpy as np
import pytest

from posekernels.archive import DataError
from posekernels.people import pictures
from posekernels.people.video import Backgrounds, Video
from posekernels.pose.skeleton import H36M_17

ffmpeg = pytest.importorskip("imageio_ffmpeg")


def write(path, frames=12, size=(64, 48), fps=10, more=()):
    writer = ffmpeg.write_frames(str(path), size, fps=fps, macro_block_size=2, output_params=list(more))
    writer.send(None)
    for t in range(frames):
        image = np.full((size[1], size[0], 3), min(10 * t, 255), np.uint8)
        image[: size[1] // 2, : size[0] // 2] = 255  # the upper left quarter
        writer.send(image.tobytes())
    writer.close()
    return path


def call(*arguments):
    subprocess.run([ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-y", *map(str, arguments)], check=True)


def test_frames_size_and_rate(tmp_path):
    video = Video(write(tmp_path / "x.mp4"))
    images = list(video)
    assert (video.size, video.fps, len(images), video.count) == ((64, 48), 10.0, 12, 12)
    assert images[0][0, 0].min() > 240 and abs(int(images[5][40, 60, 0]) - 50) < 8
    assert next(iter(Video(tmp_path / "x.mp4", width=32))).shape == (24, 32, 3)


def test_a_sideways_phone_video_comes_upright(tmp_path):
    write(tmp_path / "x.mp4")
    call("-display_rotation", "90", "-i", tmp_path / "x.mp4", "-c", "copy", tmp_path / "turned.mp4")
    video = Video(tmp_path / "turned.mp4")
    images = list(video)
    assert video.size == (48, 64) and images[0].shape == (64, 48, 3) and len(images) == 12
    bright = [image[8, 8, 0] > 200 for image in (images[0], images[0][::-1], images[0][:, ::-1], images[0][::-1, ::-1])]
    assert bright.count(True) == 1 and not bright[0], "the bright quarter has turned with the picture"


def test_uneven_rate_is_evened_out(tmp_path):
    write(tmp_path / "a.mp4", frames=20)
    # frames 0 to 9 as they are, later ones at a third of the speed: 1 s and 3 s
    stretch = "setpts=if(lt(N\\,10)\\,PTS\\,PTS+2*(N-10)*0.1/TB)"
    call("-i", tmp_path / "a.mp4", "-vf", stretch, "-fps_mode", "vfr", tmp_path / "b.mp4")
    video = Video(tmp_path / "b.mp4")
    images = list(video)
    seconds = len(images) / video.fps
    assert 3.2 < seconds < 4.2, "as long as it lasts"
    middle = int(images[round(1.9 * video.fps)][40, 60, 0]) / 10
    assert 12 < middle < 14.5, "1.9 s is frame 10 + 9 / 3"


@pytest.mark.parametrize("how", ["noise", "cut off", "text"])
def test_damaged_videos_are_one_clear_line(tmp_path, how):
    path = write(tmp_path / "x.mp4", frames=30)
    content = path.read_bytes()
    noise = np.random.default_rng(0).bytes(5000)
    path.write_bytes({"noise": noise, "cut off": content[: len(content) // 3], "text": b"hello " * 100}[how])
    with pytest.raises(DataError, match="not a video that ffmpeg can read") as error:
        list(Video(path))
    assert "\n" not in str(error.value)


def test_backgrounds_go_forward_back_and_past_the_end(tmp_path):
    images = Backgrounds(write(tmp_path / "x.mp4"), 15, 32)
    level = [round(int(images[t][20, 30, 0]) / 10) for t in (0, 3, 3, 11, 14, 2)]
    assert level == [0, 3, 3, 11, 11, 2]


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PROBE = """<script>
setTimeout(() => {
  scrub.value = 5; scrub.dispatchEvent(new Event("input"));
  const canvas = document.querySelector("canvas.turns"); canvas.setPointerCapture = () => {};
  const move = { buttons: 1, movementX: 80, movementY: 30 };
  canvas.dispatchEvent(new PointerEvent("pointermove", move));
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  document.title = [Math.floor(now), turn.azimuth, turn.elevation, pixels.some((v) => v > 0), playing].join(" ");
}, 300);
</script></html>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_the_page_plays_turns_and_scrubs_in_a_browser(tmp_path):
    points = np.random.default_rng(0).normal(0, 0.4, (10, 34, 3))
    points[4:7, 17:] = np.nan  # somebody who is away for a while
    panels = [
        pictures.Panel("3D", points, pictures.crowd(H36M_17, 2)),
        pictures.Panel("2D", points[..., :2] * 100 + 500, None),
    ]
    page = pictures.save(tmp_path / "x.html", panels, 25)
    page.write_text(page.read_text().replace("</html>", PROBE))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000", "--dump-dom"]
    done = subprocess.run([CHROMIUM, *flags, f"file://{page}"], capture_output=True, text=True, timeout=120, check=True)
    assert re.search(r"<title>5 -40 27 true false</title>", done.stdout), done.stdout[:300]
