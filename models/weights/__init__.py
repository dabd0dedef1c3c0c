"""Weights that come with the project; ``README.md`` is their card, ``models.load`` reads them."""
