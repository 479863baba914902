"""Models on the Hugging Face hub, in the format of ``save_pretrained``."""

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from diffusion_labs.files import surviving_folder
from diffusion_labs.pretrained.folder import CONFIG, load_pretrained, read_config, save_pretrained
from diffusion_labs.pretrained.names import Components

FILES = [CONFIG, "model*.safetensors", "tokenizer*/*"]
REPO_ID = re.compile(r"[\w.-]+/[\w.-]+")


def from_pretrained(
    source: str | Path, *, revision: str | None = None, components: Components | None = None
) -> nn.Module:
    """Build a model that ``save_pretrained`` wrote: the same numbers, and the same outputs to the bit.

    Only components of diffusion_labs can be built, and those that are given here: what a folder holds cannot run code.

    Args:
        source: the folder, or a repository of the hub, ``"owner/name"``, if there is no such folder.
        revision: of the repository: a branch, tag or commit.
        components: the caller's own classes, builders and functions in the model, by their names in ``config.json``.

    Returns:
        The model in eval mode, on the CPU, in the dtypes that it had.

    Raises:
        FileNotFoundError: if there is no such folder, or a file is missing.
        ValueError: if a file is damaged, of a newer version or of another format; or the weights do not fit, listing
            the keys; or a component is unknown.
        ImportError: naming the extra, if the hub is asked without huggingface_hub.
    """
    return load_pretrained(_folder_of(source, revision), components)


def read_about(source: str | Path, *, revision: str | None = None) -> Mapping[str, Any]:
    """What was given to ``save_pretrained`` as ``about``; arguments and errors as ``from_pretrained``'s."""
    about: Mapping[str, Any] = read_config(_folder_of(source, revision)).get("about", {})
    return about


def push_to_hub(
    model: nn.Module,
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    components: Components | None = None,
    about: Mapping[str, Any] | None = None,
    card: str | None = None,
    message: str = "A model of diffusion_labs",
) -> str:
    """Write a model to a repository of the hub, which is made if there is none; log in first (``hf auth login``).

    Args:
        model: see ``save_pretrained``.
        repo_id: ``"owner/name"``.
        private: of a new repository.
        revision: the branch; the main one if ``None``.
        components: see ``save_pretrained``.
        about: see ``save_pretrained``.
        card: likewise; one that is there stays if ``None``.
        message: of the commit.

    Returns:
        The address of the commit.

    Raises:
        ValueError: see ``save_pretrained``.
        ImportError: naming the extra, without huggingface_hub.
    """
    hub = _hub()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        save_pretrained(model, folder, components=components, about=about, card=card)
        hub.create_repo(repo_id, private=private, exist_ok=True)
        commit = hub.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            revision=revision,
            commit_message=message,
            delete_patterns=FILES,
        )
    return str(commit)


def _folder_of(source: str | Path, revision: str | None) -> Path:
    folder = surviving_folder(Path(source))
    if folder.is_dir():
        if revision is not None:
            raise ValueError(f"revision ({revision!r}) is for repositories of the hub, but {source} is a folder")
        return folder
    if not isinstance(source, str) or REPO_ID.fullmatch(source) is None:
        raise FileNotFoundError(f"there is no folder {source}; give one, or a repository of the hub, 'owner/name'")
    return _download(source, revision)


def _download(repo_id: str, revision: str | None) -> Path:
    hub = _hub()
    try:
        return Path(hub.snapshot_download(repo_id, revision=revision, allow_patterns=FILES))
    except (OSError, ValueError, hub.errors.HfHubHTTPError) as error:
        raise FileNotFoundError(
            f"{repo_id} is neither a folder here nor a repository of the hub that could be read: "
            f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        ) from error


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError(
            "the hub needs huggingface_hub; install it with: pip install 'diffusion-labs[hub]'"
        ) from error
    return huggingface_hub
