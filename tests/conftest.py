"""Set up before any test module is imported.

Triton reads ``TRITON_INTERPRET`` when a kernel is defined. Where there is no GPU its kernels run in the interpreter
(float32 and float16; ``posekernels.testing.device_of`` knows); on a GPU machine they run as compiled. Ahead-of-time
compilation needs the variable unset and therefore a process of its own (tests/ops/test_aot.py).
"""

import json
import os
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

from posekernels import BackendError  # noqa: E402


def pytest_addoption(parser):
    parser.addoption("--lines", type=Path, help="add a line of JSON for each test to this file, as it ends")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """On a GPU, a test of a backend that refuses the problem is no failure: what kernels refuse by design, tests/ptx
    has a list of. The lines that ``--lines`` asks for."""
    report = yield
    error = call.excinfo and call.excinfo.value
    refused = torch.cuda.is_available() and isinstance(error, BackendError)
    if refused:
        report.outcome = "skipped"
        report.longrepr = (str(item.path), 0, f"Skipped: refused: {str(error).splitlines()[0]}")
    out = item.config.getoption("--lines")
    if out is not None and (call.when == "call" or report.outcome != "passed"):
        outcome = "refused" if refused else {"passed": "ok"}.get(report.outcome, report.outcome)
        line = {"what": item.nodeid, "outcome": outcome, "seconds": round(call.duration, 2)}
        if error is not None:
            line["why"] = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        with out.open("a") as file:
            file.write(json.dumps(line) + "\n")
    return report


@pytest.fixture(autouse=True)
def float32_products():
    """Every test begins with exact products: PyTorch's two interfaces to that setting do not undo one another."""
    yield
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.fp32_precision = "ieee"
