"""From latents as an autoencoder has them to those that diffusion works on."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion_labs.models.ldm.autoencoder import LatentAutoencoder
from diffusion_labs.modes import evaluating
from diffusion_labs.schedules.precise_module import PreciseModule


class LatentScale(PreciseModule):
    """``normalize(z) = (z - shift) * scale`` and its inverse, so that latents have about the spread that noise has.

    The signal-to-noise ratio of a schedule is meant for data of standard deviation 1 (Latent Diffusion, arXiv
    2112.10752, appendix D.1). Stable Diffusion 1 and 2 have the scale 0.18215. Both numbers are stored with the weights
    and loaded with them, whatever their shape here; they are float32 in models of every precision.

    Args:
        shift: one number, or one for each channel.
        scale: likewise; positive.

    Raises:
        ValueError: if the scale is not positive and finite.

    Example:
        >>> scale = LatentScale(shift=1.0, scale=0.5)
        >>> scale.normalize(torch.full((1, 1, 1, 1), 5.0)).item()
        2.0
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self, shift: float | Sequence[float] | Tensor = 0.0, scale: float | Sequence[float] | Tensor = 1.0
    ) -> None:
        super().__init__()
        for name, value in (("shift", shift), ("scale", scale)):
            self.register_buffer(name, torch.as_tensor(value, dtype=torch.float32, device="cpu"))
            if getattr(self, name).ndim > 1:
                raise ValueError(f"{name} has shape {list(getattr(self, name).shape)}; give a number, or one a channel")
        if not bool(((self.scale > 0) & self.scale.isfinite()).all()) or not bool(self.shift.isfinite().all()):
            raise ValueError(f"scale ({self.scale.tolist()}) must be positive and finite, as must be what it scales")

    @classmethod
    @torch.no_grad()
    def measured(
        cls, autoencoder: LatentAutoencoder, batches: Iterable[Tensor], *, per_channel: bool = False
    ) -> "LatentScale":
        """With the mean and 1 / standard deviation of the latents of images, of which the posterior is sampled.

        Args:
            autoencoder: trained.
            batches: of images ``[b, c, h, w]``, normalised as for the autoencoder; all of them are read.
            per_channel: measure each channel of the latents on its own.

        Raises:
            ValueError: for no images, or latents without spread.
        """
        device = next(autoencoder.parameters()).device
        with evaluating(autoencoder):
            latents = (autoencoder.posterior(images.to(device)).sample() for images in batches)
            return cls.of(latents, per_channel=per_channel)

    @classmethod
    def of(cls, latents: Iterable[Tensor], *, per_channel: bool = False) -> "LatentScale":
        """With the mean and 1 / standard deviation of data.

        Args:
            latents: batches ``[b, c, ...]`` of them, all of which are read; embeddings ``[b, d]``, too.
            per_channel: measure each channel on its own.

        Raises:
            ValueError: for no data, or data without spread.
        """
        count, total, squares = 0, torch.zeros(()), torch.zeros(())
        for batch in latents:
            z = batch.detach().double().cpu()
            values = z.transpose(0, 1).flatten(1) if per_channel else z.reshape(1, -1)
            count += values.shape[1]
            total, squares = total + values.sum(1), squares + (values**2).sum(1)
        if count < 2:
            raise ValueError(f"the latents have {count} values; give at least one batch of images to measure them on")
        mean = total / count
        std = ((squares / count - mean**2).clamp(min=0) * count / (count - 1)).sqrt()
        if not bool((std > 1e-6 * mean.abs()).all()):
            raise ValueError(
                f"the latents of these images have the standard deviation {std.tolist()}; give other images, or train "
                "what encodes them first"
            )
        return cls(mean, 1 / std) if per_channel else cls(mean[0], 1 / std[0])

    def normalize(self, z: Float[Tensor, "b c *d"]) -> Float[Tensor, "b c *d"]:
        """From the autoencoder's latents to those of diffusion."""
        return ((z - _column(self.shift, z)) * _column(self.scale, z)).to(z.dtype)

    def denormalize(self, z: Float[Tensor, "b c *d"]) -> Float[Tensor, "b c *d"]:
        """From the latents of diffusion to the autoencoder's."""
        return (z / _column(self.scale, z) + _column(self.shift, z)).to(z.dtype)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        """Take the shape of what is loaded: a measured scale may have a number for each channel."""
        for name in ("shift", "scale"):
            stored = state_dict.get(prefix + name)
            if stored is not None and stored.ndim <= 1:
                setattr(self, name, getattr(self, name).new_empty(stored.shape))
        super()._load_from_state_dict(state_dict, prefix, *args)


def _column(value: Tensor, z: Tensor) -> Tensor:
    """A number or one a channel, shaped to meet latents ``[b, c, ...]``."""
    return value if value.ndim == 0 else value.reshape(-1, *[1] * (z.ndim - 2))
