"""What a command does before PyTorch is imported, which takes a second and fixes how many threads it has."""

import os
import sys

from .limits import affinity, processors


def _is_a_command() -> bool:
    """Whether Python was started for a program of this project."""
    words = sys.orig_argv
    module = words[words.index("-m") + 1] if "-m" in words[:-1] else ""
    return module.partition(".")[0] in ("posekernels", "train") or os.path.basename(sys.argv[0]) == "posekernels"


def _quiet_ctrl_c() -> None:
    """Until ``run_cli`` takes over, Ctrl-C says one line, and no traceback."""
    shown = sys.excepthook

    def hook(kind, error, trace):
        if issubclass(kind, KeyboardInterrupt):
            print("\nstopped", file=sys.stderr)
        else:
            shown(kind, error, trace)

    sys.excepthook = hook


def before_pytorch() -> None:
    """For a command: threads for what a container may use. A library that somebody else imports changes nothing."""
    if not _is_a_command():
        return
    _quiet_ctrl_c()
    if processors() < affinity():  # which is all that PyTorch minds by itself
        os.environ.setdefault("OMP_NUM_THREADS", str(processors()))
