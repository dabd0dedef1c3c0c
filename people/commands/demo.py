"""``posekernels demo``: fetch a short video (9 MB, once) and lift the people in it.

Options are those of ``posekernels lift``, --people being 2. (``lift`` follows up to 4. It searches on where two are
found, which takes longer and finds some people a few frames earlier.) Without -o it writes demo.html, which plays; the
video, demo.mp4, goes beside the first file written.
"""

from __future__ import annotations

from pathlib import Path

from posekernels.files import write_aside

from ..fetch import Pinned, Source, digest
from . import lift

VIDEO = Pinned(
    what="the demo's video",
    names=("demo.mp4",),
    sources=(
        Source(
            requirement="sports2d==0.8.34",
            package="sports2d-0.8.34-py3-none-any.whl",
            sha256="733b6db70742636ae9c35d870c22bd416582f579abd5881bee93a14bb0e2655d",
            files={"Sports2D/Demo/demo.mp4": "d9a66417185647b112304b57093f0c180f37a768e6a14daca75ca541f3b78039"},
        ),
    ),
    folder="demo",
    notice="demo.mp4 is from the Python package sports2d 0.8.34 (PyPI), under its BSD 3-Clause licence.\n",
    size="9 MB, 4 MB of it kept",
    variable="POSEKERNELS_DEMO_WHEEL",
)


def main(arguments: list[str]) -> int:
    parser = lift.parser(own=True, people=2)
    parser.prog, parser.description = "posekernels demo", __doc__
    parser.usage = "posekernels demo [-o OUT] [options of posekernels lift]"
    given = [a.partition("=")[0] for a in arguments]
    if not {"-o", "--out"} & set(given) and not any(a.startswith("-o") for a in arguments):
        arguments = [*arguments, "-o", "demo.html"]
    options = parser.parse_args(["demo.mp4", *arguments])
    video = Path(options.out[0]).parent / "demo.mp4"
    options.input = str(video)
    outs = lift.check_outs(options.out, options.input)
    (fetched,) = VIDEO.get()
    if video.exists() and digest(video.read_bytes()) != digest(fetched.read_bytes()):
        raise ValueError(f"{video}: a different video of this name is here; choose another folder with -o")
    if not video.exists():
        with write_aside(video) as aside:
            aside.write_bytes(fetched.read_bytes())
    lift.check(options)
    return 130 if lift.run(options, outs, outs[0]) is None else 0
