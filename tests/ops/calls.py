"""What a backend that is composed of kernels does, call by call."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

_MOVE_NOTHING = {
    *("view", "_unsafe_view", "unsqueeze", "select", "slice", "permute", "t", "transpose", "split", "unbind", "detach"),
    *("split_with_sizes", "empty", "empty_like", "new_empty"),
}


class _Recorder(TorchDispatchMode):
    def __init__(self, found: list[str]):
        super().__init__()
        self._found = found

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if function.namespace == "aten" and name not in _MOVE_NOTHING:
            self._found.append(name)
        return function(*args, **(kwargs or {}))


def working_calls(run: Callable[[], object], kernel, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the Triton kernels that ``run()`` launches and of the ATen calls that move data, in order.

    Kernels are not run: what they would have written is left as it was.

    Args:
        kernel: any ``triton.jit`` function.
    """
    found: list[str] = []
    monkeypatch.setattr(type(kernel), "run", lambda self, *args, **kwargs: found.append(self.__name__.strip("_")))
    with _Recorder(found), torch.no_grad():
        run()
    return [name.removesuffix("_kernel") for name in found]
