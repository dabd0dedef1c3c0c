"""The one error of data that cannot be used."""


class DataError(ValueError):
    """A file or argument that cannot be used: names it, what came, and what was expected, in one line."""
