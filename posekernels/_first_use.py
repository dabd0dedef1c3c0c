"""The first use of a GPU kernel on a card: held against the reference before ``auto`` relies on the kernel.

The tests execute every GPU kernel as compiled code, on a CPU (tests/ptx); what a card makes of it, the card shows. So
the first call that ``auto`` gives to a kernel, for each op, backend and dtype, computes with the reference too. Where
they disagree, or the kernel fails, the reference's results are returned and ``auto`` passes the kernel over from then
on, with a warning. Verdicts are kept in the user's cache folder, by card and version; ``POSEKERNELS_SELF_CHECK=0``
turns the check off. A kernel that the caller names is used as it is.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
from pathlib import Path

import torch
from torch import Tensor

from .files import cache_folder, write_aside

GOOD = "good"
# Norm-wise relative error that shows a fault rather than rounding: TF32 and 16 bits have 8 to 11 bits.
_BOUND = {torch.float64: 1e-6, torch.float32: 2e-2, torch.float16: 1e-1, torch.bfloat16: 2e-1}
_log = logging.getLogger("posekernels")
Key = tuple[str, str, str, str]  # op, backend, dtype, card


def first_tensor(arguments) -> Tensor | None:
    for argument in arguments:
        found = argument if isinstance(argument, Tensor) else None
        if isinstance(argument, (list, tuple)):
            found = first_tensor(argument)
        if found is not None:
            return found
    return None


@functools.cache
def _card(device: torch.device) -> str | None:
    """The card's name and kind; None: not one, so there is nothing to check."""
    if device.type != "cuda":
        return None
    return f"{torch.cuda.get_device_name(device)} sm_{''.join(map(str, torch.cuda.get_device_capability(device)))}"


def _store() -> Path | None:
    folder = cache_folder()
    return folder and folder / "first_use.json"


@functools.cache
def _version() -> str:
    """PyTorch, and the state of our own files."""
    root, digest = Path(__file__).parent, hashlib.sha256(torch.__version__.encode())
    for path in sorted([*root.glob("*.*"), *root.glob("ops/**/*.py")]):
        found = path.stat()
        digest.update(f"{path.relative_to(root)} {found.st_size} {found.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


@functools.cache
def _verdicts() -> dict[str, str]:
    """What earlier processes found with this version."""
    store = _store()
    return {} if store is None else _kept(store)


def _kept(store: Path) -> dict[str, str]:
    try:
        kept = json.loads(store.read_text())
        return dict(kept["verdicts"]) if kept["version"] == _version() else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _record(key: Key, verdict: str) -> None:
    found = _verdicts()
    store = _store()
    if store is not None:  # other processes may have added theirs
        found |= {k: v for k, v in _kept(store).items() if k not in found}
    found[" / ".join(key)] = verdict
    if verdict != GOOD:
        _log.warning("%s: auto passes %s over for %s on %s: %s", *key, verdict)
    if store is None:
        return
    try:
        store.parent.mkdir(parents=True, exist_ok=True)
        with write_aside(store) as path:
            path.write_text(json.dumps({"version": _version(), "verdicts": found}, indent=1))
    except OSError as error:  # a folder that cannot be written to: checked again in the next process
        _log.info("first use: %s", error)


def key_of(op: str, backend: str, arguments) -> Key | None:
    """What a verdict is about; None: these arguments need none."""
    tensor = first_tensor(arguments)
    card = None if tensor is None or os.environ.get("POSEKERNELS_SELF_CHECK") == "0" else _card(tensor.device)
    return None if card is None else (op, backend, str(tensor.dtype).removeprefix("torch."), card)


def verdict_on(key: Key) -> str | None:
    """``GOOD``, what was wrong, or None: not used yet."""
    return _verdicts().get(" / ".join(key))


def difference(got, want) -> str | None:
    """What is wrong with a kernel's results, or None; small ones are measured by the largest beside them."""
    got, want = ([t for t in (r if isinstance(r, (list, tuple)) else (r,)) if t is not None] for r in (got, want))
    if len(got) != len(want):
        return f"{len(got)} results, expected {len(want)}"
    for a, b in zip(got, want):
        if a.shape != b.shape or a.dtype != b.dtype:
            return f"a result is {a.dtype} {list(a.shape)}, expected {b.dtype} {list(b.shape)}"
    largest = max((b.double().norm().item() for b in want if b.is_floating_point()), default=0.0)
    for n, (a, b) in enumerate(zip(got, want)):
        if not b.is_floating_point():
            continue
        scale = max(b.double().norm().item(), 1e-2 * largest)
        error = (a.double() - b.double()).norm().item()
        if not error <= _BOUND[b.dtype] * scale:
            return f"result {n} differs from the reference by {error / scale if scale else error:.1e}"
    return None


class FirstUse:
    """Stands in for a kernel until there is a verdict on it."""

    keeps = False

    def __init__(self, key: Key, kernel, reference):
        self._key, self._kernel, self._reference = key, kernel, reference

    def __call__(self, *args, **options):
        want = self._reference(*args)
        tensors = want if isinstance(want, (list, tuple)) else (want,)
        if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
            return want  # nothing can be compared inside a CUDA graph: call the op once before
        if not any(t.numel() and t.is_floating_point() for t in tensors if t is not None):
            return want
        if not all(t.isfinite().all() for t in tensors if t is not None and t.is_floating_point()):
            return want  # NaN hides what is wrong
        try:
            got = self._kernel(*args, **options)
            why = difference(got, want)
        except Exception as error:
            got, why = None, f"{type(error).__name__}: {error}".splitlines()[0]
        _record(self._key, why or GOOD)
        return want if why else got
