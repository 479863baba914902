"""Latent diffusion as one module."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_labs.models.autoencoder import DiagonalGaussian
from diffusion_labs.models.encoders import Conditioner
from diffusion_labs.models.ldm.latent_scale import LatentScale
from diffusion_labs.output import DiffusionOutput
from diffusion_labs.randomness import Generators, randn_like
from diffusion_labs.samplers.sampler import NoiseSource, Sampler, check_tensors

Conditions = Mapping[str, Any]
Call = Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]


def at_once(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``function(x)``."""
    return function(x)


class LatentDiffusion(nn.Module):
    """Diffusion on the latents of an autoencoder (arXiv 2112.10752), with the two modes of a sampler.

    In train mode it is the denoiser of latents: ``sampler(x_t, timestep, conditioner(conditions))``. In eval mode it
    goes from noise to images: ``decode(scale.denormalize(sampler(noise, conditions)))``; conditions are encoded once.

    The autoencoder is frozen here: it gets no gradients, and stays in eval mode. ``EncodeLatents`` makes the latents
    to train on. Tasks differ in the stack of adapters around the network alone: ``CFGuidance`` for classes and texts,
    ``Concatenation`` for maps, ``InPainting`` or ``SuperResolution`` for what is known of an image.

    Args:
        autoencoder: between images and latents; see ``LatentAutoencoder``.
        sampler: of latents.
        conditioner: encodes conditions; they go to the network as they are if ``None``.
        scale: of the latents; as they are if ``None``.
        encoded: conditions that are images and given to the network as latents, those of the posterior's mode.
        decoding: how ``decode`` calls the autoencoder, ``decoding(function, latents)``; large images fit into memory
            with ``partial(tiled, tile=64, overlap=16)``, large batches with ``sliced``. May be set at any time.
        encoding: how ``posterior`` and ``encode`` call it, likewise; tiles are in pixels, and so
            ``partial(tiled, tile=512, overlap=128)`` for a factor of 8.

    Example:
        >>> system = LatentDiffusion(autoencoder, sampler, conditioner, LatentScale(scale=0.18215)).eval()
        >>> seeds = seeded([1, 2])
        >>> noise = system.sample_prior(2, (512, 512), seeds)
        >>> images = system(noise, conditional_inputs={"caption": ["a cat", "a dog"]}, generator=seeds)
    """

    autoencoder: Any  # a LatentAutoencoder

    def __init__(
        self,
        autoencoder: nn.Module,
        sampler: Sampler,
        conditioner: Conditioner | None = None,
        scale: LatentScale | None = None,
        *,
        encoded: Collection[str] = (),
        decoding: Call = at_once,
        encoding: Call = at_once,
    ) -> None:
        super().__init__()
        self.autoencoder = autoencoder.requires_grad_(False).eval()
        self.sampler = sampler
        self.conditioner = Conditioner({}) if conditioner is None else conditioner
        self.scale = LatentScale() if scale is None else scale
        self.encoded = frozenset(encoded)
        self.decoding = decoding
        self.encoding = encoding

    def train(self, mode: bool = True) -> "LatentDiffusion":
        """Train mode is not the autoencoder's."""
        super().train(mode)
        self.autoencoder.train(False)
        return self

    def forward(
        self,
        x: Tensor,
        timestep: Tensor | None = None,
        conditional_inputs: Conditions | None = None,
        *,
        generator: Generators | NoiseSource = None,
        start: float | None = None,
    ) -> DiffusionOutput | Tensor:
        """One call of the model in train mode, finished images in eval mode.

        Args:
            x: latents ``[b, c, ...]``: noisy ones at ``timestep`` in train mode, from ``sample_prior`` in eval mode.
            timestep: see ``Sampler``.
            conditional_inputs: what the conditioner encodes, such as lists of texts, and what the network takes.
            generator: see ``Sampler``.
            start: see ``Sampler``.

        Returns:
            A ``DiffusionOutput`` in train mode; images ``[b, c, ...]`` in eval mode.
        """
        check_tensors(x, timestep)
        conditions = self.condition(conditional_inputs, x)
        output: Any = self.sampler(x, timestep, conditions, generator=generator, start=start)
        return output if self.training else self.decode(output)

    def condition(self, conditional_inputs: Conditions | None, x: Tensor) -> dict[str, Tensor]:
        """The conditional inputs of the network, for a batch of latents."""
        given = dict(conditional_inputs or {})
        for name in self.encoded.intersection(given):
            given[name] = self.scale.normalize(self.posterior(given[name]).mean)
        understood: frozenset[str] | None = getattr(self.sampler.model, "condition_names", None)
        inputs: dict[str, Tensor] = self.conditioner(given, x, understood)
        return inputs

    def posterior(self, images: Tensor) -> DiagonalGaussian:
        """The distribution of the autoencoder's latents of images."""

        def moments(part: Tensor) -> Tensor:
            return torch.cat(tuple(self.autoencoder.posterior(part)), dim=1)

        mean, log_variance = self.encoding(moments, images).chunk(2, dim=1)
        return DiagonalGaussian(mean, log_variance)

    def encode(self, images: Tensor, generator: Generators = None) -> Tensor:
        """The normalised latents of images, drawn from the posterior."""
        return self.scale.normalize(self.posterior(images).sample(generator))

    def decode(self, latents: Tensor) -> Tensor:
        """The images of normalised latents."""
        return self.decoding(self.autoencoder.decode, self.scale.denormalize(latents))

    def sample_prior(
        self, count: int, size: Sequence[int], generator: Generators = None, *, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Noise to begin with, for images of a size in pixels, on the device of the autoencoder.

        Raises:
            ValueError: if a side is not whole latents.
        """
        factor: int = self.autoencoder.factor
        if any(side < 1 or side % factor for side in size):
            raise ValueError(f"size ({tuple(size)}) must be positive multiples of {factor}, the pixels of a latent")
        shape = (count, self.autoencoder.latent_channels, *(side // factor for side in size))
        device = next(self.autoencoder.parameters()).device
        return self.sampler.schedule.sample_prior(shape, generator, dtype=dtype, device=device)

    @torch.no_grad()
    def image_to_image(
        self,
        images: Tensor,
        strength: float,
        conditional_inputs: Conditions | None = None,
        *,
        generator: Generators = None,
    ) -> Tensor:
        """Noise images up to a time and sample from there: SDEdit (arXiv 2108.01073, algorithm 1).

        Args:
            images: ``[b, c, ...]``, normalised as for the autoencoder.
            strength: share of the way to noise, in (0, 1]; at 1 as much of the images is left as the schedule leaves
                of its data, which is little, or nothing at zero terminal SNR.
            conditional_inputs: see ``forward``.
            generator: of the posterior's sample, the noise and the sampler.

        Raises:
            ValueError: for a strength outside (0, 1], or in train mode.
        """
        if not 0 < strength <= 1:
            raise ValueError(f"strength ({strength}) must be in (0, 1]: 1 keeps nothing of the image")
        if self.training:
            raise ValueError("image_to_image needs eval mode; call .eval()")
        schedule = self.sampler.schedule
        start = max(schedule.first, schedule.clean + strength * (schedule.terminal - schedule.clean))
        x0 = self.encode(images, generator)
        t = schedule.snap(torch.tensor(start, dtype=torch.float64, device="cpu")).to(x0.device)
        xt = schedule.q_sample(x0, randn_like(x0, generator), t)
        result: Tensor = self(xt, conditional_inputs=conditional_inputs, generator=generator, start=t.item())
        return result
