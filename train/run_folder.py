"""What a run leaves in its folder: checkpoints, log, curve."""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import tempfile
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from posekernels.archive import CheckpointError, read_checkpoint
from posekernels.extras import needs
from posekernels.files import left_aside, write_aside
from posekernels.models.load import is_run
from posekernels.pose.metrics import MEANINGS

from .place import Place

FORMAT = "posekernels-train-1"


def next_folder(stem: str) -> Path:
    """``runs/<stem>-<n>``, the first that does not exist."""
    n = 1
    while (folder := Path("runs") / f"{stem}-{n}").exists():
        n += 1
    return folder


def open_folder(options: Namespace, place: Place, stem: str) -> Path:
    """The folder of a run, made and proven writable by process 0; nothing in it is touched.

    Raises:
        ValueError: unwritable; a run is in it and neither --resume nor --overwrite is given; nothing to resume.
    """
    error = None
    folder = Path(options.out) if options.out else next_folder(stem)
    if place.rank == 0:
        try:
            if options.resume and not options.out:
                raise ValueError(
                    "--resume needs --out DIR, the folder of the run to continue; published files are for --evaluate"
                )
            if options.resume and not (folder / options.resume).is_file():
                when = "after every epoch and every ten minutes"
                raise ValueError(f"--resume: no {folder / options.resume}; the run saves last.pt {when}")
            there = [name for name in ("last.pt", "best.pt", "log.jsonl") if _holds(folder / name)]
            if there and not options.resume and not options.overwrite:
                go_on = "continue it with --resume, " if "last.pt" in there else ""
                raise ValueError(
                    f"--out {folder}: a run is in it ({', '.join(there)}); "
                    f"{go_on}replace it with --overwrite, or name another folder"
                )
            try:
                folder.mkdir(parents=True, exist_ok=True)
                tempfile.TemporaryFile(dir=folder).close()
                lock(folder)
            except BlockingIOError:
                raise ValueError(f"--out {folder}: another run is writing there; name another folder") from None
            except OSError as failure:
                raise ValueError(f"--out {folder}: cannot write there: {failure.strerror or failure}") from failure
            for left in left_aside(folder):  # by a run that was killed
                left.unlink(missing_ok=True)
        except ValueError as failure:
            error = str(failure)
    folder, error = place.gather((folder, error))[0]
    if error:
        raise ValueError(error)
    return folder


def _holds(path: Path) -> bool:
    """Whether a run got as far as leaving something there: one that stops at its first step leaves an empty log."""
    return path.exists() and path.stat().st_size > 0


_locks: dict[Path, int] = {}


def lock(folder: str | Path) -> None:
    """Keep a run's folder for this process. The lock dies with its process, however that ends.

    Raises:
        BlockingIOError: another process has it.
    """
    folder = Path(folder).resolve()
    if folder in _locks:
        return
    file = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        raise
    _locks[folder] = file


def read_saved(path: str | Path) -> dict | list:
    """``read_checkpoint`` that says what is left of a run whose last.pt is damaged."""
    try:
        return read_checkpoint(path)
    except CheckpointError as error:
        best, epoch = Path(path).with_name("best.pt"), 0
        if Path(path).name == "last.pt":
            with contextlib.suppress(CheckpointError):
                epoch = read_checkpoint(best)["epoch"] + 1
        if not epoch:
            raise
        raise CheckpointError(
            f"{error}; {best} beside it is whole, the weights of epoch {epoch}: --evaluate {best} tests them, "
            "but a run cannot go on from there: train anew with --overwrite, or in another folder"
        ) from error


def read_run(path: Path, name: str | None = None) -> dict:
    """One of our checkpoints, of ``--model name`` where given.

    Raises:
        CheckpointError: unreadable, not written by this program, or of another system.
    """
    state = read_saved(path)
    if not is_run(state) or "optimizers" not in state:
        raise CheckpointError(f"{path}: not a checkpoint to resume from (expected a last.pt written by this program)")
    if name is not None and state["model"] != name:
        raise CheckpointError(f"{path}: a run of --model {state['model']}, not of {name}")
    return state


def plain(options: Namespace) -> dict:
    """Options as JSON and ``weights_only`` loading can hold them."""
    keep = (str, int, float, bool, type(None), list, tuple)
    return {k: v if isinstance(v, keep) else str(v) for k, v in sorted(vars(options).items())}


def clear(folder: Path) -> None:
    """Take away what an earlier run left; its log and options are written anew anyway."""
    for stale in ("best.pt", "last.pt", "curve.png", *(p.name for p in folder.glob("best-stage*.pt"))):
        (folder / stale).unlink(missing_ok=True)


def save_options(folder: Path, options: Namespace) -> None:
    with write_aside(folder / "options.json") as path:
        path.write_text(json.dumps(plain(options), indent=1) + "\n")


class Sink(Protocol):
    """Where a run's records go besides log.jsonl. ``Log`` calls ``add`` after every epoch and ``close`` in the end."""

    def add(self, record: dict) -> None: ...
    def close(self) -> None: ...


class Log:
    """log.jsonl of a run, a record per epoch, begun with those of ``history``; and the ``sinks`` beside it."""

    def __init__(self, folder: Path, history: list[dict], sinks: Sequence[Sink] = ()):
        self.path, self.sinks = folder / "log.jsonl", sinks
        with write_aside(self.path) as path:
            path.write_text("".join(map(_line, history)))

    def add(self, record: dict) -> None:
        with open(self.path, "a") as file:
            file.write(_line(record))
        for sink in self.sinks:
            sink.add(record)

    def close(self) -> None:
        for sink in self.sinks:
            sink.close()


def _line(record: dict) -> str:
    """JSON has no NaN: null instead."""
    whole = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
    return json.dumps(whole, allow_nan=False) + "\n"


class TensorBoard:
    """Events in the run's folder: ``tensorboard --logdir runs``."""

    def __init__(self, folder: Path):
        needs("tensorboard", "tensorboard", "--tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        self.board = SummaryWriter(folder)

    def add(self, record: dict) -> None:
        for name, value in record.items():
            self.board.add_scalar(name, value, record["step"])

    def close(self) -> None:
        self.board.close()


class WeightsAndBiases:
    """A run on wandb, of a project of yours; its own variables say where, as ``WANDB_MODE=offline`` does.

    The run's id stays in the folder, so that a resumed run goes on in the same one.
    """

    def __init__(self, folder: Path, project: str, config: dict, resumed: bool):
        wandb = needs("wandb", "wandb", "--wandb")
        known = folder / "wandb-id.txt"
        name = known.read_text().strip() if resumed and known.is_file() else None
        self.run = wandb.init(
            project=project, dir=folder, name=folder.name, id=name, resume="allow", config=config, reinit="create_new"
        )
        with write_aside(known) as path:
            path.write_text(f"{self.run.id}\n")

    def add(self, record: dict) -> None:
        self.run.log(record)

    def close(self) -> None:
        self.run.finish()


def sinks_of(folder: Path, options: Namespace, resumed: bool) -> list[Sink]:
    """What the options ask for."""
    sinks: list[Sink] = [TensorBoard(folder)] if options.tensorboard else []
    if options.wandb:
        sinks.append(WeightsAndBiases(folder, options.wandb, plain(options), resumed))
    return sinks


def curve(history: list[dict], watched: str, path: Path) -> None:
    """A picture of the run: losses, and the watched figure on the test clips, over epochs."""
    from matplotlib.figure import Figure  # no pyplot: no display, no global state

    figure = Figure(figsize=(9, 3.6), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = range(1, len(history) + 1)
    for name in (n for n in history[0] if n.startswith("loss")) if history else ():
        left.plot(epochs, [r.get(name, math.nan) for r in history], label=name, marker="." if len(history) < 40 else "")
    tested = [(e, r[watched]) for e, r in zip(epochs, history) if watched in r]
    if tested:
        right.plot(*zip(*tested), color="tab:orange", marker="." if len(history) < 40 else "")
        lowest = min(tested, key=lambda t: t[1])
        right.plot(*lowest, "o", color="tab:red", label=f"lowest: {lowest[1]:.1f} in epoch {lowest[0]}")
        right.legend()
    drawn = [y for line in left.lines for y in line.get_ydata() if y > 0]
    wide = len(drawn) > 1 and max(drawn) > 10 * min(drawn)
    left.set(title="training loss", xlabel="epoch", yscale="log" if wide else "linear")
    meaning = f" ({MEANINGS[watched]})" if watched in MEANINGS else ""
    right.set(title=f"{watched}{meaning} on the test clips, mm", xlabel="epoch")
    if drawn:
        left.legend()
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    with write_aside(path) as aside:
        figure.savefig(aside)
