"""Test WS-ANL on MPI-INF-3DHP: ``python -m train.mpi_inf_3dhp --data-root DIR --evaluate CHECKPOINT``.

Test only: the networks are those of Human3.6M. PCK counts all 17 joints, the root included, strictly nearer than
150 mm, frames of all sequences pooled; AUC is its mean over 0, 5, ..., 150 mm. With --multihyp_test both are of the
best of S.
"""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict

from posekernels.cli import run_cli
from posekernels.models.ws_anl import ALPHA

from .data.clips import LiftingData
from .data.mpi_inf_3dhp import GROUPS, SUBJECTS, load_3dhp
from .evaluate import Report
from .job import Job, Result
from .lifting import add_dataset_argument
from .options import positive
from .place import Place
from .recipes import Recipe
from .recipes._published import add_without_effect


class MpiInf3dhp(Job):
    name, about, model = "mpi_inf_3dhp", __doc__.splitlines()[0], "ws_anl"
    defaults = {"ws_anl": {"alpha": ALPHA["3dhp"]}}
    trains = False
    wanted = ("data_3d_3dhp.npz",)

    def add_data_arguments(self, group) -> None:
        group.add_argument(
            "--data-root", "--root_path", metavar="DIR", help="folder with data_3d_3dhp.npz and the 2D files"
        )
        add_dataset_argument(group, self.name)
        group.add_argument("-k", "--keypoints", default="gt", metavar="NAME", help="2D source: data_2d_3dhp_NAME.npz")
        group.add_argument("-a", "--actions", default="*", help="comma list of the beginnings of action names")
        group.add_argument("--downsample", type=positive, default=1, metavar="N", help="keep every N-th frame")
        add_without_effect(group, {"--subset": "of training clips, and nothing is trained"})
        group.add_argument("--group", choices=["all", *(g.replace(" ", "-") for g in GROUPS)], default="all")

    def settle(self, options: Namespace, recipe: type[Recipe], stored: dict) -> None:
        if options.train:
            raise ValueError(
                "--train: nothing is trained on MPI-INF-3DHP; use python -m train.h36m --model ws_anl --train"
            )

    def load(self, options: Namespace) -> LiftingData:
        subjects = SUBJECTS if options.group == "all" else GROUPS[options.group.replace("-", " ")]
        return load_3dhp(options.data_root, options.keypoints, subjects, options.actions, options.downsample)

    def test(self, recipe: Recipe, place: Place, step: int | None) -> Result:
        options, data = recipe.options, recipe.data
        scores = recipe.evaluate_hypotheses(place, with_pck=True)
        how = f"best of {options.samples}, alpha {options.alpha}" if options.multihyp_test else "single pose"
        title = f"{data.name}, {options.group} sequences, {scores.frames()} frames, {how}; PCK and AUC in percent"
        report = Report(scores.per_action(), scores.average())
        text = f"{report.table(title)}\nMPI-INF-3DHP  [  pck: {scores.average()['PCK']:.2f}  ]"
        return Result(text, {"data": data.name, "unit": "mm", **asdict(report)})


JOB = MpiInf3dhp()
main = JOB.run

if __name__ == "__main__":
    run_cli(JOB.cli)
