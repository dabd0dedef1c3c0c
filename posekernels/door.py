"""The rooms ``models``, ``people`` and ``train``: folders of their own in a checkout, packages of ``posekernels``.

``python -m train.h36m`` is how the programs are run from a checkout, and there ``train`` is also a name that Python can
import. Both names must mean the same modules, or there would be two of every class.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

ROOMS = ("models", "people", "train")


def checkout() -> list[str]:
    """The folder where the rooms stand beside this package: the checkout, or nothing for an installed package."""
    root = Path(__file__).resolve().parent.parent
    return [str(root)] if (root / "setup.py").is_file() and all((root / room).is_dir() for room in ROOMS) else []


class _Alias:
    """Imports ``train.x`` as ``posekernels.train.x``: a finder and its loader in one."""

    def find_spec(self, name: str, path=None, target=None) -> ModuleSpec | None:
        if name.partition(".")[0] not in _open:
            return None
        real = importlib.util.find_spec(f"posekernels.{name}")
        if real is None:
            return None
        spec = ModuleSpec(name, self, origin=real.origin, is_package=real.submodule_search_locations is not None)
        spec.has_location = real.has_location
        return spec

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module) -> None:
        name = module.__spec__.name
        sys.modules[name] = importlib.import_module(f"posekernels.{name}")

    def get_code(self, name: str):
        """What ``python -m`` runs."""
        return importlib.util.find_spec(f"posekernels.{name}").loader.get_code(f"posekernels.{name}")


_open: set[str] = set()


def one_package(name: str) -> None:
    """Called first by a room's ``__init__``: imported as ``train``, it becomes ``posekernels.train``."""
    if name.startswith("posekernels."):
        return
    if not _open:
        sys.meta_path.insert(0, _Alias())
    _open.add(name)
    sys.modules[name] = importlib.import_module(f"posekernels.{name}")
