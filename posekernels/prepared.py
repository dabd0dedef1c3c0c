"""What follows from weights alone (panels, a folded batch norm, a whole network's table), kept until they change.

What is guaranteed, of tensors on the CPU:

- **Training** never uses what was made before. Every forward pass with gradients makes it anew, and the backward pass
  uses what its own forward pass made.
- **Inference** uses what was made while the tensors have the memory, the layout and the version they had, and their
  numbers are the same. A sample of the numbers is compared, at least 16 of every tensor (all of a smaller one), in
  every call another: all of them in 4,096 calls at most. All are compared in a network's first call after gradients
  were recorded, and in the first call after a second has passed since they were (a hundred times as long as comparing
  them takes, where that is more: at most a hundredth of the time goes into it).

So any write by PyTorch's operations, by an optimizer however it writes (fused, through ``.data``), by
``load_state_dict``, ``.to()`` or ``swap_tensors`` is followed at once, and so is any that changes most of a tensor in
whatever way: averaged weights swapped in, an adapter merged through ``.data``, an array that shares the memory,
``dist.broadcast``. Memory that was looked at is held, so that its address does not come back with other numbers.

What is *not* guaranteed: a write that PyTorch does not see (through ``.data``, an array, another process) to a few
numbers of a large tensor, between two calls without gradients, may be seen a second later only. On a GPU, where numbers
are not compared, such a write of any size is not seen before gradients are recorded again. After such a write call
``repack(module)``. ``freeze(module)`` gives all of this up for speed.

Nothing is kept for tensors made under ``torch.inference_mode`` (they keep no version) nor for the stand-ins that
tracing and ``torch.func`` put in a tensor's place.
"""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from array import array
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from operator import attrgetter
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules import module as torch_module
from torch.nn.utils import parametrize

from . import _native

_ATTRIBUTE = "_posekernels_derived"
_KINDS = {Tensor, nn.Parameter}
_LEAST, _MOST_STEP = 16, 4096  # numbers of a tensor that are looked at in a call; calls until all were
_SECONDS, _SHARE = 1.0, 100  # after which all are, and how many times as long as that takes at least
_version = attrgetter("_version")
_here = threading.local()
_passes = 0  # training passes that began in this process
_repacks = 0  # calls of ``repack``
Value = TypeVar("Value")


def captured() -> bool:
    """Whether calls are being recorded or watched: by torch.compile, torch.jit.trace or a dispatch mode (export, a FLOP
    counter). Nothing made then may be kept, and nothing may go past the raw ops."""
    return bool(torch.compiler.is_compiling() or torch.jit.is_tracing() or torch._C._len_torch_dispatch_stack())


def outside_inference_mode() -> contextlib.AbstractContextManager:
    """Around what is made to be kept: it may meet gradients later. Call ``torch.no_grad`` inside: this undoes that."""
    return contextlib.nullcontext() if captured() else torch.inference_mode(False)


class Pass:
    """``with Pass("forward"):`` or ``"backward"``: kernels inside run in a training pass, see above."""

    def __init__(self, name: str):
        self.name = name

    def __enter__(self) -> None:
        global _passes
        self._before, _here.training = getattr(_here, "training", None), self.name
        _passes += self.name == "forward"

    def __exit__(self, *_error) -> None:
        _here.training = self._before


def _span(tensor: Tensor) -> int:
    """Bytes from the first of a tensor's numbers to the last."""
    if tensor.is_contiguous():
        return tensor.nbytes
    last = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride())) if tensor.numel() else -1
    return (last + 1) * tensor.element_size()


def _step(words: int) -> int:
    step = 1
    while step < _MOST_STEP and 2 * step * _LEAST <= words:
        step *= 2
    return step


_exchange = getattr(Tensor, "__dlpack_c_exchange_api__", None)
if _exchange is not None and _native.no_cpu("weight_sums") is None:  # one call instead of four a tensor

    def _layouts(tensors):
        return _native.core.layouts(_exchange, [*tensors])

    def _same_layouts(tensors, layouts) -> bool:
        return _native.core.same_layouts(_exchange, [*tensors], layouts)

else:

    def _layouts(tensors):
        return [(t.data_ptr(), t.shape, t.stride(), t.dtype) for t in tensors]

    def _same_layouts(tensors, layouts) -> bool:
        return _layouts(tensors) == layouts


class State:
    """What tensors were at one moment.

    Args:
        tensors: of PyTorch's own classes.
        numbers: whether their numbers are remembered too; where not, ``same`` looks at versions, memory and layout.
    Raises:
        RuntimeError: tensors that have no version or no memory.
    """

    def __init__(self, tensors: Sequence[Tensor], numbers: bool = True):
        self.versions, self.layouts = [*map(_version, tensors)], _layouts(tensors)
        self.storages = [t.untyped_storage() for t in tensors]  # held: their addresses cannot come back
        self.numbers = numbers and _native.no_cpu("weight_sums") is None
        self._calls, self._rows, self._due = 0, 0, time.monotonic() + _SECONDS
        self._all_read = all(t.device.type == "cpu" for t in tensors)
        if not self.numbers:
            return
        table, place, most = array("q"), 0, 1
        for tensor, address in zip(tensors, map(Tensor.data_ptr, tensors)):
            if tensor.device.type == "cpu" and tensor.numel():
                span = _span(tensor)
                step = _step(span // 4)
                table.extend((address, span, step, place))
                place, most = place + step, max(most, step)
        self._table, self._rows = table, len(table) // 4
        self._sums, self._scratch = array("I", bytes(4 * place)), array("I", bytes(4 * most))
        self._at = [a.buffer_info()[0] for a in (self._table, self._sums, self._scratch)]
        _native.core.weight_sums(1, self._at[0], self._rows, self._at[1])

    def same(self, tensors: Sequence[Tensor], all_numbers: bool = False) -> bool:
        """Whether the tensors are what they were; ``all_numbers``: none is left out (where that cannot be told: no)."""
        if not _same_layouts(tensors, self.layouts) or [*map(_version, tensors)] != self.versions:
            return False
        if all_numbers and not self._all_read:
            return False
        if not self._rows:
            return True
        self._calls += 1
        table, sums, scratch = self._at
        start = time.monotonic()
        all_numbers = all_numbers or start >= self._due
        scratch = scratch if all_numbers else None
        agree = bool(_native.core.weight_sums_agree(1, table, self._rows, sums, self._calls, scratch))
        if all_numbers:
            end = time.monotonic()
            self._due = end + max(_SECONDS, _SHARE * (end - start))
        return agree


def state_of(tensors: Sequence[Tensor], numbers: bool = True) -> State | None:
    """``State``, or None for tensors that cannot tell."""
    if not _KINDS.issuperset(map(type, tensors)):
        return None
    try:
        return State(tensors, numbers)
    except RuntimeError:  # an inference_mode tensor has no version, a functorch wrapper no memory of its own
        return None


class _Kept(dict):
    """{key: (state of the tensors, value, training passes before)}, left behind when its tensor is saved or copied."""

    frozen = False

    def __reduce_ex__(self, protocol):
        # A saved parameter carries its attributes along. Values stay behind: another machine packs otherwise. An
        # empty dict takes their place, of a type that torch.load(weights_only=True) accepts.
        return OrderedDict, ()


def _kept_by(tensor: Tensor) -> _Kept:
    kept = tensor.__dict__.get(_ATTRIBUTE)
    if type(kept) is not _Kept:
        kept = tensor.__dict__[_ATTRIBUTE] = _Kept()
    return kept


def derived(key: Hashable, make: Callable[[], Value], *tensors: Tensor) -> Value:
    """``make()``, or what it returned before if ``tensors`` are what they were then: see the module's first lines.

    Args:
        key: tells apart what is derived from the same first tensor.
        make: computes the value from ``tensors`` and constants alone; call it where no gradient is recorded.
    """
    if captured() or not _KINDS.issuperset(map(type, tensors)):  # export, for one, would leave its fake tensors behind
        return make()
    kept = _kept_by(tensors[0])
    found, training = kept.get(key), getattr(_here, "training", None)
    try:
        if training == "forward":
            kept.clear()  # what the backward pass finds was made in this pass
            found = None
        elif found is not None and training is None and not found[0].numbers:
            found = None  # made in a training pass: its numbers were not remembered
        elif found is not None and training is None and kept.frozen and found[2] == _passes and not deriving():
            return found[1]
        if found is not None and found[0].same(tensors):
            if kept.frozen:
                kept[key] = *found[:2], _passes
            return found[1]
        if training == "backward":
            return make()
        state = State(tensors, numbers=training is None)
    except RuntimeError:  # an inference_mode tensor has no version, a functorch wrapper no memory of its own
        return make()
    found = kept[key] = state, make(), _passes
    return found[1]


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_GLOBAL_HOOKS = [torch_module._global_forward_hooks, torch_module._global_forward_pre_hooks]
_HOMES = ("torch.nn.modules.", __package__ + ".models.")


def looked_at() -> str | None:
    """What looks at every operation from the inside and knows no kernel of ours, or None."""
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return "torch.func"
    return "forward-mode differentiation" if forward_ad._current_level >= 0 else None


def peculiar(module: nn.Module, training: bool) -> str | None:
    """Why a module may compute something else than its class and its weights say, or None.

    Args:
        training: the mode of the network that it is part of.
    """
    kind = type(module)
    if parametrize.is_parametrized(module):
        return "it is parametrized"
    if not f"{kind.__module__}.".startswith(_HOMES):
        return f"it is a {kind.__module__}.{kind.__qualname__}"
    if training and issubclass(kind, nn.SyncBatchNorm):
        return "it takes statistics over all processes"
    if any([getattr(module, name) for name in _HOOKS]):
        return "it has hooks"
    if module.training != training:
        return f"it is {'' if module.training else 'not '}in training mode"
    return "its forward was replaced" if "forward" in module.__dict__ else None


class _Tree:
    """The modules of a network and what hangs on them, as they were at one moment.

    The network itself is not held: it holds this, and would otherwise stay in memory until Python looks for cycles.
    """

    def __init__(self, net: nn.Module):
        named = list(net.named_modules())
        self.training = net.training
        self.type = type(net)
        self.modules = tuple([module for _, module in named[1:]])
        self.types = tuple(map(type, self.modules))
        self.dicts = [getattr(m, name) for _, m in named for name in ("_parameters", "_buffers", "_modules")]
        self.dicts += [getattr(m, name) for m in self.modules for name in _HOOKS]  # the root's are called anyway
        self.dicts += _GLOBAL_HOOKS
        self.values = tuple([value for d in self.dicts for value in d.values()])
        self.tensors = [*net.parameters(), *net.buffers()]
        self.reason = self._reason(named)

    def _reason(self, named: list[tuple[str, nn.Module]]) -> str | None:
        if any(_GLOBAL_HOOKS):
            return "there are hooks for all modules"
        for name, module in named[1:]:
            reason = peculiar(module, self.training)
            if reason is not None:
                return f"{name}: {reason}"
        for tensor in self.tensors:
            if type(tensor) not in _KINDS:
                return f"its weights are of class {type(tensor).__qualname__}"
        return None

    def same(self, net: nn.Module) -> bool:
        core = _native.core
        if core is None or type(net) is not self.type or net.training != self.training:
            return False
        return core.same_modules(self.modules, self.types, self.dicts, self.values, self.training)


class OneCall:
    """Whether a network may run in one call of an op, past its modules: where that is the same function.

    It is not where a submodule has hooks, is parametrized, is of a class that is neither PyTorch's nor ours, or is in
    another mode than the network: pruning, adapters, quantization, recorders. ``posekernels.explain(net)`` tells.
    """

    def __init__(self):
        self._known: tuple[weakref.ref[nn.Module], _Tree] | None = None

    def _tree(self, net: nn.Module) -> _Tree:
        known = self._known
        if known is None or known[0]() is not net or not known[1].same(net):
            known = self._known = weakref.ref(net), _Tree(net)
        return known[1]

    def fits(self, net: nn.Module) -> bool:
        """Whether its modules would do what its weights say; asked in training and in inference."""
        return torch.compiler.is_compiling() or self._tree(net).reason is None

    def why_not(self, net: nn.Module) -> str | None:
        """Why its modules are called one by one now, or None."""
        return self._tree(net).reason

    def __deepcopy__(self, memo):
        return type(self)()

    def __reduce__(self):
        return type(self), ()


class Watched:
    """Whether a network has the weights, in the memory, that it had at one moment; numbers are not compared."""

    def __init__(self, net: nn.Module):
        self._net, self._tree, self._repacks = net, _Tree(net), _repacks
        self._state = state_of(self._tree.tensors, numbers=False)

    def same(self) -> bool:
        tensors = self._tree.tensors
        if not self._tree.same(self._net):  # something about its modules changed, or nothing compiled is there to tell
            now = [*self._net.parameters(), *self._net.buffers()]
            if len(now) != len(tensors) or any(a is not b for a, b in zip(now, tensors)):
                return False
        return self._state is not None and self._repacks == _repacks and self._state.same(tensors)


_deriving = threading.local()


def deriving() -> bool:
    """Whether a ``PreparedWeights`` is making its value: it watches the weights that this is made of."""
    return getattr(_deriving, "now", False)


class PreparedWeights(OneCall):
    """What is derived from all of a network's parameters and buffers at once, kept as ``derived`` keeps.

    ``prepared(net)`` is the value in inference, where one call may run the network (``OneCall``), and None elsewhere.

    Args:
        derive: makes the value from a network; called where no gradient is recorded.
    """

    def __init__(self, derive: Callable[[nn.Module], object]):
        super().__init__()
        self._derive, self.frozen = derive, False
        self.forget()

    def forget(self) -> None:
        self._made: tuple[_Tree, State, object] | None = None  # replaced together: threads may share networks
        self._doubtful = False  # whether gradients were recorded since

    def why_not(self, net: nn.Module) -> str | None:
        if net.training:
            return "it is in training mode"
        if torch.is_grad_enabled():
            return "gradients are recorded (torch.no_grad() would say that none is wanted)"
        return looked_at() or super().why_not(net)

    def value(self, net: nn.Module, tree: _Tree | None = None):
        """The value, also where one call may not run the network."""
        if not captured():
            tree, made = tree or self._tree(net), self._made
            if made is not None and made[0] is tree and made[1].same(tree.tensors, self._doubtful):
                self._doubtful = False
                return made[2]
        _deriving.now = True
        try:
            with outside_inference_mode(), torch.no_grad():
                value = self._derive(net)
        finally:
            _deriving.now = False
        state = None if captured() else state_of(tree.tensors)
        if state is not None:
            self._made, self._doubtful = (tree, state, value), False
        return value

    def __call__(self, net: nn.Module):
        if net.training or torch.is_grad_enabled():
            self._doubtful = True
            return None
        if self.frozen and self._made is not None and not self._doubtful and self._known[0]() is net:
            return self._made[2]
        if torch.compiler.is_compiling():
            return self.value(net)
        if looked_at() is not None:
            return None
        tree = self._tree(net)
        return self.value(net, tree) if tree.reason is None else None

    def __deepcopy__(self, memo):
        return PreparedWeights(self._derive)

    def __reduce__(self):
        return PreparedWeights, (self._derive,)


def _prepared_in(module: nn.Module) -> list[tuple[nn.Module, OneCall]]:
    return [(part, value) for part in module.modules() for value in vars(part).values() if isinstance(value, OneCall)]


def repack(module: nn.Module) -> None:
    """Forget everything derived from ``module``'s parameters and buffers: needed after writes that are not seen, which
    are few: see the first lines of this module."""
    global _repacks
    _repacks += 1
    for _, prepared in _prepared_in(module):
        if isinstance(prepared, PreparedWeights):
            prepared.forget()
    for tensor in (*module.parameters(), *module.buffers()):
        kept = tensor.__dict__.get(_ATTRIBUTE)
        if type(kept) is _Kept:
            kept.clear()


def freeze(module: nn.Module, frozen: bool = True) -> nn.Module:
    """Promise that ``module``'s weights, modules and hooks stay as they are in inference: nothing is looked at then.

    The promise ends where gradients are recorded (what follows is compared once, then trusted again), by ``repack``,
    which forgets what was made, and by ``freeze(module, False)``.

    Returns:
        ``module``.
    """
    for _, prepared in _prepared_in(module):
        if isinstance(prepared, PreparedWeights):
            prepared.frozen = frozen
    for tensor in (*module.parameters(), *module.buffers()):
        _kept_by(tensor).frozen = frozen
    return module


def explain_network(net: nn.Module) -> str:
    """A line for every part of ``net`` that an op can run in one call: whether it does now, and why not."""
    names = {id(part): name or type(part).__name__ for name, part in net.named_modules()}
    found = [(names[id(part)], prepared.why_not(part)) for part, prepared in _prepared_in(net)]
    lines = [f"{name}: {'in one call' if reason is None else f'module by module: {reason}'}" for name, reason in found]
    return "\n".join(lines) or f"{type(net).__name__}: module by module: it has no part that one op runs"
