"""Embeddings of the spread of noise for a network that is told them as CLIP has them."""

import torch
from torch import Tensor, nn

from diffusion_labs.adapters.adapter import Adapter
from diffusion_labs.conditioning import ConditionalInputs
from diffusion_labs.keeping import kept
from diffusion_labs.models.ldm.latent_scale import LatentScale
from diffusion_labs.output import DiffusionOutput


class ScaledEmbedding(Adapter):
    """Gives the model ``scale.normalize(z)`` for an embedding z, and zeros for zeros, which stand for none.

    The embeddings of CLIP have length 1, so their values are small, and most of a small CLIP's have one direction in
    common: without a scale for each dimension, ``LatentScale.of(batches, per_channel=True)``, a network takes long to
    tell them apart. It belongs inside of ``CFGuidance``.

    Args:
        model: takes the scaled embedding.
        scale: of the embeddings.
        name: of the conditional input, ``[b, d]``.

    Example:
        >>> decoder = dalle2_decoder(ScaledEmbedding(network, LatentScale.of(batches, per_channel=True)))
    """

    def __init__(self, model: nn.Module, scale: LatentScale, *, name: str = "image_embedding") -> None:
        super().__init__(model, [name])
        self.scale = scale
        self.name = name

    def forward(
        self, x: Tensor, timestep: Tensor, conditional_inputs: ConditionalInputs | None = None
    ) -> DiffusionOutput:
        """See ``ConditionalModule``."""
        conditions = self.check_conditions(conditional_inputs, x)
        if self.name in conditions:
            conditions = {**conditions, self.name: kept(self.scaled, conditions[self.name])}
        output: DiffusionOutput = self.model(x, timestep, conditions)
        return output

    def scaled(self, z: Tensor) -> Tensor:
        """What the model gets for an embedding."""
        none = (z == 0).all(1, keepdim=True)
        return torch.where(none, z, self.scale.normalize(z))
