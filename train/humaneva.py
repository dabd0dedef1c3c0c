"""Train and evaluate a lifter on HumanEva-I: ``python -m train.humaneva --data-root DIR [--model rie]``.

The usual protocol: Train/S1-S3 against Validate/S1-S3; Walking, Jog and Box; RIE sees 27 frames and learns as
VideoPose3D did here (batches of 128, 1000 epochs, rate times 0.996 after each). The 15-joint grouping of RIE's body
parts is ours, as the published one was never given.
"""

from __future__ import annotations

from argparse import Namespace

from posekernels.cli import run_cli

from .data.clips import LiftingData
from .data.humaneva import TEST_SUBJECTS, TRAIN_SUBJECTS, load_humaneva
from .lifting import LiftingJob, add_dataset_argument, add_sampling_arguments


class HumanEva(LiftingJob):
    name, about, model = "humaneva", __doc__.splitlines()[0], "rie"
    wanted = ("data_3d_humaneva15.npz",)
    defaults = {"rie": {"architecture": (3, 3, 3), "batch_size": 128, "epochs": 1000, "lr_decay": 0.996}}

    def add_data_arguments(self, group) -> None:
        group.add_argument("--data-root", metavar="DIR", help="folder with data_3d_humaneva15.npz and the 2D files")
        group.add_argument("-k", "--keypoints", default="gt", help="2D source: data_2d_humaneva15_<this>.npz")
        group.add_argument(
            "-a", "--actions", default="Walk,Jog,Box", help="comma list of the beginnings of action names"
        )
        group.add_argument("-str", "--subjects-train", default=",".join(TRAIN_SUBJECTS), metavar="LIST")
        group.add_argument("-ste", "--subjects-test", default=",".join(TEST_SUBJECTS), metavar="LIST")
        add_sampling_arguments(group)
        add_dataset_argument(group, self.name)

    def load(self, options: Namespace) -> LiftingData:
        chosen = {"actions": options.actions, "downsample": options.downsample, "subset": options.subset}
        subjects = options.subjects_train, options.subjects_test
        return load_humaneva(options.data_root, options.keypoints, *subjects, **chosen)


JOB = HumanEva()
main = JOB.run

if __name__ == "__main__":
    run_cli(JOB.cli)
