"""What do the papers' ideas gain? ``python -m train.compare --data-root DIR --out DIR`` trains with and without each.

Each arm has the same budget, seconds of processor time of one thread, so that what is cheaper gets more steps. Sizes
are small: 27 or 81 frames, narrow networks. Every arm has the loss, the optimiser and the first rate of its recipe
(but the refine module, see the page), and half a cosine over the budget instead of the recipe's schedule; the last
weights are tested, so nothing is chosen on the test clips. An arm that is done is not done again, and after each the
page in ``--page`` is written anew.

    python -m train.data.open_motion motion
    python -m train.data.motion_to_h36m motion --out runs/motion
    python -m train.compare --data-root runs/motion --out runs/compare --page runs/compare
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from posekernels.cli import Parser, run_cli
from posekernels.files import write_aside
from posekernels.models.rie import RIE, FullyConnected, TemporalEncoder
from posekernels.models.strided_transformer import StridedTransformer

from .data.clips import LiftingData
from .evaluate import Report, evaluate_mean_pose
from .h36m import JOB
from .loop import prepare
from .options import positive
from .place import Place, run_place
from .recipes import Recipe, rie, strided_transformer
from .recipes.ws_anl import CURVE, WsAnlRecipe

WARM_UP, CLIP = 50, 1.0  # batches; bound on the norm of the gradients
SAMPLED = 60  # every so manieth test frame gets hypotheses: 200 of each take long


# -- networks without the idea ---------------------------------------------------------------------------------------
class FullLength(StridedTransformer):
    """The Strided Transformer with every stride 1: as many layers and weights, all of them on all frames."""

    def __init__(self, frames: int, **sizes):
        super().__init__(frames, (1, 1, 1), **sizes)

    @property
    def target(self) -> int:
        return self.frames // 2

    def encode(self, embedded: Tensor, full: bool = False, made=None) -> Tensor | tuple[Tensor, Tensor]:
        result = super().encode(embedded, full, made)
        single = (result[0] if full else result)[:, self.frames // 2, None]
        return (single, result[1]) if full else single


class OnePart(RIE):
    """RIE with one network for all joints, on plain keypoints: no parts, no relative encodings, no fusion."""

    def __init__(self, filter_widths: tuple[int, ...], latent: int, channels: int):
        super().__init__(filter_widths, 1, latent, channels)
        joints = self.skeleton.num_joints
        self.parts = (tuple(range(joints)),)
        self.encoders = nn.ModuleDict({"all": TemporalEncoder(2 * joints, filter_widths, channels, latent)})
        self.decoders = nn.ModuleDict({"all": FullyConnected(2 * latent, 3 * joints, pairs=1)})
        self.order = torch.arange(joints)

    def features(self, keypoints: Tensor, networks=None) -> tuple[tuple[Tensor, ...], Tensor]:
        middle = keypoints[:, self.frames // 2].flatten(1)[:, None]
        *local, whole = (networks or self.networks()).features([keypoints.flatten(2), middle])
        return tuple(local), whole

    def sequence(self, keypoints: Tensor, chunk: int = 256) -> Tensor:
        pad = self.frames // 2
        clip = torch.cat((keypoints[:1].expand(pad, -1, -1), keypoints, keypoints[-1:].expand(pad, -1, -1)))
        windows = clip.unfold(0, self.frames, 1).movedim(-1, 1)
        return torch.cat([self(part)[:, 0] for part in windows.split(chunk)])


class FullLengthRecipe(strided_transformer.StridedTransformerRecipe):
    def make_model(self) -> nn.Module:
        o = self.options
        return FullLength(o.frames, layers=o.layers, channels=o.channel, hidden=o.d_hid)


class FiveParts(rie.RIERecipe):
    """With the fusion of the parts, trained in one go: three stages would share a small budget."""

    def make_model(self) -> nn.Module:
        return self.build(2)


class OnePartRecipe(rie.RIERecipe):
    def make_model(self) -> nn.Module:
        o = self.options
        return OnePart(o.architecture, o.latent_features_dim, o.channels)


class SmallBatches(WsAnlRecipe):
    """Its lifter has batches as small as the variance model's: more of them fit into a small budget."""

    def lifter_recipe(self):
        inner = super().lifter_recipe()
        inner.options.batch_size = self.options.batch_size
        return inner


# -- training --------------------------------------------------------------------------------------------------------
def train(
    recipe: Recipe, stage: int, best: dict[str, Tensor] | None, seconds: float = math.inf, batches: float = math.inf
) -> int:
    """One stage of a recipe for so many seconds of processor time, or batches; returns how many batches that were."""
    recipe.start_stage(stage, best)
    recipe.model.train()
    optimizers, loader = recipe.make_optimizers(), recipe.make_loader(0, 1)
    rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    trained = [p for p in recipe.model.parameters() if p.requires_grad]
    begin, step, epoch = time.process_time(), 0, 0
    while True:
        loader.set_epoch(epoch)
        epoch += 1
        for batch in loader:
            done = max((time.process_time() - begin) / seconds, step / batches)
            if done >= 1:
                return step
            factor = min(1.0, (step + 1) / WARM_UP) * (1 + math.cos(math.pi * done)) / 2
            for optimizer, initial in zip(optimizers, rates):
                for group, rate in zip(optimizer.param_groups, initial):
                    group["lr"] = rate * factor
                optimizer.zero_grad(set_to_none=True)
            loss = recipe.loss_step(batch)
            (loss["loss"] if isinstance(loss, dict) else loss).backward()
            nn.utils.clip_grad_norm_(trained, CLIP)
            for optimizer in optimizers:
                optimizer.step()
            step += 1


@dataclasses.dataclass
class Bench:
    """What every arm is given."""

    root: str
    data: LiftingData
    place: Place
    seconds: float  # of an arm
    seed: int
    out: Path

    def recipe(self, words: str, cls: type[Recipe] | None = None, data: LiftingData | None = None) -> Recipe:
        """Of a command line of ``train.h36m``, ready to train; ``cls`` in place of the recipe that it names."""
        argv = ["--data-root", self.root, "-k", "detected", "--seed", str(self.seed), "--eval-every", "1"]
        options, found = JOB.parse([*argv, *words.split()])
        recipe = (cls or found)(options, data or self.data)
        recipe.shuffle_seed = 1234 + self.seed
        prepare(recipe, options, self.place)
        return recipe

    def tested(self, recipe: Recipe) -> Report:
        recipe.model.eval()
        with torch.no_grad():
            return recipe.evaluate(self.place)


def figures(report: Report, **more) -> dict:
    return {"P1": report.figures["P1"], "P2": report.figures["P2"], **more}


STRIDED = "--model strided_transformer --frames 27 --layers 3 --channel 64 --d_hid 128 --batch-size 64"
STRIDED_81 = STRIDED.replace("--frames 27", "--frames 81")
RIE_SIZES = "--model rie -arc 3,3,3 --batch-size 128"
RIE_FIVE, RIE_ONE = (f"{RIE_SIZES} -ch {width} -lfd {width}" for width in (64, 144))
DENOISER = "--hid_dim 64 --num_layer 3 --dropout 0.1 --batch-size 128"
DIFFPOSE = f"--model diffpose --setting frame {DENOISER}"
VIDEO = f"--model diffpose --setting video -f 27 -cs 64 -dep 3 --heads 4 --pose_batch_size 16 {DENOISER}"
WS_ANL = "--model ws_anl --lifter htnet --layers 2 --channel 96 --d_hid 256 --batch-size 128 --every 5"


def alone(words: str, cls: type[Recipe] | None = None) -> Callable[[Bench], dict]:
    """An arm: one network for the whole budget."""

    def run(bench: Bench) -> dict:
        recipe = bench.recipe(words, cls)
        steps = train(recipe, 0, None, bench.seconds)
        return figures(bench.tested(recipe), steps=[steps])

    return run


def strided_refined(bench: Bench) -> dict:
    """Half the budget for the transformer, half for the refine module on it, which is new: at the rate of a new one."""
    lifter = bench.recipe(STRIDED)
    first = train(lifter, 0, None, bench.seconds / 2)
    guess = bench.tested(lifter)
    recipe = bench.recipe(f"{STRIDED} --refine --lr 1e-3")
    recipe.model.lifter.load_state_dict(lifter.model.state_dict())
    second = train(recipe, 0, None, bench.seconds / 2)
    return figures(bench.tested(recipe), before=figures(guess), steps=[first, second])


def diffused(words: str) -> Callable[[Bench], dict]:
    """An arm: half the budget for the first guess, half for the diffusion that refines it."""

    def run(bench: Bench) -> dict:
        recipe = bench.recipe(words)
        first = train(recipe, 0, None, bench.seconds / 2)
        guess = bench.tested(recipe)
        second = train(recipe, 1, recipe.model.state_dict(), bench.seconds / 2)
        return figures(bench.tested(recipe), before=figures(guess), steps=[first, second])

    return run


def ws_anl(bench: Bench) -> dict:
    """Two thirds of the budget for the lifter, one for the variance model; then both kinds of noise."""
    few = [
        dataclasses.replace(c, keypoints=c.keypoints[::SAMPLED], positions=c.positions[::SAMPLED])
        for c in bench.data.test
    ]
    curve = bench.out / f"ws_anl-curve-{bench.seed}.json"
    words = f"{WS_ANL} --sigma_cache {bench.out / 'sigma'} --noise_seed {bench.seed}"
    recipe = bench.recipe(words, SmallBatches, dataclasses.replace(bench.data, test=few))
    first = train(recipe, 0, None, bench.seconds * 2 / 3)
    second = train(recipe, 1, None, bench.seconds / 3)
    recipe.model.eval()
    recipe.write_curve(bench.place, curve)
    content = json.loads(curve.read_text())
    return {k: content[k] for k in ("frames", "alpha", "noise_size", "ws_anl", "random")} | {"steps": [first, second]}


def rie_one_part_as_often(bench: Bench) -> dict:
    """One part, for as many batches as the five parts had."""
    five = json.loads(file_of(bench.out, "rie five parts", bench.seed).read_text())
    recipe = bench.recipe(RIE_ONE, OnePartRecipe)
    steps = train(recipe, 0, None, batches=five["steps"][0])
    return figures(bench.tested(recipe), steps=[steps])


def file_of(out: Path, arm: str, seed: int) -> Path:
    return out / f"{arm.replace(', ', ' ').replace(' ', '-')}-{seed}.json"


ARMS: dict[str, Callable[[Bench], dict]] = {
    "ws_anl": ws_anl,
    "strided refined": strided_refined,
    "strided": alone(STRIDED),
    "full length": alone(STRIDED, FullLengthRecipe),
    "strided 81 frames": alone(STRIDED_81),
    "full length 81 frames": alone(STRIDED_81, FullLengthRecipe),
    "diffpose refined": diffused(DIFFPOSE),
    "diffpose guess": alone(DIFFPOSE),
    "diffpose video refined": diffused(VIDEO),
    "diffpose video guess": alone(VIDEO),
    "rie five parts": alone(RIE_FIVE, FiveParts),
    "rie one part": alone(RIE_ONE, OnePartRecipe),
    "rie one part as often": rie_one_part_as_often,
}


def run_arm(name: str, bench: Bench) -> None:
    """Train and test one arm, unless its file is there."""
    file = file_of(bench.out, name, bench.seed)
    if file.is_file():
        return
    begin, wall = time.process_time(), time.monotonic()
    result = ARMS[name](bench)
    spent = {"processor_s": time.process_time() - begin, "wall_s": time.monotonic() - wall}
    with write_aside(file) as aside:
        aside.write_text(json.dumps(result | {"arm": name, "seed": bench.seed, "budget_s": bench.seconds} | spent))
    print(f"{name}, seed {bench.seed}: {json.dumps(result)}", flush=True)


# -- the page --------------------------------------------------------------------------------------------------------
@dataclasses.dataclass
class Claim:
    """What a paper says, and where the two sides of it stand.

    Args:
        text: what is claimed. names: of the sides, the claimed better one first.
        sides: from the results of one seed, {arm: result}, the two errors in mm; KeyError where an arm is not done.
    """

    text: str
    names: tuple[str, str]
    sides: Callable[[dict[str, dict]], tuple[float, float]]

    def pairs(self, seeds: dict[int, dict[str, dict]]) -> list[tuple[float, float]]:
        found = []
        for results in seeds.values():
            try:
                found.append(self.sides(results))
            except KeyError:
                continue
        return found


def _noise(figure: str, samples: int) -> Claim:
    def sides(results: dict[str, dict]) -> tuple[float, float]:
        result, at = results["ws_anl"], CURVE.index(samples)
        return result["ws_anl"][figure][at], result["random"][figure][at]

    text = f"WS-ANL: adaptive noise beats random noise of the same size, best of {samples}, {figure}"
    return Claim(text, ("adaptive", "random"), sides)


def _against(text: str, names: tuple[str, str], better: str, worse: str) -> Claim:
    def side(results: dict[str, dict], arm: str) -> float:
        arm, _, before = arm.partition("/")
        return (results[arm]["before"] if before else results[arm])["P1"]

    return Claim(f"{text}, P1", names, lambda results: (side(results, better), side(results, worse)))


CLAIMS = [
    *(_noise(figure, samples) for figure in ("P1", "P2") for samples in CURVE[1:]),
    _against(
        "Strided Transformer: the refine module, which sees camera and root depth, improves its transformer",
        ("refined", "before"),
        "strided refined",
        "strided refined/before",
    ),
    _against(
        "The same, half the budget each, beats the transformer alone for the whole budget",
        ("refined", "alone"),
        "strided refined",
        "strided",
    ),
    _against(
        "Strided layers beat full-length ones, windows of 27 frames",
        ("strided", "full length"),
        "strided",
        "full length",
    ),
    _against("The same, of 81 frames", ("strided", "full length"), "strided 81 frames", "full length 81 frames"),
    _against(
        "DiffPose, frame setting: diffusion improves its first guess",
        ("refined", "first guess"),
        "diffpose refined",
        "diffpose refined/before",
    ),
    _against(
        "The same, half the budget each, beats the first guess trained for the whole budget",
        ("refined", "guess alone"),
        "diffpose refined",
        "diffpose guess",
    ),
    _against(
        "DiffPose, video setting, 27 frames: diffusion improves its first guess",
        ("refined", "first guess"),
        "diffpose video refined",
        "diffpose video refined/before",
    ),
    _against(
        "The same, half the budget each, beats the first guess trained for the whole budget",
        ("refined", "guess alone"),
        "diffpose video refined",
        "diffpose video guess",
    ),
    _against(
        "RIE: five parts with relative encodings beat one network over all joints",
        ("five parts", "one part"),
        "rie five parts",
        "rie one part",
    ),
    _against(
        "The same, for as many batches instead of as many seconds",
        ("five parts", "one part"),
        "rie five parts",
        "rie one part as often",
    ),
]


def verdict(pairs: list[tuple[float, float]]) -> str:
    """Whether the first is smaller: by seed, and on average by more than the seeds' differences scatter."""
    gains = [worse - better for better, worse in pairs]
    if len(gains) < 2:
        return "undecided: one seed"
    clear = abs(statistics.mean(gains)) > statistics.stdev(gains)
    if clear and min(gains) > 0:
        return "holds here"
    return "does not hold here" if clear and max(gains) < 0 else "undecided within the spread"


def spread(values: list[float]) -> str:
    """``45.2 ± 0.3``: mean and standard deviation."""
    return f"{statistics.mean(values):.2f}" + (f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else "")


def table_of(seeds: dict[int, dict[str, dict]]) -> str:
    lines = ["| claim | mm | mm | gain mm | seeds | verdict |", "|---|---|---|---|---|---|"]
    for claim in CLAIMS:
        if pairs := claim.pairs(seeds):
            sides = [f"{name} {spread(list(values))}" for name, values in zip(claim.names, zip(*pairs))]
            gain = spread([worse - better for better, worse in pairs])
            lines.append(f"| {claim.text} | {' | '.join(sides)} | {gain} | {len(pairs)} | **{verdict(pairs)}** |")
    return "\n".join(lines)


def costs_of(seeds: dict[int, dict[str, dict]]) -> str:
    lines = ["| arm | P1 mm | P2 mm | batches | processor time | wall time |", "|---|---|---|---|---|---|"]
    for arm in ARMS:
        if results := [r[arm] for r in seeds.values() if arm in r]:
            errors = [spread([r[k] for r in results]) if k in results[0] else "" for k in ("P1", "P2")]
            batches = " + ".join(f"{statistics.mean(n):.0f}" for n in zip(*(r["steps"] for r in results)))
            times = [f"{statistics.mean(r[k] for r in results):.0f} s" for k in ("processor_s", "wall_s")]
            lines.append(f"| {arm} | {' | '.join(errors)} | {batches} | {' | '.join(times)} |")
    return "\n".join(lines)


PAGE = """# What the papers' ideas gain on open motion

    python -m train.data.open_motion motion
    python -m train.data.motion_to_h36m motion --out runs/motion
    python -m train.compare --data-root runs/motion --seconds {seconds:g} --seeds {count} --out runs/compare --page PAGE

Each idea with and without, at equal cost: **{seconds:g} s of processor time of one thread for each arm**
({minutes:.0f} minutes in all, tests included), so that what is cheaper makes more steps. These are small runs,
of narrow networks on windows of 27 or 81 frames or on single frames, far from what the papers train: they show which
way an idea points at such a size, and no more.

Data: {data}; the 2D has a detector's errors, larger at wrists and
ankles. The test performers ({frames} frames in four views) are in no training clip, and nothing is chosen on them: the
last weights are tested. The mean pose has {mean_pose:.1f} mm.

± is the standard deviation over seeds, which draw weights, order and noise. A claim holds here where every seed has a
gain and the mean gain is larger than its ±; it does not where every seed has a loss and the mean loss is. Of so
few seeds that is a weak test; one seed decides nothing.

{table}

WS-ANL: best of S hypotheses on every {sampled}th test frame; random noise has the root mean square of the adaptive
one, on every joint. The refine module needs the camera and the true depth of the root, which its transformer does not
see, and its first rate is 1e-3: the published 1e-5 teaches it nothing in so short a time. Each arm's own figures, the
times with its test; wall time has waiting for other programs in it:

{costs}

All figures: [compare.json](compare.json).
"""


def write_page(bench: Bench, seeds: dict[int, dict[str, dict]], folder: Path) -> None:
    results = [result for of_seed in seeds.values() for result in of_seed.values()]
    if not results:
        raise ValueError(f"{bench.out}: nothing is done yet to make a page of")
    frames = sum(len(c.keypoints) for c in bench.data.test)
    trained = sum(len(c.keypoints) for c in bench.data.train)
    page = PAGE.format(
        seconds=bench.seconds,
        count=max(seeds),
        minutes=sum(r["processor_s"] for r in results) / 60,
        data=f"{bench.data.name}, {trained} frames to train on",
        frames=frames,
        mean_pose=Report.of(evaluate_mean_pose(bench.data.train, bench.data.test, bench.place)).figures["P1"],
        sampled=SAMPLED,
        table=table_of(seeds),
        costs=costs_of(seeds),
    )
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("README.md", page), ("compare.json", json.dumps(results, indent=1) + "\n")):
        with write_aside(folder / name) as aside:
            aside.write_text(text)


def read_results(out: Path, seeds: list[int], seconds: float) -> dict[int, dict[str, dict]]:
    """{seed: {arm: result}} of what is done.

    Raises:
        ValueError: an arm that had another budget.
    """
    found: dict[int, dict[str, dict]] = {}
    for seed in seeds:
        for arm in ARMS:
            file = file_of(out, arm, seed)
            if file.is_file():
                result = json.loads(file.read_text())
                if result["budget_s"] != seconds:
                    raise ValueError(
                        f"{file}: trained for {result['budget_s']:g} s, not {seconds:g}; use another --out"
                    )
                found.setdefault(seed, {})[arm] = result
    return found


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="python -m train.compare", description=__doc__.split("\n\n")[0])
    parser.add_argument("--data-root", required=True, metavar="DIR", help="what train.data.motion_to_h36m wrote")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where each arm's figures go")
    parser.add_argument("--page", type=Path, metavar="DIR", help="where README.md and compare.json go")
    parser.add_argument("--seconds", type=float, default=120, help="of processor time for an arm (default: 120)")
    parser.add_argument("--seeds", type=positive, default=3, help="of each arm: 1 to so many (default: %(default)s)")
    parser.add_argument("--arms", default=",".join(ARMS), metavar="LIST", help=f"comma list of {', '.join(ARMS)}")
    parser.add_argument("--no-train", action="store_true", help="write --page of what is done, and train nothing")
    args = parser.parse_args(argv)
    arms = args.arms.split(",")
    for name in arms:
        if name not in ARMS:
            raise ValueError(f"--arms: no arm {name!r} (known: {', '.join(ARMS)})")
    if not 0 < args.seconds < math.inf:
        raise ValueError(f"--seconds: expected more than 0, got {args.seconds}")
    args.out.mkdir(parents=True, exist_ok=True)
    seeds = list(range(1, args.seeds + 1))
    read_results(args.out, seeds, args.seconds)  # refuses another budget before anything is trained
    torch.set_num_threads(1)
    options, _ = JOB.parse(["--data-root", args.data_root, "-k", "detected"])
    data = JOB.load(options)
    with run_place("cpu", "float32") as place:
        bench = Bench(args.data_root, data, place, args.seconds, 1, args.out)

        def tell() -> None:
            if args.page:
                write_page(bench, read_results(args.out, seeds, args.seconds), args.page)

        for bench.seed, name in itertools.product(seeds, [] if args.no_train else arms):
            run_arm(name, bench)
            tell()
        if args.no_train:
            tell()
    print(table_of(read_results(args.out, seeds, args.seconds)))
    return 0


if __name__ == "__main__":
    run_cli(main)
