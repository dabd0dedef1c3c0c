"""Test WS-ANL on MPI-INF-3DHP: ``python -m train.mpi_inf_3dhp --data-root DIR --evaluate CHECKPOINT``.

Test only: the networks are those of Human3.6M. PCK counts all 17 joints, the root included, strictly nearer than
150 mm, frames of all sequences pooled; AUC is its mean over 0, 5, ..., 150 mm. With --multihyp_test both are of the
best of S.
"""

from __future__ import annotations

from argparse import Namespace

from posekernels._cli import Parser, run_cli
from posekernels.models.ws_anl import ALPHA

from . import lifting
from .data.mpi_inf_3dhp import GROUPS, SUBJECTS, load_3dhp
from .evaluate import Report
from .loop import prepare
from .options import add_training_arguments, earlier, take_over
from .place import run_place
from .recipes.ws_anl import WsAnlRecipe


def parse(argv: list[str] | None) -> Namespace:
    _, stored = earlier(argv)
    parser = Parser(prog="python -m train.mpi_inf_3dhp", description=__doc__.splitlines()[0])
    group = parser.add_argument_group("data")
    group.add_argument(
        "--data-root", "--root_path", metavar="DIR", required=True, help="with data_3d_3dhp.npz and the 2D files"
    )
    group.add_argument("-k", "--keypoints", default="gt", metavar="NAME", help="2D source: data_2d_3dhp_NAME.npz")
    group.add_argument("--group", choices=["all", *(g.replace(" ", "-") for g in GROUPS)], default="all")
    add_training_arguments(parser)
    parser.add_argument("--evaluate", metavar="CHECKPOINT", help="of `train.h36m --model ws_anl`, or a published one")
    WsAnlRecipe.add_arguments(parser.add_argument_group("--model ws_anl"))
    parser.set_defaults(alpha=ALPHA["3dhp"])
    take_over(parser, WsAnlRecipe, stored, resume=False)
    options = parser.parse_args(argv)
    if options.evaluate is None and not (options.lifter_checkpoint and options.variance_checkpoint):
        raise ValueError("give --evaluate, or --lifter_checkpoint and --variance_checkpoint: there is nothing to test")
    if options.dataset == "h36m":
        raise ValueError("--dataset h36m: test on it with python -m train.h36m; this is MPI-INF-3DHP")
    return options


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    subjects = SUBJECTS if options.group == "all" else GROUPS[options.group.replace("-", " ")]
    with run_place(options.device, options.precision) as place:
        data = load_3dhp(options.data_root, options.keypoints, subjects)
        WsAnlRecipe.name = "ws_anl"
        recipe = WsAnlRecipe(options, data)
        prepare(recipe, options, place)
        if options.evaluate:
            recipe.load_weights(options.evaluate)
        recipe.model.eval()
        with place.autocast():
            scores = recipe.evaluate_hypotheses(place, with_pck=True)
        if lifting.is_first():
            how = f"best of {options.samples}, alpha {options.alpha}" if options.multihyp_test else "single pose"
            title = f"{data.name}, {options.group} sequences, {scores.frames()} frames, {how}; PCK and AUC in percent"
            print(Report(scores.per_action(), scores.average()).table(title))
            print(f"MPI-INF-3DHP  [  pck: {scores.average()['PCK']:.2f}  ]")
    return 0


if __name__ == "__main__":
    run_cli(main)
