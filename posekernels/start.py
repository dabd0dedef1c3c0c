"""The first second of a command: Ctrl-C while PyTorch is still being imported says one line, and no traceback."""

import os
import sys


def _is_a_command() -> bool:
    """Whether Python was started for a program of this project."""
    words = sys.orig_argv
    module = words[words.index("-m") + 1] if "-m" in words[:-1] else ""
    return module.partition(".")[0] in ("posekernels", "train") or os.path.basename(sys.argv[0]) == "posekernels"


def quiet_ctrl_c() -> None:
    """Until ``run_cli`` takes over. A library that somebody else imports changes nothing."""
    if not _is_a_command():
        return
    shown = sys.excepthook

    def hook(kind, error, trace):
        if issubclass(kind, KeyboardInterrupt):
            print("\nstopped", file=sys.stderr)
        else:
            shown(kind, error, trace)

    sys.excepthook = hook
