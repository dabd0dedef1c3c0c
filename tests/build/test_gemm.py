"""The native core against float64: products in every instruction set this CPU runs, packing, threads, the border."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch

from posekernels import _native, repack
from posekernels._packing import packed
from posekernels.testing import assert_within_budget, guarded, relative_error
from tests.native import printed_by

core = _native.core
pytestmark = pytest.mark.skipif(core is None, reason=str(_native.no_cpu()))

SHAPES = [(1, 1, 1), (1, 5, 33), (13, 3, 7), (17, 80, 384), (29, 17, 31), (64, 96, 96), (300, 33, 65), (5, 0, 4)]


def product(a, weight, bias=None, residual=None, activation=0, threads=2):
    M, K, N = *a.shape, weight.shape[-1]
    out = torch.full((M + 2, N), float("nan"))
    w = packed(weight)
    pointers = [t if t is None else t.data_ptr() for t in (bias, residual)]
    core.gemm_forward(
        threads, a.data_ptr(), a.stride(0), w.data_ptr(), *pointers, out[1].data_ptr(), N, M, N, K, activation
    )
    assert out[0].isnan().all() and out[-1].isnan().all(), "wrote outside its rows"
    return out[1:-1]


def check_products() -> dict[str, float]:
    """Worst relative error of each kind of product over all shapes; run once per instruction set."""
    worst = {"float32": 0.0, "bfloat16": 0.0, "transposed": 0.0}
    torch.manual_seed(0)
    for M, K, N in SHAPES:
        a, w = guarded(torch.randn(M, K)), guarded(torch.randn(K, N), strided=True)
        bias, residual = guarded(torch.randn(N)), torch.randn(M, N)
        for activation, act in enumerate((lambda h: h, torch.relu, torch.nn.functional.gelu)):
            got = product(a, w, bias, residual, activation)
            want = act(a.double() @ w.double() + bias.double()) + residual.double()
            worst["float32"] = max(worst["float32"], relative_error(got, want))
        half = packed(w, dtype=torch.bfloat16)
        got = torch.empty(M, N)
        core.gemm_forward_bf16(2, a.data_ptr(), K, half.data_ptr(), got.data_ptr(), N, M, N, K)
        want = a.bfloat16().double() @ w.bfloat16().double()
        worst["bfloat16"] = max(worst["bfloat16"], relative_error(got, want))
        b = guarded(torch.randn(M, N))
        got = torch.full((K, N), float("nan"))
        core.gemm_transposed(2, a.data_ptr(), K, b.data_ptr(), N, got.data_ptr(), M, K, N)
        worst["transposed"] = max(worst["transposed"], relative_error(got, a.double().T @ b.double()))
    return worst


@pytest.mark.parametrize("isa", ["generic", "avx2", "avx512"])
def test_products(isa):
    code = "import json, tests.build.test_gemm as t; print(json.dumps([t.core.isa, t.check_products()]))"
    printed = printed_by(code, isa)
    name, worst = json.loads(printed.splitlines()[-1])
    assert name == isa
    assert worst["float32"] < 2e-6 and worst["transposed"] < 2e-6 and worst["bfloat16"] < 1e-5, worst


def test_packing_in_16_bits_rounds_as_pytorch_does():
    """Denormal numbers too, which AVX512-BF16's own instruction takes for 0."""
    weight = torch.randn(7, 33) * 10.0 ** -torch.arange(7 * 33).remainder(46).view(7, 33)
    got, want = (t.view(torch.int16).flatten() for t in (packed(weight, dtype=torch.bfloat16), weight.bfloat16()))
    assert torch.equal(got[got != 0].sort()[0], want[want != 0].sort()[0])


def test_nan_stays():
    a, w = torch.randn(20, 9), torch.randn(9, 40)
    a[3, 4] = float("nan")
    for activation in range(3):
        got = product(a, w, activation=activation)
        assert got[3].isnan().all() and not got[[0, 1, 2, *range(4, 20)]].isnan().any()


def test_same_bits_whatever_the_threads():
    a, w = torch.randn(500, 40), torch.randn(40, 70)
    assert torch.equal(product(a, w, threads=1), product(a, w, threads=3))


def test_several_python_threads():
    a, w = torch.randn(400, 64), torch.randn(64, 96)
    want, results = product(a, w, threads=1), [None] * 4

    def work(i):
        for _ in range(20):
            results[i] = product(a, w)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert all(torch.equal(r, want) for r in results)


def test_fewer_and_more_threads():
    a, w = torch.randn(500, 40), torch.randn(40, 70)
    want = product(a, w, threads=1)
    for threads in (2, 3, 2, 5, 64, 2):
        assert torch.equal(product(a, w, threads=threads), want)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own():
    a, w = torch.randn(200, 40), torch.randn(40, 70)  # small: PyTorch itself uses no threads, and may not, after a fork
    want = product(a, w, threads=3)
    child = os.fork()
    if child == 0:
        os._exit(0 if all(torch.equal(product(a, w, threads=3), want) for _ in range(20)) else 1)
    end = time.monotonic() + 30
    while (done := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < end:
        time.sleep(0.01)
    if done == (0, 0):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert done == (child, 0), "the child hangs, or computes something else"


BUSY = """
import statistics, time, torch
from posekernels import models
net, pose = models.create("htnet").eval(), torch.rand(1, 1, 17, 2)
x, w = torch.rand(400, 400), torch.rand(400, 400)

def call():
    net(pose)
    x @ w  # PyTorch's own threads between ours
    x.repeat(4, 1) + 1

def median(threads):
    torch.set_num_threads(threads)
    times = []
    for _ in range(40):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)

with torch.no_grad():
    call()
    print(min(median(2) / median(1) for _ in range(3)))
"""


def test_busy_cores_do_not_stop_the_threads():
    """With every core taken by other programs, two threads may gain nothing; they may not lose much either.

    Threads that wait for each other by spinning take 20 to 300 times as long here.
    """
    if len(os.sched_getaffinity(0)) > 8:
        pytest.skip("too many cores to keep them all busy")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    spin = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(len(os.sched_getaffinity(0)))]
    try:
        done = subprocess.run(
            [sys.executable, "-c", BUSY], env=environment, capture_output=True, text=True, timeout=150
        )
    finally:
        for process in spin:
            process.kill()
            process.wait()
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 4, done.stdout


def test_border_refuses():
    with pytest.raises(TypeError, match="takes the number of threads and 2 arguments, got 2"):
        core.gemm_packed_size(1, 2)
    with pytest.raises(TypeError, match="argument 2 must be an integer, got float"):
        core.gemm_packed_size(1, 2, 3.0)
    with pytest.raises(TypeError, match="argument 1 must be an integer, got NoneType"):
        core.gemm_packed_size(1, None, 3)


def test_packed_follows_its_tensor():
    a, weight = torch.randn(4, 6), torch.nn.Parameter(torch.randn(6, 5))
    first = packed(weight)
    assert packed(weight) is first
    with torch.no_grad():
        weight.mul_(2)
    assert packed(weight) is not first
    assert_within_budget(product(a, weight), a.double() @ weight.double())
    weight.data = torch.randn(6, 5)  # points elsewhere
    assert_within_budget(product(a, weight), a.double() @ weight.double())
    weight.data.zero_()  # neither pointer nor version changes: the documented exception
    module = torch.nn.Module()
    module.weight = weight
    repack(module)
    assert product(a, weight).abs().max() == 0
    with torch.inference_mode():
        made_inside = torch.randn(6, 5)
        assert_within_budget(product(a, made_inside), a.double() @ made_inside.double())
        made_inside.mul_(3)
        assert_within_budget(product(a, made_inside), a.double() @ made_inside.double())


def test_packed_is_not_saved(tmp_path):
    weight = torch.nn.Parameter(torch.randn(6, 5))
    packed(weight)
    torch.save(weight, tmp_path / "weight.pt")
    loaded = torch.load(tmp_path / "weight.pt", weights_only=True)
    packed(loaded)
    a = torch.randn(3, 6)
    assert_within_budget(product(a, loaded), a.double() @ weight.detach().double())
