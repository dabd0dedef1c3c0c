"""The executor of PTX itself: instructions against NumPy and PyTorch, and every fault that it must find, planted."""

import struct

import numpy as np
import pytest
import torch

from tests.ptx import build, program
from tests.ptx.program import PtxError

pytestmark = pytest.mark.skipif(build.compiler() is None, reason="no C++ compiler for the executor of PTX")

HEAD = ".version 8.7\n.target sm_80\n.address_size 64\n"
DECLARED = """
    .reg .pred %p<20>;
    .reg .b16 %h<20>;
    .reg .b32 %r<80>;
    .reg .b64 %d<20>;
    .shared .align 1024 .b8 block[SHARED];
    ld.param.u64 %d0, [p0];
    ld.param.u64 %d1, [p1];
    mov.u32 %r0, %tid.x;
    mov.u32 %r1, %ctaid.x;
    mad.lo.s32 %r2, %r1, 64, %r0;
    mul.wide.u32 %d2, %r2, 4;
    add.s64 %d3, %d0, %d2;       // &in[block * 64 + thread]
    add.s64 %d4, %d1, %d2;       // &out[block * 64 + thread]
    shl.b32 %r3, %r0, 2;
    mov.u32 %r4, block;
    add.s32 %r5, %r4, %r3;       // &shared[thread]
"""


def kernel(body: str, head: str = HEAD) -> program.Kernel:
    declared = DECLARED.replace("SHARED", "16384" if "sm_90" in head else "4096")
    text = f"{head}.visible .entry k(.param .u64 p0, .param .u64 p1)\n{{\n{declared}\n{body}\n    ret;\n}}\n"
    return program.Module(text).kernels["k"]


def run(body, given, out, *, grid=(1, 1, 1), threads=32, written=None, shared=0, head=HEAD, **options):
    """``body`` on the arrays ``given`` and ``out``."""
    buffers = [program.Buffer(given.ctypes.data, given.nbytes)]
    buffers += [program.Buffer(out.ctypes.data, out.nbytes, written)]
    parameters = struct.pack("<2Q", given.ctypes.data, out.ctypes.data)
    return kernel(body, head).launch(grid, threads, parameters, buffers, shared, **options)


def words(count, seed=0):
    values = torch.empty(count, dtype=torch.int32).numpy().view(np.uint32)  # aligned to 64 bytes, as tensors are
    values[:] = np.random.default_rng(seed).integers(0, 2**32, count, np.uint32)
    return values


def floats(count, seed=0):
    return np.random.default_rng(seed).standard_normal(count).astype(np.float32)


def lane_by_lane(instruction, *operands):
    """What one instruction makes of uint32 arrays of 32 (operands of 64 bits are not covered here)."""
    given, out = np.stack(operands).astype(np.uint32), np.zeros(32, np.uint32)
    loads = "".join(f"ld.global.b32 %r{10 + n}, [%d3+{128 * n}];" for n in range(len(operands)))
    run(f"{loads} {instruction}; st.global.b32 [%d4], %r9;", given, out)
    return out


SIGNED = words(32).view(np.int32), words(32, 1).view(np.int32)
INTEGERS = {
    "add.s32 %r9, %r10, %r11": lambda a, b, c: a + b,
    "mul.lo.s32 %r9, %r10, %r11": lambda a, b, c: a * b,
    "mul.hi.u32 %r9, %r10, %r11": lambda a, b, c: (a.astype(np.uint64) * b) >> 32,
    "mul.hi.s32 %r9, %r10, %r11": lambda a, b, c: (a.view(np.int32).astype(np.int64) * b.view(np.int32)) >> 32,
    "mad.lo.s32 %r9, %r10, %r11, %r12": lambda a, b, c: a * b + c,
    "shl.b32 %r9, %r10, 5": lambda a, b, c: a << np.uint32(5),
    "shl.b32 %r9, %r10, 32": lambda a, b, c: a * np.uint32(0),
    "shr.s32 %r9, %r10, 40": lambda a, b, c: a.view(np.int32) >> 31,
    "bfe.u32 %r9, %r10, 3, 7": lambda a, b, c: (a >> np.uint32(3)) & np.uint32(127),
    "bfe.s32 %r9, %r10, 3, 7": lambda a, b, c: (a << np.uint32(22)).view(np.int32) >> 25,
    "bfi.b32 %r9, %r10, %r11, 4, 8": lambda a, b, c: (b & ~np.uint32(0xFF0)) | ((a & np.uint32(255)) << np.uint32(4)),
    "lop3.b32 %r9, %r10, %r11, %r12, 0xCA": lambda a, b, c: (a & b) | (~a & c),
    "prmt.b32 %r9, %r10, %r11, 0x7531": lambda a, b, c: _bytes(a, b, (1, 3, 5, 7)),
    "shf.l.wrap.b32 %r9, %r10, %r11, 8": lambda a, b, c: (b << np.uint32(8)) | (a >> np.uint32(24)),
    "div.s32 %r9, %r10, %r11": lambda a, b, c: np.fix(a.view(np.int32) / b.view(np.int32).astype(float)).astype(int),
    "rem.u32 %r9, %r10, %r11": lambda a, b, c: a % b,
    "max.s32 %r9, %r10, %r11": lambda a, b, c: np.maximum(a.view(np.int32), b.view(np.int32)),
    "popc.b32 %r9, %r10": lambda a, b, c: np.array([int(x).bit_count() for x in a]),
    "clz.b32 %r9, %r10": lambda a, b, c: np.array([32 - int(x).bit_length() for x in a]),
    "redux.sync.add.s32 %r9, %r10, -1": lambda a, b, c: np.full(32, a.sum(dtype=np.uint32)),
    "shfl.sync.bfly.b32 %r9, %r10, 5, 31, -1": lambda a, b, c: a[np.arange(32) ^ 5],
    "shfl.sync.idx.b32 %r9, %r10, 7, 31, -1": lambda a, b, c: np.full(32, a[7]),
    "shfl.sync.up.b32 %r9, %r10, 3, 0, -1": lambda a, b, c: np.concatenate([a[:3], a[:29]]),
}


def _bytes(a, b, which):
    both = np.stack([a, b], 1).view(np.uint8)
    return np.ascontiguousarray(both[:, list(which)]).view(np.uint32)[:, 0]


@pytest.mark.parametrize("instruction", INTEGERS)
def test_integers(instruction):
    given = [words(32, n) for n in range(3)]
    want = INTEGERS[instruction](*given)
    np.testing.assert_array_equal(
        lane_by_lane(instruction, *given), np.asarray(want).astype(np.int64).astype(np.uint32)
    )


def test_conversions_round_as_pytorch_does():
    values = np.concatenate([floats(20), [1e-7, 6e-8, -3e-5, 65519, 65520, 1e30, np.inf, 1 + 2**-8, 1 + 3 * 2**-8]])
    values = np.resize(values, 32).astype(np.float32)
    for name, dtype in (("bf16", torch.bfloat16), ("f16", torch.float16)):
        down = lane_by_lane(f"cvt.rn.{name}.f32 %h1, %r10; cvt.u32.u16 %r9, %h1", values.view(np.uint32))
        want = torch.from_numpy(values).to(dtype)
        np.testing.assert_array_equal(down.astype(np.int16), want.view(torch.int16).numpy())
        up = lane_by_lane(f"cvt.u16.u32 %h1, %r10; cvt.f32.{name} %r9, %h1", down)
        np.testing.assert_array_equal(up.view(np.float32), want.float().numpy())
    whole = lane_by_lane("cvt.rzi.s32.f32 %r9, %r10", (100 * values[:20].repeat(2)[:32]).view(np.uint32))
    np.testing.assert_array_equal(whole.view(np.int32), np.trunc(100 * values[:20].repeat(2)[:32]))


def test_comparisons_with_nan():
    a = np.array([1, 2, np.nan, 3] * 8, np.float32)
    b = np.array([2, 2, 1, np.nan] * 8, np.float32)
    for mode, want in {
        "lt": [1, 0, 0, 0],
        "neu": [1, 0, 1, 1],
        "ne": [1, 0, 0, 0],
        "ltu": [1, 0, 1, 1],
        "num": [1, 1, 0, 0],
    }.items():
        found = lane_by_lane(
            f"setp.{mode}.f32 %p1, %r10, %r11; selp.b32 %r9, 1, 0, %p1", a.view(np.uint32), b.view(np.uint32)
        )
        np.testing.assert_array_equal(found, want * 8, mode)


MMA = {
    "m16n8k16.row.col.f32.bf16.bf16.f32": (torch.bfloat16, 16),
    "m16n8k16.row.col.f32.f16.f16.f32": (torch.float16, 16),
    "m16n8k8.row.col.f32.tf32.tf32.f32": (torch.float32, 8),
}


@pytest.mark.parametrize("shape", MMA)
def test_mma_with_operands_by_ldmatrix(shape):
    """D = A B + C with the fragments loaded by ldmatrix, as compilers do it: A by rows, B by columns."""
    dtype, K = MMA[shape]
    generator = torch.Generator().manual_seed(0)
    A, B = (torch.randn(n, K, generator=generator).to(dtype) for n in (16, 8))
    if dtype == torch.float32:  # what the unit sees
        A, B = ((t.view(torch.int32) & ~0x1FFF).view(torch.float32) for t in (A, B))
    given, out = torch.cat([A, B]).contiguous(), np.zeros((32, 4), np.float32)
    row = given[0].nbytes
    assert row == 32
    body = f"""
    // every lane copies 16 bytes at a time of the 24 rows of {row} bytes to shared memory
    shl.b32 %r6, %r0, 4; cvt.u64.u32 %d5, %r6; add.s64 %d5, %d0, %d5; add.s32 %r7, %r4, %r6;
    ld.global.v4.b32 {{%r10, %r11, %r12, %r13}}, [%d5]; st.shared.v4.b32 [%r7], {{%r10, %r11, %r12, %r13}};
    setp.lt.u32 %p1, %r0, 16;
    @%p1 ld.global.v4.b32 {{%r10, %r11, %r12, %r13}}, [%d5+512];
    @%p1 st.shared.v4.b32 [%r7+512], {{%r10, %r11, %r12, %r13}};
    bar.sync 0;
    // matrix m of A: rows 8 (m % 2), columns 16 (m / 2) bytes; of B: columns 16 m bytes
    and.b32 %r20, %r0, 15; shl.b32 %r20, %r20, 5; shr.u32 %r21, %r0, 4; shl.b32 %r21, %r21, 4;
    add.s32 %r20, %r20, %r21; add.s32 %r20, %r20, %r4;
    ldmatrix.sync.aligned.m8n8.x4.shared.b16 {{%r30, %r31, %r32, %r33}}, [%r20];
    and.b32 %r22, %r0, 7; shl.b32 %r22, %r22, 5; bfe.u32 %r23, %r0, 3, 1; shl.b32 %r23, %r23, 4;
    add.s32 %r22, %r22, %r23; add.s32 %r22, %r22, %r4;
    ldmatrix.sync.aligned.m8n8.x2.shared.b16 {{%r34, %r35}}, [%r22+512];
    mov.b32 %r40, 0f3F800000;
    mma.sync.aligned.{shape}
        {{%r50, %r51, %r52, %r53}}, {{%r30, %r31, %r32, %r33}}, {{%r34, %r35}}, {{%r40, %r40, %r40, %r40}};
    shl.b32 %r60, %r0, 4; cvt.u64.u32 %d6, %r60; add.s64 %d6, %d1, %d6;
    st.global.v4.b32 [%d6], {{%r50, %r51, %r52, %r53}};
    """
    run(body, given.view(torch.uint8).numpy(), out)
    found = np.zeros((16, 8), np.float32)
    for lane in range(32):
        for e in range(4):
            found[lane // 4 + 8 * (e // 2), lane % 4 * 2 + e % 2] = out[lane, e]
    want = A.double() @ B.double().T + 1
    np.testing.assert_allclose(found, want.numpy(), rtol=1e-5, atol=1e-5)


def test_ldmatrix_transposes():
    given, out = words(32), np.zeros(32, np.uint32)
    run(
        """ld.global.b32 %r10, [%d3]; st.shared.b32 [%r5], %r10; bar.sync 0;
        and.b32 %r6, %r0, 7; shl.b32 %r6, %r6, 4; add.s32 %r6, %r6, %r4;
        ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%r9}, [%r6]; st.global.b32 [%d4], %r9;""",
        given,
        out,
    )
    matrix = given.view(np.uint16).reshape(8, 8)
    np.testing.assert_array_equal(out.view(np.uint16).reshape(8, 8), matrix.T)


def test_stmatrix_is_what_ldmatrix_reads():
    for turned in ("", ".trans"):
        given, out = words(32), np.zeros(32, np.uint32)
        body = f"""ld.global.b32 %r10, [%d3]; and.b32 %r6, %r0, 7; shl.b32 %r6, %r6, 4; add.s32 %r6, %r6, %r4;
            stmatrix.sync.aligned.m8n8.x1{turned}.shared.b16 [%r6], {{%r10}}; bar.sync 0;
            ld.shared.b32 %r9, [%r5]; st.global.b32 [%d4], %r9;"""
        run(body, given, out)
        held, matrix = out.view(np.uint16).reshape(8, 8), given.view(np.uint16).reshape(8, 8)
        np.testing.assert_array_equal(held, matrix.T if turned else matrix)


HOPPER = HEAD.replace("sm_80", "sm_90a")
WGMMA = {  # numbers, swizzle (bytes of a row), A in registers, B across K
    "bfloat16 in rows of 128": (torch.bfloat16, 128, False, False),
    "bfloat16 in rows of 64": (torch.bfloat16, 64, False, False),
    "float16 in rows of 32": (torch.float16, 32, False, False),
    "bfloat16, not swizzled": (torch.bfloat16, 16, False, False),
    "bfloat16, B across K": (torch.bfloat16, 128, False, True),
    "bfloat16, B across K in rows of 32": (torch.bfloat16, 32, False, True),
    "bfloat16, B across K, not swizzled": (torch.bfloat16, 16, False, True),
    "bfloat16, A in registers": (torch.bfloat16, 64, True, False),
    "tf32 in rows of 128": (torch.float32, 128, False, False),
    "tf32, A in registers": (torch.float32, 32, True, False),
    "e4m3 in rows of 128": (torch.float8_e4m3fn, 128, False, False),
    "e4m3, A in registers": (torch.float8_e4m3fn, 64, True, False),
}
N = 16


def laid_out(matrix: np.ndarray, width: int, across: bool = False) -> tuple[np.ndarray, int]:
    """A matrix [rows, K] of 32 bytes along K as wgmma wants it in 8192 bytes of shared memory, and its descriptor.

    Written from the manual's picture of core matrices, 8 rows of 16 bytes, and not from the executor's formula.
    """
    memory, size = np.zeros(8192, np.uint8), matrix.itemsize
    mode = {16: 0, 128: 1, 64: 2, 32: 3}[width]
    rows, K = matrix.shape
    eights = -(-rows // 8)
    if not across and width == 16:
        leading, stride = 128 * eights, 128  # core matrices beside one another along K, below one another along rows
    elif not across:
        leading, stride = 16, 8 * width
    elif width == 16:
        leading, stride = 128 * eights, 128
    else:
        stride, leading = 8 * width, 2 * 8 * width
    for r in range(rows):
        for k in range(K):
            if not across and width == 16:
                at = (r // 8) * stride + (k * size // 16) * leading + (r % 8) * 16 + k * size % 16
            elif not across:
                at = (r // 8) * stride + (r % 8) * width + k * size
            elif width == 16:
                at = (r // 8) * stride + (k // 8) * leading + (k % 8) * 16 + (r % 8) * size
            else:
                at = (r * size // width) * leading + (k // 8) * stride + (k % 8) * width + r * size % width
            if width > 16:  # the 16 bytes of a row are turned about by the row's number in 1024 bytes, 128 at a time
                at ^= (at // 128 % (width // 16)) * 16
            memory[at : at + size] = matrix[r, k : k + 1].view(np.uint8)
    return memory, leading >> 4 << 16 | stride >> 4 << 32 | mode << 62


def product(numbers, width, registers, across, before="wgmma.fence.sync.aligned;", after="", fence=True, wait=True):
    """(found, wanted) of D = A B + 1 for A [64, K], B [K, N]."""
    K = 32 // numbers.itemsize
    generator = torch.Generator().manual_seed(0)
    A, B = (torch.randn(n, K, generator=generator).to(numbers) for n in (64, N))
    if numbers == torch.float32:
        A, B = ((t.view(torch.int32) & ~0x1FFF).view(torch.float32) for t in (A, B))
    bits = lambda t: t.view({4: torch.int32, 2: torch.int16, 1: torch.int8}[t.itemsize]).numpy()  # noqa: E731
    a, of_a = laid_out(bits(A), width)
    b, of_b = laid_out(bits(B), width, across)
    fragments = np.zeros((128, 4), np.uint32)  # of A
    per = 4 // numbers.itemsize
    for thread in range(128):
        for n in range(4):
            row = thread // 32 * 16 + thread % 32 // 4 + 8 * (n % 2)
            column = thread % 4 * per + 4 * per * (n // 2)
            fragments[thread, n] = np.ascontiguousarray(bits(A)[row, column : column + per]).view(np.uint32)[0]
    given = torch.empty(16384 + 2048, dtype=torch.uint8).numpy()  # aligned to 64 bytes
    given[:8192], given[8192:16384], given[16384:] = a, b, fragments.view(np.uint8).ravel()
    out = np.zeros((128, N // 2), np.float32)
    name = {2: "f16", 4: "tf32", 1: "e4m3"}[numbers.itemsize] if numbers != torch.bfloat16 else "bf16"
    sums = ", ".join(f"%r{n}" for n in range(40, 40 + N // 2))
    turns = "" if name in ("tf32", "e4m3") else f", {int(across)}" if registers else f", 0, {int(across)}"
    left = "{%r30, %r31, %r32, %r33}" if registers else "%d10"
    body = f"""
    shl.b32 %r6, %r0, 4; cvt.u64.u32 %d5, %r6; add.s64 %d5, %d0, %d5; add.s32 %r7, %r4, %r6; mov.u32 %r8, 0;
    COPY: ld.global.v4.b32 {{%r10, %r11, %r12, %r13}}, [%d5]; st.shared.v4.b32 [%r7], {{%r10, %r11, %r12, %r13}};
    add.s64 %d5, %d5, 2048; add.s32 %r7, %r7, 2048; add.s32 %r8, %r8, 1; setp.lt.u32 %p1, %r8, 8; @%p1 bra COPY;
    ld.global.v4.b32 {{%r30, %r31, %r32, %r33}}, [%d5];
    {"fence.proxy.async.shared::cta;" if fence else ""} bar.sync 0;
    {"".join(f"mov.b32 %r{n}, 0f3F800000;" for n in range(40, 40 + N // 2))}
    shr.u32 %r20, %r4, 4; cvt.u64.u32 %d9, %r20; add.s64 %d10, %d9, {of_a}; add.s64 %d11, %d9, {of_b + 512};
    mov.pred %p2, -1; {before}
    wgmma.mma_async.sync.aligned.m64n{N}k{K}.f32.{name}.{name} {{{sums}}}, {left}, %d11, %p2, 1, 1{turns};
    wgmma.commit_group.sync.aligned; {after} {"wgmma.wait_group.sync.aligned 0;" if wait else ""}
    shl.b32 %r21, %r0, 5; cvt.u64.u32 %d6, %r21; add.s64 %d6, %d1, %d6;
    st.global.v4.b32 [%d6], {{%r40, %r41, %r42, %r43}}; st.global.v4.b32 [%d6+16], {{%r44, %r45, %r46, %r47}};
    """
    run(body, given, out, threads=128, head=HOPPER)
    found = np.zeros((64, N), np.float32)
    for thread in range(128):
        for e in range(N // 2):
            row = thread // 32 * 16 + thread % 32 // 4 + 8 * (e // 2 % 2)
            found[row, e // 4 * 8 + thread % 4 * 2 + e % 2] = out[thread, e]
    return found, (A.double() @ B.double().T + 1).numpy()


@pytest.mark.parametrize("what", WGMMA)
def test_wgmma(what):
    found, wanted = product(*WGMMA[what])
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_wgmma_is_waited_for_and_fenced():
    usual = torch.bfloat16, 128, False, False
    assert np.isnan(product(*usual, wait=False)[0]).all()  # the registers hold nothing yet
    for message, options in {
        "without a wgmma.fence": {"before": ""},
        "no fence.proxy.async between": {"fence": False},
        "written while a wgmma on its way reads it": {"after": "bar.sync 0; st.shared.b32 [%r5], %r0;"},
    }.items():
        with pytest.raises(PtxError, match=message):
            product(*usual, **options)


def test_lanes_part_and_meet_again():
    """Also where the compiler has moved a part before the branch."""
    out = np.zeros(64, np.uint32)
    body = """
    mov.u32 %r9, 0; and.b32 %r10, %r0, 3; bra.uni START;
    BACK: add.s32 %r9, %r9, 100; bra.uni MEET;
    START: setp.eq.u32 %p1, %r10, 1; @%p1 bra BACK;
    LOOP: add.s32 %r9, %r9, 1; setp.lt.u32 %p2, %r9, %r10; @%p2 bra LOOP;
    MEET: bar.sync 0; st.global.b32 [%d4], %r9;
    """
    run(body, out, out, threads=64)
    np.testing.assert_array_equal(out, [1, 100, 2, 3] * 16)


def test_copies_arrive_and_are_cut_short():
    given, out = words(64), np.zeros(64, np.uint32)
    body = """
    setp.lt.u32 %p1, %r0, 40; selp.b32 %r9, 4, 0, %p1;
    cp.async.ca.shared.global [%r5], [%d3], 4, %r9; cp.async.commit_group; cp.async.wait_group 0;
    bar.sync 0; xor.b32 %r10, %r5, 4; ld.shared.b32 %r11, [%r10]; st.global.b32 [%d4], %r11;
    """
    run(body, given, out, threads=64)
    np.testing.assert_array_equal(out, np.where(np.arange(64) < 40, given, 0)[np.arange(64) ^ 1])


def test_atomics_add_up_across_blocks():
    given, out = np.ones(128, np.float32), np.zeros(1, np.float32)
    run("ld.global.b32 %r9, [%d3]; red.global.add.f32 [%d1], %r9;", given, out, grid=(2, 1, 1), threads=64)
    assert out[0] == 128


def test_counts():
    given, out = words(128), np.zeros(128, np.uint32)
    body = """
    ld.global.b32 %r9, [%d3]; shl.b32 %r6, %r0, 7; and.b32 %r6, %r6, 4095; add.s32 %r6, %r6, %r4;
    setp.eq.u32 %p1, %r1, 0; @%p1 st.shared.b32 [%r6], %r9; st.global.b32 [%d4], %r9; bar.sync 0;"""
    counts = run(body, given, out, threads=32, grid=(2, 1, 1), count_memory=True)
    k = kernel(body)
    k._decode()
    row = {op: counts.rows[n] for n, op in enumerate(k.ops)}
    assert list(row["ld.global.b32"]) == [2, 64, 8, 0]  # two warps, four sectors each
    assert list(row["st.shared.b32"]) == [2, 32, 0, 32]  # in one of them, every lane in the same bank
    assert counts.barriers == 2


FAULTS = {
    "out of bounds": ("ld.global.b32 %r9, [%d3+256]; st.global.b32 [%d4], %r9;", "out of bounds: 4 bytes of global"),
    "before the start": ("ld.global.b32 %r9, [%d3+-256];", "out of bounds"),
    "shared out of bounds": ("st.shared.b32 [%r5+4096], %r0;", "shared memory"),
    "misaligned": ("ld.global.b32 %r9, [%d3+2];", "misaligned: 4 bytes"),
    "misaligned vector": ("ld.global.v2.b32 {%r9, %r10}, [%d3];", "misaligned: 8 bytes"),
    "uninitialised shared": ("ld.shared.b32 %r9, [%r5];", "uninitialised: shared"),
    "missing barrier": (
        "st.shared.b32 [%r5], %r0; xor.b32 %r6, %r5, 128; ld.shared.b32 %r7, [%r6];",
        "uninitialised: shared|race in shared memory.*written, then read",
    ),
    "missing second barrier": (
        "st.shared.b32 [%r5], %r0; bar.sync 0; xor.b32 %r6, %r5, 128; ld.shared.b32 %r7, [%r6];"
        "st.shared.b32 [%r5], %r7;",
        "race in shared memory.*(read, then written|written, then read)",
    ),
    "lanes of a warp": (
        "st.shared.b32 [%r5], %r0; xor.b32 %r6, %r5, 4; ld.shared.b32 %r7, [%r6];",
        "race in shared memory",
    ),
    "two threads write": ("st.shared.b32 [%r4], %r0;", "written, then written otherwise"),
    "blocks write": ("st.global.b32 [%d1], %r2;", "race in global memory.*written, then written otherwise"),
    "block reads what another writes": (
        "setp.eq.u32 %p1, %r2, 5; @%p1 st.global.b32 [%d1+64], %r0; setp.eq.u32 %p2, %r2, 70;"
        "@%p2 ld.global.b32 %r9, [%d1+64];",
        "race in global memory.*written, then read",
    ),
    "barrier in a branch": ("setp.lt.u32 %p1, %r0, 9; @%p1 bra OVER; bar.sync 0; OVER: mov.u32 %r9, 0;", "alone"),
    "warp misses a barrier": ("setp.lt.u32 %p1, %r0, 32; @%p1 bra OVER; bar.sync 0; OVER: mov.u32 %r9, 0;", "not all"),
    "copy not waited for": (
        "cp.async.ca.shared.global [%r5], [%d3], 4; cp.async.commit_group; ld.shared.b32 %r9, [%r5];",
        "cp.async data read before",
    ),
    "stale stage": (  # two groups on their way, one of them waited for
        "cp.async.ca.shared.global [%r5], [%d3], 4; cp.async.commit_group;"
        "cp.async.ca.shared.global [%r5+256], [%d3], 4; cp.async.commit_group; cp.async.wait_group 1; bar.sync 0;"
        "ld.shared.b32 %r9, [%r5]; ld.shared.b32 %r10, [%r5+256];",
        r"cp.async data read before(.|\n)*\+256",
    ),
    "copy without a barrier": (
        "cp.async.ca.shared.global [%r5], [%d3], 4; cp.async.wait_all;xor.b32 %r6, %r5, 128; ld.shared.b32 %r7, [%r6];",
        "cp.async data read before|race|uninitialised",
    ),
    "absent lane": ("setp.lt.u32 %p1, %r0, 8; @%p1 shfl.sync.bfly.b32 %r9, %r0, 1, 31, -1;", "only 0xff are here"),
    "part of a warp at mma": (
        "setp.lt.u32 %p1, %r0, 8; @%p1 ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r9}, [%r4];",
        "whole warp",
    ),
    "no end": ("FOREVER: bra FOREVER;", "does not end"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault(fault, monkeypatch):
    monkeypatch.setattr(program, "FUEL", 10_000)
    body, message = FAULTS[fault]
    given, out = words(64), np.zeros(128, np.uint32)
    with pytest.raises(PtxError, match=f"(?s){message}") as caught:
        run(body, given, out, threads=64, grid=(2 if "block" in fault else 1, 1, 1))
    assert "by thread" in str(caught.value) and "k: " in str(caught.value)  # who, and where


def test_uninitialised_global_memory():
    given, out, written = words(32), np.zeros(64, np.uint32), np.zeros(256, np.uint8)
    run("st.global.b32 [%d4], %r0; ld.global.b32 %r9, [%d4];", given, out, written=written)
    assert written[:128].all() and not written[128:].any()
    with pytest.raises(PtxError, match="uninitialised: global"):
        run("ld.global.b32 %r9, [%d4+128];", given, out, written=written)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"grid": (1, 65536, 1)}, "grid's y must be 1 to 65535"),
        ({"grid": (1, 1, 65536)}, "grid's z"),
        ({"grid": (0, 1, 1)}, "grid's x"),
        ({"threads": 1056}, "1 to 1024 threads"),
        ({"shared": 163 * 1024}, "bytes of shared memory, a block may have 166912"),
    ],
)
def test_limits_of_a_launch(options, message):
    with pytest.raises(PtxError, match=message):
        run("mov.u32 %r9, 0;", words(32), words(32), **options)


def test_what_is_not_modelled_is_refused():
    with pytest.raises(NotImplementedError, match="not modelled: mbarrier.init"):
        run("mbarrier.init.shared.b64 [%r4], 1;", words(32), words(32))
