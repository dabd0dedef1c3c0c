"""The page in a real browser: Debian's chromium, driven by playwright. Skipped, and said so, where one is missing.

``python -m tests.people.test_page`` takes the pictures in ``pictures/`` anew; look at them before they are committed.
"""

import functools
import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from posekernels.people.player import Body, Film, write
from posekernels.pose.skeleton import H36M_17
from tests.people.films import SIZE, body, film, seen, walker

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PICTURES = Path(__file__).parent / "pictures"
WIDTHS = {375: 812, 820: 1180, 1280: 800}  # a phone, a tablet, a laptop
SHOTS = [(people, width, scheme) for people in (1, 4, 12) for width in WIDTHS for scheme in ("light", "dark")]
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")


@functools.cache
def playwright():
    api = pytest.importorskip("playwright.sync_api", reason="no playwright here: pip install playwright")
    return api.sync_playwright().start()


@functools.cache
def launched(*flags: str):
    """A browser, once for all tests of this file."""
    return playwright().chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *flags])


@pytest.fixture(scope="module", autouse=True)
def closed_at_the_end():
    yield
    if playwright.cache_info().currsize:  # it was started
        playwright().stop()
        playwright.cache_clear()
        launched.cache_clear()


class Opened:
    """A page that was opened, and what went wrong in it."""

    def __init__(self, file: Path, width=1280, height=800, scheme="light", flags=(), **context):
        asked = {"viewport": {"width": width, "height": height}, "color_scheme": scheme, "reduced_motion": "reduce"}
        self.context = launched(*flags).new_context(**(asked | context))
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", self.hear)
        self.page.on("pageerror", lambda e: self.said.append(str(e)))
        self.page.on("request", lambda r: self.asked.append(r.url))
        self.page.goto(file.as_uri())
        self.until("ticks > 0")

    def hear(self, message) -> None:
        if (
            message.type in ("error", "warning") and "GL Driver Message" not in message.text
        ):  # that is of our screenshots
            self.said.append(message.text)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()

    def run(self, script: str):
        return self.page.evaluate(script)

    def until(self, condition: str) -> None:
        """Wait for it; the page's own policy forbids what playwright would wait with."""
        for _ in range(600):
            if self.run(f"Boolean({condition})"):
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"not within 30 s: {condition}")

    def seek(self, frame: int) -> None:
        """By the slider, as a hand would."""
        self.run(f"$('scrub').value = {frame}; $('scrub').dispatchEvent(new Event('input'))")
        self.settle()

    def settle(self) -> None:
        self.until("!waiting && (!filmed || (video.readyState > 1 && !video.seeking))")

    def picture(self) -> Image.Image:
        return Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")


def shot(folder: Path, people: int, width: int, scheme: str) -> Image.Image:
    """A quarter of the size, which evens out fonts and edges."""
    with Opened(write(folder / f"{people}.html", film(people)), width, WIDTHS[width], scheme) as opened:
        opened.seek(70)
        return opened.picture().reduce(4)


def far_apart(a: Image.Image, b: Image.Image) -> tuple[float, float]:
    """Mean difference of two pictures, and that of the worst block of 8 x 8, in levels of 255."""
    if a.size != b.size:
        return 255.0, 255.0
    off = np.abs(np.asarray(a, float) - np.asarray(b, float)).mean(2)
    h, w = (n // 8 * 8 for n in off.shape)
    return float(off.mean()), float(off[:h, :w].reshape(h // 8, 8, w // 8, 8).mean((1, 3)).max())


@needs_browser
@pytest.mark.parametrize("people, width, scheme", SHOTS)
def test_it_looks_as_it_did(tmp_path, people, width, scheme):
    known = Image.open(PICTURES / f"{people}-{width}-{scheme}.png").convert("RGB")
    mean, worst = far_apart(shot(tmp_path, people, width, scheme), known)
    assert mean < 4 and worst < 40, "look at it; if it is meant: python -m tests.people.test_page"


def test_pictures_that_differ_are_told_apart():
    """Everybody a little to the side, or somebody gone, is more than fonts make."""
    known = Image.open(PICTURES / "4-1280-light.png").convert("RGB")
    other = known.copy()
    other.paste(known.crop((130, 20, 300, 100)), (136, 20))
    assert far_apart(known, other)[1] > 40 and far_apart(known, known) == (0, 0)
    assert far_apart(known, Image.open(PICTURES / "4-1280-dark.png").convert("RGB"))[0] > 50


@needs_browser
@pytest.mark.parametrize("width", [320, 375, 820, 1280, 2560])
def test_everything_fits_and_the_controls_are_in_reach(tmp_path, width):
    with Opened(write(tmp_path / "x.html", film(12)), width, 640 if width < 1000 else 800) as opened:
        assert opened.run("document.documentElement.scrollWidth <= innerWidth")
        for name in ("play", "scrub", "speed", "loop", "back", "on"):
            box = opened.run(
                f"(({{left, right, top, bottom}}) => [left, right, top, bottom])($('{name}').getBoundingClientRect())"
            )
            assert box[0] >= 0 and box[1] <= width and box[2] > 0 and box[3] <= (640 if width < 1000 else 800), name
        scene = opened.run("(({top, bottom, height}) => [top, bottom, height])($('space').getBoundingClientRect())")
        assert scene[2] >= 200 and scene[0] < 400


@needs_browser
@pytest.mark.parametrize("people", [1, 4, 12])
def test_nothing_goes_wrong_and_nothing_is_fetched(tmp_path, people):
    path = write(tmp_path / "x.html", film(people))
    with Opened(path) as opened:
        assert opened.run("scene.constructor.name") == "Scene", "WebGL works here"
        for press in ("play(true)", "pick(0)", "lookFrom('Front')", "lookFrom('Camera')", "turn(30, 10)", "pick(null)"):
            opened.run(press)
            opened.page.wait_for_timeout(60)
        opened.run("$('still').click(); $('table').click()")
        assert opened.said == []
        assert {url for url in opened.asked if not url.startswith(("blob:", "data:"))} == {path.as_uri()}


NOBODY = np.full((30, 17, 3), np.nan)
HALF = walker(30, 30, (0, 0), 0)
HALF[:, [3, 13, 16]] = np.nan
HARD = {
    "nobody": Film("nobody", 30, H36M_17, [Body("Person 1", NOBODY, NOBODY[..., :2])], SIZE),
    "one frame": Film("one", 30, H36M_17, [body(1, walker(1, 30, (0, 0), 0))], SIZE),
    "joints missing": Film("half", 30, H36M_17, [body(1, HALF)], SIZE),
    "no pixels": Film(
        "{{film}} </script>", 30, H36M_17, [Body("{{data}}", walker(9, 30, (0, 0), 0)), Body("b", NOBODY[:9])]
    ),
}


@needs_browser
@pytest.mark.parametrize("name", HARD)
def test_hard_films_open(tmp_path, name):
    with Opened(write(tmp_path / "{{data}}.html", HARD[name])) as opened:
        opened.run("play(true)")
        opened.page.wait_for_timeout(150)
        opened.run(
            "play(false); $('table').click(); $('still').click(); for (const v of Object.keys(PRESETS)) lookFrom(v)"
        )
        opened.settle()
        assert opened.said == []
        if name == "nobody":
            assert opened.page.locator("#badge").inner_text() == "Person 1 is not in this film"
        if name == "no pixels":
            assert opened.page.locator("h1").inner_text() == "{{film}} </script>"
            opened.page.get_by_role("button", name="{{data}}").click()
            assert opened.run("state.picked") == 0


@needs_browser
def test_people_leave_and_come_back(tmp_path):
    with Opened(write(tmp_path / "x.html", film(4))) as opened:
        third = opened.page.get_by_role("button", name="Person 3")
        third.click()
        assert third.get_attribute("aria-pressed") == "true" and opened.page.locator("#badge").inner_text() == ""
        opened.seek(70)
        assert opened.page.locator("#badge").inner_text() == "Person 3 is not here now" and "away" in third.inner_text()
        opened.seek(100)
        assert opened.page.locator("#badge").inner_text() == "" and "here" in third.inner_text()
        third.click()
        assert opened.run("state.picked") is None


@needs_browser
@pytest.mark.parametrize("width", [390, 1280])
def test_charts_stand_still_where_somebody_leaves(tmp_path, width):
    with Opened(write(tmp_path / "x.html", film(4)), width) as opened:
        opened.page.get_by_role("button", name="Person 3").click()
        heads = "[...document.querySelectorAll('.chart figcaption')].map((e) => e.offsetHeight)"
        before = opened.run(heads)
        opened.seek(70)
        said = opened.page.locator("#angles .values").inner_text().split()
        assert said == ["left", "–", "right", "–"] and opened.run(heads) == before
        assert width < 1280 or max(before) < 45, "one line"


@needs_browser
def test_charts_of_everybody_are_of_somebody_who_is_there(tmp_path):
    some = film(2)
    some.bodies[0].world[80:] = np.nan
    some.bodies[1].world[:60] = np.nan
    with Opened(write(tmp_path / "x.html", some)) as opened:
        for frame, whose in ((0, "Person 1"), (70, "Person 1"), (90, "Person 2")):
            opened.seek(frame)
            assert opened.page.locator("#angles .whose").inner_text() == whose


@needs_browser
@pytest.mark.parametrize("width", [390, 820, 1280])
def test_people_on_other_heights_are_in_view(tmp_path, width):
    """One hops on a roof, is not seen for a moment, and walks on the ground then; another is below all the time."""
    first, second = walker(120, 30, (0, 0), 0.4, 0.5), walker(120, 30, (2, 1), 2.6, 0.5)
    first[:60, :, 2] += 2.4
    first[60:66] = np.nan
    out = """(b, t) => {
      const { clientWidth: w, clientHeight: h } = $('space');
      const project = shown.projector(w, h), pose = film.bodies[b].pose(t);
      const seen = film.joints.map((_, j) => project(film.joint(pose, j)));
      return seen.filter(([x, y]) => !(x > 0 && x < w && y > 0 && y < h)).length;
    }"""
    both = Film("x", 30, H36M_17, [body(1, first), body(2, second)], SIZE)
    with Opened(write(tmp_path / "x.html", both), width) as o:
        for t in (0, 30, 58, 67, 75, 119):
            for picked in ("null", "0", "1"):
                o.run(f"pick({picked})")
                o.seek(t)
                for who in (0, 1) if picked == "null" else (int(picked),):
                    assert o.run(f"({out})({who}, {t})") == 0, (t, picked, who)
        o.run("pick(0)")
        for t in range(50, 90):  # as it plays
            if not 60 <= t < 66:
                o.run(f"state.playing = true; state.frame = {t}; last = null; draw(1 / 30); state.playing = false")
                assert o.run(f"({out})(0, {t})") == 0, t


@needs_browser
@pytest.mark.parametrize("fps", [1, 25, 29.97])
def test_somebody_seen_for_a_frame_is_in_view(tmp_path, fps):
    """Of whom nothing tells how high they are a moment before or after."""
    once = walker(60, fps, (0, 0), 0.4, 0.5)
    once[np.arange(60) != 30] = np.nan
    with Opened(write(tmp_path / "x.html", Film("x", fps, H36M_17, [body(1, once)], SIZE))) as opened:
        opened.seek(30)
        middle = opened.run("shown.projector(100, 100)(film.joint(film.bodies[0].pose(30), film.root))")
        assert all(0 < v < 100 for v in middle[:2]), middle


@needs_browser
def test_what_is_drawn_how_and_whose_curves_they_are(tmp_path):
    with Opened(write(tmp_path / "x.html", film(3, now=60))) as opened:
        told = opened.page.locator("#meaning").inner_text()
        for words in ("seen", "lighter: forecast", "pale: as last seen", "dots: the way forecast"):
            assert words in told
        assert opened.page.locator("#angles .whose").inner_text() == "Person 1"
        opened.page.get_by_role("button", name="Person 2").click()
        opened.settle()
        assert opened.page.locator("#speeds .whose").inner_text() == "Person 2"
        assert (
            opened.run("getComputedStyle($('speeds').querySelector('.whose')).getPropertyValue('--whose')") == "#0e8a6d"
        )
    with Opened(write(tmp_path / "x.html", film(1))) as opened:
        assert opened.page.locator("#meaning").inner_text() == opened.page.locator("#angles .whose").inner_text() == ""


@needs_browser
@pytest.mark.parametrize("width", [390, 900, 1600])
def test_what_is_compared_has_names_that_can_be_read(tmp_path, width):
    """A prediction and the truth stand in one place, and are one person."""
    truth = walker(40, 30, (0, 0), 0.4)
    bodies = [Body("Prediction", truth + 0.02, seen(truth)[0]), Body("Ground truth", truth, pale=True)]
    with Opened(write(tmp_path / "x.html", Film("x", 30, H36M_17, bodies, SIZE)), width, 844) as opened:
        opened.seek(20)
        views, *tags = (
            opened.page.locator(name).bounding_box()
            for name in ("#views", "#tags :nth-child(1)", "#tags :nth-child(2)")
        )
        boxes = [(b["x"], b["y"], b["x"] + b["width"], b["y"] + b["height"]) for b in (views, *tags)]
        for i, (a, b) in enumerate([(0, 1), (0, 2), (1, 2)]):
            (left, top, right, low), (x, y, u, v) = boxes[a], boxes[b]
            assert right <= x or u <= left or low <= y or v <= top, ("covered", i, boxes)
        assert opened.page.locator("#about").inner_text().startswith("1 person")
        screen = opened.run("(({width, height}) => width / height)($('screen').getBoundingClientRect())")
        assert width > 400 or screen == pytest.approx(SIZE[0] / SIZE[1], rel=0.03), "nothing black beside it"


@needs_browser
def test_tags_of_people_who_meet_give_way_little_by_little(tmp_path):
    """So that nothing leaps when two cross."""
    one, other = walker(60, 30, (-1, 0), 0.0), walker(60, 30, (1, 0.3), np.pi)
    with Opened(write(tmp_path / "x.html", Film("x", 30, H36M_17, [body(1, one), body(2, other)], SIZE))) as opened:
        opened.run("pick(null)")
        place = "(i) => (({x, y, width, height}) => [x + width / 2, y + height / 2, width])"
        place += "($('tags').children[i].getBoundingClientRect())"
        found = []
        for frame in range(10, 40):
            opened.run(f"state.frame = {frame}; draw(null)")
            found.append([opened.run(f"({place})({i})") for i in (0, 1)])
        at = np.array(found)
        across, down = np.abs(at[:, 0, 0] - at[:, 1, 0]), np.abs(at[:, 0, 1] - at[:, 1, 1])
        assert across.min() < 4 and (down[across < at[0, 0, 2] - 5] > 20).all()


@needs_browser
def test_a_tag_that_gives_way_covers_no_other(tmp_path):
    with Opened(write(tmp_path / "x.html", film(3))) as opened:
        heights = opened.run("""[[100, 140, 138], [140, 100, 138], [100, 140, 180, 178]].map((all) => {
          const placed = [];
          return all.map((y) => free([200, y], $('tags').children[0], placed)[1]);
        })""")
        tall = opened.run("$('tags').children[0].tall")
        for found in heights:
            assert np.diff(sorted(found)).min() > tall - 1, heights


@needs_browser
def test_shadows_are_below_people(tmp_path):
    with Opened(write(tmp_path / "x.html", film(1))) as opened:
        opened.seek(20)
        opened.run("lookFrom('Top')")
        opened.settle()
        off = opened.run("""(() => {
          gather();
          lists.solids.count = 0;
          scene.parts[0].visible = false; // the floor
          scene.render(shown, theme, follow.centre, 7);
          const { width, height } = scene.canvas, copy = document.createElement("canvas"), pen = copy.getContext("2d");
          Object.assign(copy, { width, height });
          pen.drawImage(scene.canvas, 0, 0);
          const dark = pen.getImageData(0, 0, width, height).data;
          let sum = 0, x = 0, y = 0;
          for (let i = 3; i < dark.length; i += 4) {
            const at = (i - 3) / 4;
            sum += dark[i];
            x += dark[i] * (at % width);
            y += dark[i] * Math.floor(at / width);
          }
          const pose = film.bodies[0].pose(20), ground = film.joint(pose, film.root);
          const [u, v, , metre] = shown.projector(width, height)([ground[0], ground[1], 0]);
          return sum ? Math.hypot(x / sum - u, y / sum - v) / metre : null;
        })()""")
        assert off < 0.1, "metres"


@needs_browser
@pytest.mark.parametrize("width", [390, 820])
def test_fingers_find_every_target(tmp_path, width):
    with Opened(write(tmp_path / "x.html", film(2, now=60, files=[tmp_path / "x.npz"])), width, 844) as opened:
        small = "[...document.querySelectorAll('button, select, summary, a')].filter((e) => e.offsetParent)"
        small += ".filter((e) => e.getBoundingClientRect().height < 32).map((e) => e.textContent)"
        assert opened.run(small) == []
        cut = "[...document.querySelectorAll('h1, h2, #about, #clock, .values, .whose, #meaning li')]"
        assert opened.run(f"{cut}.filter((e) => e.scrollWidth > e.clientWidth + 1).map((e) => e.outerHTML)") == []
        views, badge = (opened.page.locator(name).bounding_box() for name in ("#views", "#badge"))
        assert badge["y"] >= views["y"] + views["height"] or badge["x"] + badge["width"] <= views["x"]


@needs_browser
def test_keys(tmp_path):
    with Opened(write(tmp_path / "x.html", film(2))) as opened:
        press, state = opened.page.keyboard.press, lambda name: opened.run(f"state.{name}")
        assert state("playing") is False, "nothing plays by itself"
        press("Space")
        opened.until("state.frame > 0")
        press("Space")
        assert state("playing") is False
        opened.seek(10)
        for key, frame in ((".", 11), (".", 12), (",", 11)):
            press(key)
            assert state("frame") == frame
        order = []
        opened.run("document.activeElement.blur()")
        for _ in range(30):
            press("Tab")
            order.append(opened.run("document.activeElement.id || document.activeElement.textContent.trim()"))
        assert order.index("scene") < order.index("scrub") < order.index("play") < order.index("speed")
        opened.page.locator("#scene").focus()
        azimuth, elevation = state("azimuth"), state("elevation")
        press("ArrowLeft")
        press("ArrowUp")
        assert (
            state("azimuth") == azimuth + 8 - 16 * (state("azimuth") < azimuth) and state("elevation") == elevation + 6
        )
        assert state("frame") == 11, "arrows turn the view that has the focus"
        press("Shift+ArrowRight")
        press("+")
        assert any(state("pan")) and state("zoom") < 1
        press("0")
        assert (state("zoom"), state("azimuth"), state("pan")) == (1, azimuth, [0, 0, 0])
        opened.page.locator("#scrub").focus()
        press("ArrowRight")
        assert state("frame") == 12


@needs_browser
def test_space_plays_whatever_was_clicked(tmp_path):
    with Opened(write(tmp_path / "x.html", film(2))) as opened:
        press, state = opened.page.keyboard.press, lambda name: opened.run(f"state.{name}")
        for what in ("#people button:nth-child(2)", "#views button:nth-child(2)", "#loop", "#help summary", "#play"):
            opened.page.locator(what).click()
            before, known = (
                state("playing"),
                [state("picked"), state("preset"), state("loop"), opened.run("$('help').open")],
            )
            press("Space")
            assert state("playing") is not before, what
            press("Space")
            assert state("playing") is before, what
            assert [state("picked"), state("preset"), state("loop"), opened.run("$('help').open")] == known, what
        opened.page.locator("#speed").focus()
        press("Space")
        assert state("playing") is not before
        opened.page.locator("#loop").focus()
        press("Enter")
        assert state("loop") is not known[2], "Enter presses what has the focus"


@needs_browser
def test_mouse(tmp_path):
    with Opened(write(tmp_path / "x.html", film(2))) as opened:
        opened.seek(5)
        box, mouse = opened.page.locator("#scene").bounding_box(), opened.page.mouse
        x, y = box["x"] + 30, box["y"] + box["height"] - 60
        azimuth = opened.run("state.azimuth")
        mouse.move(x, y)
        mouse.down()
        mouse.move(x + 100, y, steps=4)
        mouse.up()
        assert opened.run("state.azimuth") < azimuth - 20
        mouse.dblclick(x, y)
        assert opened.run("state.azimuth") == azimuth
        opened.settle()
        neck = "shown.projector(b.width, b.height)(film.joint(film.bodies[1].pose(5), 8))"
        there = f"const b = $('scene').getBoundingClientRect(), p = {neck}; return [b.x + p[0], b.y + p[1]]"
        at = opened.run(f"(() => {{ {there} }})()")
        mouse.click(*at)
        assert opened.run("state.picked") == 1, "a click on somebody picks them"
        scrolled = opened.run("scrollY")
        opened.run("document.activeElement.blur()")
        mouse.wheel(0, 200)
        opened.until(f"scrollY > {scrolled}")
        assert opened.run("state.zoom") == 1, "the wheel scrolls the page until the view has the focus"


@needs_browser
def test_touch(tmp_path):
    phone = {"has_touch": True, "is_mobile": True, "device_scale_factor": 2}
    with Opened(write(tmp_path / "x.html", film(2)), 375, 667, **phone) as opened:
        touch = opened.context.new_cdp_session(opened.page)
        box = opened.page.locator("#scene").bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

        def fingers(kind, *points):
            listed = [{"x": a, "y": b, "id": i} for i, (a, b) in enumerate(points)]
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": listed})

        def swipe(dx, dy):
            fingers("touchStart", (x, y))
            for i in range(1, 11):
                fingers("touchMove", (x + dx * i / 10, y + dy * i / 10))
                opened.page.wait_for_timeout(16)
            fingers("touchEnd")

        elevation = opened.run("state.elevation")
        azimuth = opened.run("state.azimuth")
        swipe(0, -150)
        opened.until("scrollY > 50")  # a swipe up scrolls, over the view too
        opened.run("scrollTo(0, 0)")
        assert [opened.run("state.azimuth"), opened.run("state.elevation")] == [azimuth, elevation]
        swipe(-120, 0)
        assert opened.run("state.azimuth") > azimuth + 10 and opened.run("scrollX") == 0, "one to the side turns"
        zoom = opened.run("state.zoom")
        fingers("touchStart", (x - 20, y), (x + 20, y))
        fingers("touchMove", (x - 60, y), (x + 60, y))
        fingers("touchEnd")
        assert opened.run("state.zoom") < 0.6 * zoom, "two fingers apart bring it nearer"


def coded_video(path: Path, frames: int, fps: float, times: list[float] | None = None) -> Path:
    """A video of 320 x 180 whose frame number stands in its picture, in eight fields of black and white."""
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    import subprocess

    steady = path.with_name("steady.mp4")
    writer = ffmpeg.write_frames(str(steady), (320, 180), fps=fps, macro_block_size=4, output_params=["-g", "8"])
    writer.send(None)
    for t in range(frames):
        image = np.zeros((180, 320, 3), np.uint8)
        for bit in range(8):
            image[:, 40 * bit : 40 * bit + 40] = 255 * (t >> bit & 1)
        writer.send(image.tobytes())
    writer.close()
    if times is None:
        return steady.rename(path)
    # As phones film, without B-frames: with them Chromium seeks past frames that last unevenly.
    stretch = f"setpts=if(lt(N\\,{frames // 2})\\,PTS\\,PTS+2*(N-{frames // 2})/{fps}/TB)"
    command = [
        ffmpeg.get_ffmpeg_exe(),
        "-loglevel",
        "error",
        "-y",
        "-i",
        str(steady),
        "-vf",
        stretch,
        "-fps_mode",
        "vfr",
    ]
    subprocess.run([*command, "-g", "8", "-bf", "0", str(path)], check=True)
    return path


def number_shown(opened: Opened, wanted: int) -> int:
    """The frame that the video shows, read from the screen, which is given a little time to come to ``wanted``."""
    box = opened.page.locator("#screen").bounding_box()
    fit = min(box["width"] / 320, box["height"] / 180)
    left, middle = box["x"] + (box["width"] - 320 * fit) / 2, box["y"] + box["height"] / 2
    for _ in range(20):
        image = opened.picture()
        fields = [image.getpixel((round(left + (40 * bit + 20) * fit), round(middle)))[1] for bit in range(8)]
        found = sum((field > 128) << bit for bit, field in enumerate(fields))
        if found == wanted:
            break
        opened.page.wait_for_timeout(100)
    return found


@needs_browser
@pytest.mark.parametrize("how", ["linked", "inside", "variable rate"])
def test_the_video_shows_the_frame_under_the_slider(tmp_path, how):
    frames, fps = 60, 20.0
    times = [t / fps if t < 30 else (t + 2 * (t - 30)) / fps for t in range(frames)] if how == "variable rate" else None
    video = coded_video(tmp_path / "coded.mp4", frames, fps, times)
    someone = Body("Person 1", walker(frames, fps, (0, 0), 0), np.full((frames, 17, 2), -50.0))
    made = Film("coded", fps, H36M_17, [someone], (320, 180), video, times)
    with Opened(write(tmp_path / "x.html", made, embed=how == "inside")) as opened:
        opened.until("video.readyState > 1")
        if how == "inside":
            video.unlink()
        for frame in (0, 1, 29, 30, 31, 44, 59, 3):
            opened.seek(frame)
            assert (number_shown(opened, frame), opened.run("state.frame")) == (frame, frame)
        opened.run("$('speed').value = 2; $('speed').dispatchEvent(new Event('change')); play(true)")
        opened.until("state.frame > 20 && state.frame < 58")
        frame, at = opened.run(
            "(() => { play(false); return [state.frame, film.frameAt(presented ?? video.currentTime)] })()"
        )
        opened.settle()
        assert abs(frame - at) <= 1 and number_shown(opened, frame) == frame, "the clock of the video drives the people"
        assert opened.said == [] and opened.run("video.playbackRate") == 2


@needs_browser
def test_a_picture_is_under_its_skeletons_and_in_what_is_saved(tmp_path):
    picture = np.full((SIZE[1], SIZE[0], 3), (200, 30, 120), np.uint8)
    with Opened(write(tmp_path / "x.html", film(1, frames=1, picture=picture))) as opened:
        opened.until("picture.naturalWidth > 0")
        box = opened.page.locator("#screen").bounding_box()
        at = round(box["x"] + 12), round(box["y"] + box["height"] / 2)
        assert far_off(opened.picture().getpixel(at)) < 12
        with opened.page.expect_download() as saved:
            opened.page.locator("#still").click()
        image = Image.open(saved.value.path()).convert("RGB")
        assert far_off(image.getpixel((12, image.height // 2))) < 12
        assert not opened.said


@needs_browser
@pytest.mark.parametrize("width", [390, 820, 1280])
def test_the_page_of_a_picture_has_nothing_of_time(tmp_path, width):
    picture = np.full((SIZE[1], SIZE[0], 3), 90, np.uint8)
    with Opened(write(tmp_path / "x.html", film(2, frames=1, picture=picture)), width, 844) as opened:
        for timed in ("#controls", "#play", "#scrub", "#speeds", "#angles .plot"):
            assert not opened.page.locator(timed).is_visible(), timed
        shown = opened.page.inner_text("body")
        assert "2 people" in shown and "Save the numbers (CSV)" in shown and "\u00b0" in shown, "angles are told"
        assert not re.search(r"frame|moment|\d s\b", shown)
        opened.page.keyboard.press("Space")
        opened.page.locator("#help").click()
        assert not opened.run("state.playing") and "play, pause" not in opened.page.inner_text("#help")
        bottom = opened.page.locator("#save").bounding_box()
        assert width < 1000 or 760 < bottom["y"] + bottom["height"] <= 844, "the views fill what is free"
        assert not opened.said


@needs_browser
@pytest.mark.parametrize("width", [390, 820, 1280])
def test_a_picture_that_is_saved_without_the_video_says_so(tmp_path, width):
    """A page on a disk may not read the video beside it; one that was chosen, or is inside, it may."""
    frames, fps = 10, 20.0
    video = coded_video(tmp_path / "coded.mp4", frames, fps)
    someone = Body("Person 1", walker(frames, fps, (0, 0), 0), np.full((frames, 17, 2), -50.0))

    def saved() -> int:
        """The number of the frame in the picture that the button saves."""
        with opened.page.expect_download() as download:
            opened.page.locator("#still").click()
        image = Image.open(download.value.path()).convert("L")
        wide, tall = opened.run("[$('overlay').width, $('overlay').height]")
        fit = min(wide / 320, tall / 180)
        x, y = (wide - 320 * fit) / 2, tall / 2
        return sum((image.getpixel((round(x + (40 * bit + 20) * fit), round(y))) > 128) << bit for bit in range(8))

    for embed in (False, True):
        made = Film("coded", fps, H36M_17, [someone], (320, 180), video)
        with Opened(write(tmp_path / "x.html", made, embed), width) as opened:
            opened.until("video.readyState > 1")
            opened.seek(5)
            told = opened.page.locator("#saved")
            if not embed:
                assert saved() == 0 and "Saved without the video" in told.inner_text()
                with opened.page.expect_file_chooser() as chooser:
                    told.get_by_role("button", name="Choose the video").click()
                chooser.value.set_files(video)
                opened.until("video.src.startsWith('blob:') && video.readyState > 1")
                opened.settle()
                assert opened.run("state.frame") == 5
            assert (saved(), told.inner_text()) == (5, "")


def far_off(pixel: tuple[int, int, int]) -> int:
    """From the colour of the picture above."""
    return max(abs(a - b) for a, b in zip(pixel, (200, 30, 120)))


@needs_browser
def test_a_video_that_cannot_be_played_is_told(tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"no pictures in here")
    for video in ("bad.mp4", "gone.mp4"):
        with Opened(write(tmp_path / "x.html", film(1, video=tmp_path / video))) as opened:
            opened.until("!$('trouble').hidden")
            assert f"cannot play {video}" in opened.page.locator("#trouble-text").inner_text()
            opened.run("play(true)")
            opened.until("state.frame > 1")
            opened.page.locator("#choose-file").set_input_files(coded_video(tmp_path / "coded.mp4", 10, 20.0))
            opened.until("filmed && !video.seeking")
            assert opened.page.locator("#video").is_visible() and opened.page.locator("#trouble").is_hidden()


@needs_browser
def test_without_webgl_a_plain_canvas_draws(tmp_path):
    with Opened(write(tmp_path / "x.html", film(2)), flags=("--disable-gpu", "--disable-3d-apis")) as opened:
        opened.seek(30)
        assert opened.run("scene.constructor.name") == "Flat" and opened.said == []
        assert opened.page.locator("#shaded").is_hidden()
        box = opened.page.locator("#scene").bounding_box()
        image = opened.picture().crop(
            tuple(int(v) for v in (box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]))
        )
        pixels = np.asarray(image, int)
        orange = (pixels[..., 0] > 180) & (pixels[..., 2] < 110)
        blue = (pixels[..., 2] > 150) & (pixels[..., 0] < 90)
        assert orange.sum() > 300 and blue.sum() > 300
        azimuth = opened.run("state.azimuth")
        opened.page.locator("#scene").focus()
        opened.page.keyboard.press("ArrowLeft")
        assert opened.run("state.azimuth") != azimuth


@needs_browser
@pytest.mark.parametrize("width", [390, 820, 1280])
def test_what_plays_too_slowly_is_outlined_once_and_told(tmp_path, width):
    """WebGL on the processor, as here, gives way to the plain canvas, which takes keys and pointers as before."""

    def paces(*dts: float) -> str:
        opened.run(f"for (const dt of {list(dts)}) keepPace(dt)")
        return opened.run("scene.constructor.name")

    with Opened(write(tmp_path / "x.html", film(2)), width) as opened:
        opened.page.locator("#scene").focus()
        assert paces(*[0.01] * 400) == "Scene", "a hundred pictures a second are enough"
        assert paces(*[*[0.01] * 80, *[0.25] * 8] * 4) == "Scene", "a machine that stops now and then is not slow"
        notice, shaded = opened.page.locator("#notice"), opened.page.get_by_role("button", name="Shaded")
        assert notice.inner_text() == "" and shaded.get_attribute("aria-pressed") == "true"
        assert paces(*[0.1] * 40) == "Flat" and opened.said == []
        assert "draws slowly: bodies are outlined from now on" in notice.inner_text()
        assert shaded.get_attribute("aria-pressed") == "false"
        box, space = notice.bounding_box(), opened.page.locator("#space").bounding_box()
        assert box["x"] >= space["x"] and box["x"] + box["width"] <= space["x"] + space["width"], "all of it is in view"
        azimuth = opened.run("state.azimuth")
        opened.page.keyboard.press("ArrowLeft")
        assert opened.run("state.azimuth") != azimuth, "the focus is where it was"
        assert paces(*[0.01] * 400) == "Flat", "and back by itself it does not go"
        shaded.click()
        opened.settle()
        assert notice.inner_text() == "" and shaded.get_attribute("aria-pressed") == "true"
        assert paces(*[0.1] * 80) == "Scene", "the reader has chosen"
        shaded.click()
        assert paces(0.01) == "Flat" and opened.said == []


@needs_browser
def test_a_graphics_card_that_gives_up_is_told(tmp_path):
    with Opened(write(tmp_path / "x.html", film(2))) as opened:
        opened.run("scene.gl.getExtension('WEBGL_lose_context').loseContext()")
        opened.until("scene.constructor.name == 'Flat'")
        assert "has stopped drawing in 3D" in opened.page.locator("#notice").inner_text()
        opened.page.get_by_role("button", name="Shaded").click()
        assert opened.run("scene.constructor.name") == "Scene"


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["lifted", "forecast"])
def test_axe_finds_nothing_serious(tmp_path, scheme, kind):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python")
    made = film(4, now=90 if kind == "forecast" else None)
    with Opened(write(tmp_path / "x.html", made), scheme=scheme) as opened:
        opened.seek(95)
        opened.run("$('help').open = true")
        opened.page.get_by_role("button", name="Person 2").click()
        found = axe.Axe().run(opened.page).response["violations"]
    assert [(v["id"], [n["html"] for n in v["nodes"]]) for v in found if v["impact"] in ("serious", "critical")] == []


@needs_browser
def test_past_and_future_are_told_apart(tmp_path):
    with Opened(write(tmp_path / "x.html", film(2, now=60))) as opened:
        told = {}
        for frame in (29, 59, 74):
            opened.seek(frame)
            told[frame] = opened.page.locator("#badge").inner_text(), opened.run("lists.solids.count")
            assert opened.page.locator("#scrub").get_attribute("aria-valuetext").endswith(told[frame][0].split(": ")[1])
        assert [words for words, _ in told.values()] == ["Seen: 1.0 s ago", "Seen: now", "Forecast: in 0.5 s"]
        assert told[29][1] == told[59][1] and told[74][1] > 2 * told[29][1], "where they were stays, in grey"


@needs_browser
def test_left_and_right_differ_in_more_than_colour(tmp_path):
    with Opened(write(tmp_path / "x.html", film(1))) as opened:
        opened.seek(20)
        tints = opened.run("Array.from(lists.solids.tint.slice(0, 4 * lists.solids.count))")
        rods = np.array(tints).reshape(-1, 4)
        orange, blue = (rods[:, 0] > 0.8) & (rods[:, 2] < 0.4), (rods[:, 2] > 0.7) & (rods[:, 0] < 0.25)
        assert (rods[orange, 3] == 1).all() and (rods[blue, 3] == 0).all() and orange.sum() == blue.sum() == 4
        opened.run("lookFrom('Front'); nearer(1.6)")  # and the rings are there to see
        opened.settle()
        pixels = np.asarray(opened.picture(), int)[45:440, 450:1260]
        bands = {}
        for name, side in (("left", pixels[..., 0] - pixels[..., 2]), ("right", pixels[..., 2] - pixels[..., 0])):
            limb, paler = side > 70, side < 0.5 * np.roll(side, 9, 0)
            bands[name] = int(
                (paler & np.roll(limb, 9, 0) & np.roll(limb, -9, 0)).sum()
            )  # between limb above and below
        assert bands["left"] > 4 * bands["right"], bands


@needs_browser
def test_hypotheses_are_a_cloud(tmp_path):
    world = walker(30, 30, (0, 0), 0)
    spread = world[:, None] + np.random.default_rng(0).normal(0, 0.05, (30, 8, 17, 3))
    made = Film("x", 30, H36M_17, [Body("Person 1", world, seen(world)[0], spread)], SIZE)
    with Opened(write(tmp_path / "x.html", made)) as opened:
        opened.seek(12)
        assert opened.run("lists.cloud.count") == 8 * 17
        points = np.array(opened.run("Array.from(lists.cloud.a.slice(0, 4 * 136))")).reshape(8, 17, 4)[..., :3]
        np.testing.assert_allclose(points, spread[12], atol=6e-4)


@needs_browser
def test_numbers_and_a_picture_are_saved(tmp_path):
    made = film(2)
    with Opened(write(tmp_path / "x.html", made)) as opened:
        opened.seek(30)
        with opened.page.expect_download() as table:
            opened.page.get_by_role("button", name="numbers").click()
        assert table.value.suggested_filename == "2-walking-frame-31.csv"
        rows = [line.split(",") for line in Path(table.value.path()).read_text().splitlines()]
        assert rows[0] == ["frame", "time_s", "person", "quantity", "name", "x_m", "y_m", "z_m", "value", "unit"]
        at = {(r[2], r[3], r[4]): r for r in rows[1:]}
        found = [float(v) for v in at["Person 2", "position", "left knee"][5:8]]
        np.testing.assert_allclose(found, made.bodies[1].world[30, 5], atol=1.1e-3)
        hip, knee, ankle = made.bodies[0].world[30, 4:7]
        u, v = hip - knee, ankle - knee
        angle = np.degrees(np.arccos(u @ v / np.linalg.norm(u) / np.linalg.norm(v)))
        assert float(at["Person 1", "angle", "left knee"][8]) == pytest.approx(angle, abs=0.4)
        moved = np.linalg.norm(made.bodies[0].world[32, 0] - made.bodies[0].world[28, 0]) * 30 / 4
        assert float(at["Person 1", "speed", "pelvis"][8]) == pytest.approx(moved, abs=0.02)
        with opened.page.expect_download() as still:
            opened.page.get_by_role("button", name="picture").click()
        image = Image.open(still.value.path())
        assert (
            still.value.suggested_filename.endswith(".png")
            and len(np.unique(np.asarray(image.convert("RGB").resize((80, 40))).reshape(-1, 3), axis=0)) > 50
        )


@needs_browser
def test_a_long_film_opens_at_once(tmp_path):
    """Ten minutes of two people. Quick machines take a second; this one may be shared."""
    path = write(tmp_path / "x.html", film(2, frames=18000))
    with Opened(path) as opened:
        assert opened.run("performance.now()") < 10_000
        assert opened.run("film.bodies[0].world.chunks.filter(Boolean).length") < 20, "decoded as it is looked at"
        opened.seek(17_999)
        told = opened.page.locator("#scrub").get_attribute("aria-valuetext")
        assert told == "frame 18000 of 18000, 599.97 s"
        thirty = "for (let i = 0; i < 30; i++) { state.frame = 600 * i; draw(0.016); }"
        took = opened.run(f"(() => {{ const t = performance.now(); {thirty} return (performance.now() - t) / 30 }})()")
        assert took < 100, "milliseconds for a picture, of which 16 are there at 60 a second"


if __name__ == "__main__":
    import tempfile

    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for people, width, scheme in SHOTS:
            image = shot(Path(folder), people, width, scheme).quantize(128, dither=Image.Dither.NONE)
            image.save(PICTURES / f"{people}-{width}-{scheme}.png", optimize=True)
