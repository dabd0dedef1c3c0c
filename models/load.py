"""One door for weights: ``load`` takes a name that ships, a run of ours, a file of ours or a published one.

``save_published`` writes what the published program reads, ``save_weights`` a file that names itself.
"""

from __future__ import annotations

import importlib
import json
import re
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from posekernels.archive import CheckpointError, read_checkpoint, read_safetensors
from posekernels.checks import nearest
from posekernels.files import save_checkpoint, write_aside

from . import hub
from .lifting import Lifts
from .registry import create, names, systems, where_is

SHIPPED = ("lifter", "forecaster", "forecaster_lifted", "pkd_cmu")
"""Weights that come with the project; ``models/weights/README.md`` is their card."""
SEES = ("person", "screen")
FAMILIES = ("gcndiff", "mixste", "pkd", "rie", "strided_refine", "strided_transformer", "ws_anl")
"""Tables of ``models.published`` that between them recognise every published file."""
CONTAINERS = ("state_dict", "model_pos", "model", "net")
"""Keys under which programs keep a state dict."""


@dataclass(frozen=True)
class About:
    """What a file says of its weights; the ``about`` of a loaded network.

    Args:
        network: its name for ``create``. config: the arguments.
        sees: "person" (keypoints centred and scaled on the person) or "screen" (normalised screen units).
        fps: frames per second that the network expects; 0 where no one rate is told (``lifting.pace`` fits the windows
            of lifters to a video's), and then not shown.
        made: how the weights came about, in a line.
    """

    network: str
    config: dict
    sees: str = "screen"
    fps: float = 0.0
    made: str = ""

    def __post_init__(self):
        if self.sees not in SEES:
            raise ValueError(f"sees must be one of {', '.join(SEES)}, got {self.sees!r}")

    def __repr__(self) -> str:
        told = [
            f"{field.name}={getattr(self, field.name)!r}" for field in fields(self) if field.name != "fps" or self.fps
        ]
        return f"About({', '.join(told)})"


# -- reading ----------------------------------------------------------------------------------------------------------
def check_device(device: str | torch.device) -> None:
    """Raises ValueError for a device that PyTorch cannot use here, which it tells in many ways."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"load: device {str(device)!r} cannot be used here: {str(error).splitlines()[0]}") from error


def load(
    what: str | Path | dict | list,
    network: str | nn.Module | None = None,
    device: str | torch.device | None = None,
    *,
    ema: bool = False,
) -> nn.Module:
    """A network with weights, in eval mode; what the file says of itself is its ``about``.

    Args:
        what: a name that ships ("lifter", "forecaster", "forecaster_lifted", "pkd_cmu"), a checkpoint of a training run
            ("runs/first/best.pt"), a ``.safetensors`` file of ours, a published file, or what a published file holds;
            "hf:owner/name" for a repository on the Hugging Face hub (``models.hub``).
        network: a name of ``create``, where a published file does not tell (its sizes are read off its shapes); or a
            network of yours from ``create``, which is filled.
        device: where the network goes.
        ema: the running mean of the weights, where the file keeps one beside them.
    Returns:
        The network. Tensors that a published program stores but never reads are its ``published_unused``.
    Raises:
        CheckpointError: unreadable, of another network, not fitting, or with weights that are not finite: strictly all
            fits, or nothing is loaded. Names are those in the file.
        ValueError: a device that is not here.
    """
    if device is not None:
        check_device(device)
    if not (network is None or isinstance(network, nn.Module)):
        where_is(network)  # refuses a misspelt name before a long reading
    where, content, about = _open(what)
    ours = is_run(content)
    if ours:
        about = _about_run(content, where)
        state = _clean(content.get("ema" if ema else "weights"), where, " (ema=True)" if ema else "")
    else:
        state = unwrap(content, where, ema)
    if isinstance(network, nn.Module):
        net, name = network, getattr(network, "created", (None,))[0]
        if about is not None and name not in (None, about.network):
            raise CheckpointError(f"{where}: weights of {about.network}, not of {name}")
    else:
        about = about or recognise(state, where, network)
        if network not in (None, about.network):
            raise CheckpointError(f"{where}: weights of {about.network}, not of {network}")
        net = _create(about, where)
    if about is None:
        about = About(*net.created) if hasattr(net, "created") else None
    fill(net, state, where, ours=ours)
    net.about = about
    if isinstance(net, Lifts) and about is not None:
        net.sees = about.sees
    return net.to(device).eval() if device is not None else net.eval()


def is_run(content) -> bool:
    """Whether a checkpoint was written by a training run of this project."""
    return isinstance(content, dict) and str(content.get("format", "")).startswith("posekernels-train")


def _open(what: str | Path | dict | list) -> tuple[str, dict | list, About | None]:
    """(what to call it in messages, its content, what it says of itself)."""
    if isinstance(what, (dict, list)):
        return "state dict", what, None
    path = Path(what)
    if str(what).startswith(hub.PREFIX):
        path = hub.fetch(str(what))
    elif str(what) in SHIPPED:
        path = Path(__file__).with_name("weights") / f"{what}.safetensors"
    elif path.is_dir():
        raise CheckpointError(f"{what}: a folder; name a file in it (of a run, {path / 'best.pt'})")
    elif not path.is_file():
        near = nearest(str(what), SHIPPED)
        raise CheckpointError(f"{what}: no such file, and no weights of that name ship ({', '.join(SHIPPED)}){near}")
    if path.suffix == ".safetensors":
        return str(what), *_ours_in_safetensors(path)
    return str(what), read_checkpoint(path), None


def _ours_in_safetensors(path: Path) -> tuple[dict[str, Tensor], About | None]:
    """Tensors, and what a file of ours says of itself."""
    state, notes = read_safetensors(path)
    try:
        return state, About(**json.loads(notes["posekernels"])) if "posekernels" in notes else None
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({str(error).splitlines()[0]})") from error


def _about_run(run: dict, where: str) -> About:
    """What a run's checkpoint says of its network, with the figures that its best weights had."""
    if run.get("unfinished"):
        raise CheckpointError(f"{where}: {run['unfinished']}; let the run finish (--resume)")
    try:
        about = About(**run["about"])
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{where}: a run of --model {run.get('model')}, whose network models.create does not know by name"
        ) from error
    figures = ", ".join(f"{name} {value:.4g}" for name, value in list((run.get("figures") or {}).items())[:4])
    return replace(about, made=f"a run of --model {run.get('model')}{figures and ': ' + figures}")


def _create(about: About, where: str) -> nn.Module:
    try:
        return create(about.network, **about.config)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{where}: its sizes are of no network: {error}") from error


def unwrap(content, where: str = "state dict", ema: bool = False) -> dict[str, Tensor]:
    """The named tensors in what a checkpoint file holds, without the containers and prefixes of programs.

    Args:
        ema: of a list [model, optimiser, epoch, step, EMA], as DiffPose's programs write it, the last.
    """
    if ema and not isinstance(content, (list, tuple)):
        raise CheckpointError(f"{where}: ema=True: it holds bare parameters, and no running mean of them")
    if isinstance(content, (list, tuple)):
        if len(content) <= 4 * ema:
            wanted = f"[model, optimiser, epoch, step{', EMA' * ema}]"
            raise CheckpointError(f"{where}: expected a list {wanted} or a state dict, got a list of {len(content)}")
        content = content[4 * ema]
    for _ in range(3):  # a container in a container, and no deeper
        if isinstance(content, dict):
            content = next((content[key] for key in CONTAINERS if isinstance(content.get(key), dict)), content)
    return _clean(content, where)


def _clean(content, where: str, what_for: str = "") -> dict[str, Tensor]:
    """A dict of named tensors, freed of DataParallel's and torch.compile's prefixes."""
    if not isinstance(content, dict):
        raise CheckpointError(f"{where}: expected a dict of tensors{what_for}, got {type(content).__name__}")
    bad = [str(k) for k, v in content.items() if not (isinstance(k, str) and isinstance(v, Tensor))]
    if bad:
        raise CheckpointError(f"{where}: expected a dict of named tensors; it holds others: {', '.join(bad[:5])}")
    state = {re.sub(r"^(module\.|_orig_mod\.)+|(?<=\.)_orig_mod\.", "", name): t for name, t in content.items()}
    if len(state) != len(content):
        raise CheckpointError(f"{where}: holds the same tensor twice, with and without a prefix (module., _orig_mod.)")
    return state


def _guess(state: dict[str, Tensor]) -> tuple[str, dict] | None:
    """(name, arguments) for ``create`` of the network that a published state dict belongs to; None if to none.

    Raises:
        CheckpointError: it is of one, but incomplete, or of sizes that cannot be told from shapes.
    """
    for family in FAMILIES:
        table = _table(family)
        try:
            found = table.configuration(_renamed(state, getattr(table, "RENAME_OLDER", [])))
        except (KeyError, IndexError, ValueError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"looks like a file of {family}, but is incomplete ({error})") from error
        if found is not None:
            return found
    return None


def recognise(state: dict[str, Tensor], where: str | Path = "state dict", network: str | None = None) -> About:
    """Which network a published state dict belongs to, and of what size.

    Raises:
        CheckpointError: to none that is known, or not to ``network``; incomplete; of a size that shapes do not tell.
    """
    if network in systems():
        raise CheckpointError(
            f"{where}: {network} is several networks with a published file each; load them into the parts of "
            f"create({network!r}), or load a run of it"
        )
    try:
        found = _guess(state)
    except CheckpointError as error:
        raise CheckpointError(f"{where}: {error}") from error
    if found is None:
        held = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in list(state.items())[:3]) or "nothing"
        more = f" and {len(state) - 3} more" if len(state) > 3 else ""
        raise CheckpointError(
            f"{where}: weights of {network or 'no network that is known'}? It holds {held}{more}. What can be loaded: "
            f"{', '.join(SHIPPED)}; best.pt of a run; .safetensors of ours; published files of {', '.join(names())}"
        )
    if network not in (None, found[0]):
        raise CheckpointError(f"{where}: weights of {found[0]}, not of {network}")
    return About(*found)


def fill(net: nn.Module, state: dict[str, Tensor], where: str | Path = "state dict", *, ours: bool = False) -> None:
    """Give ``net`` the tensors of ``state``, strictly: everything fits, or nothing is changed.

    Args:
        state: by published name, or by our own (``ours``).
        where: the file, for messages.
    Raises:
        CheckpointError: names the first that are missing, unexpected, misshapen, or not finite.
    """
    have = net.state_dict()
    want, spare = {name: name for name in have}, []
    if not ours:
        want = published_names(net)
        for table in _tables(net):
            spare += getattr(table, "UNUSED", [])
            state = _renamed(state, getattr(table, "RENAME_OLDER", []))
    unused = {n: t for n, t in state.items() if n not in want and any(re.fullmatch(p, n) for p in spare)}
    both = {name: (state[name], have[mine]) for name, mine in want.items() if name in state}
    problems = [f"missing {name} {list(have[mine].shape)}" for name, mine in want.items() if name not in state]
    problems += [f"unexpected {name}" for name in state if name not in want and name not in unused]
    problems += [
        f"{name} is {list(got.shape)}, the network has {list(mine.shape)}"
        for name, (got, mine) in both.items()
        if got.shape != mine.shape
    ]
    problems += [
        f"{name} is {got.dtype}, the network has {mine.dtype}"
        for name, (got, mine) in both.items()
        if got.is_floating_point() != mine.is_floating_point() or got.is_complex()
    ]
    if problems:
        hint, more = None if ours else _hint(net, state), f"; and {len(problems) - 4} more" if problems[4:] else ""
        raise CheckpointError(
            f"{where}: does not fit {type(net).__name__}, nothing was loaded: {'; '.join(problems[:4])}{more}"
            + (f"; {hint}" if hint else "")
        )
    wild = [name for name, (got, _) in both.items() if got.is_floating_point() and not torch.isfinite(got).all()]
    if wild:
        more = f" and {len(wild) - 3} more" if len(wild) > 3 else ""
        raise CheckpointError(f"{where}: holds NaN or infinity in {', '.join(wild[:3])}{more}; nothing was loaded")
    net.load_state_dict({mine: state[name] for name, mine in want.items()})
    net.published_unused = unused


def _hint(net: nn.Module, state: dict[str, Tensor]) -> str | None:
    """What else to create for a ``state`` that does not fit ``net``, where that can be told."""
    try:
        found = _guess(state)
    except CheckpointError as error:
        return str(error)
    if found is None:
        return None
    try:
        mine = _guess(published_state(net))
    except CheckpointError:
        mine = None
    name, config = found
    same = mine[1] if mine and mine[0] == name else {}
    sizes = [f"{key}={value!r}" for key, value in config.items() if same.get(key) != value]
    return f"it looks like a file for create({', '.join([repr(name), *sizes])})" if found != mine else None


# -- published names --------------------------------------------------------------------------------------------------
def _table(module: str):
    return importlib.import_module(f"posekernels.models.published.{module}")


def _parts(net: nn.Module) -> dict[str, nn.Module]:
    """{prefix: network} of a system's ``members``; of a network, itself without a prefix."""
    members = {f"{name}.": getattr(net, name) for name in getattr(net, "members", ())}
    return {prefix: part for prefix, part in members.items() if part is not None} or {"": net}


def _tables(net: nn.Module) -> list:
    """The table of ``net``, or those of its parts."""
    tables = []
    for part in _parts(net).values():
        room, _, module = type(part).__module__.rpartition(".")
        if room != "posekernels.models":
            raise TypeError(f"{type(part).__name__}: no network of models.create, so no published file is known for it")
        tables.append(_table(module))
    return tables


def _renamed(state: dict[str, Tensor], rules: list) -> dict[str, Tensor]:
    return {_rename(name, rules): tensor for name, tensor in state.items()} if rules else state


def _rename(name: str, rules: list) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def published_names(net: nn.Module) -> dict[str, str]:
    """{published name: our name} of every stored tensor of ``net``; of a system, behind the names of its parts.

    From the table's ``RENAME``: (pattern, replacement) pairs for ``re.sub``, ours -> published, applied one after the
    other; or from what its ``rename(net)`` returns, where names depend on the configuration.
    """
    found = {}
    for (prefix, part), table in zip(_parts(net).items(), _tables(net)):
        rules = table.rename(part) if hasattr(table, "rename") else table.RENAME
        found |= {prefix + _rename(name, rules): prefix + name for name in part.state_dict()}
    return found


def published_state(net: nn.Module) -> dict[str, Tensor]:
    """The state dict under published names, stored-but-unused tensors included: what the published program reads."""
    state, (table, *_) = net.state_dict(), _tables(net)
    unused = table.unused(net) if hasattr(table, "unused") else {}
    return {n: state[ours] for n, ours in published_names(net).items()} | unused | getattr(net, "published_unused", {})


# -- writing ----------------------------------------------------------------------------------------------------------
def save_published(net: nn.Module, path: str | Path) -> None:
    """Write ``net`` as the published program reads it, container included. The file appears whole or not at all.

    Raises:
        ValueError: a system, whose published program reads a file for each of its networks.
    """
    if hasattr(net, "members"):
        parts = " and ".join(f".{name}" for name in net.members)
        raise ValueError(f"save_published: {type(net).__name__} is several networks with a file each: save {parts}")
    state = {name: tensor.detach().cpu().clone() for name, tensor in published_state(net).items()}
    (table,) = _tables(net)
    save_checkpoint(table.wrap(net, state) if hasattr(table, "wrap") else state, path)


def save_weights(net: nn.Module, path: str | Path, about: About, dtype: torch.dtype = torch.float32) -> None:
    """Write a ``.safetensors`` file; floating-point weights in ``dtype``. The file appears whole or not at all.

    Tensors go by their published names, which stay when a network's own are changed.
    """
    from safetensors.torch import save_file

    def stored(tensor: Tensor) -> Tensor:
        tensor = tensor.detach().cpu()
        return (tensor.to(dtype) if tensor.is_floating_point() else tensor).clone().contiguous()

    header = {"posekernels": json.dumps(asdict(about))}
    state = net.state_dict()
    with write_aside(path) as aside:
        save_file({name: stored(state[ours]) for name, ours in published_names(net).items()}, aside, header)
