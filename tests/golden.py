"""Golden cases: ``python -m tests.golden FOLDER [CASE...]`` feeds each one through the public API.

A case is ``CASE.json`` (system, config, seed, published parameter names and shapes) and ``CASE.npz`` (``in.*`` and
``out.*``); ``fill.py`` beside the cases draws the weights. What a case is, is read off its manifest, never its name.
Prints ``CASE ok|FAIL max-relative-error`` or ``CASE unsupported``, and how many of each; exits with 1 on any FAIL.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import pkgutil
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

BOUND = 1e-4  # norm-wise relative error in float32, unless the manifest says otherwise
DEFAULT_FOLDER = Path(__file__).resolve().parents[2] / "shared" / "golden"


@dataclass
class Case:
    """One golden case: ``config`` of the manifest, drawn ``weights`` by published name, ``arrays`` in.* and out.*."""

    name: str
    system: str
    config: dict
    manifest: dict
    weights: dict[str, np.ndarray]
    arrays: dict[str, np.ndarray]

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[f"in.{name}"]

    @property
    def outputs(self) -> set[str]:
        return {n.removeprefix("out.") for n in self.arrays if n.startswith("out.")}


@dataclass
class Against:
    """A result that is measured against the given size instead of its own size: a sum that cancels to rounding."""

    value: object
    against: float


class Skip(Exception):
    """A case that cannot run here; says why (a file it names is absent)."""


@dataclass
class Handler:
    """``matches(case)`` says whether ``run(case)`` can produce the case's outputs, {name: array}."""

    matches: Callable[[Case], bool]
    run: Callable[[Case], dict]


def handlers() -> list[Handler]:
    """The HANDLERS of every module in ``tests.golden_cases``."""
    from tests import golden_cases

    found = []
    for module in pkgutil.iter_modules(golden_cases.__path__):
        found += importlib.import_module(f"tests.golden_cases.{module.name}").HANDLERS
    return found


def load(folder: Path, name: str) -> Case:
    spec = importlib.util.spec_from_file_location("golden_fill", folder / "fill.py")
    fill = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fill)
    manifest, weights, arrays = fill.load(str(folder), name)
    for key, value in arrays.items():  # a case may replace drawn weights
        if key.startswith("in.override."):
            weights[key.removeprefix("in.override.")] = value
    return Case(name, manifest["system"], manifest["config"], manifest, weights, arrays)


def relative_error(got, want: np.ndarray) -> float:
    """|got - want| / |want| in the 2-norm; the absolute error where want is 0; infinite where shapes differ."""
    known_scale = getattr(got, "against", None)  # not isinstance: this module is imported twice when run as a program
    got = got if known_scale is None else got.value
    got = got.detach().cpu().numpy() if hasattr(got, "detach") else np.asarray(got)
    if got.shape != want.shape:
        return float("inf")
    got, want = got.astype(np.float64), want.astype(np.float64)
    if (np.isnan(got) != np.isnan(want)).any():
        return float("inf")
    scale = np.linalg.norm(np.nan_to_num(want)) if known_scale is None else known_scale
    error = np.linalg.norm(np.nan_to_num(got) - np.nan_to_num(want))
    return float(error / scale if scale > 0 else error)


def run(case: Case, found: list[Handler]) -> tuple[str, dict[str, float]]:
    """("ok" | "FAIL" | "unsupported", {output: relative error}). An output nobody produced has an infinite error."""
    for handler in found:
        if handler.matches(case):
            results = handler.run(case)
            errors = {
                n: relative_error(results[n], case.arrays[f"out.{n}"]) if n in results else float("inf")
                for n in sorted(case.outputs)
            }
            bound = case.manifest.get("tolerance", case.config.get("tolerance", BOUND))
            return ("ok" if errors and max(errors.values()) <= bound else "FAIL"), errors
    return "unsupported", {}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.golden", description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=DEFAULT_FOLDER)
    parser.add_argument("case", nargs="*")
    parser.add_argument("-v", "--verbose", action="store_true", help="every output's error, and tracebacks")
    args = parser.parse_args(argv)
    if not (args.folder / "fill.py").is_file():
        where = "; without FOLDER they are looked for beside the checkout" if args.folder == DEFAULT_FOLDER else ""
        print(
            f"{args.folder}: no golden cases here (expected fill.py and CASE.json + CASE.npz){where}", file=sys.stderr
        )
        return 2
    available = sorted(p.stem for p in args.folder.glob("*.json"))
    unknown = [c for c in args.case if c not in available]
    if unknown:
        print(f"no case {', '.join(unknown)} in {args.folder}; it has: {', '.join(available)}", file=sys.stderr)
        return 2
    found, counts = handlers(), {"ok": 0, "unsupported": 0, "skipped": 0, "FAIL": 0}
    for name in args.case or available:
        try:
            status, errors = run(load(args.folder, name), found)
        except Skip as reason:
            counts["skipped"] += 1
            print(f"{name} skipped: {reason}")
            continue
        except Exception as error:
            counts["FAIL"] += 1
            print(f"{name} FAIL {type(error).__name__}: {error}")
            if args.verbose:
                traceback.print_exc()
            continue
        counts[status] += 1
        worst = max(errors, key=errors.get) if errors else ""
        print(
            f"{name} {status}"
            + (f" {errors[worst]:.2e}" if errors else "")
            + (f" ({worst})" if status == "FAIL" else "")
        )
        if args.verbose:
            for output, error in errors.items():
                print(f"    {output:<40} {error:.2e}")
    skipped = f"{counts['skipped']} skipped, " if counts["skipped"] else ""
    print(f"{counts['ok']} ok, {counts['unsupported']} unsupported, {skipped}{counts['FAIL']} failed")
    return int(counts["FAIL"] > 0)


if __name__ == "__main__":
    sys.exit(main())
