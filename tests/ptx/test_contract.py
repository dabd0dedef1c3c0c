"""The contract of every op, on its compiled kernels: Triton's, and nvcc's of ``csrc/*_cuda.cu``."""

import pytest

pytest.importorskip("triton")

from posekernels import _dispatch  # noqa: E402
from tests import cuda_emulation  # noqa: E402
from tests.native import ROOT  # noqa: E402
from tests.ptx import contract, nvcc  # noqa: E402
from tests.ptx.workers import SIDE_BY_SIDE, Answers  # noqa: E402


@pytest.fixture(scope="module")
def results(request, pool):
    """Of every case that will be asked for."""
    own = [item for item in request.session.items if item.module is request.module and hasattr(item, "callspec")]
    cases = [item.callspec.params["case"] for item in own if "case" in item.callspec.params]
    if any(backend == "cuda" for _, _, backend in cases):
        if nvcc.compiler() is None:
            cases = [case for case in cases if case[2] != "cuda"]
        else:
            cuda_emulation.library()  # once, as what nvcc compiles
            for source in () if SIDE_BY_SIDE else (ROOT / "csrc").glob("*/*_cuda.cu"):
                pool.submit(nvcc.text, source.parent.name, 80)
    return Answers(pool, contract.tested, cases)


@pytest.mark.parametrize("case", contract.cases("triton"), ids=" ".join)
def test_triton_kernels_keep_the_contract(results, case):
    assert "launches" in results[case]


@pytest.mark.parametrize("case", contract.cases("cuda"), ids=" ".join)
def test_cuda_kernels_keep_the_contract(results, case):
    if nvcc.compiler() is None:
        pytest.skip("no nvcc here (pip install nvidia-cuda-nvcc nvidia-cuda-cccl)")
    assert "launches" in results[case]


@pytest.mark.parametrize("matrices", ["bfloat16", "float16"])
def test_denoise_in_cuda_takes_matrices_of_16_bits(pool, matrices):
    if nvcc.compiler() is None:
        pytest.skip("no nvcc here (pip install nvidia-cuda-nvcc nvidia-cuda-cccl)")
    pool.submit(contract.denoiser, matrices, "cuda").result()


@pytest.mark.parametrize("backend", ["triton", "cuda"])
def test_a_stack_is_one_launch(pool, backend):
    if backend == "cuda" and nvcc.compiler() is None:
        pytest.skip("no nvcc here (pip install nvidia-cuda-nvcc nvidia-cuda-cccl)")
    assert pool.submit(contract.stack, backend).result() == 1


@pytest.mark.parametrize("hopper", contract.HOPPER, ids=" ".join)
def test_kernels_for_sm_90_keep_the_contract(hopper, pool):
    if hopper[2] == "cuda" and nvcc.compiler() is None:
        pytest.skip("no nvcc here (pip install nvidia-cuda-nvcc nvidia-cuda-cccl)")
    ran = pool.submit(contract.check, *hopper, architecture=90).result()
    assert ("with wgmma" in ran) == (hopper[2] == "triton")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_products_in_eight_bits(pool, dtype):
    assert pool.submit(contract.eight_bits, dtype).result() == 2


def test_few_rows_share_their_depths(pool):
    if nvcc.compiler() is None:
        pytest.skip("no nvcc here (pip install nvidia-cuda-nvcc nvidia-cuda-cccl)")
    pool.submit(contract.few_rows, "bfloat16").result()


def test_programs_share_hidden_channels(pool):
    pool.submit(contract.shared_hidden).result()


def test_every_gpu_kernel_runs_here():
    run = {(op, backend) for b in ("triton", "cuda") for op, _, backend in contract.cases(b)}
    for raw, kernels in _dispatch.OPS.items():
        for backend in {"triton", "cuda"} & kernels.keys():
            assert (raw.removesuffix("_backward"), backend) in run, f"{raw} on {backend}"
