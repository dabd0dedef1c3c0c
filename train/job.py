"""The one job of every training program: parse, place, fit or resume or load, evaluate, table, files.

A program is a ``Job`` that says what differs: its data, its options, its table.
"""

from __future__ import annotations

import gc
import json
import sys
from argparse import Namespace
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from posekernels.archive import CheckpointError
from posekernels.cli import Parser
from posekernels.files import write_aside

from . import recipes
from .data.shared import load_once
from .loop import Interrupted, fit, prepare
from .options import ProgramParser, add_training_arguments, earlier, take_over
from .place import Place, is_first, run_place, tell
from .published_folders import DATA, find_data
from .run_folder import open_folder


@dataclass
class Result:
    """What a test found out.

    Args:
        text: the table, for a terminal. content: the same for evaluation.json.
    """

    text: str
    content: dict


class Job:
    """One data set's command line.

    Attributes:
        name: its module under ``train``, and the beginning of the names of its run folders.
        about: the first line of ``--help``.
        model: default of ``--model``; all there is where ``tasks`` is empty.
        tasks: of the recipes that the program takes.
        defaults: {model: options that this data set is usually trained with, in place of the model's own}.
        usual: options that stand in for what neither the command line nor the model gives.
        evaluate: names of the option ``--evaluate``.
        trains: whether there is anything to train on.
        tested: the file of a finished run that is tested.
        wanted: what a folder of published data holds one of, for ``find_data``.
        without: what is done where there is no such folder; "" where that is an error.
    """

    name: str
    about: str
    model: str
    tasks: tuple[str, ...] = ()
    defaults: dict[str, dict] = {}
    usual: dict = {}
    evaluate: tuple[str, ...] = ("--evaluate",)
    trains = True
    tested = "best.pt"
    wanted: tuple[str, ...] = ()
    without = ""

    # -- what differs ------------------------------------------------------------------------------------------------
    def add_data_arguments(self, group) -> None:
        """Options that say what to read."""

    def add_test_arguments(self, group) -> None:
        """Options beside ``--evaluate``."""

    def add_picture_arguments(self, parser: Parser) -> None: ...

    def published_options(self, path: Path) -> dict:
        """The options that a checkpoint which is not ours implies, "model" among them."""
        return {}

    def settle(self, options: Namespace, recipe: type[recipes.Recipe], stored: dict) -> None:
        """Fill in and check options, before anything is read. ``stored``: of the checkpoint that is gone on from."""

    def load(self, options: Namespace):
        """The data; without ``--data-root`` too, if it can do without."""
        raise NotImplementedError

    def check(self, recipe: recipes.Recipe) -> None:
        """Refuse what cannot be done after the training, before it."""

    def amount(self, recipe: recipes.Recipe) -> str:
        """How much there is to learn from."""
        return f"{len(recipe.data.train)} clips"

    def test(self, recipe: recipes.Recipe, place: Place, step: int | None) -> Result:
        """The figures of ``recipe.model``, after ``step`` iterations where that is known; every process takes part."""
        raise NotImplementedError

    def draw(self, recipe: recipes.Recipe, folder: Path | None) -> Iterable[Path]:
        """Pictures and the like; the files written."""
        return ()

    # -- what does not -----------------------------------------------------------------------------------------------
    def parse(self, argv: list[str] | None) -> tuple[Namespace, type[recipes.Recipe]]:
        """Options, those of the model included; a checkpoint's own options stand in for what is not given."""
        first, stored = earlier(argv)
        if first.source and not stored:
            stored = self.published_options(first.source)
        chosen = first.model or stored.get("model", self.model) if self.tasks else self.model
        recipe = recipes.find(chosen, *self.tasks)

        parser = ProgramParser(prog=f"python -m train.{self.name}", description=self.about)
        if self.tasks:
            known = ", ".join(recipes.names(*self.tasks))
            parser.add_argument("--model", default=recipe.name, metavar="NAME", help=f"one of {known}")
        self.add_data_arguments(parser.add_argument_group("data"))
        add_training_arguments(parser)
        group = parser.add_argument_group("instead of training")
        group.add_argument(*self.evaluate, metavar="CHECKPOINT", help="test a checkpoint, ours or a published one")
        self.add_test_arguments(group)
        self.add_picture_arguments(parser)
        recipe.add_arguments(parser.add_argument_group(f"--model {recipe.name}"))
        parser.set_defaults(**self.defaults.get(recipe.name, {}))
        take_over(parser, recipe, stored, bool(first.resume))
        options = parser.parse_args(argv)
        if options.evaluate and first.source and str(first.source) != options.evaluate:
            tell(f"--evaluate: {first.source}")
            options.evaluate = str(first.source)
        if self.wanted and options.data_root is None and not options.resume:
            options.data_root = self.find_data()
        for name, value in (self.usual | recipe.defaults(starter=options.data_root is None)).items():
            if getattr(options, name, None) is None:
                setattr(options, name, value)
        if options.resume and not self.trains:
            raise ValueError(f"--resume: train.{self.name} trains nothing; --evaluate tests a checkpoint")
        recipe.complete(options)
        self.settle(options, recipe, stored)
        return options, recipe

    def find_data(self) -> str | None:
        """Where the published programs keep their data, if it is there, as a line says.

        Raises:
            ValueError: it is not, and nothing can be done without.
        """
        found, folders = find_data(self.wanted), ", ".join(f"./{name}" for name in DATA)
        if found:
            tell(f"no --data-root: using ./{found}")
            return str(found)
        missing = f"no --data-root, and no {' or '.join(self.wanted)} in {folders}"
        if not self.without:
            raise ValueError(f"{missing}: --data-root DIR names the folder of the data")
        tell(f"{missing}: {self.without}")
        return None

    def run(self, argv: list[str] | None = None) -> int:
        """Everything ``python -m train.<name>`` does; returns the exit code."""
        try:
            return self._run(argv)
        finally:
            # An exception that a library raised and caught holds frames, and they the run: few objects, many megabytes,
            # so that Python's own collector sees no hurry, and runs in one process would pile up.
            gc.collect()

    def _run(self, argv: list[str] | None) -> int:
        options, recipe_class = self.parse(argv)
        if options.evaluate and not Path(options.evaluate).exists():  # said before the data are read
            raise CheckpointError(f"{options.evaluate}: no such checkpoint")
        for name in () if options.resume else recipe_class.reads:
            if (path := getattr(options, name)) and not Path(path).exists():
                raise CheckpointError(f"--{name} {path}: no such file or folder")
        with run_place(options.device, options.precision) as place:
            recipe = recipe_class(options, load_once(lambda: self.load(options), place))
            self.check(recipe)
            folder = Path(options.out) if options.out else None
            step = None
            if options.evaluate or recipe.only_tests or not self.trains:
                prepare(recipe, options, place)
                if options.evaluate:
                    step = recipe.load_weights(options.evaluate)
                if folder and is_first():
                    folder.mkdir(parents=True, exist_ok=True)
            else:
                folder = open_folder(options, place, f"{self.name}-{recipe.name}")
                if is_first():
                    processes = f", {place.world} processes" if place.world > 1 else ""
                    print(
                        f"training {recipe.name} on {recipe.data.name}: {self.amount(recipe)}; on {place.device}, "
                        f"{place.precision}{processes}; everything goes to {folder}"
                    )
                fit(recipe, options, place, folder)
                if self.tested != "best.pt":  # which ``fit`` has loaded
                    step = recipe.load_weights(folder / self.tested)
            recipe.model.eval()
            with place.autocast():
                result = self.test(recipe, place, step)
            if is_first():
                print(result.text)
                if folder:
                    with write_aside(folder / "evaluation.json") as path:
                        path.write_text(json.dumps(result.content, indent=1) + "\n")
                for path in self.draw(recipe, folder):
                    print(f"wrote {path}")
        return 0

    def cli(self) -> int:
        """``run`` for ``run_cli``: an interrupted run says how to go on."""
        try:
            return self.run()
        except Interrupted as stopped:
            if is_first():
                print(f"\n{stopped}", file=sys.stderr)
            return 130
