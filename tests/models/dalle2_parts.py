"""Stand-ins for CLIP, the prior and the decoder of DALL-E 2, of which everything is known."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import diffusion_labs as dl
from diffusion_labs.randomness import randn
from tests.catalogue import TinyNetwork, randomise

DIM, SIDE, WIDTH = 6, 4, 5


def fixed(*shape: int, seed: int = 0) -> Tensor:
    """The same numbers every time."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class TinyCLIP(nn.Module):
    """Embeds 2 x 2 averages of images, and the letters of texts; says how many texts it has encoded."""

    def __init__(self) -> None:
        super().__init__()
        self.images = nn.Parameter(fixed(4, DIM))
        self.letters = nn.Parameter(fixed(256, WIDTH))
        self.encoded = 0

    def encode_image(self, x: Tensor) -> Tensor:
        return F.normalize(F.adaptive_avg_pool2d(x, 2).flatten(1) @ self.images, dim=1)

    def encode_text(self, texts: Tensor | Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        self.encoded += len(texts)
        if not isinstance(texts, Tensor):
            texts = torch.tensor([list(text.encode().ljust(12, b"\0")) for text in texts])
        mask = texts != 0
        states = self.letters[texts] * mask[..., None]
        position = torch.arange(1, texts.shape[1] + 1)[:, None]
        return F.normalize(F.pad((states * position).sum(1), (0, DIM - WIDTH)), dim=1), states, mask


class TinyPrior(nn.Module):
    """Adds noise to the embedding of the text, and takes the nearest candidate."""

    def sample(self, conditional_inputs: Mapping[str, Tensor], candidates: int = 2, *, generator=None) -> Tensor:
        text = conditional_inputs["text_embedding"]
        noise = torch.stack([randn(tuple(text.shape), generator) for _ in range(candidates)])
        drawn = F.normalize(text + 0.3 * noise, dim=2)
        best = (drawn * text).sum(2).argmax(0)
        return drawn[best, torch.arange(len(text))]


class GaussianDecoder(dl.ConditionalModule):
    """The exact noise prediction for ``x0 ~ N(mean(z, text), std^2)``, each pixel with its own std.

    Absent conditions are zeros, in which the mean is linear.
    """

    condition_shapes: ClassVar = {"image_embedding": (DIM,), "text": (None, WIDTH)}

    def __init__(self, schedule: dl.Schedule) -> None:
        super().__init__(["image_embedding", "text", "text_mask"])
        self.schedule = schedule
        self.weight = nn.Parameter(0.3 * fixed(DIM, SIDE * SIDE, seed=1))
        self.text_weight = nn.Parameter(0.3 * fixed(WIDTH, SIDE * SIDE, seed=2))
        self.register_buffer("std", 0.2 + 0.3 * fixed(1, SIDE, SIDE, seed=3).abs())

    def mean(self, conditions: Mapping[str, Tensor]) -> Tensor:
        z, text = conditions.get("image_embedding"), conditions.get("text")
        mean = torch.zeros(1, SIDE * SIDE) if z is None else z @ self.weight
        mean = mean if text is None else mean + text.mean(1) @ self.text_weight
        return mean.reshape(-1, 1, SIDE, SIDE)

    def forward(
        self, x: Tensor, timestep: Tensor, conditional_inputs: Mapping[str, Tensor] | None = None
    ) -> dl.DiffusionOutput:
        mean = self.mean(self.check_conditions(conditional_inputs, x))
        level = self.schedule.at(timestep, x)
        variance = (level.alpha * self.std) ** 2 + level.sigma**2
        return dl.DiffusionOutput((level.sigma * (x - level.alpha * mean) / variance).to(x.dtype))


def decoder(guidance_scale: float = 3.0, **options) -> dl.DDPMSampler:
    """A guided sampler of that."""
    schedule = dl.DiscreteGaussianSchedule(dl.cosine_beta_schedule(1000))
    model = dl.CFGuidance(
        GaussianDecoder(schedule), {"image_embedding": 0.1, "text": 0.5}, guidance_scale=guidance_scale
    )
    settings = {"eval_steps": 20, "progress_bar": False, **options}
    return dl.DDPMSampler(model, schedule, dl.NoisePredictor(schedule), **settings)


def upsampler(seed: int = 0) -> dl.DDIMSampler:
    """To twice the size, at random weights."""
    return dl.dalle2_upsampler_256(randomise(TinyNetwork(2), seed), eval_steps=2, progress_bar=False)


def dalle2(stages: int = 0, **options) -> dl.DALLE2:
    """A system of these."""
    sizes = [SIDE * 2**i for i in range(1 + stages)]
    upsamplers = [upsampler(seed) for seed in range(stages)]
    return dl.DALLE2(TinyCLIP(), TinyPrior(), decoder(**options), upsamplers, sizes=sizes, channels=1)
