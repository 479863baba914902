"""The diffusion prior: from texts to embeddings of images."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_labs.models.encoders import Conditioner
from diffusion_labs.models.ldm.latent_scale import LatentScale
from diffusion_labs.output import DiffusionOutput
from diffusion_labs.randomness import Generators
from diffusion_labs.samplers.sampler import NoiseSource, Sampler

TEXT_EMBEDDING = "text_embedding"


def unit_norm(z: Tensor) -> Tensor:
    """``z / |z|``, as the embeddings of ``CLIP`` are."""
    return F.normalize(z, dim=1)


def unchanged(z: Tensor) -> Tensor:
    """Embeddings as they are, for a prior that was trained on those that are not normalised, such as Karlo's."""
    return z


class DiffusionPrior(nn.Module):
    """Diffusion of the CLIP embeddings of images, given a text (arXiv 2204.06125, section 2.2).

    It has the modes of a sampler. In train mode it is the denoiser of scaled embeddings ``[b, d]``:
    ``sampler(x_t, timestep, conditioner(conditions))``; ``EncodeEmbeddings`` makes what it is trained on. In eval mode
    it goes from noise to embeddings: ``finish(scale.denormalize(sampler(noise, conditions)))``.

    The scale is 17.2 in the paper, the root of d in other implementations, so that a value has the spread of noise;
    or the mean and standard deviation of each dimension, measured once: ``LatentScale.of(batches, per_channel=True)``.
    What bounds the estimates is the clamp of the sampler's predictor: none, ``StaticClamp(-5, 5)`` for
    standardised embeddings, or ``FixedNorm(scale)``. Never ``StaticClamp()``, which is for pixels.

    Args:
        sampler: of scaled embeddings, around a network such as ``prior_transformer``.
        scale: of the embeddings; as they are if ``None``.
        conditioner: encodes conditions, for example ``{"caption": clip}`` to ``text``, ``text_mask`` and
            ``text_embedding``; they go to the network as they are if ``None``.
        finish: what is done to the samples: ``unit_norm``, ``unchanged``, or a function like them.

    Example:
        >>> prior = DiffusionPrior(sampler, LatentScale(scale=17.2), Conditioner({"caption": clip})).eval()
        >>> embeddings = prior.sample({"caption": ["a cat", "a dog"]}, generator=seeded([1, 2]))
    """

    def __init__(
        self,
        sampler: Sampler,
        scale: LatentScale | None = None,
        conditioner: Conditioner | None = None,
        *,
        finish: Callable[[Tensor], Tensor] = unit_norm,
    ) -> None:
        super().__init__()
        self.sampler = sampler
        self.scale = LatentScale() if scale is None else scale
        self.conditioner = Conditioner({}) if conditioner is None else conditioner
        self.finish = finish

    def forward(
        self,
        x: Tensor,
        timestep: Tensor | None = None,
        conditional_inputs: Mapping[str, Any] | None = None,
        *,
        generator: Generators | NoiseSource = None,
        start: float | None = None,
    ) -> DiffusionOutput | Tensor:
        """One call of the model in train mode, finished embeddings in eval mode.

        Args:
            x: scaled embeddings ``[b, d]``: noisy ones at ``timestep`` in train mode, noise in eval mode.
            timestep: see ``Sampler``.
            conditional_inputs: what the conditioner encodes, such as lists of texts, and what the network takes.
            generator: see ``Sampler``.
            start: see ``Sampler``.

        Returns:
            A ``DiffusionOutput`` in train mode; embeddings ``[b, d]`` in eval mode.
        """
        conditions = self.condition(conditional_inputs, x)
        output: Any = self.sampler(x, timestep, conditions, generator=generator, start=start)
        return output if self.training else self.finish(self.scale.denormalize(output))

    def condition(self, conditional_inputs: Mapping[str, Any] | None, x: Tensor) -> dict[str, Tensor]:
        """The conditional inputs of the network, for a batch of embeddings."""
        understood: frozenset[str] | None = getattr(self.sampler.model, "condition_names", None)
        inputs: dict[str, Tensor] = self.conditioner(conditional_inputs, x, understood)
        return inputs

    @torch.no_grad()
    def sample(
        self, conditional_inputs: Mapping[str, Any], candidates: int = 2, *, generator: Generators = None
    ) -> Tensor:
        """Draw embeddings for texts: of several each, the one whose inner product with the text's is the largest.

        arXiv 2204.06125, section 2.2. All candidates are one batch. With a generator for each text, its embedding does
        not depend on the others; its first candidate is that of ``candidates=1`` in a deterministic sampler.

        Args:
            conditional_inputs: as for ``forward``; ``text_embedding`` must be among them, or be encoded from them.
            candidates: embeddings drawn for each text; the paper's 2.
            generator: of the noise, one or one for each text.

        Returns:
            ``[b, d]``.

        Raises:
            ValueError: in train mode, or without candidates, texts or ``text_embedding``.
        """
        if self.training:
            raise ValueError("sample needs eval mode; call .eval()")
        if candidates < 1:
            raise ValueError(f"candidates ({candidates}) must be at least 1")
        count = min((len(value) for value in conditional_inputs.values()), default=0)
        if count == 0:
            raise ValueError(f"conditional_inputs ({dict(conditional_inputs)}) have no texts; give at least one")
        conditions = self.condition(conditional_inputs, torch.empty(count, 1))
        if TEXT_EMBEDDING not in conditions:
            raise ValueError(
                f"the conditions have {sorted(conditions)}, but candidates are compared with '{TEXT_EMBEDDING}'; give "
                "it, or texts to a conditioner that encodes them to it"
            )

        text_embedding = conditions[TEXT_EMBEDDING].repeat_interleave(candidates, 0)
        repeated = {name: value.repeat_interleave(candidates, 0) for name, value in conditions.items()}
        if generator is not None and not isinstance(generator, torch.Generator):
            generator = [one for one in generator for _ in range(candidates)]
        noise = self.sampler.schedule.sample_prior(
            text_embedding.shape, generator, dtype=text_embedding.dtype, device=text_embedding.device
        )
        z = self.finish(self.scale.denormalize(self.sampler(noise, conditional_inputs=repeated, generator=generator)))

        score = (z * text_embedding).sum(1).view(count, candidates)
        return z.view(count, candidates, -1)[torch.arange(count), score.argmax(1)]
