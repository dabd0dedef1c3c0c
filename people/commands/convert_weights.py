"""``posekernels convert-weights FILE -o OUT.safetensors``: published or trained weights to a file that names itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from posekernels import models
from posekernels.cli import Parser
from posekernels.files import check_writable, write_aside
from posekernels.models.examples import inputs_of
from posekernels.models.load import save_weights

from . import _network

SAME = {torch.float32: 0.0, torch.float16: 1e-2}  # largest difference of results that passes, relative to their size


def parts(net: nn.Module) -> list[nn.Module]:
    """The networks of a system, or the one network."""
    return [getattr(net, name) for name in getattr(net, "members", ())] or [net]


def difference(net: nn.Module, again: nn.Module) -> float:
    """Largest difference of their results on one input, relative to the largest result."""
    inputs = inputs_of(net.created[0], net, 3)
    wanted, got = net(*inputs), again(*inputs)
    return float((got - wanted).abs().max() / wanted.abs().max().clamp_min(1e-12))


def main(arguments: list[str]) -> int:
    p = Parser(prog="posekernels convert-weights", description=__doc__)
    p.add_argument("weights", metavar="FILE", help="a published checkpoint, or best.pt of a training run")
    p.add_argument("-o", "--out", required=True, type=Path, metavar="OUT.safetensors")
    p.add_argument("--half", action="store_true", help="store float16: half the size, read back as float32")
    p.add_argument("--note", default="", metavar="TEXT", help="how the weights came about; kept in the file")
    _network.add_arguments(p)
    options = p.parse_args(arguments)
    if options.out.suffix != ".safetensors":
        raise ValueError(f"-o {options.out}: expected a name that ends in .safetensors")
    check_writable(options.out, options.weights)
    net = _network.load(options, options.weights)
    about = replace(net.about, made=options.note or net.about.made)
    dtype = torch.float16 if options.half else torch.float32
    with write_aside(options.out) as aside, torch.no_grad():
        save_weights(net, aside, about, dtype)
        again = models.load(aside)
        off = max(difference(*both) for both in zip(parts(net), parts(again)))
        if not off <= SAME[dtype]:
            raise ValueError(
                f"{options.out}: results would differ by {off:.1e}, more than {SAME[dtype]:g}; not written"
            )
    count = sum(t.numel() for t in net.state_dict().values())
    print(f"wrote {options.out}: {about.network}, {count:,} numbers, {options.out.stat().st_size / 1e3:.0f} kB")
    print(f"parity with {options.weights}: largest difference {off:.1e} of the largest result")
    return 0
