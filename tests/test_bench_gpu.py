"""The one command for a GPU machine: what can be checked of it without one, a whole rehearsal with it."""

import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bench import __main__ as command
from bench import gpu, gpu_jobs, peers
from bench.cases import OpCase
from bench.measure import Device
from bench.ops import denoise
from bench.suite import PRECISIONS, OpUnit, Row, measured
from posekernels import BackendError, _dispatch
from tests.ptx import build as executor


@pytest.mark.parametrize("sanitizer", [None, "compute-sanitizer"])
def test_dry_run_lists_steps_by_worth_and_fits_the_limit(sanitizer, capsys, monkeypatch):
    monkeypatch.setattr(gpu, "compute_sanitizer", lambda: sanitizer)
    assert gpu.main(["--dry-run"]) == 0
    *lines, total = capsys.readouterr().out.splitlines()
    order = ["build", "compile our", "check every kernel", "time htnet", "contract tests", "htnet beside", "time ops"]
    places = [next(n for n, line in enumerate(lines) if line.startswith(name)) for name in order]
    assert places == sorted(places) and places[0] == 0
    assert any(line.startswith("compute-sanitizer") for line in lines) == bool(sanitizer)
    assert float(total.split()[1]) <= 540
    assert not [line for line in lines if "bench " in line and "--no-onnx" not in line and "gpu_jobs" not in line]


def test_every_network_and_op_is_in_a_step():
    commands = [step.command for group in gpu.steps(Path("out"), "name", "90") for step in group]
    given = {word for words in commands for word in words}
    assert {case.model for case in gpu.model_cases()} <= given
    assert {case.op for case in gpu.op_cases()} <= given and set(gpu.ops()) <= given
    assert set(gpu.PRECISIONS) <= given


def test_rehearsal(tmp_path, monkeypatch, capsys):
    """Every step at its smallest: files, tables and results are there, and a build that failed is said to have."""
    if executor.compiler() is None:
        pytest.skip("no C++ compiler for the executor of PTX")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(gpu, "golden_folder", lambda: None)
    monkeypatch.chdir(tmp_path.parent)
    assert gpu.main(["--rehearse", "--out", tmp_path.name]) == 1
    (path,) = tmp_path.glob("*-steps.json")
    name = path.name.removesuffix("-steps.json")
    made = {file.name for file in tmp_path.iterdir()}
    assert made >= {name + end for end in (".json", ".md", ".csv", ".png", "-ops.png", "-lines.jsonl", "-logs")}
    found = json.loads(path.read_text())["steps"]
    assert found["build"]["outcome"] == "the CUDA part was not built: not built (POSEKERNELS_BUILD=off)"
    wrong = {step: report for step, report in found.items() if step != "build" and report["outcome"] != "ok"}
    assert not wrong, wrong
    assert found["check every kernel"]["results"]["ok"] >= 1 and found["contract tests"]["results"]["ok"] >= 1
    rows = json.loads((tmp_path / f"{name}.json").read_text())["rows"]
    assert {"annotated_norm", "variance_linear"} <= {row["what"] for row in rows if row["median_us"]}
    assert "wrote" in capsys.readouterr().out


def test_refusals_are_one_line(tmp_path):
    with pytest.raises(ValueError, match="no such step"):
        gpu.main(["--dry-run", "--only", "graph"])
    with pytest.raises(ValueError, match="--rehearse: name a folder"):
        gpu.main(["--rehearse"])
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no CUDA device"):
            gpu.main([])


def step(code, seconds=10.0, **more):
    return gpu.Step("step", [sys.executable, "-c", code], seconds, 1, **more)


def test_a_step_that_fails_or_runs_over_is_written_down(tmp_path):
    (report,) = gpu.run([step("print('why'); raise SystemExit(3)")], 10, tmp_path).values()
    assert report["outcome"] == "exit code 3" and report["log"] == ["why"]
    assert gpu.run([step("print('fine')")], 10, tmp_path)["step"]["outcome"] == "ok"
    wrong = gpu.run([step("print('fine')", problem=lambda: "no CUDA part")], 10, tmp_path)["step"]
    assert wrong["outcome"] == "no CUDA part" and wrong["log"] == ["fine"]
    assert gpu.not_built(tmp_path / "none.json").startswith("no record of the build")


def test_a_limit_ends_all_processes_of_a_step_and_keeps_what_it_said(tmp_path):
    """Also a grandchild that does not want to end; and what its step has found by then."""
    lines = tmp_path / "lines.jsonl"
    child = "import os, signal, time; signal.signal(15, signal.SIG_IGN); print('child', os.getpid(), flush=True)"
    code = (
        "import subprocess, sys; from pathlib import Path; from bench.gpu_jobs import add_line;"
        f"add_line(Path({str(lines)!r}), 'this', 'ok', 0.1);"
        f"subprocess.run([sys.executable, '-c', {child + '; time.sleep(60)'!r}])"
    )
    start = time.monotonic()
    report = gpu.run([step(code, seconds=60, lines=lines)], 2.0, tmp_path)["step"]
    assert report["outcome"] == "stopped after 2 s" and time.monotonic() - start < 20
    assert report["results"] == {"ok": 1}
    (pid,) = [int(line.split()[1]) for line in report["log"] if line.startswith("child")]
    status = Path(f"/proc/{pid}/status")
    assert not status.exists() or "State:\tZ" in status.read_text()  # at most its name is left


def test_steps_run_at_once_and_each_has_its_own_report(tmp_path):
    both = [step("import time; time.sleep(1)"), step("import time; time.sleep(1); raise SystemExit(2)")]
    both[1].name = "other"
    start = time.monotonic()
    found = gpu.run(both, 10, tmp_path)
    assert (found["step"]["outcome"], found["other"]["outcome"]) == ("ok", "exit code 2")
    assert time.monotonic() - start < 1.9


def test_results_are_lines_as_they_come(tmp_path):
    out = tmp_path / "lines.jsonl"

    def refuses():
        raise BackendError("op: backend 'triton' was named but cannot run: takes 16 bits")

    class OutOfResources(Exception):
        pass

    def fails():
        raise OutOfResources("shared memory, required: 300000")

    assert gpu_jobs.record(out, "good", lambda: None) and gpu_jobs.record(out, "refused", refuses)
    assert not gpu_jobs.record(out, "bad", fails)
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["outcome"] for line in found] == ["ok", "refused", "failed"]
    assert found[2]["why"] == "OutOfResources: shared memory, required: 300000"
    report = gpu._summary(out, 0)
    assert report["results"] == {"ok": 1, "refused": 1, "failed": 1} and len(report["failed"]) == 1


def test_a_test_adds_its_line_and_a_refusal_on_a_gpu_is_no_failure(tmp_path, monkeypatch):
    from tests import conftest

    out = tmp_path / "lines.jsonl"
    item = SimpleNamespace(nodeid="t", path="t.py", config=SimpleNamespace(getoption=lambda name: out))
    error = BackendError("temporal_mlp: backend 'triton' was named but cannot run: takes 16 bits")

    def outcome(on_gpu):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: on_gpu)
        call = SimpleNamespace(when="call", duration=0.5, excinfo=SimpleNamespace(value=error))
        hook = conftest.pytest_runtest_makereport(item, call)
        next(hook)
        with pytest.raises(StopIteration) as ended:
            hook.send(SimpleNamespace(outcome="failed", longrepr=None))
        return ended.value.value.outcome

    assert (outcome(True), outcome(False)) == ("skipped", "failed")
    assert [json.loads(line)["outcome"] for line in out.read_text().splitlines()] == ["refused", "failed"]


def doubling(monkeypatch, **ways):
    """An op whose backends do as ``ways`` say."""
    monkeypatch.setitem(_dispatch.OPS, "double", dict.fromkeys([*ways, "reference"]))
    calls = {"reference": lambda x: 2 * x, "auto": lambda x: 2 * x, **ways}
    made = lambda: {"x": torch.arange(64.0)}  # noqa: E731
    return OpCase("double", "n=64", made, lambda i, b: calls[b](i["x"]), 64.0, lambda b: 128 * b)


def runs_out(x):
    raise RuntimeError("CUDA error: out of memory\nmore")


def test_an_error_in_a_row_is_that_rows_alone(monkeypatch):
    unit = OpUnit(doubling(monkeypatch, cpu=runs_out), False, PRECISIONS["float32"], "cpu")
    rows = {r.contender: r for r in measured(unit, unit.ways([], []), 0.01, (1e9, 1e9), None)}
    assert rows["auto"].median_us and rows["eager"].median_us
    assert rows["cpu"].rejected == "RuntimeError: CUDA error: out of memory"


def test_a_lost_card_is_left_to_a_new_process(monkeypatch):
    """The kernel that lost it has its row; the unit is measured anew without it."""
    unit = OpUnit(doubling(monkeypatch, cpu=runs_out), False, PRECISIONS["float32"], "cpu")
    monkeypatch.setattr(Device, "lost", lambda self: True)
    rows = measured(unit, ["eager", "cpu", "auto"], 0.01, (1e9, 1e9), None)
    assert [(r.contender, bool(r.rejected)) for r in rows] == [("eager", True), ("cpu", True)]
    started = []
    monkeypatch.setattr(os, "execv", lambda program, words: started.append(words[3:]))
    rows = [Row("double", "n=64", "forward", "float32", "cpu", rejected="an illegal memory access")]
    command.resume_in_a_new_process(["--op", "double", "--resume", "2:triton"], 2, {"triton"}, rows)
    command.resume_in_a_new_process(["--op", "double"], 2, set(), [Row("a", "b", "c", "d", "e", median_us=1.0)])
    assert started == [["--op", "double", "--resume", "2:cpu:triton"], ["--op", "double", "--resume", "3"]]


def test_the_peer_of_denoise_stays_on_its_device():
    small = next(case for case in denoise.CASES if "S=3" in case.size)
    given = {n: t.to("meta") for n, t in small.make().items()}
    assert denoise.published(given).device.type == "meta"


def test_onnx_runtime_is_no_peer_on_a_gpu_without_its_provider(monkeypatch):
    known = SimpleNamespace(get_available_providers=lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(peers, "needs", lambda *names: known)
    with pytest.raises(peers.Unavailable, match="CUDA provider"):
        peers.session("onnxruntime", None, (SimpleNamespace(is_cuda=True),), 1)
