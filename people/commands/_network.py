"""``--model`` and ``--config`` of the commands that take any network."""

from __future__ import annotations

import ast
from argparse import Namespace

from torch import nn

from posekernels import models
from posekernels.models.load import About


def add_arguments(parser) -> None:
    parser.add_argument("--model", metavar="NAME", help=f"one of {', '.join(models.names())}")
    parser.add_argument(
        "--config",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="sizes other than the published, as frames=27; of RIE filter_widths=[3,3,3]",
    )


def _config(pairs: list[str]) -> dict:
    config = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        try:
            config[key] = ast.literal_eval({"true": "True", "false": "False"}.get(value, value)) if equals else None
        except (ValueError, SyntaxError):
            config[key] = value
        if not key or not equals:
            raise ValueError(f"--config: expected KEY=VALUE, such as frames=27, got {pair!r}")
    return config


def load(options: Namespace, weights: str | None) -> nn.Module:
    """The network of ``--model`` with ``weights``, or with fresh ones; in eval mode.

    Raises:
        ValueError: neither a model nor weights, unknown names, weights that do not fit.
    """
    config = _config(options.config)
    if options.model is None and (config or weights is None):
        raise ValueError(
            "--config: of which network? name it with --model"
            if config
            else "--model or --weights: one of the two must say which network is meant"
        )
    if weights is not None:
        return models.load(weights, _create(options.model, config) if config else options.model)
    net = _create(options.model, config).eval()
    net.about = About(*net.created)
    return net


def _create(name: str, config: dict) -> nn.Module:
    try:
        return models.create(name, **config)
    except TypeError as error:
        raise ValueError(f"--config: {error}") from error
