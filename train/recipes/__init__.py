"""What each paper says about training, one file per system: ``train/recipes/<system>.py``.

``python -m train.h36m --model NAME`` imports ``train.recipes.NAME`` and takes the class that the module calls
``RECIPE``; a new file is found without a table to edit.

A recipe subclasses ``Recipe`` (or ``LiftingRecipe`` of ``train.recipes._lifting``, which already has windows, mirroring
and the evaluation of 2D-to-3D lifting) and fills in what its paper fixes. The loop (``train.loop.fit``) calls it in
this order; everything in brackets has a default::

    parser    add_arguments(parser)           the system's published options, under their published names
              [defaults(starter)]             epochs, batch_size, lr: published, or tuned for the starter set
              [complete(options)]             fill in options that others imply, before the data are read
    run       __init__(options, data)         keep both; build nothing heavy
              make_model() -> Module          becomes self.model, on self.place.device; all that is trained or saved
    stage     [start_stage(index, best)]      freeze, reload, replace parts of self.model
              make_loader(rank, world)        batches of this process; sized, iterable, with set_epoch(n)
              make_optimizers() -> list       fresh for every stage
    epoch     [start_epoch(epoch)]            e.g. the momentum of batch norms
    batch     [lr_factor(epoch, step)]        a pure function; multiplies every group's own initial rate
              loss_step(batch) -> loss        uses self.model; a tensor, or a dict of tensors with the key "loss"
              [after_step(step)]
    test      evaluate(place) -> Report       self.model in eval mode, no gradients, EMA weights where asked for
    file      [state_dict, load_state_dict]   what a resumed run needs besides weights, optimizers and random states

Rules that keep every run resumable, to the bit, and parallel; several processes learn what one would but for
rounding, for dropout, which each draws for itself, and for batch norms, which see their own process's share of a batch:

- Epochs and steps count from 0, within the stage. ``lr_factor`` must depend on nothing else.
- ``make_loader(rank, world)`` yields this process's share of each batch, drawing from its own generator seeded by
  ``options.seed`` and the epoch, never from the global one. An "epoch" is whatever the loader says: one of 100
  iterations of an endless stream is fine, and evaluation and saving follow it.
- ``loss_step`` is called inside DistributedDataParallel's forward: call the networks in ``self.model`` as often as you
  like. Set ``unused_parameters = True`` when a step leaves some trainable parameter without gradient.
- Several optimiser steps per batch: return several functions from ``loss_steps()`` (PKD has two). Each one is followed
  by backward and one step of every optimiser; a parameter without gradient in that step does not move.
- Frozen networks that are not saved with the run (DiffPose's initialiser) stay outside ``self.model``; move them to
  ``self.place.device`` yourself.
- ``evaluate(place)`` takes clips ``place.rank::place.world`` and gathers; ``train.evaluate.evaluate_clips`` does it.
- Nothing prints but the loop; refuse a bad option with ValueError naming it.

A lifting recipe's ``predict(clip)`` gives all frames of one clip, [T, J, 3] float32, metres, root-relative with the
root at 0 (but RIE's and MixSTE's, whose root is an output as any other): what evaluation, ``--render`` and export use.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from posekernels import models
from posekernels.archive import CheckpointError, read_checkpoint
from posekernels.checks import nearest
from posekernels.models.load import About, fill, is_run

BATCH = "--batch-size"


def add_start(parser: ArgumentParser) -> None:
    """``--start-from``, which was ``--start``: torchrun takes that for one of its own options, as it does ``--num``."""
    about = "weights of the same network to begin with (.safetensors)"
    parser.add_argument("--start-from", "--start", dest="start", metavar="FILE", help=about)


def start_with(net: nn.Module, path: str, network: str, config: dict[str, Any]) -> None:
    """Give ``net`` the weights of a file of ours. Raises ValueError where they are of a network of another size."""
    begun = models.load(path, network)
    stored = begun.about.config
    if {k: v for k, v in config.items() if stored.get(k, v) != v}:
        raise ValueError(f"--start-from {path}: of another size, {stored}; the run: {config}")
    net.load_state_dict(begun.state_dict())


class Loader(Protocol):
    """Batches of one process. ``torch.utils.data.DataLoader`` with a distributed sampler is one."""

    def set_epoch(self, epoch: int) -> None: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Any]: ...


class Recipe(ABC):
    """One system's training; see the module's docstring for the order of calls.

    Attributes:
        name: the file's name; set by ``find``.
        task: "lifting" (``train.h36m`` and the other lifting jobs) or "motion" (``train.cmu`` and the like).
        stages: how many trainings follow each other in one run.
        clip_norm: bound on the global norm of the gradients, or None. ``--clip`` overrides it.
        ema_rate: shadow = rate * shadow + (1 - rate) * parameter after every batch, or None for no shadow.
        evaluate_ema: evaluate with the shadow weights.
        unused_parameters: a step may leave trainable parameters without gradient.
        watched: name of the figure whose lowest value is kept in best.pt.
        keep_last: best.pt holds the last evaluated epoch, whatever its figures: for a paper that selects nothing.
        architecture: options that fix the network; ``--evaluate`` takes them from one of our own checkpoints.
        reads: options that name checkpoints to start from, which must be there.
        fixed: options beside these that a resumed run cannot change.
        sees, fps: what the network's input looks like (``models.load.About``).
        unfinished: why the checkpoints of this stage are of no use by themselves, or None.
        batch_option: what says how large a batch of this stage is. counted: how many it counts for one sample.
        only_tests: the options ask for a test of networks that they name, and for no training.
        options, data: as given.
        loss_step: of one batch; a recipe with several losses overrides ``loss_steps`` instead.
        report: of the weights that a run ends with, where it has evaluated them.
        model, place: set by the loop before ``start_stage``. ``place`` has device, rank, world, autocast().
    """

    name = ""
    task = "lifting"
    stages = 1
    clip_norm: float | None = None
    ema_rate: float | None = None
    evaluate_ema = False
    unused_parameters = False
    watched = "P1"
    keep_last = False
    sees, fps = "screen", 0.0
    unfinished: str | None = None
    batch_option, counted = BATCH, 1
    only_tests = False
    architecture: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ("seed", "batch_size", "every", "downsample", "subset", "keypoints", "actions")

    model: nn.Module
    place: Any
    report: Any = None
    loss_step: Callable[[Any], Tensor | dict[str, Tensor]]

    def __init__(self, options: Namespace, data):
        self.options, self.data = options, data

    # -- options -----------------------------------------------------------------------------------------------------
    @classmethod
    def add_arguments(cls, parser: ArgumentParser) -> None:
        """Add the system's published options to ``parser``."""

    @classmethod
    @abstractmethod
    def defaults(cls, starter: bool) -> dict[str, Any]:
        """Values of common options that the user did not give: ``epochs``, ``batch_size``, ``lr`` at least; ``every``
        (train on every n-th frame) and ``eval_every`` (epochs between evaluations) where they are not 1.

        Args:
            starter: True when there is no data set but the small one in the repository.
        """

    @classmethod
    def complete(cls, options: Namespace) -> None:
        """Fill in options that others imply, before the data are read."""

    def epochs(self, stage: int) -> int:
        """Epochs of a stage."""
        return self.options.epochs

    # -- model and optimisation --------------------------------------------------------------------------------------
    @abstractmethod
    def make_model(self) -> nn.Module: ...

    @abstractmethod
    def make_loader(self, rank: int, world: int) -> Loader: ...

    @abstractmethod
    def make_optimizers(self) -> list[Optimizer]: ...

    def loss_steps(self) -> tuple[Callable[[Any], Tensor | dict[str, Tensor]], ...]:
        """The losses of one batch, each with a backward pass and an optimiser step of its own."""
        return (self.loss_step,)

    def share(self, batch) -> float:
        """This process's part of a batch, times the number of processes: 1 when all have equally many samples.

        The loss is multiplied by it, so that the mean over processes is the mean over the whole batch.
        """
        return 1.0

    def lr_factor(self, epoch: int, step: int) -> float:
        """What multiplies the initial learning rates in batch ``step`` (counted over the stage) of ``epoch``."""
        return 1.0

    # -- hooks -------------------------------------------------------------------------------------------------------
    def start_stage(self, index: int, best: dict[str, Tensor] | None) -> None:
        """Prepare ``self.model`` for a stage.

        Args:
            best: the best weights of the stage before. None in stage 0, and when a run is resumed: then this is called
                for every stage so far, in order, and the saved weights are loaded afterwards.
        """

    def start_epoch(self, epoch: int) -> None: ...

    def after_step(self, step: int) -> None: ...

    def state_dict(self) -> dict:
        return {}

    def load_state_dict(self, state: dict) -> None: ...

    # -- use ---------------------------------------------------------------------------------------------------------
    def about(self) -> dict | None:
        """What ``models.load`` makes the network again from; None where no name of ``models.create`` stands for it."""
        created = getattr(self.model, "created", None)
        return None if created is None else asdict(About(*created, sees=self.sees, fps=self.fps))

    @abstractmethod
    def evaluate(self, place):
        """A ``train.evaluate.Report`` on the test clips."""

    def load_weights(self, path: str | Path) -> int | None:
        """Fill ``self.model`` from one of our checkpoints or from a published one.

        Returns:
            Iterations it was trained for, where the file tells.
        Raises:
            CheckpointError: unreadable, of another system, or not fitting; ``self.model`` is left as it was.
        """
        checkpoint = read_checkpoint(path)
        if not is_run(checkpoint):
            models.load(path, self.model)
            return None
        if checkpoint["model"] != self.name:
            raise CheckpointError(f"{path}: a checkpoint of --model {checkpoint['model']}, not of {self.name}")
        fill(self.model, checkpoint["ema"] if self.evaluate_ema else checkpoint["weights"], path, ours=True)
        return checkpoint.get("step")


def is_last_stage(checkpoint: dict) -> bool:
    """Whether a checkpoint of ours is of the last stage of its run: of one that trained all there is."""
    return checkpoint["stage"] == checkpoint["stages"] - 1


def _recipe(name: str) -> type[Recipe] | None:
    return getattr(importlib.import_module(f"{__name__}.{name}"), "RECIPE", None)


def _files() -> list[str]:
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def names(*tasks: str) -> list[str]:
    """Names for ``--model``: every recipe, or those of some tasks."""
    recipes = {n: _recipe(n) for n in _files()}
    return [n for n, r in recipes.items() if r is not None and (not tasks or r.task in tasks)]


def find(name: str, *tasks: str) -> type[Recipe]:
    """The recipe class of ``train/recipes/<name>.py``.

    Raises:
        ValueError: no such file (the nearest name is told), or a recipe for another task.
    """
    recipe = _recipe(name) if name in _files() else None
    if recipe is None:
        known = names(*tasks)
        raise ValueError(f"--model: no {name!r}{nearest(name, known)} (known: {', '.join(known)})")
    if tasks and recipe.task not in tasks:
        here = ", ".join(names(*tasks))
        raise ValueError(f"--model {name} is for {recipe.task}, not {' or '.join(tasks)} (known here: {here})")
    recipe.name = name
    return recipe
