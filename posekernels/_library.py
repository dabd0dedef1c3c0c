"""The one ``torch.library`` namespace, ``posekernels``.

A raw op ``posekernels::_NAME`` takes the op's tensors and options and, last, the name of a backend. Its only
implementation asks ``_dispatch`` which kernel that is, so compiled graphs and eager calls choose alike. Raw ops carry
no gradient: the public function wraps forward and backward in a ``torch.autograd.Function``, which costs 6 microseconds
a call where ``torch.library.register_autograd`` costs 14 (and 2 against 5 when no gradient is asked for).
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from . import _dispatch

LIB = torch.library.Library("posekernels", "DEF")


def register(name: str, schema: str, fake: Callable, kernels: dict[str, _dispatch.Kernel]) -> Callable:
    """Define ``posekernels::_{name}`` and return it.

    Args:
        name: the op's name.
        schema: its arguments and results, the last argument being ``str backend``.
        fake: shapes and dtypes of the results, from the same arguments.
        kernels: backend -> kernel, in ``auto``'s order, the reference last.
    """
    if list(kernels)[-1] != "reference":
        raise ValueError(f"{name}: the reference must be the last kernel, got {list(kernels)}")
    _dispatch.OPS[name] = kernels

    def run(*args):
        return _dispatch.resolve(name, args[-1], args[:-1])(*args[:-1])

    LIB.define(f"_{name}{schema}")
    LIB.impl(f"_{name}", run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"posekernels::_{name}", fake, lib=LIB)
    return getattr(torch.ops.posekernels, f"_{name}").default
