"""The networks of five published systems, by name: ``models.create("htnet")``."""

from posekernels.archive import CheckpointError
from posekernels.door import one_package

from .forecasting import forecast
from .lifting import lift
from .registry import create, load_published, names, save_published
from .streaming import stream

one_package(__name__)

__all__ = ["CheckpointError", "create", "forecast", "lift", "load_published", "names", "save_published", "stream"]
