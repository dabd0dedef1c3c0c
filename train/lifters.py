"""Which network lifts best for its time? ``python -m train.lifters --motion DIR --out DIR``: each learns for as long.

The recipe is ``train.recipes.any_camera`` with its random people, cameras and detector's errors; the budget, seconds of
processor time of one thread. Three subjects that the shipped weights learn from are left out and tested on, so that
nothing is chosen on test subjects. A network that is done is not done again; after each the table is written anew.

    python -m train.data.open_motion motion
    python -m train.lifters --motion motion --out runs/lifters
"""

from __future__ import annotations

import json
import time
from argparse import Namespace
from pathlib import Path

import torch

from posekernels.archive import DataError
from posekernels.cli import Parser, run_cli
from posekernels.files import write_aside
from posekernels.pose.keypoints import centre_on_person

from .compare import train
from .data import open_motion
from .data.open_motion import CHOSEN_ON
from .h36m import JOB
from .loop import prepare
from .options import positive
from .place import Place, run_place

STRIDED = "--strides {} --layers 2 --channels {} --hidden {} --heads {} -lr {} -b 64"
MIXSTE = "--network mixste --strides {} --layers 3 --channels 48 --hidden 96 --heads 4 -lr 1.5e-3 -b {}"
NETWORKS = {
    "Strided Transformer, 64 channels": STRIDED.format("3 3 3", 64, 192, 4, 2e-3),
    "Strided Transformer, 96 channels": STRIDED.format("3 3 3", 96, 192, 4, 1.5e-3),
    "Strided Transformer, 128 channels": STRIDED.format("3 3 3", 128, 256, 8, 1.2e-3),
    "Strided Transformer, 9 frames": "-lr 1e-3 -b 128",
    "Strided Transformer, 81 frames": STRIDED.format("3 3 9", 64, 192, 4, 1.5e-3),
    "RIE, 64 channels": "--network rie --strides 3 3 3 --channels 64 --hidden 128 -lr 1e-3 -b 64",
    "MixSTE, 3 layers, 48 channels": MIXSTE.format("3 3 3", 16),
    "MixSTE, 9 frames": MIXSTE.format("3 3", 48),
    "HTNet": "--network htnet --layers 3 --channels 240 --hidden 1024 -lr 1e-3 -b 64",
}
CLIP = 400  # frames, of which the time of one is told


def seconds_per_frame(net: torch.nn.Module) -> float:
    """Processor time of one thread for a frame of a clip."""
    clip, _, _ = centre_on_person(torch.randn(CLIP, 17, 2, generator=torch.Generator().manual_seed(0)))
    net.lift(clip)
    begin = time.process_time()
    for _ in range(3):
        net.lift(clip)
    return (time.process_time() - begin) / (3 * CLIP)


def run(name: str, given: Namespace, place: Place) -> dict:
    """Train one network, and what came of it."""
    options, found = JOB.parse(["--model", "any_camera", "--motion", given.motion, *NETWORKS[name].split()])
    recipe = found(options, JOB.load(options))
    if not any(r.subject in CHOSEN_ON for r in recipe.recordings):
        raise DataError(f"--motion {given.motion}: none of {', '.join(CHOSEN_ON)} in it, on whom networks are tested")
    recipe.held_out = (*open_motion.HELD_OUT, *CHOSEN_ON)
    prepare(recipe, options, place)
    batches = train(recipe, 0, None, given.seconds)
    recipe.model.eval()
    errors = recipe.detected_scores(CHOSEN_ON).per_action()["held-out"]
    numbers = sum(p.numel() for p in recipe.model.parameters())
    time_of_frame = seconds_per_frame(recipe.model) * 1000
    return {"P1": errors["P1"], "P2": errors["P2"], "batches": batches, "numbers": numbers, "ms": time_of_frame}


def table_of(results: dict[str, dict], seconds: float) -> str:
    lines = [
        f"| network, after {seconds:.0f} s | P1 mm | P2 mm | numbers | batches | ms a frame |",
        "|---|---|---|---|---|---|",
    ]
    for name, r in results.items():
        figures = f"{r['P1']:.1f} | {r['P2']:.1f} | {r['numbers']:,} | {r['batches']:,} | {r['ms']:.2f}"
        lines.append(f"| {name} | {figures} |")
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="python -m train.lifters", description=__doc__.splitlines()[0])
    parser.add_argument("--motion", required=True, metavar="DIR", help="what python -m train.data.open_motion wrote")
    parser.add_argument("--seconds", type=positive, default=120, metavar="N", help="of processor time for each")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), metavar="NAME")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    given = parser.parse_args(argv)
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    file = given.out / "lifters.json"
    before = json.loads(file.read_text()) if file.is_file() else {"seconds": given.seconds, "networks": {}}
    if before["seconds"] != given.seconds:
        raise ValueError(f"--seconds {given.seconds}: {file} is of {before['seconds']} s; give another --out")
    results = before["networks"]
    with run_place("cpu", "float32") as place:
        for name in given.networks:
            if name in results:
                continue
            results[name] = run(name, given, place)
            with write_aside(file) as aside:
                aside.write_text(json.dumps({"seconds": given.seconds, "networks": results}, indent=1))
            with write_aside(given.out / "README.md") as aside:
                aside.write_text(table_of(results, given.seconds))
            print(f"{name}: {json.dumps(results[name])}", flush=True)
    print(table_of(results, given.seconds))
    return 0


if __name__ == "__main__":
    run_cli(main)
