"""The one command for a GPU machine: what can be checked of it without one."""

import sys

import pytest
import torch

from bench import gpu


@pytest.mark.parametrize("sanitizer", [None, "compute-sanitizer"])
def test_dry_run_lists_every_step_and_fits_the_limit(sanitizer, capsys, monkeypatch):
    monkeypatch.setattr(gpu, "compute_sanitizer", lambda: sanitizer)
    assert gpu.main(["--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:2]] == ["build", "tests"]
    assert any(line.startswith("bench op graph_conv") for line in lines)
    assert any(line.startswith("compute-sanitizer") for line in lines) == bool(sanitizer)
    assert float(lines[-1].split()[1]) <= 570


def test_steps_rows_tables_and_pictures_are_written(tmp_path, monkeypatch, capsys):
    """The whole command on a card that is not there: its bench step times a small op on the CPU."""

    def steps(scratch, architecture, out, name):
        bench = [sys.executable, "-m", "bench", "--op", "annotated_norm", "--backend", "auto", "--budget", "0.1"]
        bench += ["--no-compile", "--no-memory", "--rows-only", "--out", str(out), "--name", name]
        return [
            gpu.Step("tests", [sys.executable, "-c", "raise SystemExit(1)"], 60, 1),
            gpu.Step("bench op annotated_norm", bench, 200, 10),
        ]

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(gpu, "machine", lambda: {"device": "Some Card 80GB", "date": "2026-01-02"})
    monkeypatch.setattr(gpu, "steps", steps)
    monkeypatch.chdir(tmp_path.parent)
    assert gpu.main(["--out", tmp_path.name]) == 1  # a step failed, and the rest still ran
    made = {path.name for path in tmp_path.iterdir()}
    assert made >= {f"some-card-80gb-2026-01-02{end}" for end in ("-steps.json", ".json", ".md", ".csv", "-ops.png")}
    assert "exit code 1" in (tmp_path / "some-card-80gb-2026-01-02-steps.json").read_text()


def test_refusals_are_one_line():
    with pytest.raises(ValueError, match="no such step"):
        gpu.main(["--dry-run", "--only", "graph"])
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no CUDA device"):
            gpu.main([])


def test_a_step_that_fails_or_runs_over_is_written_down(tmp_path):
    def step(code):
        return gpu.Step("step", [sys.executable, "-c", code], 10, 1, tmp_path / "result.xml")

    report = gpu.run(step("print('why'); raise SystemExit(3)"), 10)
    assert report["outcome"] == "exit code 3" and report["log"] == ["why"] and "result" not in report
    assert gpu.run(step("import time; time.sleep(9)"), 0.5)["outcome"] == "stopped after 0 s"
    assert gpu.run(step("print('fine')"), 10)["outcome"] == "ok"


def test_failed_tests_are_named(tmp_path):
    (tmp_path / "test_it.py").write_text("def test_good(): pass\ndef test_bad(): assert 1 == 2\n")
    xml = tmp_path / "tests.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    step = gpu.Step("tests", [*command, f"--junitxml={xml}", str(tmp_path)], 60, 1, xml)
    result = gpu.run(step, 60)["result"]
    assert result["tests"] == 2 and result["failures"] == 1
    assert "test_bad: assert 1 == 2" in result["failed"][0]
