"""Options of published programs: done as there, taken without effect and said so, or refused with what to use."""

from __future__ import annotations

import warnings
from argparse import SUPPRESS, Action, ArgumentParser, ArgumentTypeError, Namespace

from posekernels.cli import Notice


def boolean(text: str) -> bool:
    """For options that published programs declare as ``bool``, where any text, "False" too, is true. Not so here."""
    values = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in values:
        raise ArgumentTypeError(f"expected true or false, got {text!r}")
    return values[text.lower()]


class WithoutEffect(Action):
    """An option of a published program that does nothing here: taken, so that its command lines run, with a warning."""

    def __call__(self, parser, namespace, values, option_string=None):
        warnings.warn(f"{option_string}: {self.help}", Notice, stacklevel=2)


def add_without_effect(parser: ArgumentParser, options: dict[str, str]) -> None:
    """Add options by {"-n --name": why they have no effect}; they leave nothing among the options of the run."""
    for names, why in options.items():
        parser.add_argument(
            *names.split(),
            action=WithoutEffect,
            nargs="?",
            default=SUPPRESS,
            metavar="X",
            help=f"without effect: {why}",
        )


class Refused(Action):
    """An option of a published program that would change the result, and that nothing here does."""

    def __call__(self, parser, namespace, values, option_string=None):
        raise ValueError(f"{option_string}: {self.help.removeprefix('published: not here, ')}")


def add_refused(parser: ArgumentParser, options: dict[str, str]) -> None:
    """Add options by {"-n --name": why not, and what to use}."""
    for names, why in options.items():
        parser.add_argument(
            *names.split(),
            action=Refused,
            nargs="*",
            default=SUPPRESS,
            metavar="X",
            help=f"published: not here, {why}",
        )


def only(*values: str):
    """For ``type=`` of a published option of which one value works: that one, in any of its spellings."""

    def check(text: str) -> str:
        if text.lower() not in values:
            raise ArgumentTypeError(f"only {values[0]} works, got {text!r}")
        return values[0]

    return check


def add_single_frame_arguments(parser: ArgumentParser) -> None:
    """Options of HTNet's and WS-ANL's loader of which a network of single frames takes one value."""
    add = parser.add_argument
    add("--stride", type=only("1", "1.0"), default=SUPPRESS, metavar="1", help="published: frames are seen one by one")
    add("--crop_uv", type=only("0"), default=SUPPRESS, metavar="0", help="published: keypoints are normalised")
    add(
        "--reverse_augmentation",
        type=only("false", "0", "no"),
        default=SUPPRESS,
        metavar="false",
        help="published: single frames have no direction; for every frame twice give twice the --epochs",
    )


def add_videopose3d_arguments(parser: ArgumentParser) -> None:
    """Options of VideoPose3D's program, which RIE's and MixSTE's go back to, beside those of every program here."""
    add = parser.add_argument
    add("-c", "--checkpoint", metavar="DIR", help="published: folder of the checkpoints that are named; see --out")
    add(
        "--no-eval",
        dest="eval_every",
        action="store_const",
        const=10**9,
        help="published: no evaluation before the last epoch's",
    )
    for short, name, dest, what in (
        ("-no-da", "--no-data-augmentation", "data_augmentation", "no mirrored samples"),
        ("-no-tta", "--no-test-time-augmentation", "test_augmentation", "no mirrored test"),
    ):
        add(short, name, dest=dest, action="store_false", help=what)
    add_without_effect(
        parser,
        {
            "-cf --checkpoint-frequency": "last.pt is saved after every epoch",
            "--export-training-curves": "always drawn, as curve.png",
            "--dense --disable-optimizations": "never read",
            "--warmup": "never read",
            "--linear-projection": "never read",
            "--no-bone-length": "never read",
            "--no-proj": "never read",
        },
    )


def as_evaluate(options: Namespace, option: str, path: str) -> None:
    """Let ``option`` of a published program, which names what to test, do what ``--evaluate`` does.

    Raises:
        ValueError: it stands beside --evaluate or --resume.
    """
    for other in ("evaluate", "resume"):
        if getattr(options, other):
            raise ValueError(f"{option} and --{other} exclude each other: {option} tests what is in --previous_dir")
    options.evaluate = path
