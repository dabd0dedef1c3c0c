"""The training loop that every paper here shares.

``fit(recipe, options, place, folder)`` trains what a recipe (``train.recipes``) describes: stages of epochs of batches,
on one process or several (``torchrun``), resumable to the bit. The recipe's functions (``make_model``,
``make_loader(rank, world)``, ``loss_step(batch)``) need nothing from here, so another engine can own them instead.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import math
import os
import random
import signal
import tempfile
import time
from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from posekernels._cli import Parser
from posekernels._files import write_aside
from posekernels.models.registry import read_checkpoint

from .recipes import CheckpointError, Recipe, is_ours

FORMAT = "posekernels-train-1"
PRECISIONS = ("float32", "tf32", "bf16")


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM; the run was saved. The message says how to go on."""


def add_arguments(parser: ArgumentParser) -> None:
    """The options of ``fit`` and ``run_place``, in a group of their own."""
    group = parser.add_argument_group("training")
    group.add_argument("-e", "--epochs", type=positive, help="epochs to train (each stage)")
    group.add_argument("--nepoch", dest="epochs", type=one_more, help="as published: one more than it trains epochs")
    group.add_argument("-b", "--batch-size", "--batch_size", type=positive, help="over all processes together")
    group.add_argument("-lr", "--lr", "--learning-rate", type=float, help="initial learning rate")
    group.add_argument("--clip", type=float, help="bound on the norm of the gradients; 0 for none")
    group.add_argument("--seed", type=int, default=1)
    group.add_argument("--eval-every", type=positive, metavar="N", help="epochs between evaluations")
    group.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    group.add_argument(
        "--precision", choices=PRECISIONS, default="float32", help="bf16: autocast; tf32: matrix products, GPU only"
    )
    group = parser.add_argument_group("files")
    group.add_argument("--out", metavar="DIR", help="folder for all that the run writes (default: the next runs/...)")
    group.add_argument(
        "-r", "--resume", nargs="?", const="last.pt", metavar="FILE", help="continue the run in --out (from last.pt)"
    )
    group.add_argument("--overwrite", action="store_true", help="replace the run in --out")
    group.add_argument("--tensorboard", action="store_true", help="write TensorBoard events to --out too")
    group.add_argument("--progress", action=BooleanOptionalAction, default=None, help="default: on a terminal")


def earlier(argv: list[str] | None) -> tuple[Namespace, dict]:
    """What a command line goes on from, read before its other options are.

    Returns:
        Its ``model``, ``evaluate``, ``resume`` and ``out``, with ``source``, the file that they name, or None; and
        the options of the run that wrote it, "model" among them: {} for a published checkpoint.
    Raises:
        ValueError: both --evaluate and --resume; a file that is no checkpoint.
    """
    early = Parser(add_help=False)
    for option in ("--model", "--out"):
        early.add_argument(option)
    early.add_argument("--evaluate", "--model-pth", "--model_diff_path")
    early.add_argument("-r", "--resume", nargs="?", const="last.pt")
    first, _ = early.parse_known_args(argv)
    if first.evaluate and first.resume:
        raise ValueError("--evaluate and --resume exclude each other: one tests a checkpoint, one goes on training")
    source = first.evaluate or (Path(first.out) / first.resume if first.resume and first.out else None)
    first.source = source if source is not None and Path(source).is_file() else None
    checkpoint = read_saved(first.source) if first.source else None
    return first, checkpoint["options"] | {"model": checkpoint["model"]} if is_ours(checkpoint) else {}


def take_over(parser: ArgumentParser, recipe: type[Recipe], stored: dict, resume: bool) -> None:
    """Let the ``stored`` options of a run stand in for what is not given: all to resume it, else the network's."""
    own = {"out", "resume", "overwrite", "device", "progress", "render", "evaluate"}
    keep = stored.keys() - own if resume else stored.keys() & set(recipe.architecture)
    parser.set_defaults(**{name: stored[name] for name in keep})


def positive(text: str) -> int:
    """For ``type=`` of options that count something."""
    value = int(text)
    if value < 1:
        raise ValueError(f"expected 1 or more, got {text}")  # argparse names the option
    return value


positive.__name__ = "positive integer"  # how argparse calls it in its message


def one_more(text: str) -> int:
    """``--nepoch``: the published programs count from 1 to below it."""
    return positive(str(int(text) - 1))


one_more.__name__ = "integer of at least 2"


# -- where a run happens ---------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Place:
    """Device, precision and process of a run; ``run_place`` makes one."""

    device: torch.device = torch.device("cpu")
    precision: str = "float32"
    rank: int = 0
    world: int = 1

    def autocast(self):
        """The context that forward passes run in."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def gather(self, value: Any) -> list:
        """``value`` of every process, in order of rank, on every process."""
        if self.world == 1:
            return [value]
        values = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is true on any process."""
        if self.world == 1:
            return flag
        tensor = torch.tensor(float(flag), device=self.device)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return bool(tensor.item())


@contextlib.contextmanager
def run_place(device: str = "auto", precision: str = "float32") -> Iterator[Place]:
    """Choose the device and, under torchrun, join the other processes (gloo on CPU, NCCL on GPU).

    Raises:
        ValueError: a device that is not here, more processes than GPUs, tf32 without a GPU.
    """
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    local = int(os.environ.get("LOCAL_RANK", 0))
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: no CUDA device here (PyTorch sees none); use --device cpu")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if precision == "tf32" and device != "cuda":
        raise ValueError("--precision tf32 needs a CUDA device; on a CPU use float32 or bf16")
    if device == "cuda":
        if local >= torch.cuda.device_count():
            raise ValueError(f"process {local} of this machine has no GPU: it has {torch.cuda.device_count()}")
        torch.cuda.set_device(local)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    joined = world > 1 and not dist.is_initialized()
    if joined:
        dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=datetime.timedelta(hours=2))
    try:
        yield Place(torch.device(device, local) if device == "cuda" else torch.device("cpu"), precision, rank, world)
    finally:
        torch.set_float32_matmul_precision(before)
        if joined:
            dist.destroy_process_group()


def free_memory() -> int | None:
    """Bytes that programs here may still take, a container's limit minded; None where that is not known (no Linux)."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
        group = Path("/sys/fs/cgroup")
        limit = (group / "memory.max").read_text().strip() if (group / "memory.max").is_file() else "max"
        if limit != "max":  # what is cached from files counts as used there, and gives way
            used = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            free = min(free, int(limit) - int(used["anon"]))
        return max(free, 0)
    except (OSError, StopIteration, KeyError, ValueError):
        return None


def move(batch, device: torch.device):
    """``batch`` with every tensor inside its tuples, lists, dicts and dataclasses on ``device``."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {k: move(v, device) for k, v in batch.items()}
    if isinstance(batch, (tuple, list)):
        return type(batch)(move(v, device) for v in batch)
    if dataclasses.is_dataclass(batch):
        fields = {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)}
        return dataclasses.replace(batch, **{k: move(v, device) for k, v in fields.items() if isinstance(v, Tensor)})
    return batch


# -- what a run writes -----------------------------------------------------------------------------------------------
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
                raise ValueError("--resume needs --out DIR, the folder of the run to continue")
            if options.resume and not (folder / options.resume).is_file():
                raise ValueError(f"--resume: no {folder / options.resume}; the run saves last.pt after every epoch")
            there = [n for n in ("last.pt", "best.pt", "log.jsonl", "options.json") if (folder / n).exists()]
            if there and not options.resume and not options.overwrite:
                raise ValueError(
                    f"--out {folder}: a run is in it ({', '.join(there)}); "
                    "continue it with --resume, replace it with --overwrite, or name another folder"
                )
            try:
                folder.mkdir(parents=True, exist_ok=True)
                tempfile.TemporaryFile(dir=folder).close()
            except OSError as failure:
                raise ValueError(f"--out {folder}: cannot write there: {failure.strerror or failure}") from failure
        except ValueError as failure:
            error = str(failure)
    folder, error = place.gather((folder, error))[0]
    if error:
        raise ValueError(error)
    return folder


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
        CheckpointError: unreadable, not written by this engine, or of another system.
    """
    state = read_saved(path)
    if not is_ours(state) or "optimizers" not in state:
        raise CheckpointError(f"{path}: not a checkpoint to resume from (expected a last.pt written by this program)")
    if name is not None and state["model"] != name:
        raise CheckpointError(f"{path}: a run of --model {state['model']}, not of {name}")
    return state


def _plain(options: Namespace) -> dict:
    """Options as JSON and ``weights_only`` loading can hold them."""
    keep = (str, int, float, bool, type(None), list, tuple)
    return {k: v if isinstance(v, keep) else str(v) for k, v in sorted(vars(options).items())}


# -- randomness ------------------------------------------------------------------------------------------------------
def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def random_state(device: torch.device) -> dict:
    """States of every global generator, in containers that ``weights_only`` loading accepts."""
    kind, keys, *rest = np.random.get_state()
    state = {"python": random.getstate(), "numpy": (kind, keys.tolist(), *rest), "torch": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: dict, device: torch.device) -> None:
    version, keys, gauss = state["python"]
    random.setstate((version, tuple(keys), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


# -- weight averaging ------------------------------------------------------------------------------------------------
class Ema:
    """shadow = rate * shadow + (1 - rate) * parameter, over the parameters that are trained."""

    def __init__(self, model: nn.Module, rate: float):
        self.model, self.rate = model, rate
        self.shadow = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def update(self) -> None:
        parameters = dict(self.model.named_parameters())
        torch._foreach_lerp_(
            list(self.shadow.values()), [parameters[n].detach() for n in self.shadow], weight=1 - self.rate
        )

    def state_dict(self) -> dict[str, Tensor]:
        """The model's state with the shadow in place of its parameters."""
        return {**self.model.state_dict(), **self.shadow}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, tensor in self.shadow.items():
            tensor.copy_(state[name])

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The model with shadow weights inside the block."""
        kept = {n: t.clone() for n, t in self.model.state_dict().items()}
        self.model.load_state_dict(self.state_dict())
        try:
            yield
        finally:
            self.model.load_state_dict(kept)


# -- the loop --------------------------------------------------------------------------------------------------------
class _Step(nn.Module):
    """One of the recipe's losses as a module's forward, which is where DistributedDataParallel hooks in."""

    def __init__(self, recipe: Recipe):
        super().__init__()
        self.model = recipe.model
        self._recipe = recipe

    def forward(self, index: int, batch):
        with self._recipe.place.autocast():
            result = self._recipe.loss_steps()[index](batch)
        return result if isinstance(result, dict) else {"loss": result}


class _StopSignal:
    """Catches the first Ctrl-C or SIGTERM to let a step end; one that comes seconds later gets through.

    Seconds later: under torchrun a single Ctrl-C arrives twice, from the terminal and from torchrun.
    """

    def __enter__(self):
        self.asked, self.previous, first = False, {}, 0.0

        def ask(number, frame):
            nonlocal first
            if self.asked and time.monotonic() > first + 2:
                raise KeyboardInterrupt
            self.asked, first = True, first or time.monotonic()

        with contextlib.suppress(ValueError):  # not the main thread: signals are someone else's
            for number in (signal.SIGINT, signal.SIGTERM):
                self.previous[number] = signal.signal(number, ask)
        return self

    def __exit__(self, *_):
        for number, handler in self.previous.items():
            signal.signal(number, handler)


@dataclass
class _Position:
    """How far a run has come. ``history`` has one record per epoch, as in log.jsonl."""

    stage: int = 0
    epoch: int = 0
    batch: int = 0
    step: int = 0
    best: float = math.inf
    losses: dict | None = None
    history: list | None = None


def fit(recipe: Recipe, options: Namespace, place: Place, folder: Path) -> list[dict]:
    """Train ``recipe`` and keep the result in ``folder``.

    Writes options.json, log.jsonl (a record per epoch), last.pt (everything a resumed run needs), best.pt (weights with
    the lowest ``recipe.watched`` of the last stage; earlier stages keep theirs in best-stage<n>.pt) and curve.png.

    Returns:
        The records of all epochs; ``recipe.model`` holds the best weights.
    Raises:
        Interrupted: by Ctrl-C or SIGTERM, after saving.
        ValueError: a loss that is not finite; a checkpoint to resume from that does not fit.
    """
    with _StopSignal() as stop:
        return _Loop(recipe, options, place, folder, stop).run()


def prepare(recipe: Recipe, options: Namespace, place: Place) -> None:
    """Give ``recipe`` its place, and a model with weights drawn from ``options.seed``."""
    seed_everything(options.seed)
    recipe.place = place
    recipe.model = recipe.make_model().to(place.device)


class _Loop:
    def __init__(self, recipe: Recipe, options: Namespace, place: Place, folder: Path, stop: _StopSignal):
        self.recipe, self.options, self.place, self.folder, self.stop = recipe, options, place, folder, stop
        self.at = _Position(losses={}, history=[])
        self.clip = recipe.clip_norm if options.clip is None else (options.clip or None)
        self.board = None

    def run(self) -> list[dict]:
        recipe, options, place = self.recipe, self.options, self.place
        saved = read_run(self.folder / options.resume, recipe.name) if options.resume else None
        if saved:
            self.check_resumed(saved["options"])
        prepare(recipe, options, place)
        seed_everything(options.seed + 1000003 * place.rank)  # dropout differs between processes
        if place.rank == 0:
            if saved is None:
                for stale in ("best.pt", "last.pt", "curve.png", *(p.name for p in self.folder.glob("best-stage*.pt"))):
                    (self.folder / stale).unlink(missing_ok=True)
            with write_aside(self.folder / "options.json") as path:
                path.write_text(json.dumps(_plain(options), indent=1) + "\n")
            self.write_log(saved["history"] if saved else [])
            self.board = _tensorboard(self.folder) if options.tensorboard else None
        try:
            for stage in range(recipe.stages):
                if saved and stage < saved["stage"]:
                    recipe.start_stage(stage, None)
                else:
                    self.stage(stage, saved)
                    saved = None
        finally:
            if self.board:
                self.board.close()
        if place.rank == 0:
            curve(self.at.history, recipe.watched, self.folder / "curve.png")
        if (self.folder / "best.pt").is_file():
            recipe.load_weights(self.folder / "best.pt")
        return self.at.history

    def stage(self, stage: int, saved: dict | None) -> None:
        recipe, place, at = self.recipe, self.place, self.at
        best = None
        if stage > 0 and not saved:
            best = read_checkpoint(self.best_path(stage - 1))["weights"]
        recipe.start_stage(stage, best)
        recipe.model.to(place.device)
        self.optimizers = recipe.make_optimizers()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group.setdefault("initial_lr", group["lr"])
        self.ema = Ema(recipe.model, recipe.ema_rate) if recipe.ema_rate else None
        at.stage, at.epoch, at.batch, at.step, at.best, at.losses = stage, 0, 0, 0, math.inf, {}
        if saved:
            self.restore(saved)
        step = _Step(recipe)
        if place.world > 1:
            step = DistributedDataParallel(
                step,
                device_ids=[place.device] if place.device.type == "cuda" else None,
                find_unused_parameters=recipe.unused_parameters,
            )
        loader = recipe.make_loader(place.rank, place.world)
        epochs = recipe.epochs(stage)
        show = self.options.progress
        with tqdm(
            total=epochs * len(loader),
            initial=at.epoch * len(loader) + at.batch,
            desc=f"stage {stage + 1}/{recipe.stages}" if recipe.stages > 1 else "training",
            unit="batch",
            disable=place.rank != 0 or (None if show is None else not show),
            dynamic_ncols=True,
        ) as bar:
            while at.epoch < epochs:
                self.epoch(step, loader, bar, last=at.epoch == epochs - 1)

    def epoch(self, step: nn.Module, loader, bar: tqdm, last: bool) -> None:
        recipe, at, start = self.recipe, self.at, time.monotonic()
        loader.set_epoch(at.epoch)
        recipe.start_epoch(at.epoch)
        recipe.model.train()
        skip = at.batch  # of an epoch that was interrupted; its batches are drawn again and passed over
        state = random_state(self.place.device) if skip else None
        for index, batch in enumerate(loader):
            if index < skip:
                continue
            if state:
                set_random_state(state, self.place.device)
                state = None
            self.batch(step, move(batch, self.place.device))
            at.batch = index + 1
            bar.update()
            if at.batch % 50 == 0:
                bar.set_postfix(loss=f"{self.mean_losses()['loss']:.4f}", refresh=False)
            if (self.place.world == 1 or at.batch % 10 == 0) and self.place.any(self.stop.asked):
                self.leave()
        if state:
            set_random_state(state, self.place.device)
        if at.batch == 0:
            raise ValueError("no training batches: the loader is empty (fewer samples than processes?)")
        losses = self.mean_losses()
        self.save()  # so that an interruption of the evaluation costs no training
        trained = time.monotonic()
        rate = self.optimizers[0].param_groups[0]["lr"]
        record = {"stage": at.stage, "epoch": at.epoch + 1, "step": at.step, "lr": rate} | losses
        tested = last or (at.epoch + 1) % (self.options.eval_every or 1) == 0
        if tested:
            report = self.evaluate()
            record |= report.figures
            self.keep_best(report.figures)
        record |= {"seconds": round(trained - start, 3), "test_seconds": round(time.monotonic() - trained, 3)}
        at.epoch, at.batch, at.losses = at.epoch + 1, 0, {}
        at.history.append(record)
        self.save()
        self.write_log([record], append=True)
        if self.place.rank == 0:
            hidden = ("stage", "epoch", "step", "seconds", *(() if tested else ("test_seconds",)))
            shown = (f"{k} {v:.4g}" for k, v in record.items() if k not in hidden)
            bar.write(f"epoch {at.epoch}: {'  '.join(shown)}")
        if self.place.any(self.stop.asked) and not last:
            self.leave()

    def batch(self, step: nn.Module, batch) -> None:
        recipe, at = self.recipe, self.at
        share = recipe.share(batch)
        factor = recipe.lr_factor(at.epoch, at.step)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor
        for index in range(len(recipe.loss_steps())):
            for optimizer in self.optimizers:
                optimizer.zero_grad(set_to_none=True)
            losses = step(index, batch)
            (losses["loss"] * share if share != 1 else losses["loss"]).backward()
            if self.clip:
                nn.utils.clip_grad_norm_((p for p in recipe.model.parameters() if p.grad is not None), self.clip)
            for optimizer in self.optimizers:
                optimizer.step()
            suffix = "" if index == 0 else str(index + 1)
            for name, value in losses.items():
                total = at.losses.setdefault(name + suffix, [torch.zeros((), device=self.place.device), 0])
                total[0] += value.detach().float() * share
                total[1] += 1
        if self.ema:
            self.ema.update()
        recipe.after_step(at.step)
        at.step += 1

    def mean_losses(self) -> dict[str, float]:
        """Of all processes, so far in this epoch; every process takes part.

        Raises:
            ValueError: one is not finite on some process; raised on all of them.
        """
        mine = {name: float(total) / count for name, (total, count) in self.at.losses.items()}
        means = {name: sum(parts) / len(parts) for name, parts in _transpose(self.place.gather(mine)).items()}
        for name, mean in means.items():
            if not math.isfinite(mean):
                raise ValueError(
                    f"the {name} is {mean} in epoch {self.at.epoch + 1}: NaN keypoints in the data, or a learning rate "
                    "that is too high (--lr, --clip); what was saved before is kept"
                )
        return means

    def evaluate(self):
        model = self.recipe.model
        shadow = self.ema.applied() if self.ema and self.recipe.evaluate_ema else contextlib.nullcontext()
        with shadow:
            model.eval()
            with torch.no_grad(), self.place.autocast():
                report = self.recipe.evaluate(self.place)
        model.train()
        if self.recipe.watched not in report.figures and not self.recipe.keep_last:
            raise ValueError(f"the evaluation has no figure {self.recipe.watched!r}, only {list(report.figures)}")
        return report

    def best_path(self, stage: int) -> Path:
        return self.folder / ("best.pt" if stage == self.recipe.stages - 1 else f"best-stage{stage + 1}.pt")

    def keep_best(self, figures: dict[str, float]) -> None:
        at, value = self.at, figures.get(self.recipe.watched, math.nan)
        if math.isfinite(at.best) and not value < at.best and not self.recipe.keep_last:
            return
        at.best = value
        if self.place.rank == 0:
            self.write(self.best_path(at.stage), self.weights() | {"figures": figures})

    def weights(self) -> dict:
        at = self.at
        return {
            "format": FORMAT,
            "model": self.recipe.name,
            "skeleton": getattr(getattr(self.recipe.data, "skeleton", None), "name", None),
            "options": _plain(self.options),
            "stage": at.stage,
            "stages": self.recipe.stages,
            "epoch": at.epoch,
            "weights": self.recipe.model.state_dict(),
            "ema": self.ema.state_dict() if self.ema else None,
        }

    def save(self) -> None:
        """Write last.pt; every process takes part."""
        at, place = self.at, self.place
        randoms = place.gather(random_state(place.device))
        losses = place.gather({k: (float(t), n) for k, (t, n) in at.losses.items()})
        if place.rank == 0:
            self.write(
                self.folder / "last.pt",
                self.weights()
                | {
                    "batch": at.batch,
                    "step": at.step,
                    "best": at.best,
                    "history": at.history,
                    "losses": losses,
                    "random": randoms,
                    "optimizers": [o.state_dict() for o in self.optimizers],
                    "recipe": self.recipe.state_dict(),
                },
            )

    def check_resumed(self, stored: dict) -> None:
        """Raises ValueError where an option differs that fixes the network, or which batches a step sees."""
        given = _plain(self.options)
        for name in (*self.recipe.fixed, *self.recipe.architecture):
            had, now = (list(v) if isinstance(v, (tuple, list)) else v for v in (stored.get(name), given.get(name)))
            if had is not None and name in given and had != now:
                raise ValueError(
                    f"--resume: the run in {self.folder} has {name}={had}, got {now}, which cannot change; "
                    "leave the option out, or train anew in another folder"
                )

    def restore(self, saved: dict) -> None:
        from .recipes import load_strict

        at, place, where = self.at, self.place, self.folder / self.options.resume
        load_strict(self.recipe.model, saved["weights"], where)
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            asked = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
            optimizer.load_state_dict(state)
            for group, values in zip(optimizer.param_groups, asked, strict=True):
                group.update(values)  # the rate, decay, ... of the options, which --resume may change
        if self.ema:
            self.ema.load_state_dict(saved["ema"])
        self.recipe.load_state_dict(saved["recipe"])
        at.epoch, at.batch, at.step, at.best = (saved[k] for k in ("epoch", "batch", "step", "best"))
        at.history = list(saved["history"])
        if len(saved["random"]) != place.world:
            raise ValueError(f"{where}: a run of {len(saved['random'])} processes, resumed with {place.world}")
        at.losses = {k: [torch.tensor(t, device=place.device), n] for k, (t, n) in saved["losses"][place.rank].items()}
        set_random_state(saved["random"][place.rank], place.device)

    def leave(self) -> None:
        self.mean_losses()  # a run that has diverged is not saved
        self.save()
        raise Interrupted(f"stopped and saved to {self.folder / 'last.pt'}; go on with: --out {self.folder} --resume")

    def write(self, path: Path, state: dict) -> None:
        with write_aside(path) as aside:
            torch.save(state, aside)

    def write_log(self, records: list[dict], append: bool = False) -> None:
        if self.place.rank != 0:
            return
        lines = "".join(json.dumps(_no_nan(r), allow_nan=False) + "\n" for r in records)
        if append:
            with open(self.folder / "log.jsonl", "a") as file:
                file.write(lines)
        else:
            with write_aside(self.folder / "log.jsonl") as path:
                path.write_text(lines)
        if self.board and append:
            for record in records:
                for name, value in record.items():
                    self.board.add_scalar(name, value, record["step"])


def _no_nan(record: dict) -> dict:
    """JSON has no NaN: null instead."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}


def _transpose(dicts: list[dict]) -> dict[str, list]:
    return {k: [d[k] for d in dicts] for k in dicts[0]}


def _tensorboard(folder: Path):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError("--tensorboard needs the package tensorboard: pip install posekernels[tensorboard]") from error
    return SummaryWriter(folder)


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
    right.set(title=f"{watched} on the test clips, mm", xlabel="epoch")
    if drawn:
        left.legend()
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    with write_aside(path) as aside:
        figure.savefig(aside)
