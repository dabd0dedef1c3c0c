"""The training loop that every paper here shares.

``fit(recipe, options, place, folder)`` trains what a recipe (``train.recipes``) describes: stages of epochs of batches,
on one process or several (``torchrun``), resumable to the bit. The recipe's functions (``make_model``,
``make_loader(rank, world)``, ``loss_step(batch)``) need nothing from here, so another loop can own them instead.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import signal
import time
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from posekernels.archive import read_checkpoint
from posekernels.files import save_checkpoint
from posekernels.limits import free_memory
from posekernels.models.load import fill

from . import trial
from .place import Place, move, tell
from .recipes import BATCH, Recipe
from .run_folder import FORMAT, Log, clear, curve, plain, read_run, save_options, sinks_of

SAVE_EVERY = 600.0  # seconds after which last.pt is written inside an epoch, too


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM; the run was saved. The message says how to go on."""


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


class Step(nn.Module):
    """One of the recipe's losses as a module's forward, which is where DistributedDataParallel hooks in."""

    def __init__(self, recipe: Recipe):
        super().__init__()
        self.model = recipe.model
        self._recipe = recipe

    def forward(self, index: int, batch):
        with self._recipe.place.autocast():
            result = self._recipe.loss_steps()[index](batch)
        return result if isinstance(result, dict) else {"loss": result}


class StopSignal:
    """Catches the first Ctrl-C, SIGTERM or SIGHUP to let a step end; one that comes seconds later gets through.

    Seconds later: under torchrun a single Ctrl-C arrives twice, from the terminal and from torchrun.
    """

    def __enter__(self):
        self.asked, self.words, self.previous, first = False, "", {}, 0.0

        def ask(number, frame):
            nonlocal first
            if self.asked and time.monotonic() > first + 2:
                raise KeyboardInterrupt
            self.asked, first = True, first or time.monotonic()
            if self.words:
                raise Interrupted(self.words)

        with contextlib.suppress(ValueError):  # not the main thread: signals are someone else's
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                self.previous[number] = signal.signal(number, ask)
        return self

    @contextlib.contextmanager
    def at_once(self, words: str) -> Iterator[None]:
        """Inside there is no step to wait for: all is saved. ``words`` say how to go on."""
        self.words = words
        try:
            if self.asked:
                raise Interrupted(words)
            yield
        finally:
            self.words = ""

    def __exit__(self, *_):
        for number, handler in self.previous.items():
            signal.signal(number, handler)


@dataclass
class Position:
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

    Writes options.json, log.jsonl (a record per epoch), last.pt (everything a resumed run needs; after every epoch and
    every ten minutes inside one), best.pt (weights with
    the lowest ``recipe.watched`` of the last stage; earlier stages keep theirs in best-stage<n>.pt) and curve.png.

    Returns:
        The records of all epochs; ``recipe.model`` holds the best weights.
    Raises:
        Interrupted: by Ctrl-C or SIGTERM, after saving.
        ValueError: a loss that is not finite; a checkpoint to resume from that does not fit.
    """
    with StopSignal() as stop:
        return Loop(recipe, options, place, folder, stop).run()


def prepare(recipe: Recipe, options: Namespace, place: Place) -> None:
    """Give ``recipe`` its place, and a model with weights drawn from ``options.seed``."""
    seed_everything(options.seed)
    recipe.place = place
    recipe.model = recipe.make_model().to(place.device)


class Loop:
    def __init__(self, recipe: Recipe, options: Namespace, place: Place, folder: Path, stop: StopSignal):
        self.recipe, self.options, self.place, self.folder, self.stop = recipe, options, place, folder, stop
        self.at = Position(losses={}, history=[])
        self.clip = recipe.clip_norm if options.clip is None else (options.clip or None)
        self.log: Log | None = None  # on process 0
        self.saved = time.monotonic()

    def run(self) -> list[dict]:
        recipe, options, place = self.recipe, self.options, self.place
        saved = read_run(self.folder / options.resume, recipe.name) if options.resume else None
        if saved:
            self.check_resumed(saved["options"])
        prepare(recipe, options, place)
        seed_everything(options.seed + 1000003 * place.rank)  # dropout differs between processes
        if place.rank == 0:
            if saved is None:
                clear(self.folder)
            save_options(self.folder, options)
            sinks = sinks_of(self.folder, options, saved is not None)
            self.log = Log(self.folder, saved["history"] if saved else [], sinks)
        try:
            for stage in range(recipe.stages):
                if saved and stage < saved["stage"]:
                    recipe.start_stage(stage, None)
                else:
                    self.stage(stage, saved)
                    saved = None
        finally:
            if self.log:
                self.log.close()
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
        step = Step(recipe)
        if place.world > 1:
            step = DistributedDataParallel(
                step,
                device_ids=[place.device] if place.device.type == "cuda" else None,
                find_unused_parameters=recipe.unused_parameters,
            )
        loader = recipe.make_loader(place.rank, place.world)
        self.look_ahead(loader)
        epochs = recipe.epochs(stage)
        if saved:
            tell(self.goes_on(epochs, len(loader)))
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

    def look_ahead(self, loader) -> None:
        """Say how long an epoch takes here, and refuse batches that memory cannot hold, after trying a few samples.

        Raises:
            ValueError: on a CPU, a step would need more memory than is free; a GPU's driver says so itself.
        """
        recipe, place = self.recipe, self.place
        loader.set_epoch(0)
        batch = next(iter(loader), None)
        if batch is None:
            return
        state, weights = random_state(place.device), {k: v.clone() for k, v in recipe.model.state_dict().items()}
        recipe.model.train()
        step, samples = Step(recipe), trial.samples_of(batch)
        cost = trial.cost_of(step, len(recipe.loss_steps()), move(batch, place.device), len(loader))
        recipe.model.load_state_dict(weights)
        set_random_state(state, place.device)
        if cost is None:
            return
        free, here = free_memory(), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        wanted = trial.need(cost, samples, recipe.model)
        if place.any(place.device.type == "cpu" and free is not None and wanted > free / here):
            fit = max(
                (n for n in range(1, samples) if trial.need(cost, n, recipe.model) <= (free or 0) / here), default=0
            )
            count = place.world * recipe.counted
            fitting = f"at most {fit * count} fit" if fit else "not even one sample fits"
            raise ValueError(
                f"{recipe.batch_option} {samples * count}: a step needs about {wanted * here / 2**30:.1f} GiB of "
                f"memory, and {(free or 0) / 2**30:.1f} GiB are free: {fitting}{self.smaller()}"
            )
        seconds = cost.of(samples) * len(loader)
        if place.rank == 0 and seconds > trial.LONG:
            print(f"an epoch takes {trial.words(seconds)} here{self.smaller() if seconds > 3600 else ''}")

    def smaller(self) -> str:
        """The sizes for two cores, where larger ones are used."""
        given, small = vars(self.options), self.recipe.defaults(starter=True)
        others = "epochs", "eval_every", "lr", "dropout", *(["batch_size"] if self.recipe.batch_option != BATCH else [])
        sizes = {k: v for k, v in small.items() if k not in others and _less(k, v, given.get(k, v))}
        if not sizes:
            return ""
        shown = (
            f"--{k.replace('_', '-')} {','.join(map(str, v)) if isinstance(v, tuple) else v}" for k, v in sizes.items()
        )
        return "; smaller, for two cores: " + " ".join(shown)

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
            if self.place.world == 1 or at.batch % 10 == 0:
                if self.place.any(self.stop.asked):
                    self.leave()
                if self.place.any(time.monotonic() > self.saved + SAVE_EVERY):
                    self.mean_losses()  # a run that has diverged is not saved
                    self.save()
        if state:
            set_random_state(state, self.place.device)
        if at.batch == 0:
            raise ValueError("no training batches: the loader is empty (fewer samples than processes?)")
        losses = self.mean_losses()
        self.save()  # so that an interruption of the evaluation costs no training
        trained = time.monotonic()
        group = self.optimizers[0].param_groups[0]
        rate = group["initial_lr"] * recipe.lr_factor(
            at.epoch, at.step - 1
        )  # of the last step, before a resumption too
        record = {"stage": at.stage, "epoch": at.epoch + 1, "step": at.step, "lr": rate} | losses
        tested = last or (at.epoch + 1) % (self.options.eval_every or 1) == 0
        if tested:
            with self.stop.at_once(self.left) if self.place.world == 1 else contextlib.nullcontext():
                report = self.evaluate()
            record |= report.figures
            self.keep_best(report)
        record |= {"seconds": round(trained - start, 3), "test_seconds": round(time.monotonic() - trained, 3)}
        at.epoch, at.batch, at.losses = at.epoch + 1, 0, {}
        at.history.append(record)
        self.save()
        if self.log:
            self.log.add(record)
            hidden = ("stage", "epoch", "step", "seconds", *(() if tested else ("test_seconds",)))
            shown = (f"{k} {v:.4g}" for k, v in record.items() if k not in hidden)
            bar.write(f"epoch {at.epoch}: {'  '.join(shown)}")
        if self.place.any(self.stop.asked):  # after the last epoch too: what follows is the test
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

    def keep_best(self, report) -> None:
        figures = report.figures
        at, value = self.at, figures.get(self.recipe.watched, math.nan)
        if math.isfinite(at.best) and not value < at.best and not self.recipe.keep_last:
            return
        at.best = value
        self.recipe.report = report if at.stage == self.recipe.stages - 1 else None
        if self.place.rank == 0:
            save_checkpoint(self.weights() | {"figures": figures}, self.best_path(at.stage))

    def weights(self) -> dict:
        at = self.at
        return {
            "format": FORMAT,
            "model": self.recipe.name,
            "about": self.recipe.about(),
            "unfinished": self.recipe.unfinished,
            "options": plain(self.options),
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
            save_checkpoint(
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
                self.folder / "last.pt",
            )
        self.saved = time.monotonic()

    def check_resumed(self, stored: dict) -> None:
        """Raises ValueError where an option differs that fixes the network, or which batches a step sees."""
        given = plain(self.options)
        for name in (*self.recipe.fixed, *self.recipe.architecture):
            had, now = (list(v) if isinstance(v, (tuple, list)) else v for v in (stored.get(name), given.get(name)))
            if had is not None and name in given and had != now:
                raise ValueError(
                    f"--resume: the run in {self.folder} has {name}={had}, got {now}, which cannot change; "
                    "leave the option out, or train anew in another folder"
                )

    def restore(self, saved: dict) -> None:
        at, place, where = self.at, self.place, self.folder / self.options.resume
        fill(self.recipe.model, saved["weights"], where, ours=True)
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            own = "params", "lr"  # not of the options; the latter is that of the last step
            asked = [{k: v for k, v in group.items() if k not in own} for group in optimizer.param_groups]
            optimizer.load_state_dict(state)
            for group, values in zip(optimizer.param_groups, asked, strict=True):
                group.update(values)  # the first rate, decay, ... of the options, which --resume may change
        if self.ema:
            self.ema.load_state_dict(saved["ema"])
        self.recipe.load_state_dict(saved["recipe"])
        at.epoch, at.batch, at.step, at.best = (saved[k] for k in ("epoch", "batch", "step", "best"))
        at.history = list(saved["history"])
        if len(saved["random"]) != place.world:
            raise ValueError(f"{where}: a run of {len(saved['random'])} processes, resumed with {place.world}")
        at.losses = {k: [torch.tensor(t, device=place.device), n] for k, (t, n) in saved["losses"][place.rank].items()}
        set_random_state(saved["random"][place.rank], place.device)

    def goes_on(self, epochs: int, batches: int) -> str:
        """Where a resumed run begins, in words."""
        at, recipe, where = self.at, self.recipe, self.folder / self.options.resume
        stage = f"stage {at.stage + 1} of {recipe.stages}, " if recipe.stages > 1 else ""
        if at.epoch >= epochs:
            return f"{stage}all {epochs} epochs are in {where}"
        begun = f", after {at.batch} of {batches} batches" if at.batch else ""
        return f"goes on at {stage}epoch {at.epoch + 1} of {epochs}{begun}, from {where}"

    def leave(self) -> None:
        self.mean_losses()  # a run that has diverged is not saved
        self.save()
        raise Interrupted(self.left)

    @property
    def left(self) -> str:
        """How to go on."""
        return f"stopped and saved to {self.folder / 'last.pt'}; go on with: --out {self.folder} --resume"


def _less(name: str, size, given) -> bool:
    """Whether a training with an option of ``size`` takes less than with what was given."""
    if given is None:
        return True
    if name == "every":
        return size > given
    return size < given if isinstance(size, (int, float)) else size != given


def _transpose(dicts: list[dict]) -> dict[str, list]:
    return {k: [d[k] for d in dicts] for k in dicts[0]}
