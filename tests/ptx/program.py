"""PTX text -> a program that the executor runs, and its launch.

The text is taken apart here: registers become places in a warp's register file, labels become numbers, addresses a
register and an offset. What an instruction does is ``executor.cpp``'s, which refuses what it does not know.
"""

from __future__ import annotations

import ctypes
import functools
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .build import library

FUEL = 200_000_000  # instructions of warps that a launch may take
MOST_SHARED = {80: 163 * 1024, 90: 227 * 1024}  # bytes a block may ask for, by compute capability
MOST_THREADS, MOST_GRID = 1024, (2**31 - 1, 65535, 65535)

_BYTES = {"8": 1, "16": 2, "32": 4, "64": 8}
_OPERAND = np.dtype(
    [("kind", np.int32), ("width", np.int32), ("group", np.int32), ("instruction", np.int32), ("value", np.int64)]
)
_REGISTER, _NUMBER, _NEGATED = 0, 1, 2
_STATEMENT = re.compile(r"(?:@(!?)(%[\w$]+)\s+)?([a-z][\w.:]*)\s*(.*)", re.S)
_ADDRESS = re.compile(r"([%\w$.]+)\s*(?:\+\s*(-?\w+))?$")
_ENTRY = re.compile(r"\.entry\s+([\w$]+)\s*\((.*?)\)([^{]*)\{", re.S)
_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.S)
_ARRAY = re.compile(
    r"\.(shared|local|global|const)\s+(?:\.align\s+(\d+)\s+)?\.[bus](\d+)\s+([\w$]+)(?:\[(\d*)\])?\s*(?:=\s*\{([^}]*)\})?"
)


class PtxError(AssertionError):
    """A launch did what a GPU would not forgive, or what no two runs need agree on."""


@dataclass
class Counts:
    """What a launch executed: by instruction the warps, their active lanes, sectors, turns of the banks."""

    rows: np.ndarray  # [instructions, 4] int64
    barriers: int
    distinct_bytes: int  # of global memory


@dataclass
class Buffer:
    """Global memory that a launch may touch.

    Args:
        base, size: bytes.
        written: [size] uint8, 255 where a byte has a value; None: everywhere.
    """

    base: int
    size: int
    written: np.ndarray | None = None


def _number(text: str) -> int:
    """The bits of a PTX literal."""
    if text[:2] in ("0f", "0F", "0d", "0D"):
        return int(text[2:], 16)
    return int(text.rstrip("U"), 0)


def _split(text: str) -> list[str]:
    """Operands, separated by the commas outside brackets."""
    if "{" not in text and "[" not in text:
        return [part.strip() for part in text.split(",")] if text else []
    parts, depth, start = [], 0, 0
    for at, letter in enumerate(text):
        if letter in "{[(":
            depth += 1
        elif letter in "}])":
            depth -= 1
        elif letter == "," and not depth:
            parts.append(text[start:at].strip())
            start = at + 1
    return [*parts, text[start:].strip()]


def _statements(body: str):
    """(text, file and line) of every statement of a kernel's body; braces of inner blocks and labels are their own."""
    source, pending = "", ""
    for line in body.splitlines():
        line = line.strip()
        if line.startswith(".loc"):
            source = " ".join(line.split()[1:3])
            continue
        if not line or line.startswith((".pragma", ".file", ".section")):
            continue
        pending += " " + line if pending else line
        while pending:
            if pending[0] in "{}":
                yield pending[0], source
                pending = pending[1:].lstrip()
                continue
            label = re.match(r"([$\w]+):(?!:)\s*", pending)
            if label:
                yield label.group(1) + ":", source
                pending = pending[label.end() :]
                continue
            end = pending.find(";")
            if end < 0:
                break
            yield pending[:end].strip(), source
            pending = pending[end + 1 :].lstrip()


@dataclass
class Module:
    """PTX text with its kernels by name."""

    text: str
    target: int = field(init=False)
    kernels: dict[str, Kernel] = field(init=False)

    def __post_init__(self):
        text = self.text
        self.target = int(re.search(r"\.target\s+sm_(\d+)", text).group(1))
        files = {n: name for n, name in re.findall(r'\.file\s+(\d+)\s+(?:"[^"]*"\s+)?"([^"]*)"', text)}
        files = {n: Path(name).name for n, name in files.items()}
        plain = _COMMENT.sub("", text)
        entries = list(_ENTRY.finditer(plain))
        between, bodies, at = [], [], 0
        for entry in entries:
            depth, end = 1, entry.end()
            for brace in re.finditer(r"[{}]", plain[end:]):
                depth += 1 if brace.group() == "{" else -1
                if not depth:
                    end += brace.start()
                    break
            between.append(plain[at : entry.start()])
            bodies.append(plain[entry.end() : end])
            at = end + 1
        outside = "".join(between) + plain[at:]
        self.kernels = {
            e.group(1): Kernel(self, e.group(1), e.group(2), body, outside, files) for e, body in zip(entries, bodies)
        }


class Kernel:
    """One kernel of a module. Decoded on its first launch."""

    def __init__(self, module: Module, name: str, parameters: str, body: str, outside: str, files: dict[str, str]):
        self.module, self.name, self.text = module, name, body
        self._outside, self._files = outside, files
        self.parameters: dict[str, tuple[int, int]] = {}  # name -> offset, size
        at = 0
        for given in re.findall(r"\.param([^,]*)", parameters):
            words = re.match(r"(.*?)([\w$]+)(?:\[(\d+)\])?\s*$", given.strip(), re.S)
            size = _BYTES[re.search(r"\.[busf](\d+)", words.group(1)).group(1)]
            align = size
            if words.group(3):
                align = int(re.search(r"\.align\s+(\d+)", words.group(1)).group(1))
                size *= int(words.group(3))
            at = -(-at // align) * align
            self.parameters[words.group(2)] = at, size
            at += size
        self.parameter_bytes = at
        self._handle = None

    def __del__(self):
        if self._handle:
            library().ptx_release(self._handle)

    def _symbols(self):
        """Places of the arrays: shared and local by their offset, constants by their address."""
        self.static_shared = self.local_bytes = 0
        self._symbol: dict[str, int] = {name: at for name, (at, _) in self.parameters.items()}
        self._held: list[np.ndarray] = []
        dynamic = []
        for where in (self._outside, self.text):
            for space, align, bits, name, count, values in _ARRAY.findall(where):
                if name in self._symbol or (space == "shared" and name not in self.text):
                    continue
                align, size = int(align or 1), _BYTES[bits] * int(count or 1)
                if space == "shared" and f"{name}[]" in where:
                    dynamic.append(name)
                elif space == "shared":
                    self.static_shared = -(-self.static_shared // align) * align
                    self._symbol[name] = self.static_shared
                    self.static_shared += size
                elif space == "local":
                    self.local_bytes = -(-self.local_bytes // 16) * 16
                    self._symbol[name] = self.local_bytes
                    self.local_bytes += size
                elif values:
                    kind = {"8": np.uint8, "16": np.uint16, "32": np.uint32, "64": np.uint64}[bits]
                    wanted = [int(v, 0) % 2 ** int(bits) for v in values.split(",")]
                    array = np.zeros(max(16, size // 1), np.uint8)
                    array[:size].view(kind)[: len(wanted)] = wanted
                    self._held.append(array)
                    self._symbol[name] = array.ctypes.data
        self._dynamic_start = -(-self.static_shared // 128) * 128 if dynamic else self.static_shared
        for name in dynamic:
            self._symbol[name] = self._dynamic_start
        self.local_bytes = -(-self.local_bytes // 16) * 16

    def _decode(self) -> int:
        """The executor's program.

        Raises:
            NotImplementedError: an instruction that the executor does not know.
        """
        self._symbols()
        scopes: list[dict[str, tuple[int, int]]] = [{}]
        registers_end = 64  # `_`, where what nobody wants goes
        special: dict[str, int] = {}
        ops, texts, predicates, negated, offsets, targets, operands = [], [], [], [], [], [], []
        labels: dict[str, int] = {}
        numbers: set[int] = set()
        units = {"shared": 16, "global": 16}

        def place(width: int) -> int:
            nonlocal registers_end
            at, registers_end = registers_end, registers_end + 32 * max(width, 2)
            return at

        def declare(text: str) -> None:
            kind, names = re.match(r"\.reg\s+\.(\w+)\s+(.*)", text, re.S).groups()
            width = 0 if kind == "pred" else _BYTES[kind[1:]]
            for name in names.split(","):
                many = re.match(r"\s*([%\w$]+)<(\d+)>", name)
                for one in [f"{many.group(1)}{n}" for n in range(int(many.group(2)))] if many else [name.strip()]:
                    scopes[-1][one] = place(width), width

        def lookup(name: str) -> tuple[int, int] | None:
            for scope in reversed(scopes):
                if name in scope:
                    return scope[name]
            if name == "_":
                return 0, 4
            if re.match(r"%(laneid|warpid|(n?tid|n?ctaid)\.[xyz])$", name):
                if name not in special:
                    special[name] = place(4)
                return special[name], 4
            return None

        def operand(text: str, group: int, number: int, kind: int = _REGISTER) -> None:
            found = lookup(text)
            if found is not None:
                operands.append((kind, found[1], group, number, found[0]))
                return
            symbol = _ADDRESS.match(text)
            if symbol and symbol.group(1) in self._symbol:
                value = self._symbol[symbol.group(1)] + int(symbol.group(2) or "0", 0)
            else:
                try:
                    value = _number(text)
                except ValueError:
                    raise NotImplementedError(f"{self.name}: operand {text!r}") from None
            numbers.add(value)
            operands.append((_NUMBER, 8, group, number, (value + 2**63) % 2**64 - 2**63))

        for text, where in _statements(self.text):
            if text == "{":
                scopes.append({})
            elif text == "}":
                scopes.pop()
            elif text.endswith(":"):
                labels[text[:-1]] = len(ops)
            elif text.startswith(".reg"):
                declare(text)
            elif text.startswith("."):
                continue
            else:
                negation, predicate, op, rest = _STATEMENT.match(text).groups()
                n, found = len(ops), [0, 0]
                ops.append(op)
                file, _, line = where.partition(" ")
                source = f"  [{self._files.get(file, file)}:{line}]" if where else ""
                texts.append(f"{self.name}: {' '.join(text.split())}{source}")
                predicates.append(lookup(predicate)[0] if predicate else -1)
                negated.append(negation == "!")
                if op.startswith("bra"):
                    targets.append(rest.strip())
                    offsets.append(found)
                    continue
                targets.append(None)
                addresses = 0
                for group, given in enumerate(_split(rest.strip())):
                    if given[0] == "{":
                        for one in _split(given[1:-1].strip()):
                            operand(one, group, n)
                    elif given[0] == "[":
                        inside = _ADDRESS.match(given[1:-1].strip())
                        found[addresses] = int(inside.group(2) or "0", 0)
                        addresses += 1
                        operand(inside.group(1), group, n)
                    elif given[0] == "!":
                        operand(given[1:], group, n, _NEGATED)
                    elif "|" in given:
                        for one in given.split("|"):
                            operand(one.strip(), group, n)
                    else:
                        operand(given, group, n)
                offsets.append(found)
                self._narrow(units, op, rest)
        unique = np.int64(len(numbers) + 8)
        constants = int(unique * 4 * 256)
        for scope_operand in range(len(operands)):
            kind, width, group, number, value = operands[scope_operand]
            if kind != _NUMBER:
                operands[scope_operand] = kind, width, group, number, value + constants
        lines = lambda parts: "\n".join(parts).encode()  # noqa: E731
        self.ops, self.texts = ops, texts
        handle = library().ptx_program(
            len(ops),
            lines(ops),
            lines(texts),
            lines(f"{name} {at + constants}" for name, at in special.items()),
            _pointer(np.array([p + constants if p >= 0 else -1 for p in predicates], np.int32)),
            _pointer(np.array(negated, np.int32)),
            _pointer(np.array(offsets, np.int64)),
            _pointer(np.array([-1 if t is None else labels[t] for t in targets], np.int32)),
            len(operands),
            _pointer(np.array(operands, _OPERAND)),
            constants,
            constants + registers_end,
            units["shared"],
            units["global"],
        )
        if not handle:
            raise NotImplementedError(library().ptx_error().decode())
        return handle

    @staticmethod
    def _narrow(units: dict[str, int], op: str, rest: str) -> None:
        """Lets the unit in which memory is watched be no larger than what an instruction takes."""
        words = op.split(".")
        if words[0] == "cp" and "commit_group" not in op and "wait" not in op:
            size = int(_split(rest)[2], 0)
            units["shared"], units["global"] = min(units["shared"], size), min(units["global"], size)
        elif words[0] in ("ld", "st", "atom", "red", "ldu") and re.match(r"[busf]\d+$", words[-1]):
            size = _BYTES[words[-1][1:]] * (2 if "v2" in words else 4 if "v4" in words else 8 if "v8" in words else 1)
            for space in units:
                if space in op or not re.search("global|shared|local|param|const", op):
                    units[space] = min(units[space], size)

    def shared_bytes(self, dynamic: int) -> int:
        """Shared memory of a block, of a kernel that was launched with so much dynamic memory."""
        return self._dynamic_start + dynamic

    def check_limits(self, grid: tuple[int, int, int], threads: int, parameters: bytes, shared: int) -> int:
        """All bytes of shared memory that a block of this launch takes.

        Raises:
            PtxError: the launch is larger than a GPU takes.
            NotImplementedError: as ``launch``.
        """
        where = f"{self.name}: a launch of {tuple(grid)} blocks of {threads} threads"
        for axis, count, most in zip("xyz", grid, MOST_GRID):
            if not 1 <= count <= most:
                raise PtxError(f"{where}: the grid's {axis} must be 1 to {most}")
        if not 1 <= threads <= MOST_THREADS:
            raise PtxError(f"{where}: a block has 1 to {MOST_THREADS} threads")
        if len(parameters) != self.parameter_bytes:
            raise PtxError(f"{where}: {len(parameters)} bytes of parameters, the kernel has {self.parameter_bytes}")
        if self._handle is None:
            self._handle = self._decode()
        total = self.shared_bytes(shared)
        most = MOST_SHARED.get(self.module.target, max(MOST_SHARED.values()))
        if total > most:
            raise PtxError(f"{where}: {total} bytes of shared memory, a block may have {most}")
        return total

    def launch(
        self,
        grid: tuple[int, int, int],
        threads: int,
        parameters: bytes,
        buffers: list[Buffer],
        shared: int = 0,
        *,
        count_memory: bool = False,
        strict: bool = True,
    ) -> Counts:
        """Run it.

        Args:
            grid: blocks along x, y, z.
            threads: of a block, along x.
            parameters: as the kernel's parameter space has them.
            buffers: the global memory it may touch.
            shared: bytes of dynamic shared memory.
            count_memory: sectors and turns of banks too.
            strict: reading shared memory that nobody wrote is a fault; else it is NaN.
        Raises:
            PtxError: a fault, with the instruction and the line of the source it came from.
            NotImplementedError: an instruction that the executor does not know.
        """
        total = self.check_limits(grid, threads, parameters, shared)
        held = [Buffer(array.ctypes.data, array.nbytes) for array in self._held]
        known = sorted([*buffers, *held], key=lambda b: b.base)
        table = np.array(
            [(b.base, b.size, 0 if b.written is None else b.written.ctypes.data) for b in known], np.uint64
        )
        rows, totals = np.zeros((len(self.ops), 4), np.int64), np.zeros(2, np.int64)
        bad = library().ptx_run(
            self._handle,
            _pointer(np.array(grid, np.uint32)),
            threads,
            parameters,
            len(parameters),
            total,
            self.local_bytes,
            len(known),
            _pointer(table),
            _pointer(rows),
            _pointer(totals),
            count_memory,
            strict,
            FUEL,
        )
        if bad:
            raise PtxError(library().ptx_error().decode())
        return Counts(rows, *totals.tolist())


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    pointer = ctypes.c_void_p(array.ctypes.data)
    pointer.array = array  # alive as long as the pointer
    return pointer


@functools.lru_cache(maxsize=256)
def module(text: str) -> Module:
    return Module(text)
