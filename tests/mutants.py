"""Deliberately broken kernels, which ``tests.ops.table.check`` must all reject; ``tests/test_mutants.py`` runs them.

``python -m tests.mutants cpp`` builds the C++ sources once with every change of ``CPP`` behind a switch, and tries one
after the other; ``python -m tests.mutants triton`` loads a changed copy of a Triton file for each change of ``TRITON``,
in the interpreter. One that nothing rejects is a missing test: printed, and the exit status is 1.

A change is (text, what else), by op: the part of the text between « and » is replaced, in the op's own file unless a
third value names another.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from tests import native

ROOT = native.ROOT
CPP_FILE = "{0}/{0}_cpu.cpp"

CPP = {
    "annotated_norm": [
        ("unit * «load(gain + c, C - c)» + load(shift", "splat(1.0f)"),
        ("squares / static_cast<float>(«C - 1»))};", "C"),
        ("            const float inverse = 1.0f / (m.std + «eps»);\n            for", "0.0f"),
        ("*sum_gain = partial + «task» * 2 * C", "0"),
        ("drop_row(dropout, «n * C», C, to, grad_x", "0"),
    ],
    "best_hypothesis": [
        ("store(e + s, sum / static_cast<float>(«J»), S - s);", "3 * J"),
        ("if («e[s] < e[best] || e[s] != e[s]») best = s;", "e[s] > e[best]"),
    ],
    "denoise": [
        ("Relu{}, Bias{«shift && !apart ? shift + l * C : nullptr»}));", "nullptr"),
        ("*q = qkv + h * d, *k = q + «s.C»", "0"),
        ("mix<true>(G, s.J, t.n, poses, C, t.h, «w.fc2_bias + l * C»);", "nullptr"),
    ],
    "encoder_layer": [
        ("frame, tile, «position», T);", "static_cast<const E*>(nullptr)"),
        ("read = o % outputs * stride + tap - «taps / 2»;", "0"),
        ("read >= 0 && read < «T»;", "T + 1"),
    ],
    "strided_feed_forward": [
        ("end > begin && first + (end - 1) * stride >= «T») --end;", "T + 1", "include/posekernels/frames.h"),
        ("v = relu(v + «b1[n]»);", "0.0f"),
        ("lane0 * stride) * O, «stride * O», O, 0, end, kept);", "O"),
        ("«keep_lanes(keep, v)», keep_lanes(keep >> lanes, w));", "v"),
    ],
    "graph_conv": [
        ("panel_of(«modulation», J, Cout, column, n, 1.0f, factor + k * J * panel);", "nullptr"),
        (
            "+ d) * J + j] = adjacency[«(structure.dense_k[d] * J + i) * J + j»];",
            "(structure.dense_k[d] * J + j) * J + i",
        ),
        ("store(out, «d» ? v + load(out) : v);", "0"),
    ],
    "graph_network": [
        ("layer.affine + layer.Cout, «at(layer.residual)», out", "nullptr"),
        ("nullptr, layer.modulation, «layer.affine»,", "nullptr"),
    ],
    "hierarchy_block": [
        ("joint[r] = static_cast<int32_t>(«r % J»);", "0"),
        ("head = pair % w.heads * «D»;", "0"),
    ],
    "hierarchy_network": [
        ("load(ends.position + «joint[r]» * ld + c, ld - c);", "0", "hierarchy_block/hierarchy_block_cpu.cpp"),
        ("sum(v) + ends.head_bias[«o»]", "0", "hierarchy_block/hierarchy_block_cpu.cpp"),
    ],
    "joint_attention": [
        ("first, count, H), «mask ? &allowed : nullptr», rows,", "nullptr"),
        ("(«load(d + m * lanes) - mean») * scale);", "load(d + m * lanes)"),
        ("rows[l] = out + (first + l) / H * N * H * D + «(first + l) % H * D»;", "(H - 1 - (first + l) % H) * D"),
    ],
    "merge_hypotheses": [
        ("const float* m = second + 3 * «mirrored[j]»;", "j"),
        ("if (root >= 0) y[3 * «root»] =", "0"),
        ("y[3 * j + 1] = (first[3 * j + 1] + m[«1»]) * 0.5f;", "2"),
    ],
    "norm_activation": [
        ("s.put(grad_x + r * C, v, z > 0.0f ? g : «g * slope»);", "Vec{}"),
        ("of_scale[v] = «s.get(grad_weight, v) * share»;", "Vec{}"),
        ("return (x - «mean[v]») * scale[v] + bias[v];", "Vec{}"),
    ],
    "procrustes": [
        ("const Vec y = «g.scale» * turned(g, j, c);", "splat(1.0f)"),
        ("load(p + lanes) * g.R[«3 + c»]", "3 * c + 1"),
        ("- sum_p[i] * share) * «to_p»;", "splat(1.0f)"),
        ("sum / static_cast<float>(J) * «g.size_t», count", "g.size_p"),
    ],
    "relative_encoding": [
        ("minus(value, frame[«f»]);", "F + f"),
        ("(row / T * T + «T / 2») * J * F;", "(T > 1 ? T / 2 - 1 : 0)"),
        ("frame[f] -= «to_root»;", "0.0f"),
    ],
    "sample_hypotheses": [
        ("static_cast<uint32_t>(pose), static_cast<uint32_t>(«pose >> 32»)},", "0"),
        ("«load(spread + at + k * lanes)» * ordered[k];", "splat(0.5f)"),
    ],
    "strided_temporal_conv": [
        ("((row + r) * stride + «tap») * g.N", "0"),
        ("y, g.N, height, g.N, «g.K»,", "g.K - 1"),
    ],
    "temporal_attention": [
        ("return {«padding ? padding + b * S : nullptr», causal", "nullptr"),
        ("causal, «lane0 + S - T»};", "lane0 + S - T + 1"),
        ("const Vec ds = weight * («load(dp + i) - along») * scale;", "load(dp + i)"),
        ("weights, S, «sign», visible", "1.0f", "include/posekernels/frames.h"),
        (
            "const Vec p1 = exp2_nonpositive((load(w + s * panel) - «top») * factor);\n            const Vec p2",
            "Vec{}",
            "include/posekernels/frames.h",
        ),
    ],
    "temporal_mlp": [
        ("load(x + t * lanes) + (value * scale[t] + «shift[t]»));", "0.0f"),
        ("for (int64_t group = 0; group < «groups»; ++group) v +=", "1"),
        ("variance = squares / «n» - off * off", "n - 1.0f"),
        ("for (; «t < s.T»; ++t)\n            moments_of_rows<1>", "false"),
    ],
    "temporal_networks": [
        ("const int64_t skipped = «layer.tap» * layer.N", "0"),
        ("LeakyRelu{«static_cast<float>(layer.slope)»}, add)", "0.0f"),
    ],
    "transformer_block": [
        ("layer_norm_row(h + r * C, C, gain2, «shift2», eps, a + r * C);", "shift1"),
        ("attend(q, q + width, q + «2 * width», 3 * width", "width"),
    ],
}

TRITON = {
    "annotated_norm": [
        ("y = centred / (tl.sqrt(squares / («C - 1»)) + eps)", "C"),
        ("slope = tl.where(constant, 0.0, «along» * inverse", "0.0"),
    ],
    "hierarchy_block": [
        ("outer = «limb >= 0»", "limb > 0"),
        ("y = _where(«part == 0», add_pieces(limb", "part == 1"),
        ("mean += _total(_rows(out_ptr + «level * C», 3 * C", "0"),
        ("scores = tl.where((place < «J»)[None, :]", "J + 1"),
    ],
    "transformer_block": [
        ('weights, heads, «scale», eps, "triton"', "1.0"),
        ('eps, "triton", «annotated_norm.layer_norm»)', "lambda x, *rest: annotated_norm.layer_norm(x * 2, *rest)"),
    ],
    "strided_temporal_conv": [
        ("found = tl.where(group == «i», values[i], found)", "0"),
        ("_of(stride, group) + «_of(tap, group)») * columns)", "0"),
    ],
    "joint_attention": [
        ("seen = «seen & (allowed != 0)»", "seen"),
        ("seen = (token < N)[None, :, None] & (token < «N»)[None, None, :]", "N + 1"),
        ("out_rows = _rows(out_ptr, pair, H, N * H * D, «H * D, D», BLOCK_N)\n    scores", "D, N * D"),
    ],
    "temporal_attention": [
        ("(key[None, :] «<=» query[:, None] + (S - T))", "<"),
        ("seen = «seen & (padding == 0)[None, :]»", "seen"),
        ("«total * rescale» + tl.sum(p, 1)", "total"),
    ],
    "merge_hypotheses": [
        ("0.5 * (y + tl.where((place % 3 == «0»)[None, :], -back, back))", "1"),
        ("grad = tl.where((joint == «root»)[None, :], 0.0, grad)", "0"),
    ],
}


def each(table: dict, file: str) -> list[tuple[str, str, str, str]]:
    """(op, file, text, what else) of every change."""
    return [(op, *(other or [file.format(op)]), text, new) for op, all in table.items() for text, new, *other in all]


def changed(text: str, context: str, new: str, switch: int | None) -> str:
    """``text`` with the marked part of ``context``, found in it exactly once, replaced; in C++ behind a switch."""
    before, rest = context.split("«")
    old, after = rest.split("»")
    whole = before + old + after
    if text.count(whole) != 1:
        raise ValueError(f"{text.count(whole)} times in the source, must be once: {whole}")
    new = new if switch is None else f"(posekernels::mutant == {switch} ? ({new}) : ({old}))"
    return text.replace(whole, before + new + after)


def _write(path: Path, text: str) -> None:
    """Only if it is another text: what has not changed is not compiled again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def build_cpp(name: str = "mutants", more: list[tuple[str, str, str, str]] = (), sanitize: str = "") -> Path:
    """The module with every change of ``CPP`` and ``more`` in it, the n-th (from 1) after ``choose_mutant(1, n)``."""
    texts = {
        str(p.relative_to(ROOT / "csrc")): p.read_text()
        for p in (ROOT / "csrc").rglob("*")
        if p.suffix in (".cpp", ".h")
    }
    changes = [*each(CPP, CPP_FILE), *more]
    for number, (_, file, context, new) in enumerate(changes, 1):
        texts[file] = changed(texts[file], context, new, number)
    for file in {file for _, file, *_ in changes}:
        declared = "#include <cstdint>\nnamespace posekernels {\nextern int64_t mutant, *raced;\n}\n"
        texts[file] = texts[file].replace("#pragma once\n", "", 1)
        guard = "#pragma once\n" if file.endswith(".h") else ""
        texts[file] = guard + declared + texts[file]
    texts["core/mutant_cpu.cpp"] = (
        '#include "posekernels/registry.h"\n'
        "namespace posekernels {\nint64_t mutant = 0, races[1 << 16], *raced = races;\n}\n"  # each time another place
        "POSEKERNELS_BEGIN\nvoid choose_mutant(int64_t number) { mutant = number, ++raced; }\n"
        "POSEKERNELS_KERNEL(choose_mutant)\nPOSEKERNELS_END\n"
    )
    tree = ROOT / "build" / f"{name}-csrc"
    if tree.exists():
        for path in tree.rglob("*.*"):
            if str(path.relative_to(tree)) not in texts:
                path.unlink()
    for file, text in texts.items():
        _write(tree / file, text)
    return native.build(name, csrc=tree, sanitize=sanitize)


def rejected(op: str, backend: str, drawn: int) -> str | None:
    """Why ``check`` rejects this backend of an op, on the usual problem or ``drawn`` others; None if it does not."""
    from tests.ops.table import OPS, Choices, Random, check

    dtypes = OPS[op].dtypes(backend)[: None if backend == "cpu" else 1]
    problems = [(Choices(), dtype) for dtype in dtypes] + [(Random(n), dtypes[n % len(dtypes)]) for n in range(drawn)]
    for choices, dtype in problems:
        problem = OPS[op].make(choices)
        try:
            check(OPS[op], problem, backend, dtype, gradients=dtype.itemsize == 4)
        except AssertionError as error:
            return str(error).splitlines()[0]
        except RuntimeError as error:  # the kernel itself refuses
            return f"{type(error).__name__}: {error}"
    return None


def try_cpp() -> int:
    core = native.load(build_cpp())
    survivors = 0
    for op in CPP:
        why = rejected(op, "cpu", 12)
        if why:
            raise RuntimeError(f"{op} fails unchanged: {why}")
    for number, (op, _, context, new) in enumerate(each(CPP, CPP_FILE), 1):
        core.choose_mutant(1, number)
        survivors += report(op, context, new, rejected(op, "cpu", 12))
    core.choose_mutant(1, 0)
    return survivors


def report(op: str, context: str, new: str, why: str | None) -> int:
    print(f"{op}: {' '.join(context.split())} -> {new}: {why or 'SURVIVES'}", flush=True)
    return why is None


def try_triton() -> int:
    from posekernels import _dispatch

    survivors = 0
    for number, (op, file, context, new) in enumerate(each(TRITON, "ops/{}/triton.py")):
        source = ROOT / "posekernels" / file
        path = ROOT / "build" / "mutants-triton" / f"{op}_{number}.py"
        _write(path, changed(source.read_text(), context, new, None))
        name = f"posekernels.ops.{op}.mutant{number}"  # its package, for the relative imports
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        kept = {raw: kernels["triton"] for raw, kernels in _dispatch.OPS.items() if raw.startswith(op)}
        for raw, kernel in kept.items():
            _dispatch.OPS[raw]["triton"] = _dispatch.Kernel(getattr(module, raw), kernel.missing, kernel.refuses)
        survivors += report(op, context, new, rejected(op, "triton", 2))
        for raw, kernel in kept.items():
            _dispatch.OPS[raw]["triton"] = kernel
    return survivors


def main() -> int:
    survivors = {"cpp": try_cpp, "triton": try_triton}[sys.argv[1]]()
    print(f"{survivors} survive")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
