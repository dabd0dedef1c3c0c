"""Videos as they come: upright, sideways, of uneven rate, cut off, damaged."""

import subprocess

import numpy as np
import pytest

from posekernels.archive import DataError
from posekernels.people.video import Backgrounds, Video

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
