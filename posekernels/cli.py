"""What every command line of the project does with a mistake: one line, exit code 2."""

from __future__ import annotations

import argparse
import itertools
import os
import re
import select
import signal
import sys
import warnings
from collections.abc import Callable, Sequence

from ._dispatch import BackendError
from .checks import nearest


class Notice(UserWarning):
    """A warning to whoever typed the command; ``run_cli`` prints it as one line, without the place in the code."""


class Parser(argparse.ArgumentParser):
    """``ArgumentParser`` whose errors are ValueErrors of one line, with the nearest option; for ``run_cli``."""

    _given: Sequence[str] = ()  # what is being parsed

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **{"allow_abbrev": False} | kwargs)

    def parse_known_args(self, args=None, namespace=None):
        self._given = [str(word) for word in (sys.argv[1:] if args is None else args)]
        return super().parse_known_args(args, namespace)

    def _unknown(self) -> str | None:
        """The first option that was given and does not exist."""
        for word in itertools.takewhile(lambda word: word != "--", self._given):
            name = word.partition("=")[0]
            if re.match("--?[A-Za-z]", name) and not {name, name[:2]} & {*self._option_string_actions}:
                return name
        return None

    def error(self, message: str):
        if message.startswith("the following arguments are required") and (name := self._unknown()):
            message += f"; unrecognized arguments: {name}{nearest(name, self._option_string_actions)}"
        elif unknown := re.match(r"unrecognized arguments: (-\S+)", message):
            message += nearest(unknown[1].partition("=")[0], self._option_string_actions)
        raise ValueError(f"{message} (--help lists the options)")


class Stopped(KeyboardInterrupt):
    """SIGTERM, or SIGHUP of a lost connection: everything that Ctrl-C lets happen happens, then the program ends."""


def _stop(number: int, _frame) -> None:
    raise Stopped(signal.Signals(number).name)


def _unread() -> bool:
    """Whether nobody reads stdout any more."""
    if sys.stdout is None:
        return False
    pipe = select.poll()
    pipe.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in pipe.poll(0))


def frame_rate(text: str) -> float:
    """For ``type=`` of frames per second, which cameras tell as fractions: "25", "29.97", "30000/1001"."""
    above, _, below = text.partition("/")
    if below and not float(below):
        raise ValueError(f"no rate: {text}")
    return float(above) / float(below or 1)


frame_rate.__name__ = "number or fraction"  # how argparse calls it in its message


def run_cli(main: Callable[[], int | None]) -> None:
    """Run ``main`` and exit with what it returns.

    A ValueError, TypeError or OSError (a bad argument or file; every check in this project raises one of them) and a
    BackendError are printed as one line and exit with 2, and so is running out of memory. Ctrl-C, SIGTERM and
    SIGHUP end it as a KeyboardInterrupt, and exit with 130. Where nobody reads stdout any more, as in ``... | head``,
    it ends without a word and exits with 141, as the shell has it. ``POSEKERNELS_TRACEBACK=1`` shows where an error
    came from instead.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    plain = warnings.formatwarning

    def words(message, category, *place):
        return f"warning: {message}\n" if issubclass(category, Notice) else plain(message, category, *place)

    warnings.formatwarning = words
    try:
        code = main()
        if sys.stdout is not None:
            sys.stdout.flush()
    except KeyboardInterrupt as stopped:
        print(f"\nstopped{f' by {stopped}' if isinstance(stopped, Stopped) else ''}", file=sys.stderr)
        code = 130
    except (ValueError, TypeError, OSError, MemoryError, RuntimeError) as error:
        if isinstance(error, BrokenPipeError) and _unread():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains of what it has left
            sys.exit(128 + signal.SIGPIPE)
        ours = not isinstance(error, RuntimeError) or isinstance(error, BackendError)
        out_of_memory = any(words in str(error) for words in ("out of memory", "can't allocate memory", "bad_alloc"))
        if not (ours or out_of_memory) or os.environ.get("POSEKERNELS_TRACEBACK") == "1":
            raise
        line = "; ".join(part.strip() for part in str(error).splitlines() if part.strip()).replace(":; ", ": ")
        line = line or ("out of memory" if isinstance(error, MemoryError) else type(error).__name__)
        rank = os.environ.get("RANK", "0")
        print(f"{'' if rank == '0' else f'[rank {rank}] '}error: {line}", file=sys.stderr)
        code = 2
    finally:
        warnings.formatwarning = plain
    sys.exit(code)
