"""A text as one vector."""

from typing import Any

import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor, nn

from diffusion_labs.models.encoders.pretrained_text_encoder import PretrainedTextEncoder


class SentenceEncoder(PretrainedTextEncoder):
    """The mean of the last states of the tokens, of length 1 (Sentence-BERT, arXiv 1908.10084, section 3).

    Args:
        model: an encoder of transformers, such as ``BertModel``.
        tokenizer: likewise.
        max_length: tokens of the longest text.
        name: the conditional input of the network, ``[b, d]``.
        frozen: whether the model gets no gradients and stays in eval mode.
    """

    model_class = "AutoModel"

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any = None,
        *,
        max_length: int = 128,
        name: str = "sentence",
        frozen: bool = True,
    ) -> None:
        super().__init__(model, tokenizer, names=(name,), max_length=max_length, frozen=frozen)
        self.name = name

    def encode(self, ids: Int[Tensor, "b n"]) -> dict[str, Tensor]:
        """The vectors."""
        mask = self.valid(ids)
        states = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        mean = (states * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
        return {self.names[0]: F.normalize(mean, dim=1)}
