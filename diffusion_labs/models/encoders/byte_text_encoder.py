"""A text encoder that needs no vocabulary and no download."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from diffusion_labs.conditioning import mask_of
from diffusion_labs.layers import EncoderBlock, GatedFeedForward, MultiHeadAttention
from diffusion_labs.models.encoders.byte_tokenizer import START, cut
from diffusion_labs.models.encoders.text_encoder import TextEncoder, Texts

PADDING = START + 1
PRIME = 2**31 - 1  # of the hash, so that no product leaves 64 bits
BASE = 1_000_003


class NGramEmbedding(nn.Module):
    """What ends at a token: the sum over n of a row for its last n tokens, found by a hash.

    ``sum_n table_n[hash(t_{i-n+1}, ..., t_i) mod num_rows]``, from the n-th token on: the hash n-gram embeddings of the
    Byte Latent Transformer (arXiv 2412.09871, section 3.2.1). The hash is polynomial, ``sum_j t_{i-j} BASE^j``
    modulo a prime. So words have vectors of their own before attention has learnt to spell.

    Args:
        width: of the embedding.
        sizes: the numbers n.
        num_rows: of each table; n-grams of one hash share a row.
    """

    def __init__(self, width: int, sizes: Sequence[int], num_rows: int) -> None:
        super().__init__()
        self.tables = nn.ModuleDict({str(n): nn.Embedding(num_rows, width) for n in sizes})

    def forward(self, ids: Int[Tensor, "b n"]) -> Float[Tensor, "b n d"] | float:
        """The embedding of each place; 0 without sizes."""
        h: Tensor | float = 0.0
        for name, table in self.tables.items():
            n = int(name)
            if n <= ids.shape[1]:
                rows = table(hash_of(ids.unfold(1, n, 1)) % table.num_embeddings)  # type: ignore[operator]
                h = h + nn.functional.pad(rows, (0, 0, n - 1, 0))
        return h


def hash_of(ngrams: Int[Tensor, "b m n"]) -> Int[Tensor, "b m"]:
    """``sum_j t_{i-j} BASE^j`` modulo ``PRIME``, where t_i is the last of the n tokens."""
    value = torch.zeros_like(ngrams[..., 0])
    for j in range(ngrams.shape[-1]):
        value = (value * BASE + ngrams[..., j]) % PRIME
    return value


class ByteTextEncoder(TextEncoder):
    """A bidirectional Transformer on the bytes of UTF-8, small enough to be trained with the network that it serves.

    A text is a start token and its bytes, so that "", which stands for no text, is one token. Positions are learned.
    Padding is neither attended to nor encoded: the encoding of a text does not depend on its batch. Beside each byte
    may stand what ends there, see ``NGramEmbedding``: the mean of all these vectors.

    Args:
        width: of the encoding.
        depth: number of blocks, each of attention and a feed-forward network.
        num_heads: heads of the attention.
        max_bytes: longer texts are cut, between two characters.
        ngrams: the lengths of what ends at a byte and has a vector, for example ``(3, 4, 5, 6)``; none by default.
        num_hashes: vectors for each of these lengths.
        name: the conditional input of the network; beside it is ``<name>_mask``.
        pooled_name: the one for the mean of the encoding over the bytes, ``[b, width]``, for networks whose time
            embedding takes a vector; not given if ``None``.

    Example:
        >>> encoder = ByteTextEncoder(32)
        >>> {name: list(value.shape) for name, value in encoder(["a cat", "ein Bär"]).items()}
        {'text': [2, 9, 32], 'text_mask': [2, 9]}
    """

    def __init__(
        self,
        width: int,
        *,
        depth: int = 2,
        num_heads: int = 4,
        max_bytes: int = 128,
        ngrams: Sequence[int] = (),
        num_hashes: int = 4096,
        name: str = "text",
        pooled_name: str | None = None,
    ) -> None:
        super().__init__()
        for argument, value in (("max_bytes", max_bytes), ("num_hashes", num_hashes), *(("ngrams", n) for n in ngrams)):
            if value < 1:
                raise ValueError(f"{argument} ({value}) must be at least 1")
        self.width = width
        self.depth = depth
        self.num_heads = num_heads
        self.max_bytes = max_bytes
        self.ngrams = tuple(ngrams)
        self.num_hashes = num_hashes
        self.name = name
        self.pooled_name = pooled_name
        self.names = (name, mask_of(name)) if pooled_name is None else (name, mask_of(name), pooled_name)
        self.tokens = nn.Embedding(PADDING + 1, width)
        self.endings = NGramEmbedding(width, self.ngrams, num_hashes)
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
        """The encoding ``[b, n, width]`` with zeros where it is padded, its mask, bool ``[b, n]``, and maybe its mean.

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
        h = (self.tokens(ids) + self.endings(ids)) / (len(self.ngrams) + 1) + self.positions[:length]
        for block in self.blocks:
            h = block(h, mask)
        h = self.norm(h) * mask.unsqueeze(-1)
        return dict(zip(self.names, (h, mask, h.sum(1) / mask.sum(1, keepdim=True)), strict=False))

    def null(self) -> Int[Tensor, "1 1"]:
        """The start token alone."""
        return torch.full((1, 1), START, device=self.device)
