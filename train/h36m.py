"""Train and evaluate a 2D-to-3D lifter: ``python -m train.h36m [--model NAME] [--data-root DIR] [--out DIR]``.

With a forecaster's name (``--model pkd``) it trains that, on exponential maps; its options are then its own.

Without ``--data-root`` it uses the starter set, a few minutes of real motion that the repository carries.
"""

from __future__ import annotations

from argparse import Namespace

from posekernels.cli import run_cli

from . import forecast, recipes
from .data.clips import LiftingData
from .data.h36m import load_h36m
from .data.motion import load_starter
from .job import Job
from .lifting import LiftingJob, add_dataset_argument, add_sampling_arguments


class H36M(LiftingJob):
    name, about, model = "h36m", __doc__.splitlines()[0], "htnet"
    tasks = ("lifting", "motion")  # of which ``job_of`` gives the second to another job
    wanted = ("data_3d_h36m.npz",)
    subjects_train, subjects_test = "S1,S5,S6,S7,S8", "S9,S11"
    without = "using the starter set, a little real motion that ships with the repository"

    def add_data_arguments(self, group) -> None:
        group.add_argument(
            "--data-root", "--root_path", metavar="DIR", help="folder with data_3d_h36m.npz and the 2D files"
        )
        group.add_argument(
            "-k", "--keypoints", metavar="NAME", help="2D source: data_2d_h36m_NAME.npz (default: cpn_ft_h36m_dbb)"
        )
        group.add_argument("-a", "--actions", default="*", help="comma list of the beginnings of action names")
        group.add_argument("-str", "--subjects-train", default=self.subjects_train, metavar="LIST")
        group.add_argument("-ste", "--subjects-test", default=self.subjects_test, metavar="LIST")
        add_sampling_arguments(group)
        add_dataset_argument(group, self.name)

    def load(self, options: Namespace) -> LiftingData:
        """The published files of ``--data-root``, or the starter set."""
        chosen = {"actions": options.actions, "downsample": options.downsample, "subset": options.subset}
        options.keypoints = options.keypoints or ("gt" if options.data_root is None else "cpn_ft_h36m_dbb")  # they ask
        if options.data_root is None:
            for part in ("train", "test"):
                if getattr(options, name := f"subjects_{part}") != getattr(self, name):
                    raise ValueError(f"--subjects-{part}: the starter set has no choice of subjects; use --data-root")
            return load_starter(options.keypoints, **chosen)
        subjects = options.subjects_train, options.subjects_test
        return load_h36m(options.data_root, options.keypoints, *subjects, **chosen)


JOB = H36M()
MOTION = forecast.ForecastJob("h36m", "Train and evaluate a motion forecaster on Human3.6M's exponential maps.")


def job_of(argv: list[str] | None) -> Job:
    """The job for what a command line names."""
    return MOTION if forecast.named(argv) in recipes.names("motion") else JOB


def main(argv: list[str] | None = None) -> int:
    return job_of(argv).run(argv)


if __name__ == "__main__":
    run_cli(lambda: job_of(None).cli())
