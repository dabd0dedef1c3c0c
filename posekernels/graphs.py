"""Networks as CUDA graphs: ``graphed(net, example)`` records what a call launches, and replays it.

A launch costs the host 3 to 85 microseconds, a replay of them all one launch: at small batches the host is the speed.
Executed here with a stand-in for the graph alone (tests/test_graphs.py): not run on a card.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Hashable

import torch
from torch import Tensor, nn

from ._adapters import allows_tf32
from ._dispatch import requested
from .prepared import Watched, captured

_CARD = "cuda"
_WARM_UPS = 3  # calls before the recording: tables are sent, kernels compiled and held against the reference
_log = logging.getLogger("posekernels")


def _each(result, f: Callable[[Tensor], Tensor]):
    """``result`` with ``f`` of every tensor in it: of a tensor, tuples, lists, dicts, dataclasses and None."""
    if isinstance(result, Tensor):
        return f(result)
    if isinstance(result, (tuple, list)):
        made = [_each(value, f) for value in result]
        return type(result)(*made) if hasattr(result, "_fields") else type(result)(made)
    if isinstance(result, dict):
        return {key: _each(value, f) for key, value in result.items()}
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        fields = [field.name for field in dataclasses.fields(result)]
        return dataclasses.replace(result, **{name: _each(getattr(result, name), f) for name in fields})
    if result is None:
        return None
    raise TypeError(f"graphed: a result must be made of tensors, got {type(result).__name__}")


def _record(call: Callable, device: torch.device) -> tuple[Callable[[], None], object]:
    """(what replays ``call``, its results, which every replay writes anew).

    Raises:
        RuntimeError: ``call`` does what a CUDA graph cannot record.
    """
    with torch.cuda.device(device):
        current, aside = torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(current)
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UPS):
                call()
        current.wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            results = call()
    return graph.replay, results


def _refuse(inputs: tuple) -> None:
    if not inputs:
        raise ValueError("graphed: needs an example of every input, got none")
    for i, x in enumerate(inputs):
        if not isinstance(x, Tensor):
            raise TypeError(f"graphed: input {i} must be a tensor, got {type(x).__name__} (partial() binds others)")
        if x.device.type != _CARD:
            raise ValueError(f"graphed: a CUDA graph needs tensors on a GPU, input {i} is on {x.device}")
        if x.device != inputs[0].device:
            raise ValueError(f"graphed: inputs must be on one GPU, got {inputs[0].device} and {x.device}")


def _network_of(call: Callable) -> nn.Module | None:
    """The network that is called: itself, or that of a method of it, with arguments bound or not."""
    while isinstance(call, functools.partial):
        call = call.func
    net = call if isinstance(call, nn.Module) else getattr(call, "__self__", None)
    return net if isinstance(net, nn.Module) else None


def _settings(device: torch.device) -> tuple:
    """What a call does otherwise under: the backend that is named, autocast, TF32."""
    autocast = torch.is_autocast_enabled(device.type) and torch.get_autocast_dtype(device.type)
    return requested(None), autocast, allows_tf32()


class Graphed:
    """A network that replays a CUDA graph. From ``graphed``."""

    def __init__(self, net: Callable, inputs: tuple[Tensor, ...]):
        self._call = net
        self._net = _network_of(net)
        self._check_mode()
        self._inputs = tuple(x.detach().clone() for x in inputs)
        self._record()

    def _check_mode(self) -> None:
        if self._net is not None and self._net.training:
            raise ValueError("graphed: the network is in training mode; call net.eval() first")

    def _record(self) -> None:
        self._watched = None if self._net is None else Watched(self._net)
        name = getattr(self._call, "__name__", type(self._call).__name__)
        try:
            with torch.no_grad():
                self._replay, self._results = _record(lambda: self._call(*self._inputs), self._inputs[0].device)
        except RuntimeError as error:
            why = str(error).splitlines()[0]
            raise RuntimeError(f"graphed: {name} cannot be recorded: {why}") from error

    @torch.no_grad()
    def __call__(self, *inputs: Tensor):
        """What the network makes of inputs of the example's shapes; the results are the caller's.

        Raises:
            ValueError, TypeError: inputs of another number, shape, dtype or device; a network in training mode.
        """
        if len(inputs) != len(self._inputs):
            raise ValueError(f"graphed: takes {len(self._inputs)} inputs, got {len(inputs)}")
        for i, (x, own) in enumerate(zip(inputs, self._inputs)):
            if not isinstance(x, Tensor) or (x.shape, x.dtype, x.device) != (own.shape, own.dtype, own.device):
                got = f"{x.dtype} {list(x.shape)} on {x.device}" if isinstance(x, Tensor) else type(x).__name__
                want = f"{own.dtype} {list(own.shape)} on {own.device}"
                raise ValueError(f"graphed: input {i} must be {want} as the example, got {got}")
        self._check_mode()
        if self._watched is not None and not self._watched.same():
            self._record()  # what follows from the weights is in the graph
        for x, own in zip(inputs, self._inputs):
            own.copy_(x)
        self._replay()
        return _each(self._results, Tensor.clone)


def graphed(net: Callable, *example: Tensor) -> Graphed:
    """Record a call of a network as a CUDA graph; what is returned is called as the network is, and replays it.

    Shapes are those of the example. Backend, autocast and PyTorch's settings are those of now. Weights that change are
    seen as ``posekernels.prepared`` says of GPUs, and recorded anew. No gradient is recorded. Random numbers that are
    drawn from PyTorch's generator are others in every replay.

    Args:
        net: a network in eval mode, a method of one (``net.encode``), or another function of tensors.
        example: its inputs, on a GPU. Their numbers do not matter, but no error that they cause is seen later.
    Raises:
        ValueError, TypeError: inputs that are not tensors on one GPU; a network in training mode.
        RuntimeError: the network does what a graph cannot record, in PyTorch's words: the host reads a value, or sends
            numbers.
    """
    _refuse(example)
    return Graphed(net, example)


class Replays:
    """Calls that come again and again, on a GPU replayed from the second on; elsewhere they are just calls.

    ``POSEKERNELS_CUDA_GRAPHS=0`` leaves them just calls there too.

    Args:
        most: graphs that are kept; each holds the memory of its call.
    """

    def __init__(self, most: int = 4):
        self._most = most
        self.forget()

    def forget(self) -> None:
        self._known: OrderedDict[Hashable, Graphed | None] = OrderedDict()  # None: called once
        self._refused: set[Hashable] = set()

    def __call__(self, key: Hashable, net: Callable, *inputs: Tensor):
        """``net(*inputs)``. ``key``: whatever else the result depends on, beside inputs and weights."""
        if (
            inputs[0].device.type != _CARD
            or torch.is_grad_enabled()
            or captured()
            or os.environ.get("POSEKERNELS_CUDA_GRAPHS") == "0"
            or torch.cuda.is_current_stream_capturing()
        ):
            return net(*inputs)
        key = key, _settings(inputs[0].device), *((x.shape, x.dtype, x.device) for x in inputs)
        if key in self._refused or key not in self._known:
            self._keep(key, None)
            return net(*inputs)
        if self._known[key] is None:
            try:
                self._keep(key, graphed(net, *inputs))
            except RuntimeError as error:
                _log.info("%s", error)
                self._refused.add(key)
                return net(*inputs)
        self._known.move_to_end(key)
        return self._known[key](*inputs)

    def _keep(self, key: Hashable, graph: Graphed | None) -> None:
        self._known[key] = graph
        self._known.move_to_end(key)
        while len(self._known) > self._most:
            self._known.popitem(last=False)

    def __deepcopy__(self, memo):
        return type(self)(self._most)

    def __reduce__(self):
        return type(self), (self._most,)
