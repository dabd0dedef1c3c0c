"""The networks of five published systems, by name: ``models.create("htnet")``."""

from .registry import CheckpointError, create, load_published, names

__all__ = ["CheckpointError", "create", "load_published", "names"]
