"""Deliberately broken GPU kernels: in the PTX, as a compiler or an assembler would break them, and in Triton's source.

``python -m tests.ptx.mutants`` prints why each is rejected; TRITON_INTERPRET must be unset.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from unittest import mock

from posekernels import _dispatch
from tests.mutants import changed
from tests.native import ROOT
from tests.ptx import contract


@dataclass(frozen=True)
class Mutant:
    """One broken kernel.

    Args:
        op, dtype: the contract that must reject it.
        message: what the rejection says, a regular expression.
        ptx: what the kernel's name begins with after any mangling, PTX -> PTX.
        source: (marked text of the op's ``triton.py``, what stands there instead), as ``tests.mutants`` has them.
        gradients: backward too, which is where it is broken.
    """

    op: str
    dtype: str
    message: str
    ptx: tuple[str, Callable[[str], str]] | None = None
    source: tuple[str, str] | None = None
    backend: str = "triton"
    architecture: int = 80
    gradients: bool = False


def nth(pattern: str, new: str, n: int = 0) -> Callable[[str], str]:
    """Replaces the n-th match."""

    def change(text: str) -> str:
        found = list(re.finditer(pattern, text))
        if len(found) <= n:
            raise ValueError(f"{len(found)} times in the PTX, wanted number {n}: {pattern}")
        return text[: found[n].start()] + found[n].expand(new) + text[found[n].end() :]

    return change


def every(pattern: str, new: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        text, times = re.subn(pattern, new, text)
        if not times:
            raise ValueError(f"not in the PTX: {pattern}")
        return text

    return change


_WAIT = r"(cp\.async\.wait_group\s+\d;(?:\s|//[^\n]*\n|\.loc[^\n]*\n|\$L\w+:)*)"
_BARRIER = r"bar\.sync\s+0;"
_RACE = "race in shared|uninitialised: shared"
MUTANTS = {
    "a missing barrier after cp.async": Mutant(
        "graph_conv", "float32", _RACE, ptx=("_graph_conv_fwd_kernel", every(_WAIT + _BARRIER, r"\1"))
    ),
    "a missing barrier in a reduction": Mutant(
        "annotated_norm", "float32", _RACE, ptx=("_annotated_norm_fwd_kernel", nth(_BARRIER, ""))
    ),
    "a missing barrier between two reductions": Mutant(
        "annotated_norm", "float32", _RACE, ptx=("_annotated_norm_fwd_kernel", nth(_BARRIER, "", 1))
    ),
    "a missing mask of a load": Mutant(
        "joint_attention",
        "bfloat16",
        "out of bounds",
        ptx=("_joint_attention_fwd_kernel", every(r"@%p\d+ (?=ld\.global)", "")),
    ),
    "a missing mask of a store": Mutant(
        "graph_conv",
        "bfloat16",
        "out of bounds|race in global",
        ptx=("_graph_conv_fwd_kernel", every(r"@%p\d+ (?=st\.global)", "")),
    ),
    "a stale pipeline stage": Mutant(
        "graph_conv",
        "float32",
        "cp.async data read before",
        ptx=("_graph_conv_fwd_kernel", every(r"cp\.async\.wait_group\s+2;", "cp.async.wait_group 4;")),
    ),
    "swapped words of an mma operand": Mutant(
        "graph_conv",
        "bfloat16",
        "relative error",
        ptx=(
            "_graph_conv_fwd_kernel",
            every(r"(mma\.sync\S+\s+\{[^}]*\}, \{[^}]*\}, )\{ ?(%r\d+), (%r\d+) ?", r"\1{\3, \2"),
        ),
    ),
    "swapped mma operands": Mutant(
        "temporal_attention",
        "bfloat16",
        "relative error",
        ptx=("_attention_fwd_kernel", every(r"(mma\.sync\S+\s+\{[^}]*\}, )\{ ?(%r\d+), (%r\d+), ", r"\1{\3, \2, ")),
    ),
    "a missing barrier of nvcc's": Mutant(
        "graph_conv",
        "bfloat16",
        _RACE,
        ptx=("graph_conv_fwd_kernelINS_4Bf16", nth(_BARRIER, "")),
        backend="cuda",
    ),
    "a missing barrier of a warp of nvcc's": Mutant(
        "joint_attention",
        "bfloat16",
        _RACE,
        ptx=("joint_attention_bwd_kernelINS_4Bf16ELi3", every(r"bar\.warp\.sync[^;]*;", "")),
        backend="cuda",
        gradients=True,
    ),
    "cp.async of nvcc's that nobody waits for": Mutant(
        "temporal_mlp",
        "float32",
        "cp.async",
        ptx=("temporal_mlp_fwd_kernelINS_5Exact", every(r"cp\.async\.wait_all;", "")),
        backend="cuda",
    ),
    "wgmma that nobody waits for": Mutant(
        "strided_feed_forward",
        "bfloat16",
        "NaN in|written while a wgmma",
        ptx=("_hidden_kernel", every(r"wgmma\.wait_group\.sync\.aligned\s+\d;", "")),
        architecture=90,
    ),
    "no fence between shared memory and wgmma": Mutant(
        "strided_feed_forward",
        "bfloat16",
        "no fence.proxy.async between",
        ptx=("_hidden_kernel", every(r"fence\.proxy\.async\.shared::cta;", "")),
        architecture=90,
    ),
    "a tile too few": Mutant(
        "graph_conv",
        "float32",
        "NaN in",
        source=('grid = («triton.cdiv(B, plan["BLOCK_M"] // J)» * triton.cdiv(Cout,', '(B // (plan["BLOCK_M"] // J))'),
    ),
    "a mask one too far": Mutant(
        "temporal_attention",
        "float32",
        "race in global|out of bounds",
        source=("tl.store(peaks_ptr + 1, total, mask=«query < T»)", "query <= T"),
    ),
}


@contextlib.contextmanager
def _source_changed(op: str, context: str, new: str) -> Iterator[None]:
    """The op's Triton kernels from a changed copy of their file."""
    package = f"posekernels.ops.{op}"
    source = ROOT / "posekernels" / "ops" / op / "triton.py"
    path = ROOT / "build" / "mutants-ptx" / f"{op}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(changed(source.read_text(), context, new, None))
    spec = importlib.util.spec_from_file_location(f"{package}.broken", path)  # in its package, for relative imports
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    with contextlib.ExitStack() as stack:
        for raw, kernels in _dispatch.OPS.items():
            if "triton" in kernels and hasattr(module, raw):
                broken = dataclasses.replace(kernels["triton"], run=getattr(module, raw))
                stack.enter_context(mock.patch.dict(kernels, {"triton": broken}))
        yield


def rejected(name: str) -> str | None:
    """Why the contract rejects a mutant; None if it does not."""
    mutant = MUTANTS[name]
    options = {}
    if mutant.ptx is not None:
        kernel, change = mutant.ptx
        met = []

        def change_it(text: str) -> str:
            begin = re.search(rf"\.entry \w*{kernel}", text)
            if begin is None:
                return text
            met.append(kernel)
            end = text.find(".entry", begin.end()) % (len(text) + 1)  # none follows: all of it
            return text[: begin.start()] + change(text[begin.start() : end]) + text[end:]

        options["change"] = change_it
    broken = contextlib.nullcontext() if mutant.source is None else _source_changed(mutant.op, *mutant.source)
    with broken:
        try:
            contract.check(
                mutant.op,
                mutant.dtype,
                mutant.backend,
                gradients=mutant.gradients,
                architecture=mutant.architecture,
                **options,
            )
        except AssertionError as error:
            return str(error)
    if mutant.ptx is not None and not met:
        raise ValueError(f"{mutant.op} launched no {kernel}")
    return None


def main() -> int:
    survivors = 0
    for name, mutant in MUTANTS.items():
        why = rejected(name)
        fits = why is not None and re.search(mutant.message, why)
        survivors += not fits
        print(
            f"{name}: {(why or 'SURVIVES').splitlines()[0]}{'' if fits else f' (expected {mutant.message})'}",
            flush=True,
        )
    return int(bool(survivors))


if __name__ == "__main__":
    sys.exit(main())
