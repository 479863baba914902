"""Vector quantisation: each position of the features becomes one of finitely many codes."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


class Quantized(NamedTuple):
    """Quantised features.

    Attributes:
        z: the codes, ``[b, c, ...]``; gradients pass to the features as if these had not been quantised.
        indices: the numbers of the codes, ``[b, ...]``.
        loss: what moves the codes and the features towards each other, a scalar.
    """

    z: Tensor
    indices: Tensor
    loss: Tensor


class CodeUsage(NamedTuple):
    """How well a codebook is used.

    Attributes:
        perplexity: ``exp(-sum_k p_k log p_k)`` of the frequencies p of the codes: the number of codes, if all are
            equally frequent, and 1, if there is only one.
        used: the fraction of the codes that occur.
    """

    perplexity: Tensor
    used: Tensor

    @classmethod
    def of(cls, counts: Tensor) -> "CodeUsage":
        """From how often each code occurs, ``[num_codes]``."""
        frequencies = counts.double() / counts.sum()
        return cls(torch.special.entr(frequencies).sum().exp(), (counts > 0).double().mean())


class VectorQuantizer(nn.Module):
    """Replaces each feature vector h by the nearest code e.

    ``z = h + sg[e - h]`` is the value of e with the gradient of h, where sg stops the gradient, and
    ``loss = codebook_weight * mean((e - sg[h])^2) + commitment_weight * mean((h - sg[e])^2)`` (VQ-VAE, arXiv
    1711.00937, section 3.2).

    VQ-VAE's Eq. 3 has the weights 1 and 0.25. The published models of VQGAN and LDM were trained with them
    exchanged, 0.25 and 1, which are the defaults here.

    Args:
        num_codes: the number of codes.
        code_dim: channels of the features.
        codebook_weight: weight of the loss of the codes.
        commitment_weight: weight of the loss of the features.

    Raises:
        ValueError: without codes.
    """

    def __init__(
        self, num_codes: int, code_dim: int, *, codebook_weight: float = 0.25, commitment_weight: float = 1.0
    ) -> None:
        super().__init__()
        if num_codes < 1:
            raise ValueError(f"num_codes ({num_codes}) must be at least 1: the number of codes to choose from")
        self.num_codes = num_codes
        self.code_dim = code_dim
        self.codebook_weight = codebook_weight
        self.commitment_weight = commitment_weight
        self.codebook = nn.Parameter(torch.empty(num_codes, code_dim).uniform_(-1 / num_codes, 1 / num_codes))

    def forward(self, h: Float[Tensor, "b c *d"]) -> Quantized:
        indices = self.nearest(h)
        e = self.lookup(indices).to(h.dtype)
        loss = self.codebook_weight * F.mse_loss(e, h.detach()) + self.commitment_weight * F.mse_loss(h, e.detach())
        return Quantized(h + (e - h).detach(), indices, loss)

    @torch.no_grad()
    def nearest(self, h: Float[Tensor, "b c *d"]) -> Int[Tensor, "b *d"]:
        """The number of the code nearest to each feature vector, compared in float32 or better.

        ``|h - e|^2 / 2`` without ``|h|^2``, which is the same for all codes and would only round their differences.
        """
        dtype = torch.promote_types(h.dtype, torch.float32)
        vectors, codes = h.movedim(1, -1).to(dtype), self.codebook.to(dtype)
        return (codes.square().sum(1) / 2 - vectors @ codes.mT).argmin(-1)

    def lookup(self, indices: Int[Tensor, "b *d"]) -> Float[Tensor, "b c *d"]:
        """The codes of these numbers."""
        return F.embedding(indices, self.codebook).movedim(-1, 1)

    def usage(self, counts: Int[Tensor, " k"]) -> CodeUsage:
        """How well the codes are used, from how often each was."""
        return CodeUsage.of(counts)


def code_usage(indices: Tensor, num_codes: int) -> CodeUsage:
    """Count how often each code occurs.

    Args:
        indices: numbers of codes, of any shape, of one batch or many.
        num_codes: the number of codes that there are.

    Raises:
        ValueError: for an index that is no code.
    """
    counts = torch.bincount(indices.flatten(), minlength=num_codes)
    if len(counts) != num_codes:
        raise ValueError(f"indices has {len(counts) - 1}, but must be below num_codes ({num_codes})")
    return CodeUsage.of(counts)
