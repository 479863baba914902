"""The causal Transformer of diffusion priors: from texts and noisy embeddings to clean embeddings."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool
from torch import Tensor, nn

from diffusion_labs.checkpointing import Checkpointing, call_block
from diffusion_labs.conditioning import ConditionalInputs, ConditionalModule, check_floating, check_timestep
from diffusion_labs.construction import builder
from diffusion_labs.layers import (
    EncoderBlock,
    FeedForward,
    SelfAttention,
    TimeEmbedding,
    tokens_of,
    vector_of,
    zero_init,
)
from diffusion_labs.output import DiffusionOutput

LAST = 4  # places after the text: its embedding, the time, the noisy embedding, the query


class PriorTransformer(ConditionalModule):
    """The network of the diffusion prior of DALL-E 2 (arXiv 2204.06125, section 2.2), built from its parts.

    The data are vectors ``[b, d]``, embeddings of images. The sequence is the tokens of the text, the embedding of the
    text, the time, the noisy x, and a learned query, at whose place the prediction is read. Attention is causal, and
    padding of the text is not attended to. The last four have the last four positions however many tokens the text
    has, so that neither padding nor its length changes the prediction.

    The conditional inputs are ``text`` ``[b, n, e]`` with ``text_mask``, bool ``[b, n]``, and ``text_embedding``
    ``[b, d']``. Absent ones are one zero token, and zeros. The input is cast to the dtype of the weights, and the
    output has the dtype of the input.

    Args:
        embed: linear in x, to the width of the Transformer.
        text: linear in the tokens of the text.
        text_embedding_norm: of the embedding of the text.
        text_embedding: linear in it.
        time: of the same width.
        positions: the vectors of the positions, ``[n + 4, dim]``, which are trained.
        norm_in: of the sequence.
        blocks: called with the sequence and a mask ``[b, n + 4, n + 4]``.
        head: from the query's place to the prediction.
        checkpointing: in train mode, recompute each block in the backward pass: less memory, more time.

    Attributes:
        max_tokens: tokens of the longest text.
    """

    def __init__(
        self,
        embed: nn.Linear,
        text: nn.Linear,
        text_embedding_norm: nn.Module,
        text_embedding: nn.Linear,
        time: TimeEmbedding,
        positions: Tensor,
        norm_in: nn.Module,
        blocks: Sequence[EncoderBlock],
        head: nn.Module,
        *,
        checkpointing: bool = False,
    ) -> None:
        super().__init__(["text", "text_mask", "text_embedding"])
        self.max_tokens = len(positions) - LAST
        self.checkpointing: Checkpointing = checkpointing
        self.embed = embed
        self.text = text
        self.text_embedding_norm = text_embedding_norm
        self.text_embedding = text_embedding
        self.time = time
        self.query = nn.Parameter(0.02 * torch.randn(positions.shape[1]))
        self.positions = nn.Parameter(positions)
        self.norm_in = norm_in
        self.blocks = nn.ModuleList(blocks)
        self.head = head

    @property
    def condition_shapes(self) -> dict[str, tuple[int | None, ...]]:
        """The shape of one sample's condition, by name; ``None`` is any number of tokens."""
        return {"text": (None, self.text.in_features), "text_embedding": (self.text_embedding.in_features,)}

    def forward(
        self, x: Tensor, timestep: Tensor, conditional_inputs: ConditionalInputs | None = None
    ) -> DiffusionOutput:
        """Predict.

        Args:
            x: noisy embeddings ``[b, d]``.
            timestep: the time of each sample, integer or floating, ``[b]``.
            conditional_inputs: any subset of those of the class.

        Returns:
            The prediction, ``[b, d]``.

        Raises:
            ValueError: for an input of the wrong shape or dtype, too many tokens, or an unknown condition.
        """
        conditions = self.check_conditions(conditional_inputs, x)
        self._check(x, timestep)
        tokens, valid = tokens_of(conditions, "text", self.text.in_features, timestep)
        vector = vector_of(conditions, "text_embedding", self.text_embedding.in_features, timestep)
        n, dtype = tokens.shape[1], self.embed.weight.dtype
        if n > self.max_tokens:
            raise ValueError(
                f"'text' has {n} tokens, but this network has positions for {self.max_tokens}; cut the texts, or build "
                f"it with max_tokens={n}"
            )

        # Embed
        last = [
            self.text_embedding(self.text_embedding_norm(vector.to(dtype))),
            self.time(timestep),
            self.embed(x.to(dtype)),
            self.query.expand(len(x), -1),
        ]
        h = torch.cat([self.text(tokens.to(dtype)), torch.stack(last, dim=1)], dim=1)
        h = self.norm_in(h + torch.cat([self.positions[:n], self.positions[-LAST:]]))

        # Transform
        valid = torch.ones_like(tokens[:, :, 0], dtype=torch.bool) if valid is None else valid
        mask = causal_mask(F.pad(valid, (0, LAST), value=True))
        for block in self.blocks:
            h = call_block(block, h, mask, recompute=self.training and self.checkpointing)

        # Project
        return DiffusionOutput(self.head(h[:, -1]).to(x.dtype))

    def _check(self, x: Tensor, timestep: Tensor) -> None:
        if x.dim() != 2 or x.shape[1] != self.embed.in_features:
            raise ValueError(
                f"x has shape {list(x.shape)}, but must be {[len(x), self.embed.in_features]}: one embedding for each "
                "sample; build the network with another embed_dim"
            )
        check_floating(x)
        check_timestep(timestep, x)


def causal_mask(valid: Bool[Tensor, "b n"]) -> Bool[Tensor, "b n n"]:
    """Which tokens each token attends to, ``[b, query, key]``: the valid ones up to itself, and itself.

    Itself also where it is padding, which nothing else attends to: a softmax over nothing is not a number.
    """
    n = valid.shape[1]
    index = torch.arange(n, device=valid.device)
    return (valid[:, None] & (index[:, None] >= index)) | (index[:, None] == index)


@builder
def prior_transformer(
    *,
    embed_dim: int = 1024,
    text_dim: int | None = None,
    text_embed_dim: int | None = None,
    max_tokens: int = 256,
    dim: int = 2048,
    depth: int = 24,
    num_heads: int = 32,
    time_dim: int | None = None,
    norm_in: bool = False,
    norm_text_embedding: bool = False,
    checkpointing: bool = False,
) -> PriorTransformer:
    """Build the network of the diffusion prior of DALL-E 2 (arXiv 2204.06125, section 2.2).

    The defaults are the sizes of the paper's (Table 3); the width of its embeddings is that of CLIP ViT-H/16.

    Args:
        embed_dim: width d of the embeddings of images, the data.
        text_dim: width of the tokens of the text; ``embed_dim`` by default.
        text_embed_dim: width of the embedding of the text; ``embed_dim`` by default.
        max_tokens: tokens of the longest text.
        dim: width of the Transformer.
        depth: the number of blocks.
        num_heads: heads of the attention.
        time_dim: width between the two layers of the time; ``dim`` by default.
        norm_in: normalise the sequence before the first block.
        norm_text_embedding: normalise the embedding of the text.
        checkpointing: in train mode, recompute each block in the backward pass: less memory, more time.

    Returns:
        A network that predicts zero until it is trained.

    Raises:
        ValueError: for sizes that do not fit together.

    Example:
        >>> network = prior_transformer(embed_dim=8, text_dim=6, max_tokens=5, dim=16, depth=2, num_heads=2)
        >>> conditions = {"text": torch.randn(4, 3, 6), "text_embedding": torch.randn(4, 8)}
        >>> network(torch.randn(4, 8), torch.arange(4), conditions).prediction.shape
        torch.Size([4, 8])
    """
    for name, value in (("depth", depth), ("max_tokens", max_tokens)):
        if value < 1:
            raise ValueError(f"{name} ({value}) must be at least 1")
    text_embed_dim = embed_dim if text_embed_dim is None else text_embed_dim
    return PriorTransformer(
        nn.Linear(embed_dim, dim),
        nn.Linear(embed_dim if text_dim is None else text_dim, dim),
        nn.LayerNorm(text_embed_dim) if norm_text_embedding else nn.Identity(),
        nn.Linear(text_embed_dim, dim),
        TimeEmbedding(dim, dim, hidden_dim=time_dim),
        0.02 * torch.randn(max_tokens + LAST, dim),
        nn.LayerNorm(dim) if norm_in else nn.Identity(),
        [EncoderBlock(dim, SelfAttention(dim, num_heads), FeedForward(dim, activation=F.gelu)) for _ in range(depth)],
        nn.Sequential(nn.LayerNorm(dim), zero_init(nn.Linear(dim, embed_dim))),
        checkpointing=checkpointing,
    )
