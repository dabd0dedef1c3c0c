"""What a user could run instead: eager PyTorch, ``torch.compile``, ONNX Runtime."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import posekernels


class Unavailable(RuntimeError):
    """A peer that cannot run here, or cannot run this; says why."""


def eager(call: Callable) -> Callable:
    """``call`` with every op on its reference: plain PyTorch."""

    def run():
        with posekernels.use_backend("reference"):
            return call()

    return run


def compiled(function: Callable, run: Callable[[Callable], Any], mode: str | None = None) -> Callable:
    """``run`` on ``function``, a network or an op in its eager form, under ``torch.compile``."""
    fast = torch.compile(function, mode=mode, dynamic=False)
    call = eager(lambda: run(fast))
    try:
        call()
    except Exception as error:
        raise Unavailable(f"torch.compile: {str(error).splitlines()[0]}") from error
    return call


def session(net: nn.Module, inputs: tuple[Tensor, ...], threads: int) -> Callable[..., Tensor]:
    """The eager form exported to ONNX, as a function of tensors, in ONNX Runtime with ``threads`` threads."""
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise Unavailable("onnxruntime is not installed (pip install -e '.[onnx]')") from error
    quiet = contextlib.redirect_stdout(io.StringIO())
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), quiet, torch.no_grad():
        warnings.simplefilter("ignore")
        path = str(Path(folder) / "net.onnx")
        with posekernels.use_backend("reference"):
            try:
                torch.onnx.export(net, inputs, path, dynamo=True, verbose=False)
            except Exception as error:
                raise Unavailable(f"ONNX export: {str(error).strip().splitlines()[0]}") from error
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        providers = [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in ort.get_available_providers()]
        if not inputs[0].is_cuda:
            providers = ["CPUExecutionProvider"]
        try:
            made = ort.InferenceSession(path, options, providers=providers)
        except Exception as error:  # its own types: an operator it has no kernel for in bfloat16, say
            reason = str(error).strip().splitlines()[0].replace(path, "the export")
            raise Unavailable(f"ONNX Runtime: {reason}") from error
    names = [i.name for i in made.get_inputs()]

    def run(*tensors: Tensor) -> Tensor:
        return torch.from_numpy(made.run(None, {n: t.cpu().numpy() for n, t in zip(names, tensors)})[0])

    return run
