"""What a user could run instead: eager PyTorch, ``torch.compile``, ONNX Runtime, OpenVINO."""

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
from posekernels._attention import fused
from posekernels.extras import MissingExtra, needs


class Unavailable(RuntimeError):
    """A peer that cannot run here, or cannot run this; says why."""


def eager(call: Callable) -> Callable:
    """``call`` with every op on its reference, as a user of PyTorch would write it."""

    def run():
        with posekernels.use_backend("reference"), fused():
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


def _exported(net: nn.Module, inputs: tuple[Tensor, ...], path: Path) -> None:
    """The eager form in ONNX."""
    quiet = contextlib.redirect_stdout(io.StringIO())
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), quiet, torch.no_grad(), posekernels.use_backend("reference"):
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(net, inputs, path, dynamo=True, verbose=False)
        except Exception as error:
            raise Unavailable(f"ONNX export: {str(error).strip().splitlines()[0]}") from error


def onnxruntime(path: Path, inputs: tuple[Tensor, ...], threads: int) -> Callable[..., Tensor]:
    """An ONNX file in ONNX Runtime, all its optimisations on."""
    ort = needs("onnxruntime", "onnx", "this peer")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")[not inputs[0].is_cuda :]
    made = ort.InferenceSession(str(path), options, providers=[p for p in wanted if p in ort.get_available_providers()])
    names = [i.name for i in made.get_inputs()]
    return lambda *tensors: torch.from_numpy(made.run(None, {n: t.cpu().numpy() for n, t in zip(names, tensors)})[0])


def openvino(path: Path, inputs: tuple[Tensor, ...], threads: int) -> Callable[..., Tensor]:
    """An ONNX file in OpenVINO, in its mode for latency; bfloat16 where the inputs are."""
    ov = needs("openvino", "bench", "this peer")
    half = inputs[0].dtype == torch.bfloat16
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    options["INFERENCE_PRECISION_HINT"] = "bf16" if half else "f32"
    core = ov.Core()
    made = core.compile_model(core.read_model(path), "CPU", options).create_infer_request()

    def run(*tensors: Tensor) -> Tensor:
        made.infer([t.numpy() for t in tensors], share_inputs=True, share_outputs=True)
        return torch.from_numpy(made.get_output_tensor(0).data)

    return run


SESSIONS = {"onnxruntime": onnxruntime, "openvino": openvino}


def session(engine: str, net: nn.Module, inputs: tuple[Tensor, ...], threads: int) -> Callable[..., Tensor]:
    """The eager form exported to ONNX, as a function of tensors, in one of ``SESSIONS`` with ``threads`` threads."""
    if engine == "onnxruntime" and inputs[0].is_cuda:
        known = needs("onnxruntime", "onnx", "this peer").get_available_providers()
        if "CUDAExecutionProvider" not in known:
            raise Unavailable("ONNX Runtime: without its CUDA provider here")
    if engine == "openvino":
        if inputs[0].is_cuda:
            raise Unavailable("OpenVINO: has no CUDA")
        # It takes float32 and rounds to bfloat16 itself.
        half, net = inputs[0].dtype, net.float()
        example = tuple(t.float() if t.is_floating_point() else t for t in inputs)
    else:
        half, example = None, inputs
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        _exported(net, example, path)
        try:
            run = SESSIONS[engine](path, inputs, threads)
        except MissingExtra as error:
            raise Unavailable(str(error)) from error
        except Exception as error:  # its own types: an operator it has no kernel for in bfloat16, say
            reason = str(error).strip().splitlines()[0].replace(str(path), "the export")
            raise Unavailable(f"{engine}: {reason}") from error
    if half == torch.bfloat16:
        return lambda *tensors: run(*(t.float() if t.is_floating_point() else t for t in tensors))
    return run
