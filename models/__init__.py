"""The networks of five published systems, by name: ``models.create("htnet")``."""

from posekernels.archive import CheckpointError
from posekernels.door import one_package

from .forecasting import forecast
from .hub import push_to_hub
from .lifting import Lifts, lift
from .load import load, save_published
from .registry import create, names, systems
from .streaming import stream

one_package(__name__)

__all__ = [
    "CheckpointError",
    "Lifts",
    "create",
    "forecast",
    "lift",
    "load",
    "names",
    "push_to_hub",
    "save_published",
    "stream",
    "systems",
]
