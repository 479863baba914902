"""The text encoder of Latent Diffusion."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor, nn

from diffusion_labs.layers import EncoderBlock, FeedForward, MultiHeadAttention
from diffusion_labs.models.encoders.text_encoder import TextEncoder, Texts
from diffusion_labs.models.encoders.tokenizer import load_tokenizer, tokenized


class LDMTextEncoder(TextEncoder):
    """A bidirectional Transformer on the tokens of BERT, trained with the network: that of Latent Diffusion.

    Texts are padded to ``max_length`` tokens, and the padding is attended to and encoded like all else, as the released
    networks were trained (arXiv 2112.10752, section 4.3.1 and appendix E.2.1). Blocks normalise what they read, and so
    do the states in the end. Their attention has heads of its own width, so it may be narrower than the states. Of the
    tokens of a layout in place of those of a text, the same encoder makes the condition of ``ldm_layout``.

    Args:
        width: of the encoding.
        tokenizer: BERT's, of transformers; without one only tokens can be encoded.
        depth: number of blocks, each of attention and a feed-forward network.
        num_heads: heads of the attention.
        head_dim: width of a head.
        num_tokens: size of the vocabulary.
        max_length: tokens of every text; longer ones are cut.
        name: the conditional input of the network, ``[b, max_length, width]``.

    Example:
        >>> encoder = LDMTextEncoder(16, depth=2, num_heads=2, head_dim=4, num_tokens=30, max_length=5)
        >>> encoder(torch.tensor([[1, 7, 2, 0, 0]]))["text"].shape
        torch.Size([1, 5, 16])
    """

    def __init__(
        self,
        width: int = 1280,
        tokenizer: Any = None,
        *,
        depth: int = 32,
        num_heads: int = 8,
        head_dim: int = 64,
        num_tokens: int = 30522,
        max_length: int = 77,
        name: str = "text",
    ) -> None:
        super().__init__()
        self.width = width
        self.tokenizer = tokenizer
        self.depth = depth
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.num_tokens = num_tokens
        self.max_length = max_length
        self.name = name
        self.names = (name,)
        self.tokens = nn.Embedding(num_tokens, width)
        self.positions = nn.Parameter(0.02 * torch.randn(max_length, width))
        self.blocks = nn.ModuleList(
            EncoderBlock(
                width, MultiHeadAttention(width, num_heads, head_dim=head_dim), FeedForward(width, activation=F.gelu)
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)

    @classmethod
    def with_tokenizer(
        cls, source: str | Path = "bert-base-uncased", *, tokenizer_folder: str = "", **sizes: Any
    ) -> "LDMTextEncoder":
        """With random weights, and a tokenizer from a local folder, or by its name on the Hugging Face hub.

        Args:
            source: folder or name.
            tokenizer_folder: folder of the tokenizer inside of it; ``tokenizer`` in pipelines of diffusers.
            **sizes: of the encoder.

        Raises:
            ImportError: without the package ``transformers``.
        """
        return cls(tokenizer=load_tokenizer(source, tokenizer_folder, needed_by=cls.__name__), **sizes)

    def tokenize(self, texts: Texts) -> Int[Tensor, "b n"]:
        """The tokens of texts, padded to ``max_length``.

        Raises:
            ValueError: without a tokenizer.
        """
        return tokenized(
            texts, self.tokenizer, padding="max_length", max_length=self.max_length, needed_by=type(self).__name__
        )

    def encode(self, ids: Int[Tensor, "b n"]) -> dict[str, Tensor]:
        """The encoding, ``[b, n, width]``.

        Raises:
            ValueError: for more tokens than there are positions.
        """
        length = ids.shape[1]
        if length > self.max_length:
            raise ValueError(
                f"texts have {length} tokens, but this encoder has positions for {self.max_length}; tokenize them with "
                f"it, or build it with max_length={length}"
            )
        h = self.tokens(ids) + self.positions[:length]
        for block in self.blocks:
            h = block(h)
        return {self.names[0]: self.norm(h)}
