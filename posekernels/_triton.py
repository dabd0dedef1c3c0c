"""What the Triton kernels of several ops share: device helpers, launch arithmetic, and the reasons to refuse.

Imported by ``ops/<op>/triton.py`` only, so that ``import posekernels`` never imports Triton. ``TRITON_INTERPRET`` is
read when a kernel is defined: set it before the first kernel runs (tests/conftest.py does).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._adapters import allows_tf32


def _index_by_item() -> None:
    """Triton 3.6's interpreter takes an array of one number for a number, which NumPy from 2.5 on refuses."""
    from triton.runtime import interpreter

    patch = interpreter._patch_lang_tensor

    def patched(tensor, scope) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patched


if triton.__version__.startswith("3.6.") and triton.knobs.runtime.interpret:
    _index_by_item()


@dataclass(frozen=True)
class Compilation:
    """One kernel in one configuration, to be compiled ahead of time for every target (``posekernels.aot``).

    Args:
        name: what the table calls it, ``<op>/<kernel>/<configuration>``.
        kernel: the ``triton.jit`` function.
        types: argument -> type ("*bf16", "i32", "fp32", or "constexpr" for one that ``constants`` gives). ":16" after
            it says that the address or number is a multiple of 16, as the launcher finds out for itself. A tuple of
            types for an argument that is a tuple.
        constants: the constexpr arguments. None is a pointer that is not passed.
        num_warps, num_stages: as the launcher gives them.
        matrix_units: whether matrix instructions must be in the result.
        spills_accepted: bytes per thread that it may spill; say why where it is not 0.
    """

    name: str
    kernel: object
    types: dict[str, str | tuple[str, ...]]
    constants: dict[str, object] = field(default_factory=dict)
    num_warps: int = 4
    num_stages: int = 2
    matrix_units: bool = True
    spills_accepted: int = 0


TYPE_NAMES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
PRECISIONS = (  # every dtype with every ``dot_precision`` it may have
    (torch.bfloat16, "ieee"),
    (torch.float16, "ieee"),
    (torch.float32, "tf32"),
    (torch.float32, "tf32x3"),
)


def compilation(
    name: str, kernel, dtype: torch.dtype, plan: dict, types: dict[str, str] | None = None, **options
) -> Compilation:
    """``kernel`` on tensors of ``dtype``: aligned pointers to it and 32-bit numbers, unless ``types`` says otherwise.

    Args:
        name: ``<op>/<kernel>``; the dtype and the precision of its products come behind it.
        plan: the constants, and "num_warps" and "num_stages" among them; what the kernel does not take is left out.
        options: ``matrix_units`` and ``spills_accepted`` of ``Compilation``.
    """
    usual = {a: f"*{TYPE_NAMES[dtype]}:16" if a.endswith("_ptr") else "i32" for a in kernel.arg_names}
    usual |= {"seed_ptr": "*i64:16", "threshold": "i64", "factor": "fp32"}
    if plan.get("DROPOUT") is False:
        plan = plan | {"seed_ptr": None}
    constants = {a: plan[a] for a in kernel.arg_names if a in plan}
    chosen = {a: "constexpr" if a in constants else (types or {}).get(a, usual[a]) for a in kernel.arg_names}
    label, precision = f"{name}/{TYPE_NAMES[dtype]}", constants.get("PRECISION", "ieee")
    label += "" if precision == "ieee" else f"-{precision}"
    launch = {n: plan[n] for n in ("num_warps", "num_stages") if n in plan}
    return Compilation(label, kernel, chosen, constants, **launch, **options)


def dot_precision(dtype: torch.dtype) -> str:
    """``input_precision`` of a ``tl.dot`` on ``dtype``: TF32 only where PyTorch's own setting allows it.

    Otherwise float32 products are made of three TF32 products, which keeps float32's accuracy (relative error 1e-6)
    on the matrix units.
    """
    if dtype == torch.float32:
        return "tf32" if allows_tf32() else "tf32x3"
    return "ieee"


def power_of_2(size: int, low: int, high: int) -> int:
    """The smallest power of two that holds ``size``, between ``low`` and ``high``."""
    return min(max(triton.next_power_of_2(size), low), high)


@functools.cache
def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2


def splits(tensor: Tensor, work: int, programs: int) -> int:
    """Into how many parts a reduction over ``work`` tiles is cut when ``programs`` of them run beside each other.

    Enough to fill the device twice. It depends on the device and the sizes alone, so results repeat bit for bit.
    """
    return max(1, min(work, triton.cdiv(2 * _multiprocessors(tensor.device), programs)))


def launch_on(tensor: Tensor):
    """Context in which kernels are launched on the device of ``tensor`` (nothing to do on a CPU tensor)."""
    return torch.cuda.device_of(tensor)


@triton.jit
def activate(z, ACTIVATION: tl.constexpr):
    """act(z): "none", "relu" (NaN stays NaN) or "gelu" (erf form)."""
    if ACTIVATION == "relu":
        z = tl.where(z < 0, 0.0, z)
    elif ACTIVATION == "gelu":
        z = 0.5 * z * (1.0 + tl.erf(z * 0.7071067811865476))
    return z


@triton.jit
def activation_slope(z, ACTIVATION: tl.constexpr):
    """act'(z), for ``activate``. Slope of relu at 0 is 0, as in PyTorch; not for "none"."""
    if ACTIVATION == "relu":
        slope = tl.where(z <= 0, 0.0, 1.0)
    else:
        bell = tl.exp(-0.5 * z * z) * 0.3989422804014327
        slope = 0.5 * (1.0 + tl.erf(z * 0.7071067811865476)) + z * bell
    return slope


@triton.jit
def block_diagonal(matrix_ptr, J, BLOCK_M: tl.constexpr, TRANSPOSE: tl.constexpr):
    """The J x J matrix (or its transpose) repeated along the diagonal as often as it fits: what ``mix_joints`` takes.

    Returns:
        matrix: [BLOCK_M, BLOCK_M], dtype of ``matrix_ptr``.
        diagonal: [BLOCK_M] float32, its diagonal.
        dense: int32, 0 where nothing but the diagonal is set.
    """
    row = tl.arange(0, BLOCK_M)
    first = row // J * J  # first row of this row's pose
    joint = row - first
    whole = row // J < BLOCK_M // J
    local = row[None, :] - first[:, None]
    # Addressed as (start of the row) + column: one address per row, where joint pairs would take one per element.
    matrix = tl.load(
        (matrix_ptr + (joint * J - first))[:, None] + row[None, :],
        mask=(local >= 0) & (local < J) & whole[:, None],
        other=0.0,
    )
    diagonal = tl.load(matrix_ptr + joint * (J + 1), mask=whole, other=0.0).to(tl.float32)
    entries = tl.sum(tl.where(matrix == 0, 0, 1))  # NaN counts: it is not 0
    dense = tl.where(entries > tl.sum(tl.where(diagonal == 0, 0, 1)), 1, 0)
    if TRANSPOSE:
        matrix = tl.trans(matrix)
    return matrix, diagonal, dense


@triton.jit
def mix_joints(total, matrix, diagonal, dense, values, J, BLOCK_M: tl.constexpr, PRECISION: tl.constexpr):
    """total + matrix @ values, for a ``block_diagonal`` matrix and float32 total and values, both [BLOCK_M, N].

    A diagonal matrix becomes an element-wise scale. The poses of a tile must not see each other, and 0 * NaN is NaN:
    a tile with a value that is not finite is mixed one pose at a time, the others zeroed.
    """
    pose = tl.arange(0, BLOCK_M) // J
    rounded = values.to(matrix.dtype)
    broken = tl.max(tl.where(tl.abs(rounded.to(tl.float32)) < float("inf"), 0, 1))
    passes = dense * tl.where(broken > 0, BLOCK_M // J, 1)  # 0, 1, or as many as there are poses
    total += tl.where(dense > 0, 0.0, diagonal[:, None] * values)
    for p in range(passes):
        mine = ((broken == 0) | (pose == p))[:, None]
        mixed = tl.dot(matrix, tl.where(mine, rounded, 0.0).to(matrix.dtype), input_precision=PRECISION)
        total += tl.where(mine, mixed, 0.0)
    return total


@triton.jit
def keep_elements(element, seed_ptr, stream, threshold):
    """Which elements (int64 numbers) dropout keeps, bit for bit as ``posekernels._dropout.keep_mask``."""
    seed = tl.load(seed_ptr)
    block = element // 4
    low = (block & 0xFFFFFFFF).to(tl.uint32)
    high = (block >> 32).to(tl.uint32)
    c2 = tl.zeros_like(low) + stream
    c3 = tl.zeros_like(low) + 0x44524F50  # "DROP"
    w0, w1, w2, w3 = tl.philox(seed, low, high, c2, c3)
    which = element % 4
    word = tl.where(which == 0, w0, tl.where(which == 1, w1, tl.where(which == 2, w2, w3)))
    return word.to(tl.uint32, bitcast=True).to(tl.int64) >= threshold


@triton.jit
def keep_words(counter, seed_ptr, stream, threshold):
    """[N, 4] bool: as ``keep_elements`` of the four elements of each counter [N] (element // 4), drawn once."""
    seed = tl.load(seed_ptr)
    low = (counter & 0xFFFFFFFF).to(tl.uint32)
    high = (counter >> 32).to(tl.uint32)
    c2 = tl.zeros_like(low) + stream
    c3 = tl.zeros_like(low) + 0x44524F50  # "DROP"
    w0, w1, w2, w3 = tl.philox(seed, low, high, c2, c3)
    words = tl.join(tl.join(w0, w2), tl.join(w1, w3))  # [N, 2, 2], the last axis the fastest
    words = tl.reshape(words, (counter.shape[0], 4))
    return words.to(tl.uint32, bitcast=True).to(tl.int64) >= threshold


@triton.jit
def load_tile(ptr, stride, row, rows, column, columns):
    """[len(row), len(column)] of a [rows, columns] matrix whose rows are ``stride`` apart, in its dtype; 0 outside.

    ``row`` is int64 where ``row * stride`` may pass 2**31.
    """
    mask = (row < rows)[:, None] & (column < columns)[None, :]
    return tl.load((ptr + row * stride)[:, None] + column[None, :], mask=mask, other=0.0)


@triton.jit
def load_rows(ptr, stride, row, rows, column, C):
    """``load_tile`` in float32. ``row`` is int64."""
    return load_tile(ptr, stride, row, rows, column, C).to(tl.float32)


@triton.jit
def store_rows(ptr, stride, value, row, rows, column, C):
    """Writes what ``load_rows`` reads."""
    mask = (row < rows)[:, None] & (column < C)[None, :]
    tl.store((ptr + row * stride)[:, None] + column[None, :], value, mask=mask)


@triton.jit
def row_vector(ptr, column, C):
    """[1, len(column)] float32; 0 outside."""
    return tl.load(ptr + column, mask=column < C, other=0.0).to(tl.float32)[None, :]


@triton.jit
def centred_rows(total, column, C):
    """(deviation from the mean, 0 past C; sum of their squares) of each row."""
    mean = tl.sum(total, 1) / C
    centred = tl.where((column < C)[None, :], total - mean[:, None], 0.0)
    return centred, tl.sum(centred * centred, 1)


@triton.jit
def layer_norm_rows(total, weight_ptr, bias_ptr, column, C, eps):
    """PyTorch's layer norm of whole rows."""
    centred, squares = centred_rows(total, column, C)
    y = centred / tl.sqrt(squares / C + eps)[:, None]
    return y * row_vector(weight_ptr, column, C) + row_vector(bias_ptr, column, C)


@triton.jit
def round_pieces(x, TYPE: tl.constexpr):
    """Tiles, a tuple of them, in the dtype they are multiplied in: once, before the loops that do."""
    y = ()
    for i in tl.static_range(len(x)):
        y = y + (x[i].to(TYPE),)
    return y


@triton.jit
def add_pieces(x, z):
    """x + z of two tuples of tiles."""
    y = ()
    for i in tl.static_range(len(x)):
        y = y + (x[i] + z[i],)
    return y


def row_plan(C: int) -> dict[str, int]:
    """Tile sizes and warps of a kernel whose programs own whole rows of C."""
    BLOCK_C = triton.next_power_of_2(C)
    return {"BLOCK_R": max(1, min(16, 1024 // BLOCK_C)), "BLOCK_C": BLOCK_C, "num_warps": 4}
