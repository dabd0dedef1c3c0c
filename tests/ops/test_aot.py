"""Every Triton kernel that an op declares compiles for sm_80 and sm_90 without spills, on the matrix units."""

import dataclasses
import json
import os
import subprocess
import sys

import pytest

from posekernels import aot

pytest.importorskip("triton")


@pytest.fixture(scope="module")
def reports():
    # A process of its own: kernels are defined either for the interpreter, as in the tests, or for the compiler.
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "posekernels.aot", "--json"], env=environment, capture_output=True, text=True
    )
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)


def test_every_kernel_compiles_without_spills_and_on_matrix_units(reports):
    assert {r["target"] for r in reports} == {80, 90}
    assert any(r["matrix_instructions"] for r in reports)
    problems = [f"{r['name']} sm_{r['target']}: {r['problem']}" for r in reports if r["problem"]]
    assert not problems, "\n".join(problems)


def test_names_of_cuda_kernels():
    symbol = "_ZN11posekernels4cuda21graph_conv_fwd_kernelINS_4HalfE6__halfEEvPKT0_"
    assert aot._kernel_name(symbol) == ("graph_conv_fwd_kernel<Half>", True)
    assert aot._kernel_name(symbol.replace("4Half", "5Exact")) == ("graph_conv_fwd_kernel<Exact>", False)
    assert aot._kernel_name("_ZN11posekernels4cuda10add_kernelEPf") == ("add_kernel", False)
    typed = "_ZN11posekernels4cuda10add_kernelI13__nv_bfloat16Li17ELb1EEEvNS0_4RowsIT_EE"
    assert aot._kernel_name(typed) == ("add_kernel<bf16, 17, 1>", False)


def test_a_spill_or_a_missing_matrix_instruction_is_a_problem():
    good = aot.Report("k", 90, 100, 0, 1024, 8, True)
    assert good.problem() is None
    assert "spills 8" in dataclasses.replace(good, spills=8).problem()
    assert "no matrix" in dataclasses.replace(good, matrix_instructions=0).problem()
