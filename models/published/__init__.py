"""Published checkpoints: one table per network, named like the module of ``models`` that holds it.

A table has ``RENAME`` (rules from our parameter names to the published ones, in order) or ``rename(net)``, and may have

- ``configuration(state)``: (name, arguments of ``create``) of a network of its family, read off the shapes of a state
  dict; None for another network's; KeyError and the like for a file of its family that is incomplete;
- ``UNUSED``, patterns of tensors that are stored and never read, and ``unused(net)``, values for those;
- ``wrap(net, state)``: the container that the published program reads, where it is not the bare state dict;
- ``RENAME_OLDER``: rules from names in older files to those of today.
"""

import re

from posekernels.archive import CheckpointError


def count(pattern: str, state) -> int:
    """How many different numbers the names of ``state`` have where ``pattern`` captures one."""
    return len({found[1] for found in (re.match(pattern, name) for name in state) if found})


def heads_unknown(name: str, sizes: dict) -> CheckpointError:
    """For a file of a width that no published program has: its heads could be any."""
    arguments = ", ".join(f"{key}={value}" for key, value in sizes.items())
    return CheckpointError(
        f"a {name} of {sizes['channels']} channels: the file does not hold how many heads share them; load it into "
        f"create({name!r}, {arguments}, heads=...)"
    )
