"""``posekernels info`` names every op, and says why what is missing is missing; what all commands share."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from posekernels import _dispatch, _native, info
from posekernels.__main__ import run
from posekernels.cli import Parser, frame_rate


def test_report_names_every_op_and_every_reason():
    text, table = info.report(), info.backends()
    assert set(table) == set(_dispatch.OPS)
    for op, row in table.items():
        assert op in text and row["reference"] == "yes"
        for reason in row.values():
            assert reason in ("yes", "the op has none") or reason in text


def test_a_missing_module_is_told_with_its_reason(monkeypatch):
    monkeypatch.setattr(_native, "core", None)
    monkeypatch.setattr(_native, "_no_core", "no C++ compiler: none of them")
    text = info.report()
    assert "no C++ kernels: no C++ compiler: none of them" in text
    assert info.backends()["graph_conv"]["cpu"] == "no C++ compiler: none of them"


def test_command_line(capsys):
    assert run(["info"]) == 0
    assert "graph_conv" in capsys.readouterr().out
    with pytest.raises(ValueError, match="unrecognized arguments: --jsn"):
        run(["info", "--jsn"])


@pytest.mark.parametrize("length", [10, 1_000_000])  # both less and more than Python keeps before it writes
def test_a_reader_who_has_enough_ends_a_command_without_a_word(length):
    read, write = os.pipe()
    os.close(read)
    program = f"from posekernels.cli import run_cli; run_cli(lambda: print('x' * {length}))"
    done = subprocess.run([sys.executable, "-c", program], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_every_environment_variable_has_its_line():
    root = Path(__file__).parents[1]
    page = (root / "docs" / "environment.md").read_text()
    read = re.compile(r"(?:environ(?:\.get\(|\[)|getenv\()\s*\"([A-Z_]+)\"")
    names = set()
    for folder in ("posekernels", "models", "people", "train", "csrc", "setup.py"):
        files = (
            [root / folder]
            if folder.endswith(".py")
            else [*(root / folder).rglob("*.py"), *(root / folder).rglob("*.cpp")]
        )
        names |= {name for file in files for name in read.findall(file.read_text())}
    assert {"POSEKERNELS_BACKEND", "POSEKERNELS_ISA", "RANK"} <= names
    assert not {name for name in names if f"`{name}`" not in page and not name.startswith("XDG_")}


def test_frames_per_second_are_numbers_and_fractions():
    parser = Parser()
    parser.add_argument("--fps", type=frame_rate)
    assert parser.parse_args(["--fps", "29.97"]).fps == 29.97
    assert parser.parse_args(["--fps", "30000/1001"]).fps == 30000 / 1001
    for wrong in ("fast", "30/0", "1/2/3"):
        with pytest.raises(ValueError, match=f"--fps: invalid number or fraction value: '{wrong}'"):
            parser.parse_args(["--fps", wrong])
