"""From one conditional input to its part of the embedding or of the context; each may be absent."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_labs.conditioning import ConditionalInputs
from diffusion_labs.keeping import kept
from diffusion_labs.layers.conditions import tokens_of, vector_of
from diffusion_labs.layers.embeddings import TimeEmbedding, sinusoidal_embedding


class Context(NamedTuple):
    """What the attention blocks get beside the image.

    Attributes:
        tokens: tokens to look at, ``[b, n, context_dim]``.
        mask: which of them are valid, bool ``[b, n]``; ``None`` if all are.
        identity: whose attention is the identity, bool ``[b, blocks]``, one column for each attention block of the
            network; ``None`` if nobody's.
    """

    tokens: Tensor
    mask: Tensor | None
    identity: Tensor | None = None


class VectorCondition(nn.Module):
    """Projects a vector; an absent one is zeros.

    Args:
        name: key of the conditional input ``[b, width]``.
        width: width of the input.
        embed_dim: width of the output.
    """

    def __init__(self, name: str, width: int, embed_dim: int) -> None:
        super().__init__()
        self.name = name
        self.linear = nn.Linear(width, embed_dim)

    def forward(self, conditions: ConditionalInputs, timestep: Tensor) -> Tensor:
        vector = vector_of(conditions, self.name, self.linear.in_features, timestep)
        embedding: Tensor = self.linear(vector.to(self.linear.weight.dtype))
        return embedding


class JointCondition(nn.Module):
    """Several vectors and numbers together: ``Linear -> SiLU -> Linear`` of all of them, the numbers as sinusoids.

    The pooled text and the sizes of Stable Diffusion XL (arXiv 2307.01952, section 2.2). Absent ones are zeros.

    Args:
        vectors: width by name; input ``[b, width]``.
        numbers: how many numbers, by name; input ``[b, n]``.
        embed_dim: width of the output.
        frequency_dim: width of the sinusoids of one number.

    Attributes:
        condition_shapes: the shape of one sample's condition, by name.
    """

    def __init__(
        self, vectors: Mapping[str, int], numbers: Mapping[str, int], embed_dim: int, *, frequency_dim: int = 256
    ) -> None:
        super().__init__()
        self.numbers = frozenset(numbers)
        self.frequency_dim = frequency_dim
        self.condition_shapes = {name: (width,) for name, width in {**vectors, **numbers}.items()}
        width = sum(vectors.values()) + frequency_dim * sum(numbers.values())
        self.linear_in = nn.Linear(width, embed_dim)
        self.linear_out = nn.Linear(embed_dim, embed_dim)

    def forward(self, conditions: ConditionalInputs, timestep: Tensor) -> Tensor:
        dtype, features = self.linear_in.weight.dtype, []
        for name, (width,) in self.condition_shapes.items():
            value = vector_of(conditions, name, width, timestep)
            if name in self.numbers:
                numbers = sinusoidal_embedding(value.flatten(), self.frequency_dim, dtype=dtype)
                value = numbers.unflatten(0, value.shape).flatten(1)
            features.append(value.to(dtype))
        embedding: Tensor = self.linear_out(F.silu(self.linear_in(torch.cat(features, dim=1))))
        return embedding


class NumberCondition(nn.Module):
    """Several numbers, each by itself: the concatenation of ``Linear -> SiLU -> Linear`` of the sinusoids of each.

    Numbers of one name share their layers. The resolution and the aspect ratio of PixArt-alpha (arXiv 2310.00426)
    enter so. Absent ones are zeros.

    Args:
        numbers: how many numbers, by name; input ``[b, n]``.
        embed_dim: width of the output.
        frequency_dim: width of the sinusoids of one number.

    Attributes:
        condition_shapes: the shape of one sample's condition, by name.

    Raises:
        ValueError: if the numbers do not divide the width.
    """

    def __init__(self, numbers: Mapping[str, int], embed_dim: int, *, frequency_dim: int = 256) -> None:
        super().__init__()
        total = sum(numbers.values())
        if total < 1 or embed_dim % total != 0:
            raise ValueError(
                f"numbers ({dict(numbers)}) are {total}, which must divide dim ({embed_dim}) and be at least 1; "
                "change dim"
            )
        self.condition_shapes = {name: (number,) for name, number in numbers.items()}
        self.embeddings = nn.ModuleDict({name: TimeEmbedding(frequency_dim, embed_dim // total) for name in numbers})

    def forward(self, conditions: ConditionalInputs, timestep: Tensor) -> Tensor:
        parts = []
        for name, embedding in self.embeddings.items():
            values = vector_of(conditions, name, *self.condition_shapes[name], timestep)
            parts.append(embedding(values.flatten()).unflatten(0, values.shape).flatten(1))
        return torch.cat(parts, dim=1)


class TokenCondition(nn.Module):
    """Tokens as they are; absent ones are one zero token.

    Args:
        name: key of the conditional input ``[b, n, width]``. The input ``<name>_mask`` is optional:
            bool ``[b, n]``, true for valid tokens. A mask without its tokens is ignored, so that
            dropping the tokens is enough to drop the condition.
        width: width of the input.
    """

    def __init__(self, name: str, width: int) -> None:
        super().__init__()
        self.name = name
        self.width = width

    def forward(self, conditions: ConditionalInputs, timestep: Tensor) -> Context:
        tokens, mask = tokens_of(conditions, self.name, self.width, timestep)
        return Context(kept(self.project, tokens), mask)

    def project(self, tokens: Tensor) -> Tensor:
        """From the input to the context."""
        return tokens


class ProjectedTokenCondition(TokenCondition):
    """Projects tokens to the context; absent ones are one zero token.

    Args:
        name: see ``TokenCondition``.
        width: width of the input.
        context_dim: width of the output.
        norm: a ``LayerNorm`` after the projection.
    """

    def __init__(self, name: str, width: int, context_dim: int, *, norm: bool = False) -> None:
        super().__init__(name, width)
        self.linear = nn.Linear(width, context_dim)
        self.norm = nn.LayerNorm(context_dim) if norm else nn.Identity()

    def project(self, tokens: Tensor) -> Tensor:
        """From the input to the context."""
        return self.norm(self.linear(tokens.to(self.linear.weight.dtype)))


class CaptionCondition(TokenCondition):
    """Projects tokens to the context by ``Linear -> GELU -> Linear``; absent ones are one zero token.

    The caption of PixArt-alpha (arXiv 2310.00426) enters so, with the approximation of GELU by tanh.

    Args:
        name: see ``TokenCondition``.
        width: width of the input.
        context_dim: width of the output, and between the layers.
    """

    def __init__(self, name: str, width: int, context_dim: int) -> None:
        super().__init__(name, width)
        self.linear_in = nn.Linear(width, context_dim)
        self.linear_out = nn.Linear(context_dim, context_dim)

    def project(self, tokens: Tensor) -> Tensor:
        """From the input to the context."""
        h = self.linear_in(tokens.to(self.linear_in.weight.dtype))
        return self.linear_out(F.gelu(h, approximate="tanh"))


class VectorTokens(nn.Module):
    """Makes several tokens of a vector, ``[b, n, context_dim]``; an absent one is zeros.

    The image embedding of DALL-E 2 (arXiv 2204.06125, section 2.1) enters so, beside its part in the embedding.

    Args:
        name: key of the conditional input ``[b, width]``.
        width: width of the input.
        num_tokens: the number of tokens n.
        context_dim: width of the output.
    """

    def __init__(self, name: str, width: int, num_tokens: int, context_dim: int) -> None:
        super().__init__()
        self.name = name
        self.num_tokens = num_tokens
        self.linear = nn.Linear(width, num_tokens * context_dim)

    def forward(self, conditions: ConditionalInputs, timestep: Tensor) -> Context:
        vector = vector_of(conditions, self.name, self.linear.in_features, timestep)
        return Context(kept(self.project, vector), None)

    def project(self, vector: Tensor) -> Tensor:
        """From the input to the tokens."""
        tokens: Tensor = self.linear(vector.to(self.linear.weight.dtype))
        return tokens.unflatten(1, (self.num_tokens, -1))
