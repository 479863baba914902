"""The text encoder of unCLIP, as diffusers has it."""

from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from diffusion_labs.models.encoders.clip import EncodedText
from diffusion_labs.models.encoders.pretrained_text_encoder import PretrainedTextEncoder
from diffusion_labs.models.encoders.text_encoder import Texts, encode_distinct
from diffusion_labs.models.encoders.tokenizer import up_to_end


class UnCLIPTextEncoder(PretrainedTextEncoder):
    """The half of CLIP that encodes texts, as Karlo takes it: with embeddings that are not normalised.

    It gives ``text``, ``text_mask`` and ``text_embedding``: the states of the last layer up to the end of the text, and
    the projection of the last of them. ``DALLE2`` draws from texts with it; edits of images need a whole CLIP.

    Args:
        model: ``CLIPTextModelWithProjection`` of transformers.
        tokenizer: likewise; without one only tokens can be encoded.
        frozen: whether the model gets no gradients and stays in eval mode.
    """

    model_class = "CLIPTextModelWithProjection"
    padding = "max_length"
    model: Any

    def __init__(self, model: nn.Module, tokenizer: Any = None, *, frozen: bool = True) -> None:
        length: int = model.config.max_position_embeddings  # type: ignore[union-attr, assignment]
        names = ("text", "text_mask", "text_embedding")
        super().__init__(model, tokenizer, names=names, max_length=length, frozen=frozen)

    @property
    def embed_dim(self) -> int:
        """Width of the embeddings."""
        width: int = self.model.config.projection_dim
        return width

    def encode(self, ids: Int[Tensor, "b n"]) -> dict[str, Tensor]:
        """The states, their mask, and the embedding."""
        output = self.model(input_ids=ids)
        return dict(zip(self.names, (output.last_hidden_state, self.valid(ids), output.text_embeds), strict=True))

    def encode_text(self, texts: Tensor | Texts) -> EncodedText:
        """Of texts, each distinct one encoded once, or of their tokens."""
        encoded = self(texts) if isinstance(texts, Tensor) else encode_distinct(self, texts)
        return EncodedText(encoded["text_embedding"], encoded["text"], encoded["text_mask"])

    def encode_image(self, x: Tensor) -> Tensor:
        """There is no encoder of images.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "an UnCLIPTextEncoder encodes no images, which edits begin with; draw from texts, or give DALLE2 a CLIP of "
            "both whose embeddings the decoder was trained on"
        )

    def valid(self, ids: Int[Tensor, "b n"]) -> Bool[Tensor, "b n"]:
        """Which tokens are not padding, see ``up_to_end``."""
        return up_to_end(ids, self.model.config.eos_token_id)

    @torch.no_grad()
    def empty(self) -> dict[str, Tensor]:
        """What the text "" is encoded to: ``text``, its tokens alone ``[n, d]``, and ``text_embedding`` ``[d]``."""
        encoded = self([""])
        return {"text": encoded["text"][encoded["text_mask"]], "text_embedding": encoded["text_embedding"][0]}
