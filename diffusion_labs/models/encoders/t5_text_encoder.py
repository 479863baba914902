"""The encoder of T5."""

from typing import Any

from jaxtyping import Int
from torch import Tensor, nn

from diffusion_labs.conditioning import mask_of
from diffusion_labs.models.encoders.pretrained_text_encoder import PretrainedTextEncoder


class T5TextEncoder(PretrainedTextEncoder):
    """The last states of T5's encoder (arXiv 1910.10683), and the mask of its padding, as in Imagen.

    Args:
        model: ``T5EncoderModel`` of transformers.
        tokenizer: likewise.
        max_length: tokens of the longest text.
        name: the conditional input of the network, ``[b, n, d]``; beside it is ``<name>_mask``.
        frozen: whether the model gets no gradients and stays in eval mode.
    """

    model_class = "T5EncoderModel"

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any = None,
        *,
        max_length: int = 256,
        name: str = "text",
        frozen: bool = True,
    ) -> None:
        super().__init__(model, tokenizer, names=(name, mask_of(name)), max_length=max_length, frozen=frozen)
        self.name = name

    def encode(self, ids: Int[Tensor, "b n"]) -> dict[str, Tensor]:
        """The states, zeros where the text is padded, and the mask."""
        mask = self.valid(ids)
        states = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        return dict(zip(self.names, (states * mask.unsqueeze(-1), mask), strict=True))
