"""The one command for a GPU machine: what can be checked of it without one."""

import sys

import pytest
import torch

from bench import gpu


def test_dry_run_lists_every_step_and_fits_the_limit(capsys):
    assert gpu.main(["--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:2]] == ["build", "tests"]
    assert any(line.startswith("bench op graph_conv") for line in lines)


def test_refusals_are_one_line():
    with pytest.raises(ValueError, match="no such step"):
        gpu.main(["--dry-run", "--only", "graph"])
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no CUDA device"):
            gpu.main([])


def test_a_step_that_fails_or_runs_over_is_written_down(tmp_path):
    def step(code):
        return gpu.Step("step", [sys.executable, "-c", code], 10, 1, tmp_path / "result.json")

    report = gpu.run(step("print('why'); raise SystemExit(3)"), 10)
    assert report["outcome"] == "exit code 3" and report["log"] == ["why"] and "result" not in report
    assert gpu.run(step("import time; time.sleep(9)"), 0.5)["outcome"] == "stopped after 0 s"
    report = gpu.run(step(f"open({str(tmp_path / 'result.json')!r}, 'w').write('[1]')"), 10)
    assert report["outcome"] == "ok" and report["result"] == [1]


def test_failed_tests_are_named(tmp_path):
    (tmp_path / "test_it.py").write_text("def test_good(): pass\ndef test_bad(): assert 1 == 2\n")
    xml = tmp_path / "tests.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    step = gpu.Step("tests", [*command, f"--junitxml={xml}", str(tmp_path)], 60, 1, xml)
    result = gpu.run(step, 60)["result"]
    assert result["tests"] == 2 and result["failures"] == 1
    assert "test_bad: assert 1 == 2" in result["failed"][0]
