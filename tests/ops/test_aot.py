"""Every Triton kernel that an op declares compiles for sm_80 and sm_90 without spills, on the matrix units."""

import json
import os
import subprocess
import sys

import pytest

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
