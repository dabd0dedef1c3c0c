"""Packages that only some uses need: extras of ``pip install posekernels[...]``."""

from __future__ import annotations

import importlib
from types import ModuleType


class MissingExtra(ValueError):
    """An optional package is not installed; says which extra brings it."""


def needs(module: str, extra: str, purpose: str) -> ModuleType:
    """An optional module, imported.

    Args:
        module: its dotted name. extra: of posekernels, that installs it. purpose: what wants it, as a subject.
    Raises:
        MissingExtra: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise MissingExtra(f'{purpose} needs {package}: pip install "posekernels[{extra}]"') from error
