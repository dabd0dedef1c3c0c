"""The C++ kernels on a processor that this machine is not: cross-compiled, and run by QEMU under their own tests.

Only the kernels are foreign. The tests run in this Python; a call sends the memory that its pointers point into to
``runner.cpp`` and takes back what has changed. Debian: ``apt-get install g++-aarch64-linux-gnu qemu-user``.
"""

import concurrent.futures
import ctypes
import hashlib
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from posekernels import _native
from tests.build import test_gemm as gemm
from tests.build import test_vecmath as vecmath
from tests.ops.table import OPS, Choices, check

ROOT = Path(__file__).parents[2]
NATIVE = _native.core
pytestmark = pytest.mark.skipif(NATIVE is None, reason=str(_native.no_cpu()))
# The kernels of these read tables of addresses, which the runner does not follow.
TABLES = {
    "encoder_layer",
    "graph_network",
    "hierarchy_block",
    "hierarchy_network",
    "relative_encoding",
    "strided_temporal_conv",
    "temporal_networks",
    "transformer_block",
}
ALIKE = sorted(name for name in set(OPS) - TABLES if OPS[name].dtypes("cpu"))


def build(compiler: str, isa: str) -> Path:
    """``runner.cpp`` with every kernel, one static program under ``build/``, once per state of the sources."""
    sources = [ROOT / "tests/build/runner.cpp", ROOT / "csrc/core/parallel.cpp", *ROOT.glob("csrc/*/*_cpu.cpp")]
    digest = hashlib.sha256(compiler.encode())
    for path in sorted([*sources, *ROOT.glob("csrc/include/posekernels/*.h")]):
        digest.update(path.read_bytes())
    folder = ROOT / "build" / f"foreign-{isa}-{digest.hexdigest()[:16]}"
    program = folder / "runner"
    if program.exists():
        return program
    folder.mkdir(parents=True, exist_ok=True)
    flags = ["-std=c++17", "-O1", "-Wno-psabi", "-ffp-contract=fast", "-fno-math-errno"]
    flags += ["-fno-trapping-math", f"-I{ROOT / 'csrc/include'}"]

    def compiled(source: Path) -> str:
        target = folder / f"{source.stem}.o"
        kernels = [f"-DPOSEKERNELS_ISA={isa}"] if source.stem.endswith("_cpu") else []
        done = subprocess.run([compiler, *flags, *kernels, "-c", source, "-o", target], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return str(target)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compiled, sources))
    link = [compiler, "-static", "-pthread", *objects, "-o", f"{program}.{os.getpid()}"]
    done = subprocess.run(link, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    os.replace(f"{program}.{os.getpid()}", program)
    return program


class Foreign:
    """Stands in for ``posekernels._native.core``: its kernels run in another program.

    ``seen`` is what makes the tensors' addresses known: it is to be called in place of ``Tensor.data_ptr``.
    """

    def __init__(self, command: list[str]):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.storages: dict[int, torch.UntypedStorage] = {}
        self.data_ptr = torch.Tensor.data_ptr

    def seen(self, tensor: torch.Tensor) -> int:
        storage = tensor.untyped_storage()
        if storage.data_ptr():  # an empty one has none
            self.storages[storage.data_ptr()] = storage  # held, so that its address does not come back
        return self.data_ptr(tensor)

    def _storage(self, address: int) -> int | None:
        """Where the storage begins that an address lies in."""
        for begin, storage in self.storages.items():
            if begin <= address < begin + max(storage.nbytes(), 1):
                return begin
        return None

    def __getattr__(self, kernel: str):
        # what the module asks of Python's own objects; and the sums by which changed weights are known: a table again
        if kernel not in NATIVE.kernels or kernel.startswith("weight_sums"):
            return getattr(NATIVE, kernel)
        return lambda threads, *arguments: self.call(kernel, threads, arguments)

    def call(self, kernel: str, threads: int, arguments: tuple) -> int:
        memory: dict[int, int] = {}  # where it begins -> its place among what is sent
        slots = b""
        for value in arguments:
            begin = None if value is None or isinstance(value, float) else self._storage(value)
            if begin is not None:
                slots += struct.pack("=cqq", b"p", memory.setdefault(begin, len(memory)), value - begin)
            elif isinstance(value, float):
                slots += struct.pack("=cd", b"f", value)
            else:
                slots += struct.pack("=cQ", b"i", (value or 0) % (1 << 64))
        send = self.process.stdin.write
        send(f"{kernel}\n".encode() + struct.pack("=qqq", threads, len(arguments), len(memory)))
        for begin in memory:
            size = self.storages[begin].nbytes()
            send(struct.pack("=q", size) + ctypes.string_at(begin, size))
        send(slots)
        self.process.stdin.flush()
        known, result = struct.unpack("=qq", self._read(16))
        assert known, f"there is no kernel {kernel} of {len(arguments)} arguments"
        for begin in memory:
            size = self.storages[begin].nbytes()
            ctypes.memmove(begin, self._read(size), size)
        return result

    def _read(self, size: int) -> bytes:
        found = self.process.stdout.read(size)
        assert len(found) == size, f"the runner ended: {self.process.wait()}"
        return found


@pytest.fixture(scope="module")
def runner():
    """The command that runs the kernels as 64-bit ARM has them."""
    compiler, emulator = shutil.which("aarch64-linux-gnu-g++"), shutil.which("qemu-aarch64")
    if compiler is None or emulator is None:
        pytest.skip("no aarch64-linux-gnu-g++ or no qemu-aarch64 (Debian: g++-aarch64-linux-gnu, qemu-user)")
    return [emulator, str(build(compiler, "neon"))]


@pytest.fixture
def foreign(runner, monkeypatch):
    core = Foreign(runner)
    for module in list(sys.modules.values()):
        if vars(module).get("core") is NATIVE:
            monkeypatch.setattr(module, "core", core)
    monkeypatch.setattr(torch.Tensor, "data_ptr", lambda tensor: core.seen(tensor))
    monkeypatch.setattr("posekernels._adapters._begins", core.seen)
    yield core
    core.process.stdin.close()
    assert core.process.wait(10) == 0


def test_products(foreign):
    worst = gemm.check_products()
    assert worst["float32"] < 2e-6 and worst["transposed"] < 2e-6 and worst["bfloat16"] < 1e-5, worst


def test_vecmath(foreign):
    assert vecmath.check() == []


@pytest.mark.parametrize("name", ALIKE)
def test_contract(name, foreign):
    for dtype in OPS[name].dtypes("cpu"):
        check(OPS[name], OPS[name].make(Choices(batch=3)), "cpu", dtype, gradients=dtype is torch.float32)
