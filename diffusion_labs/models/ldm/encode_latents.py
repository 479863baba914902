"""From images to latents, as a transform."""

from typing import Any

import torch
from torch import nn

from diffusion_labs.models.autoencoder import DiagonalGaussian
from diffusion_labs.models.ldm.latent_scale import LatentScale
from diffusion_labs.transforms.transform import Batch, Transform


class EncodeLatents(Transform):
    """Replaces images by their latents: ``scale.normalize(z)``, where z is drawn from the autoencoder's posterior.

    A batch that has the moments of the posterior, stored once, needs no images, and costs no encoder. The autoencoder
    is used as it is, without gradients, and stays in eval mode; its weights are those of the ``LatentDiffusion`` that
    has the same one.

    Args:
        autoencoder: images to latents; see ``LatentAutoencoder``.
        scale: of the latents; as they are if ``None``.
        data_field: images to read, and latents to write.
        image_field: where the images are kept; nowhere if ``None``.
        mean_field: stored means to read, ``[b, c, ...]``.
        log_variance_field: stored log-variances to read.
    """

    autoencoder: Any  # a LatentAutoencoder

    def __init__(
        self,
        autoencoder: nn.Module,
        scale: LatentScale | None = None,
        *,
        data_field: str = "x",
        image_field: str | None = None,
        mean_field: str = "latent_mean",
        log_variance_field: str = "latent_log_variance",
    ) -> None:
        super().__init__()
        self.autoencoder = autoencoder.eval()
        self.scale = LatentScale() if scale is None else scale
        self.data_field = data_field
        self.image_field = image_field
        self.mean_field = mean_field
        self.log_variance_field = log_variance_field

    def train(self, mode: bool = True) -> "EncodeLatents":
        """Train mode is not the autoencoder's."""
        super().train(mode)
        self.autoencoder.train(False)
        return self

    @torch.no_grad()
    def forward(self, batch: Batch) -> dict[str, Any]:
        """See the class."""
        if self.mean_field in batch:
            mean, log_variance = (self.field(batch, name) for name in (self.mean_field, self.log_variance_field))
            posterior = DiagonalGaussian(mean.float(), log_variance.float())
        else:
            posterior = self.autoencoder.posterior(self.field(batch, self.data_field))
        kept = {} if self.image_field is None else {self.image_field: self.field(batch, self.data_field)}
        z = DiagonalGaussian.sample(
            posterior, self.generator(batch)
        )  # so written, it compiles with the tests' shape checks, too
        return {**batch, **kept, self.data_field: self.scale.normalize(z)}
