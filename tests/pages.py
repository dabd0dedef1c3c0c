"""The code blocks of pages, run in order as they stand there, in one folder per page.

A block's word says what it is: ``python`` is run, all of a page in one namespace; ``sh`` or none is commands, one a
line; ``json`` is read; ``cpp`` is a source of kernels, which must compile; ``text`` straight after a block is what it
prints, line by line in that order, where ``...`` stands for anything. ``<!-- parsed: WHY -->`` before commands: too
long or too much for a test, so their options alone are looked at; before ``python``, which is compiled only.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
import tomllib
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import pytest

from posekernels.__main__ import run

ROOT = Path(__file__).parents[1]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
FENCE = re.compile(
    r"(?:^<!-- (?P<how>\w+): (?P<why>[^\n]+) -->\n\n?)?"
    r"^(?P<in>[ ]*)(?P<tick>```+)(?P<word>[^\n]*)\n(?P<text>.*?)^(?P=in)(?P=tick)[ ]*$",
    re.M | re.S,
)
OTHERS = ("pytest", "git", "cd", "ray", "docker", "jupyter", "wandb", "hf")  # programs that are not ours
OTHERS += ("ruff", "clang-format", "auditwheel")
OTHERS_OF_PYTHON = ("pytest", "build", "setup.py")


@dataclass
class Block:
    line: int
    word: str
    text: str
    parsed: bool = False


def blocks(page: str) -> Iterator[Block]:
    for found in FENCE.finditer(page):
        word = found["word"].strip()
        if word.startswith("{"):  # a directive of the site
            continue
        assert found["how"] in (None, "parsed"), f"<!-- {found['how']}: -->: only parsed is known"
        line = page[: found.start("tick")].count("\n") + 1
        yield Block(line, word or "sh", textwrap.dedent(found["text"]), found["how"] is not None)


class Parsed(BaseException):
    """Ends a program whose options have been read."""


@contextlib.contextmanager
def options_only() -> Iterator[None]:
    """Programs end where they have read their options; a wrong one is an error as ever."""

    def stop(parser, arguments=None, namespace=None, real=argparse.ArgumentParser.parse_args):
        real(parser, arguments, namespace)
        raise Parsed

    with patch.object(argparse.ArgumentParser, "parse_args", stop), contextlib.suppress(Parsed):
        yield


def commands(text: str) -> Iterator[list[str]]:
    for line in text.replace("\\\n", " ").splitlines():
        for part in line.split(" && "):
            if words := shlex.split(part, comments=True):
                yield words


def command(words: list[str], parsed: bool) -> None:
    """One command, run or parsed.

    Raises:
        AssertionError: it fails, or nobody knows how to run it.
    """
    settings = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
    program, *rest = [word for word in words if not re.match(r"[A-Z_]+=", word)]
    if program in OTHERS or (program in ("python", "python3") and set(rest[:2]) & set(OTHERS_OF_PYTHON)):
        return
    if program == "pip":
        named = re.findall(r"\[([\w,-]+)\]", " ".join(rest))
        assert rest[0] == "install" and {e for n in named for e in n.split(",")} <= set(EXTRAS), words
        return
    if program == "torchrun":
        program, rest, parsed = "python", rest[rest.index("-m") :], True
    with contextlib.ExitStack() as stack:
        stack.enter_context(patch.dict(os.environ, settings))
        if parsed:
            stack.enter_context(options_only())
        if program == "posekernels":
            code = run(rest)
        else:
            assert program == "python", f"{words}: no program that is known here"
            code = _python(rest)
        assert not code, f"{shlex.join(words)}: exit code {code}"


def _python(words: list[str]) -> int | str | None:
    module = words[1] if words[0] == "-m" else None
    name = f"posekernels.{module}" if module and module.split(".")[0] == "train" else module
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}  # run_cli sets its own
    with patch.object(sys, "argv", words[1:] if module else words), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # that the module has been imported before
        try:
            if module:
                runpy.run_module(name, run_name="__main__")
            else:
                runpy.run_path(str(ROOT / words[0]), run_name="__main__")
        except SystemExit as end:
            return end.code
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return 0


def check_printed(wanted: str, printed: str) -> None:
    """Raises AssertionError unless the lines of ``wanted`` are among those printed, in that order."""
    lines = iter(printed.splitlines())
    for line in filter(str.strip, wanted.splitlines()):
        pattern = re.escape(line.rstrip()).replace(r"\.\.\.", ".*")
        assert any(re.fullmatch(pattern, one.rstrip()) for one in lines), f"not printed: {line}\nbut:\n{printed}"


def compiles(source: str) -> None:
    """Raises AssertionError unless a compiler takes this for a source of ``csrc``; where there is none, skips."""
    compiler = shutil.which("c++") or pytest.skip("no C++ compiler")
    flags = ["-std=c++17", "-fsyntax-only", "-Wall", f"-I{ROOT / 'csrc/include'}", "-DPOSEKERNELS_ISA=generic"]
    done = subprocess.run([compiler, *flags, "-x", "c++", "-"], input=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def check(page: Path, parsed: bool = False) -> None:
    """Run all blocks of a page in the current folder; with ``parsed`` look at options alone, of all of them.

    Raises:
        AssertionError: names the page and the line of the block that fails.
    """
    namespace, printed = {"__name__": "__main__"}, None
    for block in blocks(page.read_text()):
        block.parsed |= parsed
        said = io.StringIO()
        try:
            if block.word == "text":
                if printed is not None:
                    check_printed(block.text, printed)
                continue
            if block.word == "json":
                json.loads(block.text)
                continue
            if block.word == "cpp":
                compiles(block.text)
                continue
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                if block.word == "python":
                    code = compile(block.text, f"{page.name}, line {block.line}", "exec")
                    if not block.parsed:
                        exec(code, namespace)
                else:
                    assert block.word in ("sh", "bash"), f"a block of {block.word!r}: nobody knows how to run it"
                    for words in commands(block.text):
                        command(words, block.parsed)
        except Exception as error:
            why = "".join(traceback.format_exception(error)[-3:])
            raise AssertionError(f"{page.name}, line {block.line}: {why}\n{said.getvalue()[-2000:]}") from error
        printed = None if block.parsed else said.getvalue()
