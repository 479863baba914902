"""A text encoder that needs no vocabulary and no download."""

import torch
from jaxtyping import Int
from torch import Tensor, nn

from diffusion_labs.conditioning import mask_of
from diffusion_labs.layers import EncoderBlock, GatedFeedForward, MultiHeadAttention
from diffusion_labs.models.encoders.byte_tokenizer import START, cut
from diffusion_labs.models.encoders.text_encoder import TextEncoder, Texts

PADDING = START + 1


class ByteTextEncoder(TextEncoder):
    """A bidirectional Transformer on the bytes of UTF-8, small enough to be trained with the network that it serves.

    A text is a start token and its bytes, so that "", which stands for no text, is one token. Positions are learned.
    Padding is neither attended to nor encoded: the encoding of a text does not depend on its batch.

    Args:
        width: of the encoding.
        depth: number of blocks, each of attention and a feed-forward network.
        num_heads: heads of the attention.
        max_bytes: longer texts are cut, between two characters.
        name: the conditional input of the network; beside it is ``<name>_mask``.

    Example:
        >>> encoder = ByteTextEncoder(32)
        >>> {name: list(value.shape) for name, value in encoder(["a cat", "ein Bär"]).items()}
        {'text': [2, 9, 32], 'text_mask': [2, 9]}
    """

    def __init__(
        self, width: int, *, depth: int = 2, num_heads: int = 4, max_bytes: int = 128, name: str = "text"
    ) -> None:
        super().__init__()
        if max_bytes < 1:
            raise ValueError(f"max_bytes ({max_bytes}) must be at least 1")
        self.width = width
        self.depth = depth
        self.num_heads = num_heads
        self.max_bytes = max_bytes
        self.name = name
        self.names = (name, mask_of(name))
        self.tokens = nn.Embedding(PADDING + 1, width)
        self.positions = nn.Parameter(0.02 * torch.randn(max_bytes + 1, width))
        self.blocks = nn.ModuleList(
            EncoderBlock(width, MultiHeadAttention(width, num_heads), GatedFeedForward(width)) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)

    def tokenize(self, texts: Texts) -> Int[Tensor, "b n"]:
        """The bytes of texts after a start token, padded to the longest of the batch."""
        rows = [[START, *cut(text, self.max_bytes)] for text in texts]
        length = max(map(len, rows), default=1)
        return torch.tensor([row + [PADDING] * (length - len(row)) for row in rows], dtype=torch.long, device="cpu")

    def encode(self, ids: Int[Tensor, "b n"]) -> dict[str, Tensor]:
        """The encoding ``[b, n, width]`` and its mask, bool ``[b, n]``; zeros where it is padded.

        Raises:
            ValueError: for more tokens than there are positions.
        """
        length = ids.shape[1]
        if length > len(self.positions):
            raise ValueError(
                f"texts have {length} tokens, but this encoder has positions for {len(self.positions)}; tokenize them "
                f"with it, or build it with max_bytes={length - 1}"
            )
        mask = ids != PADDING
        h = self.tokens(ids) + self.positions[:length]
        for block in self.blocks:
            h = block(h, mask)
        return dict(zip(self.names, (self.norm(h) * mask.unsqueeze(-1), mask), strict=True))

    def null(self) -> Int[Tensor, "1 1"]:
        """The start token alone."""
        return torch.full((1, 1), START, device=self.device)
