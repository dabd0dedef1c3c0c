import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from posekernels.files import check_writable, left_aside, save_checkpoint, write_aside

ROOT = Path(__file__).parents[1]


def test_a_file_is_whole_or_as_it_was(tmp_path):
    file = tmp_path / "a.txt"
    with write_aside(file) as aside:
        aside.write_text("old")
        assert aside.suffix == ".txt" and not file.exists()
    with pytest.raises(RuntimeError), write_aside(str(file)) as aside:
        aside.write_text("half")
        raise RuntimeError
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]


def test_what_was_written_is_on_the_disk_before_its_name_is(tmp_path, monkeypatch):
    done, sync, move = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: done.append(os.fstat(file.fileno()).st_size) or sync(file))
    monkeypatch.setattr(os, "replace", lambda *names: done.append("named") or move(*names))
    with write_aside(tmp_path / "a.txt") as aside:
        aside.write_text("words")
    assert done == [5, "named"]


def test_weights_are_readable_as_other_files_are(tmp_path):
    from safetensors.torch import save_file

    (tmp_path / "plain").write_text("")
    with write_aside(tmp_path / "a.safetensors") as aside:
        save_file({"a": torch.zeros(2)}, aside)  # which writes for its owner only
    assert os.stat(tmp_path / "a.safetensors").st_mode == os.stat(tmp_path / "plain").st_mode


FULL = """
import resource, signal, sys, torch
from posekernels.cli import run_cli
from posekernels.files import save_checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))  # what a full disk is like for this process
run_cli(lambda: save_checkpoint({"a": torch.zeros(1_000_000)}, sys.argv[1]))
"""


def test_a_full_disk_is_one_line_and_the_old_checkpoint_is_whole(tmp_path):
    file = tmp_path / "last.pt"
    save_checkpoint({"a": torch.arange(3)}, file)
    done = subprocess.run([sys.executable, "-c", FULL, str(file)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and done.stderr == f"error: [Errno 27] File too large: '{file}'\n"
    assert torch.load(file)["a"].tolist() == [0, 1, 2] and list(tmp_path.iterdir()) == [file]


def test_what_a_killed_process_left_is_known(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    mine, others = f".last-aside-{child.pid}.pt", f".settings-{child.pid}.5"  # a file of the user's, hidden
    for name in (mine, others, f".last-aside-{os.getpid()}.pt", ".hidden-file.pt", "last-aside-1.pt"):
        (tmp_path / name).touch()
    assert [p.name for p in left_aside(tmp_path)] == [mine]
    with write_aside(tmp_path / "x.npz") as aside:
        assert aside.name == f".x-aside-{os.getpid()}.npz"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("module", ["posekernels", "posekernels.train.h36m", "train.h36m"])
def test_stopped_while_pytorch_is_imported(tmp_path, module, number):
    (tmp_path / "torch.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    command = [sys.executable, "-m", module, "--help"]
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    with subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout.readline() == "importing\n"
        child.send_signal(number)
        _, said = child.communicate(timeout=20)
    assert child.returncode == -number and said == ("\nstopped\n" if number == signal.SIGINT else "")


WORK = """
import time
from posekernels.cli import run_cli
from posekernels.files import write_aside
def work():
    with write_aside("out.txt"):
        print("working", flush=True)
        time.sleep(60)
run_cli(work)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stopped_while_writing_leaves_nothing(tmp_path, number):
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", WORK]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=tmp_path, env=env, **pipes) as child:
        assert child.stdout.readline() == "working\n"
        child.send_signal(number)
        _, said = child.communicate(timeout=20)
    by = "" if number == signal.SIGINT else f" by {number.name}"
    assert child.returncode == 130 and said == f"\nstopped{by}\n" and not list(tmp_path.iterdir())


def test_a_failure_to_write_names_the_file_that_was_asked_for(tmp_path):
    file = tmp_path / "a.txt"
    with pytest.raises(OSError, match="No space left.*a.txt") as error, write_aside(file):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert f".a-aside-{os.getpid()}" not in str(error.value)
    with pytest.raises(FileNotFoundError, match="other.txt"), write_aside(file):
        open(tmp_path / "other.txt").close()
    with write_aside(tmp_path / ("n" * 250 + ".txt")) as aside:  # as long as names may be
        aside.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["n" * 250 + ".txt"]


@pytest.mark.parametrize("name", ["n" * 300 + ".npz", "nowhere/x.npz", "folder"])
def test_what_cannot_be_written_is_told_before_the_work(name, tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match=f"^-o .*{name}: (cannot be written .*|there is no folder .*)"):
        check_writable(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
