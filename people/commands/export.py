"""``posekernels export -o OUT.onnx``: a network for ONNX Runtime and others, checked before it is called done."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

import posekernels
from posekernels import models
from posekernels._dispatch import BackendError
from posekernels.cli import Parser
from posekernels.extras import needs
from posekernels.files import check_writable, write_aside
from posekernels.models.examples import inputs_of, names_of

from . import _network

CLOSE = 1e-5  # relative to the largest result
BATCHES = (1, 3, 8)


def export(net: nn.Module, name: str, path: Path) -> float:
    """Write ``net`` as ONNX with a dynamic first axis, ops in their reference form, and run it in onnxruntime.

    Returns:
        The largest difference from PyTorch, relative to the largest result, over several batch sizes.
    Raises:
        ValueError: missing packages, a network that cannot be traced, results further apart than 1e-5.
    """
    runtime = needs("onnxruntime", "onnx", "checking an ONNX file")
    needs("onnxscript", "onnx", "writing ONNX")
    inputs, (given, found) = inputs_of(name, net, 2), names_of(name)
    batch = torch.export.Dim("batch", min=1)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with write_aside(path) as aside:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            torch.no_grad(),
            posekernels.use_backend("reference"),
        ):
            warnings.simplefilter("ignore")
            try:
                torch.onnx.export(
                    net,
                    inputs,
                    str(aside),
                    input_names=list(given),
                    output_names=list(found),
                    dynamic_shapes=tuple({0: batch} for _ in inputs),
                    dynamo=True,
                    external_data=False,
                    verbose=False,
                )
            except (RuntimeError, TypeError, ValueError, BackendError) as error:
                why = str(error.__cause__ or error).strip().splitlines()[0]  # the cause of what torch makes of it
                raise ValueError(f"{name} cannot be exported: {why}") from error
            session = runtime.InferenceSession(str(aside), providers=["CPUExecutionProvider"])
            worst = 0.0
            for size in BATCHES:
                inputs = inputs_of(name, net, size, seed=size)
                got = session.run(None, {n: x.numpy() for n, x in zip(given, inputs)})[0]
                wanted = net(*inputs).numpy()
                off = np.abs(got - wanted).max() / max(np.abs(wanted).max(), 1e-12)
                worst = float(np.maximum(worst, off))  # not max(), which passes over NaN
        if not worst <= CLOSE:
            raise ValueError(
                f"{name}: onnxruntime differs from PyTorch by {worst:.1e}, more than {CLOSE:g}; not written"
            )
    return worst


def main(arguments: list[str]) -> int:
    p = Parser(prog="posekernels export", description=__doc__)
    p.add_argument("-o", "--onnx", required=True, type=Path, metavar="OUT.onnx")
    p.add_argument("--weights", metavar="FILE", help="ours or published (default: those that come with the project)")
    _network.add_arguments(p)
    options = p.parse_args(arguments)
    if options.onnx.suffix != ".onnx":
        raise ValueError(f"-o {options.onnx}: expected a name that ends in .onnx")
    check_writable(options.onnx)
    if options.weights is None and options.model is None:
        net = models.load("lifter")
    else:
        net = _network.load(options, options.weights)
    if hasattr(net, "members"):
        raise ValueError(f"export: {net.about.network} is several networks that work together; a file holds one")
    off = export(net, net.about.network, options.onnx)
    size = options.onnx.stat().st_size / 1e6
    print(f"wrote {options.onnx}: {net.about.network}, {size:.1f} MB, dynamic batch")
    print(f"checked in onnxruntime with batches of {', '.join(map(str, BATCHES))}: largest difference {off:.1e}")
    return 0
