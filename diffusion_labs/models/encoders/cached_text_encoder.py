"""Encodings of texts on disk."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from diffusion_labs.conditioning import mask_of
from diffusion_labs.files import tensors_sha256, whole_file
from diffusion_labs.models.encoders.text_encoder import TextEncoder, Texts


class CachedTextEncoder(TextEncoder):
    """A text encoder that encodes each text once, and keeps it in a folder, also for later runs.

    A text has a file of its own, named by the hash of the text, its tokens, and the encoder with its weights. Files
    appear whole or not at all, so several processes may share a folder; a damaged one is made again. Tokens instead of
    texts are encoded each time.

    Args:
        encoder: frozen.
        folder: of the files; made if it is not there.

    Raises:
        ValueError: if the encoder can be trained, so that what it says may change.
    """

    def __init__(self, encoder: TextEncoder, folder: str | Path) -> None:
        super().__init__()
        if any(parameter.requires_grad for parameter in encoder.parameters()):
            raise ValueError(
                "the encoder is trained, so its encodings change; freeze it: encoder.requires_grad_(False)"
            )
        self.encoder = encoder.eval()
        self.folder = Path(folder)
        self.names = encoder.names
        self.identity = _identity(encoder)

    def train(self, mode: bool = True) -> "CachedTextEncoder":
        """Train mode is not the encoder's."""
        super().train(mode)
        self.encoder.eval()
        return self

    def tokenize(self, texts: Texts) -> Tensor:
        """Those of the encoder."""
        return self.encoder.tokenize(texts)

    def encode(self, ids: Tensor) -> dict[str, Tensor]:
        """Those of the encoder."""
        return self.encoder.encode(ids)

    def null(self) -> Tensor | Texts:
        """The empty text."""
        return [""]

    def forward(self, value: Tensor | Texts) -> dict[str, Tensor]:
        """Encode texts that have no file yet, and read the others."""
        if isinstance(value, Tensor | str):
            return super().forward(value)
        paths = {text: self._path(text) for text in value}
        rows = {text: row for text, path in paths.items() if (row := _read(path)) is not None}
        missing = [text for text in paths if text not in rows]
        if missing:
            encoded = self.encoder(missing)
            for i, text in enumerate(missing):
                rows[text] = _trimmed({name: batch[i].detach().cpu() for name, batch in encoded.items()})
                _write(paths[text], rows[text])
        return {name: _stack([rows[text][name] for text in value]).to(self.device) for name in self.names}

    def _path(self, text: str) -> Path:
        tokens = self.encoder.tokenize([text]).tolist()
        digest = hashlib.sha256(repr((self.identity, text, tokens)).encode())
        return self.folder / f"{digest.hexdigest()}.safetensors"


def _identity(encoder: TextEncoder) -> str:
    """A hash of the encoder's class, settings and weights; the tokenizer's part is in its tokens."""
    plain = {name: value for name, value in vars(encoder).items() if isinstance(value, int | float | str | tuple)}
    functions = {name: value.__qualname__ for name, value in vars(encoder).items() if hasattr(value, "__qualname__")}
    settings = type(encoder).__qualname__, plain | {"training": False}, functions
    return hashlib.sha256(repr((*settings, tensors_sha256(encoder.state_dict()))).encode()).hexdigest()


def _trimmed(row: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One text's encoding without the padding of its batch."""
    lengths = {name: int(row[mask_of(name)].sum()) for name in row if mask_of(name) in row}
    lengths |= {mask_of(name): length for name, length in lengths.items()}
    return {name: value[: lengths.get(name, len(value))].contiguous() for name, value in row.items()}


def _stack(rows: list[Tensor]) -> Tensor:
    """A batch of encodings, the shorter padded with zeros."""
    length = max(map(len, rows))
    return torch.stack([F.pad(row, (*[0] * (2 * row.ndim - 1), length - len(row))) for row in rows])


def _read(path: Path) -> dict[str, Tensor] | None:
    """A file's tensors; ``None`` if it is not there, or damaged."""
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            stored = (file.metadata() or {}).get("sha256")
    except (OSError, SafetensorError):
        return None
    return tensors if stored == tensors_sha256(tensors) else None


def _write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    with whole_file(path) as temporary:
        save_file(dict(tensors), temporary, metadata={"sha256": tensors_sha256(tensors)})
