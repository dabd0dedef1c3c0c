"""The options that every training program takes, and those that a checkpoint hands on."""

from __future__ import annotations

import math
from argparse import SUPPRESS, Action, ArgumentParser, BooleanOptionalAction, Namespace
from pathlib import Path

from posekernels.cli import Parser
from posekernels.models.load import is_run

from .published_folders import CHECKPOINTS, find_file
from .recipes import Recipe
from .run_folder import read_saved

PRECISIONS = ("float32", "tf32", "bf16")


class ProgramParser(Parser):
    """A parser whose ``--help`` shows what matters first; ``--help-published`` adds what published programs have.

    Those are options that do nothing here, second names, and the details of pictures.
    """

    everything = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.add_argument(
            "--help-published", action=_HelpPublished, nargs=0, help="with the published programs' options"
        )

    def format_help(self) -> str:
        hidden = [a for a in self._actions if _only_published(a) and not self.everything]
        texts = [action.help for action in hidden]
        for action in hidden:
            action.help = SUPPRESS
        try:
            return super().format_help()
        finally:
            for action, text in zip(hidden, texts):
                action.help = text


def _only_published(action: Action) -> bool:
    about = action.help or ""
    detail = any(name.startswith("--viz-") for name in action.option_strings)
    return detail or about.startswith(("without effect", "published:", "as published"))


class _HelpPublished(Action):
    def __call__(self, parser, namespace, values, option_string=None):
        parser.everything = True
        parser.print_help()
        parser.exit()


def add_training_arguments(parser: ArgumentParser) -> None:
    """The options of ``fit`` and ``run_place``, in a group of their own."""
    group = parser.add_argument_group("training")
    group.add_argument("-e", "--epochs", type=positive, help="epochs to train (each stage)")
    group.add_argument("--nepoch", dest="epochs", type=one_more, help="as published: one more than it trains epochs")
    group.add_argument("-b", "--batch-size", "--batch_size", type=positive, help="over all processes together")
    group.add_argument("-lr", "--lr", "--learning-rate", type=not_negative, help="initial learning rate")
    group.add_argument("--clip", type=not_negative, help="bound on the norm of the gradients; 0 for none")
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
    group.add_argument("--wandb", metavar="PROJECT", help="log to a project on Weights & Biases too")
    group.add_argument("--progress", action=BooleanOptionalAction, default=None, help="default: on a terminal")


def earlier(argv: list[str] | None) -> tuple[Namespace, dict]:
    """What a command line goes on from, read before its other options are.

    Returns:
        Its ``model``, ``evaluate``, ``resume`` and ``out``, with ``source``, the file that they name, or None; and
        the options of the run that wrote it, "model" among them: {} for a published checkpoint. A checkpoint to
        evaluate is looked for in the published folder (-c, ./checkpoint) too.
    Raises:
        ValueError: both --evaluate and --resume; a file that is no checkpoint.
    """
    early = Parser(add_help=False)
    for option in ("--model", "--out"):
        early.add_argument(option)
    early.add_argument("--evaluate", "--model-pth", "--model_diff_path")
    early.add_argument("-r", "--resume", nargs="?", const="last.pt")
    early.add_argument("-c", "--checkpoint", nargs="?")
    first, _ = early.parse_known_args(argv)
    if first.evaluate and first.resume:
        raise ValueError("--evaluate and --resume exclude each other: one tests a checkpoint, one goes on training")
    source = Path(first.out) / first.resume if first.resume and first.out else None
    if first.evaluate:
        source = find_file(first.evaluate, (first.checkpoint, *CHECKPOINTS))
    first.source = source if source is not None and Path(source).is_file() else None
    checkpoint = read_saved(first.source) if first.source else None
    return first, checkpoint["options"] | {"model": checkpoint["model"]} if is_run(checkpoint) else {}


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


def not_negative(text: str) -> float:
    """For ``type=`` of rates, bounds and weights; no NaN and no infinity."""
    value = float(text)
    if not 0 <= value < math.inf:
        raise ValueError(f"expected a number of at least 0, got {text}")
    return value


not_negative.__name__ = "number of at least 0"


def share(text: str) -> float:
    """For ``type=`` of dropout and the like."""
    value = float(text)
    if not 0 <= value < 1:
        raise ValueError(f"expected a number of at least 0 and below 1, got {text}")
    return value


share.__name__ = "number of at least 0 and below 1"


def one_more(text: str) -> int:
    """``--nepoch``: the published programs count from 1 to below it."""
    return positive(str(int(text) - 1))


one_more.__name__ = "integer of at least 2"
