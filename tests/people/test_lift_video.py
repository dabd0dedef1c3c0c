"""Videos as they come: upright, sideways, of uneven rate, cut off, damaged."""

import os
import subprocess
import threading

import numpy as np
import pytest
from PIL import Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from posekernels.archive import DataError
from posekernels.people.video import Backgrounds, Video, _size_of

ffmpeg = pytest.importorskip("imageio_ffmpeg")
pytest.importorskip("av", reason="PyAV is not installed (extra video)")


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


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["x.jpg", "x.png"])
def test_a_picture_of_a_phone_comes_upright(tmp_path, name, orientation):
    tags, pixels = Image.Exif(), np.zeros((48, 64, 3), np.uint8)
    tags[0x0112], pixels[:24, :32] = orientation, 255
    Image.fromarray(pixels).save(tmp_path / name, exif=tags)
    wanted = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / name)))
    assert wanted.shape == ((48, 64, 3) if orientation < 5 else (64, 48, 3))
    for video in (Video(tmp_path / name), Video(tmp_path)):
        (image,) = video
        assert video.size == image.shape[1::-1] and (image == wanted).all()


def test_damaged_tags_leave_the_picture(tmp_path):
    tags = Image.Exif()
    tags[0x0112] = 6
    whole = tags.tobytes()
    Image.new("RGB", (64, 48)).save(tmp_path / "x.webp", exif=whole.replace(b"MM", b"M?").replace(b"II", b"I?"))
    assert Video(tmp_path / "x.webp").size == (64, 48)


def test_a_damaged_png_is_refused_by_name(tmp_path):
    """Whose header is whole: Pillow says what is wrong with the rest by a SyntaxError."""
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "x.png")
    whole = (tmp_path / "x.png").read_bytes()
    second = whole.index(b"IDAT", whole.index(b"IDAT") + 1)
    (tmp_path / "x.png").write_bytes(whole[:second] + b"\xff\0\xff\0" + whole[second + 4 :])
    with pytest.raises(DataError, match=r"x\.png: not a picture that can be read"):
        Video(tmp_path / "x.png")


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


def test_images_are_read_by_their_times(tmp_path):
    """Brightness tells the true second: 30 images a second, none for 4 s, then 15 a second, to the end."""
    lum = "geq=lum='16+219*T/10':cb=128:cr=128"
    chosen = "select='lt(t,3)+gte(t,7)*not(mod(n,2))'"
    source = ["-f", "lavfi", "-i", f"color=c=black:s=64x48:r=30:d=10,{lum}"]
    call(*source, "-vf", chosen, "-fps_mode", "vfr", tmp_path / "x.mp4")
    video = Video(tmp_path / "x.mp4")
    shown = np.array([image.mean() / 25.5 for image in video])
    assert video.fps == 30 and len(shown) == video.count and 298 <= len(shown) <= 301
    times = np.arange(len(shown)) / 30
    there = (times < 2.9) | (times > 7.0)
    assert np.abs(shown - times)[there].max() < 0.15 and np.abs(shown - times)[there].mean() < 0.07
    assert [note for note in video.notes if "0.033 to 4.0" in note and "read by their times, at 30 frames/s" in note]


@pytest.mark.parametrize("fps", ["30000/1001", "25", "60", "12.5"])
@pytest.mark.parametrize("form", ["mp4", "mkv", "webm", "avi", "gif"])
def test_even_rates_stay_as_they_are(tmp_path, fps, form):
    call("-f", "lavfi", "-i", f"testsrc=s=64x48:r={fps}:d=2", tmp_path / f"x.{form}")
    video = Video(tmp_path / f"x.{form}")
    exact = eval(fps)
    assert video.fps == pytest.approx(exact, rel=0.01 if form == "gif" else 1e-3)
    assert (
        len(list(video)) == video.count == pytest.approx(2 * exact, abs=1.01 if form != "gif" else 3)
        and not video.notes
    )


def test_pixels_that_are_not_square_are_made_so(tmp_path):
    write(tmp_path / "x.mp4")
    call("-i", tmp_path / "x.mp4", "-vf", "setsar=16/11", tmp_path / "pal.mp4")
    video = Video(tmp_path / "pal.mp4")
    images = list(video)
    assert video.size == (93, 48) and images[0].shape == (48, 93, 3)
    assert images[0][8, 40, 0] > 240 and images[0][8, 52, 0] < 15, "the bright quarter ends in the middle"
    assert video.notes == ["pixels are not square: 64x48 is read as 93x48"]
    assert next(iter(Video(tmp_path / "pal.mp4", width=46))).shape == (24, 46, 3)


def test_a_video_may_come_through_a_pipe(tmp_path):
    """Read once, image by image, while it is written; it ends when its writer ends it."""
    write(tmp_path / "x.mkv", frames=30)
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes((tmp_path / "x.mkv").read_bytes()))
    writer.start()
    video = Video(tmp_path / "pipe")
    assert (video.live, video.count, video.size, video.fps) == (True, None, (64, 48), 10.0)
    images = list(video)
    writer.join()
    assert len(images) == 30 and abs(int(images[5][40, 60, 0]) - 50) < 8


def test_names_are_no_addresses_and_lists_are_no_videos(tmp_path, monkeypatch):
    write(tmp_path / "x.mp4")
    monkeypatch.chdir(tmp_path)
    for name in ("concat:x.mp4", "-x.mp4", "a%03d.mp4", "pipe:0"):
        (tmp_path / name).write_bytes((tmp_path / "x.mp4").read_bytes())
        assert len(list(Video(name))) == 12
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.2,\nx.mp4\n#EXT-X-ENDLIST\n")
    (tmp_path / "list.mp4").write_text((tmp_path / "list.m3u8").read_text())
    (tmp_path / "list.txt").write_text("ffconcat version 1.0\nfile x.mp4\n")
    for name in ("list.m3u8", "list.mp4", "list.txt"):
        with pytest.raises(DataError, match="(not a video that ffmpeg can|is not) read"):
            Video(name)


def test_a_sound_is_no_damaged_video(tmp_path):
    av = pytest.importorskip("av", reason="PyAV is not installed (extra video)")
    with av.open(str(tmp_path / "x.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        sound.sample_rate = 8000
        container.mux([*stream.encode(sound), *stream.encode(None)])
    with pytest.raises(DataError, match="x.mp4: no video is in it, only sound"):
        Video(tmp_path / "x.mp4")


def test_what_lies_beside_the_pictures_of_a_folder_is_told(tmp_path):
    for t in (1, 2):
        Image.new("RGB", (40, 30)).save(tmp_path / f"{t}.png")
    assert Video(tmp_path).notes == []
    for name in ("a.heic", "b.txt", "c.csv", "d.csv", ".hidden"):
        (tmp_path / name).touch()
    assert Video(tmp_path).notes == ["files that are no pictures are left out: a.heic, b.txt, c.csv, ..."]


def test_a_damaged_part_is_passed_over(tmp_path):
    path = write(tmp_path / "x.mkv", frames=60)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = np.random.default_rng(0).bytes(200)
    path.write_bytes(content)
    assert len(list(Video(path))) > 20


def test_a_folder_of_several_videos_asks_which(tmp_path):
    for camera in (1, 2):
        for t in (2, 10, 1):
            Image.new("RGB", (40, 30), (10 * t, 100 * camera, 0)).save(tmp_path / f"cam{camera}_{t}_1080p.png")
    with pytest.raises(DataError, match="holds 2 videos: cam1_.*3 frames.*cam2_.*--clip TEXT"):
        Video(tmp_path)
    assert [tuple(image[0, 0, :2]) for image in Video(tmp_path, clip="cam2")] == [(10, 200), (20, 200), (100, 200)]


def test_pictures_of_several_occasions_are_told_as_pictures(tmp_path):
    for name in ("IMG_1234.png", "holiday.png", "sofa 2.png"):
        Image.new("RGB", (40, 30)).save(tmp_path / name)
    several = r"names of its 3 pictures .*IMG_\*.png \(1 picture\), .*; posekernels lift .*/\*.png -o OUT/ lifts each"
    with pytest.raises(DataError, match=several):
        Video(tmp_path)
    Image.new("RGB", (40, 30)).save(tmp_path / "IMG_1235.png")
    with pytest.raises(DataError, match=r"of its 4 pictures .*IMG_\*.png \(2 pictures\), .*--clip TEXT"):
        Video(tmp_path)
    assert Video(tmp_path, clip="IMG").count == 2


@pytest.mark.parametrize("how", ["noise", "cut off", "text"])
def test_damaged_videos_are_one_clear_line(tmp_path, how):
    path = write(tmp_path / "x.mp4", frames=30)
    content = path.read_bytes()
    noise = np.random.default_rng(0).bytes(5000)
    path.write_bytes({"noise": noise, "cut off": content[: len(content) // 3], "text": b"hello " * 100}[how])
    told = "a video that is cut short or damaged" if how == "cut off" else "not a video that ffmpeg can read"
    with pytest.raises(DataError, match=told) as error:
        list(Video(path))
    assert "\n" not in str(error.value)


def test_backgrounds_go_forward_back_and_past_the_end(tmp_path):
    images = Backgrounds(write(tmp_path / "x.mp4"), 15, 32)
    level = [round(int(images[t][20, 30, 0]) / 10) for t in (0, 3, 3, 11, 14, 2)]
    assert level == [0, 3, 3, 11, 11, 2]


def test_pictures_are_not_decoded_for_their_size(tmp_path, monkeypatch):
    """A folder of thousands would take minutes before anything is said; phones' pictures on their side are known."""
    plain, lying = Image.new("RGB", (64, 48)), Image.Exif()
    lying[0x0112] = 6
    plain.save(tmp_path / "0.png")
    for name in ("1.png", "1.jpg"):
        plain.transpose(Image.Transpose.ROTATE_90).save(tmp_path / name, exif=lying)
    for kind in (PngImageFile, JpegImageFile):
        monkeypatch.setattr(kind, "load", lambda image: pytest.fail("decoded"))
    assert {_size_of(path) for path in tmp_path.iterdir()} == {(64, 48)}
