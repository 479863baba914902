"""What the training of an autoencoder with normally distributed latents minimises."""

from typing import Any

import torch
from torch import Tensor, nn

from diffusion_labs.training.autoencoder_objective import AutoencoderObjective, Reconstructed


class KLObjective(AutoencoderObjective):
    """The objective of an ``AutoencoderKL``.

    ``nll = sum(errors / exp(s) + s) / b``, with the sum over all values of an image, where s is the logarithm of the
    scale of the errors, and the regularisation is the KL divergence of the latents from the standard normal
    distribution, summed over an image's latents and averaged over the batch.

    Args:
        autoencoder: an ``AutoencoderKL``.
        kl_weight: weight of the KL divergence.
        learn_scale: train s; the published models were trained with it fixed at 0.
        options: see ``AutoencoderObjective``.

    Example:
        >>> objective = KLObjective(model, transform=NormalizeImages(), discriminator=PatchDiscriminator(3))
        >>> optimizer = torch.optim.Adam(objective.parameter_groups(1e-4), betas=(0.5, 0.9))
    """

    regulariser = "kl"
    log_scale: Tensor

    def __init__(
        self, autoencoder: nn.Module, *, kl_weight: float = 1e-6, learn_scale: bool = False, **options: Any
    ) -> None:
        super().__init__(autoencoder, weight=kl_weight, **options)
        if learn_scale:
            self.log_scale = nn.Parameter(torch.zeros(1))  # FSDP2 takes no scalars
        else:
            self.register_buffer("log_scale", torch.zeros(()))

    def reconstruct(self, x: Tensor) -> Reconstructed:
        """The images of a sample of the latents, and the KL divergence."""
        y, posterior = self.autoencoder(x)
        kl = type(posterior).kl(posterior)  # so written, it compiles with the tests' shape checks, too
        return Reconstructed(y, kl.mean())

    def nll(self, errors: Tensor) -> Tensor:
        """``sum(errors / exp(s) + s) / b``."""
        return (errors / torch.exp(self.log_scale) + self.log_scale).sum() / len(errors)
