"""``posekernels COMMAND ...``: a table of commands, each a module with ``main(arguments)``, imported when asked for.

The one place where the engine knows of ``people``: by name, and only when a command is run.
"""

from __future__ import annotations

import importlib
import sys

from posekernels.checks import nearest
from posekernels.cli import run_cli

COMMANDS = {
    "demo": ("posekernels.people.commands.demo", "a short video, fetched, to a page of 3D people"),
    "lift": ("posekernels.people.commands.lift", "a video or 2D keypoints to 3D people"),
    "forecast": ("posekernels.people.commands.forecast", "3D people to what they do next"),
    "render": ("posekernels.people.commands.render", "a file of 3D people to a moving picture"),
    "convert-weights": ("posekernels.people.commands.convert_weights", "published or trained weights to .safetensors"),
    "export": ("posekernels.people.commands.export", "a network to ONNX, checked"),
    "info": ("posekernels.info", "which backends each op has on this machine, and why not the others"),
}


def run(arguments: list[str]) -> int | None:
    """Run the command that ``arguments`` begin with."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: posekernels COMMAND ... (posekernels COMMAND --help lists its options)\n")
        print("\n".join(f"  {name:<16} {about}" for name, (_, about) in COMMANDS.items()))
        return 0
    name = arguments[0]
    if name not in COMMANDS:
        raise ValueError(f"no command {name!r}{nearest(name, COMMANDS)} (commands: {', '.join(COMMANDS)})")
    return importlib.import_module(COMMANDS[name][0]).main(arguments[1:])


def main() -> None:
    run_cli(lambda: run(sys.argv[1:]))


if __name__ == "__main__":
    main()
