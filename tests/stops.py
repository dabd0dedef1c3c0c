"""Work that is stopped at random moments and gone on with: ``python -m tests.stops [--rounds N] [--seed S]``.

Each round does a piece of work, ``posekernels lift`` of a video or ``python -m train.h36m``, in a process of its own,
and stops it at a moment drawn from its whole length: by a signal (Ctrl-C, SIGTERM, SIGHUP, SIGKILL), or by taking away
what it needs from then on (memory; room in files; the disk, where this may mount one). Then the same command goes on
with ``--resume``, perhaps to be stopped again. What it ends with must be what the undisturbed run ends with, to the
bit, with nothing left beside; and where it was not killed, it must have ended in one line and not in a traceback.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bench.recordings import BODY, Frames
from posekernels.archive import read_checkpoint, read_npz
from posekernels.cli import Parser, run_cli
from posekernels.people import detect
from posekernels.people.commands import lift
from posekernels.people.tracking import Sighting
from posekernels.pose.layouts import from_h36m
from posekernels.train import h36m, loop

SIGNALS = {name: signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGKILL")}
TAKEN = ("memory", "room in files", "disk")
DISK = 64 << 20  # bytes
LONGEST = 300.0  # seconds for one process, before it counts as hung


# -- what is done ----------------------------------------------------------------------------------------------------
class Work(ABC):
    """Something to do in a folder; ``length`` is filled in by the undisturbed run, seconds."""

    name: str
    length = 0.0

    @abstractmethod
    def saved(self, folder: Path) -> bool:
        """Whether there is something to go on from."""

    @abstractmethod
    def go(self, folder: Path, resume: bool) -> None:
        """Do it; never returns."""

    @abstractmethod
    def result(self, folder: Path) -> dict:
        """What the work ended with, to be compared."""


class Walkers(detect.Finder):
    """Three people who walk on from where they were followed to; now and then one is lost until the next search."""

    layout = "blazepose-33"
    starts = (300.0, 900.0, 1500.0)

    def find(self, image):
        return [detect.Region(x, 500.0, 300.0, 0.0) for x in self.starts]

    def follow(self, image, region):
        number, place = image.getpixel((0, 0))[0], int(region.x // 600)
        if (number + 17 * place) % 61 == 60:
            return None
        turn = 1.0 + 0.1 * np.sin(0.3 * number + place)
        points = from_h36m(BODY[None] * 200 * (turn, 1), self.layout)[0] + (region.x, region.y)
        ahead = detect.Region(region.x + 1.7, region.y + 3 * np.sin(0.2 * number), region.side, 0.01 * number)
        return Sighting(points.astype(np.float32), np.full(33, 0.9, np.float32)), ahead


class Numbered(Frames):
    """A video whose images are small, each with its number in it; some milliseconds each."""

    def __init__(self, source, fps=None, clip=None):
        super().__init__(60)
        self.source = str(source)

    def __iter__(self) -> Iterator[np.ndarray]:
        for number in range(self.count):
            time.sleep(0.003)
            yield np.asarray(Image.new("RGB", (64, 64), (number, 80, 160)))


class Lift(Work):
    """People found in a video, lifted, written in four forms."""

    name = "lift"
    outs = ("people.npz", "people.json", "people.bvh", "people.gif")

    def saved(self, folder: Path) -> bool:
        return lift.partial_of(folder / self.outs[0]).is_file()

    def go(self, folder: Path, resume: bool) -> None:
        lift.Video, detect.BlazePose = Numbered, Walkers
        outs = [word for out in self.outs for word in ("-o", str(folder / out))]
        how = ["--no-overlay", "--panel", "48", "--picture-fps", "15", *(["--resume"] if resume else [])]
        run_cli(lambda: lift.main(["made up.mp4", *outs, *how]))

    def result(self, folder: Path) -> dict:
        found = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".npz"}
        found["files"] = sorted(path.name for path in folder.iterdir())
        return found | {f"people.npz: {k}": v for k, v in read_npz(folder / self.outs[0]).items()}


class Training(Work):
    """HTNet, small, on the starter set; saved by the clock too."""

    name = "training"

    def saved(self, folder: Path) -> bool:
        return (folder / "last.pt").is_file()

    def go(self, folder: Path, resume: bool) -> None:
        loop.SAVE_EVERY = 0.05
        small = "--channel 24 --d_hid 32 --layers 1 --subset 0.05 --actions Swing --every 8 --epochs 3 --no-progress"
        sys.argv = ["h36m", *small.split(), "--out", str(folder), "--resume" if resume else "--overwrite"]
        run_cli(lambda: h36m.job_of(None).cli())

    def result(self, folder: Path) -> dict:
        """Checkpoints, the log, the figures: all but how long they took and whether the run was resumed."""
        found = {"log": [timeless(json.loads(line)) for line in (folder / "log.jsonl").read_text().splitlines()]}
        for name in ("last.pt", "best.pt"):
            state = read_checkpoint(folder / name)
            found[name] = timeless({k: v for k, v in state.items() if k != "options"})
        found["evaluation"] = json.loads((folder / "evaluation.json").read_text())
        return found | {"files": sorted(path.name for path in folder.iterdir())}


def timeless(value):
    """Without the seconds in it."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if "seconds" not in str(k)}
    return [timeless(v) for v in value] if isinstance(value, (list, tuple)) else value


def apart(one, other, where: str = "") -> str:
    """Where two results first differ; "" where they are the same to the bit, NaN being NaN."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        one, other = one.numpy(), other.numpy()
    if type(one) is not type(other):
        return where or "type"
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return f"{where} {sorted(map(str, one.keys() ^ other.keys()))}"
        return next((d for k in one if (d := apart(one[k], other[k], f"{where}/{k}"))), "")
    if isinstance(one, (list, tuple)):
        if len(one) != len(other):
            return f"{where} of {len(one)} and {len(other)}"
        return next((d for i, pair in enumerate(zip(one, other)) if (d := apart(*pair, f"{where}/{i}"))), "")
    if isinstance(one, np.ndarray):
        equal = one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    else:
        equal = one == other or one != one and other != other
    return "" if equal else where or "value"


WORKS = {"lift": Lift, "training": Training}


# -- how it is stopped -----------------------------------------------------------------------------------------------
@contextmanager
def place() -> Iterator[tuple[Path, bool]]:
    """A folder to work in, and whether it is a small disk of its own, which can be filled."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", folder]
        own = subprocess.run(command, capture_output=True).returncode == 0  # needs a right that not everybody has
        try:
            yield Path(folder), own
        finally:
            if own:
                subprocess.run(["umount", "--lazy", folder], check=True)


def fill(filler: Path) -> None:
    """Make the file as large as its disk lets it be."""
    with open(filler, "wb", buffering=0) as file:
        block = b"\0" * (1 << 20)
        while block:
            try:
                file.write(block)
            except OSError:
                block = block[: len(block) // 2]


def stop(process: int, kind: str, filler: Path) -> None:
    if kind in SIGNALS:
        os.kill(process, SIGNALS[kind])
    elif kind == "memory":
        status = Path(f"/proc/{process}/status").read_text()
        used = int(status.split("VmData:")[1].split()[0]) << 10
        resource.prlimit(process, resource.RLIMIT_DATA, (used, used))
    elif kind == "room in files":
        resource.prlimit(process, resource.RLIMIT_FSIZE, (0, 0))
    else:
        fill(filler)


def started(work: Work, folder: Path, resume: bool) -> tuple[int, int]:
    """The work in a process of its own, forked from this one: its number, and where to read what it says.

    A pipe takes that in, since files and disks may be full.
    """
    sys.stdout.flush()
    said, say = os.pipe()
    fcntl.fcntl(say, fcntl.F_SETPIPE_SZ, 1 << 20)
    process = os.fork()
    if process:
        os.close(say)
        return process, said
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.dup2(say, 1)
        os.dup2(say, 2)
        work.go(folder, resume)
    except SystemExit as left:
        os._exit(left.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def ended(process: int, said: int, moment: float = LONGEST, *what) -> tuple[int, str]:
    """The exit code of a process, to which ``stop`` happens some seconds from now, and what it said.

    Raises:
        TimeoutError: it hung.
    """
    start, code = time.monotonic(), None
    while code is None:
        passed = time.monotonic() - start
        if passed > LONGEST:
            os.kill(process, signal.SIGKILL)
        elif passed >= moment:
            stop(process, *what)
            moment = LONGEST
        time.sleep(0.002)
        number, status = os.waitpid(process, os.WNOHANG)
        code = os.waitstatus_to_exitcode(status) if number else None
    with open(said, errors="replace") as pipe:
        words = pipe.read()
    if passed > LONGEST:
        raise TimeoutError(f"hung: {words}")
    return code, words


def tidy(kind: str, code: int) -> bool:
    """Whether a process that was stopped ended as it should: done; as Ctrl-C ends one; in one line; or killed."""
    if kind in SIGNALS:
        return code in (0, 130, -SIGNALS[kind])  # the last: before the program had taken over its signals
    return code in (0, 2)


@dataclass
class Round:
    """How often the work was cut short, how often that ended as it should, and what was wrong; "" for nothing."""

    cut: int = 0
    tidy: int = 0
    wrong: str = ""


def one_round(work: Work, kind: str, draw: random.Random, whole: dict, room: Path) -> Round:
    folder, filler, found = room / "out", room / "filler", Round()
    folder.mkdir()
    for last in draw.choice(([False, True], [False, False, True])):
        moment = LONGEST if last else draw.uniform(0, work.length)
        code, said = ended(*started(work, folder, work.saved(folder)), moment, kind, filler)
        filler.unlink(missing_ok=True)
        if code == 0:
            break
        found.cut += 1
        found.tidy += tidy(kind, code)
        if last or not tidy(kind, code) and kind != "memory":  # without any, libraries end as they will
            found.wrong = f"exit code {code}: {said[-2000:]}"
            return found
    try:
        found.wrong = apart(whole, work.result(folder))
    except (OSError, ValueError, KeyError) as error:
        found.wrong = f"no result: {error}; {said[-2000:]}"
    return found


def undisturbed(work: Work, room: Path) -> dict:
    """The result; also how long it takes."""
    (room / "out").mkdir()
    start = time.monotonic()
    code, said = ended(*started(work, room / "out", False))
    work.length = time.monotonic() - start
    if code:
        raise ValueError(f"{work.name}: exit code {code}: {said}")
    return work.result(room / "out")


def emptied(room: Path) -> Path:
    for path in room.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return room


def main() -> int:
    parser = Parser(prog="python -m tests.stops", description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="of each kind of stop")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", choices=WORKS, action="append", help="default: both")
    parser.add_argument("--kind", choices=(*SIGNALS, *TAKEN), action="append", help="default: all")
    options = parser.parse_args()
    import matplotlib.figure  # noqa: F401 (once for all of the processes)
    import torch._dynamo

    torch.set_num_threads(1)  # so that no thread is here that a forked process would miss
    print(f"{'work':<10}{'stopped by':<16}{'rounds':>8}{'stops':>8}{'tidy':>8}{'equal':>8}", flush=True)
    failed = False
    with place() as (room, own):
        for name in options.work or WORKS:
            work = WORKS[name]()
            whole = undisturbed(work, emptied(room))
            for kind in options.kind or (*SIGNALS, *TAKEN):
                if kind == "disk" and not own:
                    print("no disk can be mounted here: none is filled")
                    continue
                draw = random.Random(f"{options.seed} {name} {kind}")
                found = [one_round(work, kind, draw, whole, emptied(room)) for _ in range(options.rounds)]
                wrong = [r.wrong for r in found if r.wrong]
                numbers = len(found), sum(r.cut for r in found), sum(r.tidy for r in found), len(found) - len(wrong)
                print(f"{name:<10}{kind:<16}{''.join(f'{n:>8}' for n in numbers)}", flush=True)
                for words in wrong:
                    print(words, flush=True)
                failed |= bool(wrong)
    return int(failed)


if __name__ == "__main__":
    run_cli(main)
