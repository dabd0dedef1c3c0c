"""``posekernels lift FOLDER -o OUT/`` and ``lift a.mp4 b.mp4 -o OUT/``: many files in one run.

One load of the networks, one bar, one table. A file that fails does not end the others. The same work runs here or,
with ``--engine ray``, on as many workers as a Ray cluster has.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from posekernels.extras import needs
from posekernels.files import check_writable

from .. import keypoint_files, pictures, pose_files
from ..lifter import load_lifter
from ..video import PICTURES, VIDEOS, names_of, visible

ENGINES = ("here", "ray")
LIFTED, DONE, FAILED, STOPPED = "lifted", "was done", "failed", "stopped"


@dataclass
class Row:
    """What became of one file; ``why`` it failed."""

    source: str
    result: str
    people: int = 0
    frames: int = 0
    seconds: float = 0.0
    why: str = ""


def inside(folder: Path) -> list[Path]:
    """Videos and keypoints in a folder, and folders of pictures or of JSON frames; none where it is one itself."""
    if not folder.is_dir():
        return []
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    kinds = (*VIDEOS, ".npz", ".npy", *((".json",) if _is_of_videos(folder) else ()))
    found = [path for path in entries if path.is_file() and path.suffix.lower() in kinds]
    found += [path for path in entries if path.is_dir() and _is_one(path)]
    return [] if _is_one(folder) and not found else sorted(found)


def _is_one(folder: Path) -> bool:
    suffixes = {path.suffix.lower() for path in folder.iterdir() if path.is_file()}
    return bool(suffixes & {*PICTURES}) or ".json" in suffixes and not _is_of_videos(folder)


def _is_of_videos(folder: Path) -> bool:
    """Whether the .json in a folder are videos each, and not a frame: the first one tells."""
    first = min((path for path in folder.iterdir() if path.suffix.lower() == ".json" and path.is_file()), default=None)
    return first is not None and keypoint_files.holds_a_video(first)


def left_out(options: Namespace) -> Iterator[str]:
    """In words, files that lie in a folder beside videos or keypoints, and are not lifted with them."""
    for folder in (Path(name) for name in (options.input, *options.more)):
        if not (lifted := {*inside(folder)}):
            continue
        rest = [path for path in visible(folder) if path not in lifted]
        if seen := [path for path in rest if path.suffix.lower() in PICTURES]:
            what = f"{len(seen)} picture{'s' if len(seen) > 1 else ''} beside videos or keypoints"
            how = "name a picture to lift it, or put frames in a folder"
            yield f"{folder}: {what} left out ({names_of(seen)}); {how}"
        if others := [path for path in rest if path.suffix.lower() not in PICTURES]:
            yield f"{folder}: files that are neither videos nor keypoints are left out: {names_of(others)}"


def is_many(options: Namespace) -> bool:
    """Whether there are several inputs, or a folder for what is written."""
    return bool(options.more) or bool(inside(Path(options.input))) or _is_folder(options.out[0])


def _is_folder(out: str) -> bool:
    return out.endswith(("/", os.sep)) or Path(out).is_dir()


def sources(options: Namespace) -> list[Path]:
    """All inputs, folders of them opened.

    Raises:
        ValueError: the same file twice.
    """
    found = [path for name in (options.input, *options.more) for path in inside(Path(name)) or [Path(name)]]
    twice = [path for path, times in Counter(path.resolve() for path in found).items() if times > 1]
    if twice:
        raise ValueError(f"{twice[0]}: given twice")
    return found


def targets(options: Namespace, found: list[Path]) -> dict[Path, list[Path]]:
    """The files to write for each source: in the folder of -o, named after it, one for each of --form.

    Raises:
        ValueError: -o is no folder or not just one; it cannot be written to; two sources of one name.
    """
    if len(options.out) > 1 or Path(options.out[0]).suffix and not _is_folder(options.out[0]):
        of = f"{len(found)} files" if len(found) > 1 else f"the files of a folder ({found[0].name})"
        raise ValueError(f"-o {' -o '.join(options.out)}: for {of}, expected one folder, such as OUT/")
    forms = [form if form.startswith(".") else f".{form}" for form in options.form]
    for form in forms:
        if form not in (*pose_files.SUFFIXES, *pictures.SUFFIXES):
            raise ValueError(f"--form: expected {', '.join((*pose_files.SUFFIXES, *pictures.SUFFIXES))}, got {form}")
        (pictures if form in pictures.SUFFIXES else pose_files).check_target(Path(f"x{form}"))
    folder = Path(options.out[0])
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"-o {folder}: cannot be made ({error.strerror})") from error
    stems = Counter(path.stem for path in found)
    names = {path: path.stem if stems[path.stem] == 1 else path.name for path in found}
    twice = [name for name, times in Counter(names.values()).items() if times > 1]
    if twice:
        raise ValueError(f"{twice[0]}: several inputs have this name, and would be written to one file")
    outs = {path: [folder / f"{name}{form}" for form in forms] for path, name in names.items()}
    for path, files in outs.items():
        for file in files:
            check_writable(file, str(path))
    return outs


def for_one(options: Namespace, task: dict) -> Namespace:
    """The options for one file: those of keypoint files hold for these alone, and so do those of videos."""
    from . import lift

    own = {"input": task["source"], "out": task["outs"], "progress": False}
    others = (
        {"rtmpose": None, "yolo_pose": None} if lift.is_keypoints(task["source"]) else {"layout": None, "size": None}
    )
    return Namespace(**vars(options) | own | others)


class Work:
    """Lifts files one after the other, with networks that are loaded once."""

    def __init__(self, options: Namespace, threads: int | None = None):
        if threads is not None:
            torch.set_num_threads(threads)
        self.options, self.detector = options, None
        self.lifter = load_lifter(options.model, options.weights, options.device)

    def __call__(self, task: dict, bar=None) -> dict:
        """A task of ``source`` and ``outs``, names of files, to a ``Row`` as a dict; and what was said on the way."""
        from . import lift

        start, said = time.perf_counter(), io.StringIO()
        outs = [Path(out) for out in task["outs"]]
        options = for_one(self.options, task)
        row = Row(task["source"], LIFTED)
        try:
            with contextlib.redirect_stderr(said):
                lift.check(options)
                left = lift.partial_of(outs[0])
                options.resume = options.resume and left.is_file()
                if not lift.is_keypoints(options.input) and self.detector is None:
                    self.detector = lift.finder(options)
                lifted = lift.run(options, outs, outs[0], lifter=self.lifter, detector=self.detector, bar=bar)
            if lifted is None:
                row.result = STOPPED
            else:
                row.people, row.frames = len(lifted.people), lifted.frames
        except Exception as error:  # whatever it is, it ends this file alone
            row.result, row.why = FAILED, " ".join(str(error).split()) or type(error).__name__
        row.seconds = time.perf_counter() - start
        return asdict(row) | {"said": said.getvalue()}


def here(options: Namespace, tasks: list[dict], bar) -> Iterator[dict]:
    """In this process, one after the other."""
    work = Work(options)
    for task in tasks:
        bar.set_description(Path(task["source"]).name[:30])
        result = work(task, bar)
        yield result
        if result["result"] == STOPPED:
            return


def on_ray(options: Namespace, tasks: list[dict], bar) -> Iterator[dict]:
    """By a pipeline of Ray Data: a pool of workers that each load the networks once, as many as Ray has CPUs or GPUs.

    Ray starts here, or is joined where RAY_ADDRESS says; all machines must see the files under the same names.
    """
    data = needs("ray.data", "ray", "--engine ray")
    import ray

    if not ray.is_initialized():
        ray.init(log_to_driver=False, logging_level="error")
    data.DataContext.get_current().enable_progress_bars = False
    kind = "GPU" if options.device == "cuda" else "CPU"
    workers = max(1, min(len(tasks), int(ray.cluster_resources().get(kind, 1))))
    need = {"num_gpus": 1} if kind == "GPU" else {"num_cpus": 1}
    rows = data.from_items(tasks, override_num_blocks=len(tasks))
    how = {"fn_constructor_args": (options, torch.get_num_threads()), "concurrency": workers}
    yield from rows.map(Work, **how, **need).iter_rows()


def run(options: Namespace) -> int:
    """All of it; returns 0, 1 where a file failed, 130 where Ctrl-C ended the run."""
    from tqdm import tqdm

    found = sources(options)
    if options.latency is not None:
        raise ValueError("--latency is for live frames, not for many files")
    if options.rerun is not None:
        raise ValueError("--rerun is for one file, not for many")
    outs = targets(options, found)
    for line in left_out(options):
        print(line, file=sys.stderr)
    done = [path for path in found if options.resume and all(out.exists() for out in outs[path])]
    tasks = [
        {"source": str(path.resolve()), "outs": [str(out.resolve()) for out in outs[path]]}
        for path in found
        if path not in done
    ]
    table = [Row(str(path), DONE) for path in done]
    show = sys.stderr.isatty() if options.progress is None else options.progress
    engine = on_ray if options.engine == "ray" else here
    bar = tqdm(total=len(tasks), unit="file", disable=not show, leave=False)
    with bar, contextlib.suppress(KeyboardInterrupt):
        for result in engine(options, tasks, bar) if tasks else ():
            name = Path(result["source"]).name
            for line in result.pop("said").splitlines():
                bar.write(f"{name}: {line}", file=sys.stderr)
            table.append(Row(**result))
            if table[-1].why:
                bar.write(f"{name}: error: {table[-1].why}", file=sys.stderr)
            bar.n = len(table) - len(done)
            bar.refresh()
    print(as_table(table))
    results = Counter(row.result for row in table)
    print(", ".join(f"{count} {result}" for result, count in results.items()), file=sys.stderr)
    if results[STOPPED] or len(table) < len(found):
        print(
            f"{len(found) - len(table) + results[STOPPED]} left; the same command with --resume goes on",
            file=sys.stderr,
        )
        return 130
    return 1 if results[FAILED] else 0


def as_table(rows: list[Row]) -> str:
    """Columns of source, result, people, frames, seconds, and why."""
    cells = [("file", "result", "people", "frames", "seconds", "")]
    cells += [
        (Path(r.source).name, r.result, str(r.people or ""), str(r.frames or ""), f"{r.seconds:.1f}", r.why)
        for r in rows
    ]
    widths = [max(len(row[k]) for row in cells) for k in range(5)]
    lines = ["  ".join([*(c.ljust(w) for c, w in zip(row, widths)), row[5]]).rstrip() for row in cells]
    return "\n".join(lines)
