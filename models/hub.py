"""Weights on the Hugging Face hub (extra ``hub``): ``load("hf:owner/name")`` and ``push_to_hub``."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from torch import nn

from posekernels.archive import CheckpointError
from posekernels.extras import needs

PREFIX = "hf:"
FILE = "model.safetensors"  # of a repository that push_to_hub made
NAME = re.compile(r"hf:(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[^/]+))?(/(?P<file>.+))?")


def fetch(name: str) -> Path:
    """The file that ``hf:owner/name[@revision][/file]`` means, in the hub's own cache; fetched if it is not there yet.

    Raises:
        CheckpointError: a misspelt name; no such repository or file, or no network. ValueError: huggingface_hub is
            not installed.
    """
    parts = NAME.fullmatch(name)
    if parts is None:
        raise CheckpointError(f"{name}: expected hf:owner/name, hf:owner/name@revision or hf:owner/name/file.pth")
    hub = needs("huggingface_hub", "hub", "hf:owner/name")
    try:
        return Path(hub.hf_hub_download(parts["repository"], parts["file"] or FILE, revision=parts["revision"]))
    except (hub.errors.HfHubHTTPError, hub.errors.HFValidationError, OSError) as error:
        raise CheckpointError(f"{name}: cannot be fetched ({' '.join(str(error).split())[:300]})") from error


def push_to_hub(
    net: nn.Module | str, repository: str, *, card: str | None = None, license: str | None = None, private: bool = False
) -> str:
    """Put weights into a repository of yours on the hub, which is made if it is not there, with a card.

    Args:
        net: a network that ``load`` has loaded, or what ``load`` takes, such as "lifter".
        repository: "owner/name".
        card: what the page says of them; by default what is known: of weights that ship, their card.
        license: of the weights, as the hub calls it ("mit"); of those that ship it is known.
        private: of a repository that is made.
    Returns:
        The name for ``load``.
    Raises:
        ValueError: huggingface_hub is not installed, weights without ``about``; what the hub refuses is its own error.
    """
    from .load import SHIPPED, load, save_weights

    hub = needs("huggingface_hub", "hub", "push_to_hub")
    ships = net if isinstance(net, str) and net in SHIPPED else None
    loaded = net if isinstance(net, nn.Module) else load(net)
    about = getattr(loaded, "about", None)
    if about is None:
        raise ValueError("push_to_hub: nothing is known of this network; give one that models.load has loaded")
    name = f"{PREFIX}{repository}"
    if re.fullmatch(r"[\w.-]+/[\w.-]+", repository) is None:
        raise ValueError(f"push_to_hub: expected owner/name, got {repository!r}")
    license = license or ("mit" if ships else None)
    text = card or (shipped_card(ships) if ships else "")
    with tempfile.TemporaryDirectory() as folder:
        save_weights(loaded, Path(folder) / FILE, about)
        (Path(folder) / "README.md").write_text(as_card(name, about, text, license))
        api = hub.HfApi()
        api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message=f"Weights of {about.network}")
    return name


def shipped_card(name: str) -> str:
    """What ``models/weights/README.md`` says of weights that ship."""
    text = Path(__file__).with_name("weights").joinpath("README.md").read_text()
    parts = re.split(r"^## (\S+)\.safetensors\n", text, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2])).get(name, "").strip()


def as_card(name: str, about, text: str, license: str | None) -> str:
    """README.md of a repository: the hub's header, how to load the weights, what they are."""
    header = ["library_name: posekernels", f"tags: [human-pose, 3d-pose, {about.network}]"]
    header += [f"license: {license}"] if license else []
    config = ", ".join(f"{key}={value!r}" for key, value in about.config.items()) or "as published"
    facts = [f"- network: `{about.network}` ({config})", f"- sees: {about.sees}; see `models.load.About`"]
    facts += [f"- frames per second: {about.fps:g}"] if about.fps else []
    facts += [f"- made: {about.made}"] if about.made else []
    lines = [
        *("---", *header, "---", "", f"# {name.partition('/')[2]}", ""),
        *("```python", "from posekernels import models", "", f'net = models.load("{name}")', "```", ""),
        *(*facts, ""),
    ]
    return "\n".join(lines) + (f"\n{text}\n" if text else "")
