"""What text encoders of the library transformers have in common."""

from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from diffusion_labs.models.encoders.text_encoder import TextEncoder, Texts
from diffusion_labs.models.encoders.tokenizer import import_transformers, load_tokenizer, tokenized


class PretrainedTextEncoder(TextEncoder):
    """Base class: a model and a tokenizer of transformers. A new encoder writes ``encode``, and names what it gives.

    Args:
        model: of transformers.
        tokenizer: likewise; without one only tokens can be encoded.
        names: the conditional inputs that ``encode`` gives.
        max_length: tokens of the longest text; longer ones are cut.
        frozen: whether the model gets no gradients and stays in eval mode.
    """

    model_class: ClassVar[str]
    padding: ClassVar[str] = "longest"

    def __init__(
        self, model: nn.Module, tokenizer: Any, *, names: tuple[str, ...], max_length: int, frozen: bool
    ) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.names = names
        self.max_length = max_length
        self.frozen = frozen
        if frozen:
            self.requires_grad_(False).eval()

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        model_class: str | None = None,
        model_folder: str = "",
        tokenizer_folder: str = "",
        variant: str | None = None,
        **options: Any,
    ) -> "PretrainedTextEncoder":
        """Load model and tokenizer from a local folder, or by their name on the Hugging Face hub.

        Args:
            source: folder or name.
            model_class: of transformers, for example ``"CLIPTextModelWithProjection"``; the encoder's own if ``None``.
            model_folder: folder of the model inside of it; ``text_encoder`` in pipelines of diffusers.
            tokenizer_folder: folder of the tokenizer inside of it; ``tokenizer`` in pipelines of diffusers.
            variant: of the names of the weights, for example ``"fp16"``.
            **options: of the encoder.

        Raises:
            ImportError: without the package ``transformers``.
        """
        transformers = import_transformers(cls.__name__)
        found = getattr(transformers, model_class or cls.model_class)
        model = found.from_pretrained(source, subfolder=model_folder, variant=variant)
        return cls(model, load_tokenizer(source, tokenizer_folder, needed_by=cls.__name__), **options)

    def train(self, mode: bool = True) -> "PretrainedTextEncoder":
        """Train mode is not that of a frozen model."""
        super().train(mode and not self.frozen)
        return self

    def tokenize(self, texts: Texts) -> Tensor:
        """The tokens of texts, int64 ``[b, n]``, padded as the model was trained with.

        Raises:
            ValueError: without a tokenizer.
        """
        return tokenized(
            texts, self.tokenizer, padding=self.padding, max_length=self.max_length, needed_by=type(self).__name__
        )

    def valid(self, ids: Tensor) -> Tensor:
        """Which tokens are not padding, bool ``[b, n]``."""
        padding: int = self.model.config.pad_token_id  # type: ignore[union-attr, assignment]
        return ids != padding
