"""What a visitor asks for, and whether it may be done."""

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from diffusion_labs.recipes.components import find_component
from diffusion_labs.recipes.model_sizes import ModelSizes
from diffusion_labs.recipes.variants import doubts, with_sampler
from diffusion_labs.recipes.wanted import wanted
from diffusion_labs.samplers import Finding


@dataclass(frozen=True)
class Request:
    """Pictures to draw.

    Attributes:
        class_name: the class; all in turn if ``None``.
        prompt: the caption, of models that take captions.
        sampler: its short name, see ``components``.
        grid: of times, likewise.
        steps: of the sampler.
        guidance_scale: see ``CFGuidance``.
        seed: of the first picture.
        count: of pictures.
    """

    class_name: str | None = None
    prompt: str | None = None
    sampler: str = "ddim"
    grid: str = "trailing"
    steps: int = 25
    guidance_scale: float = 2.0
    seed: int = 0
    count: int = 4

    def wanted(self, sizes: ModelSizes) -> Tensor | list[str]:
        """What ``draw`` takes."""
        return wanted(sizes, self.class_name, self.prompt, self.count)

    def how(self) -> dict[str, Any]:
        """The other arguments of ``draw``."""
        return {
            "seed": self.seed,
            "guidance_scale": self.guidance_scale,
            "steps": self.steps,
            "sampler": find_component("samplers", self.sampler),
            "grid": find_component("grids", self.grid),
        }

    def doubts(self, model: Any, sizes: ModelSizes) -> list[Finding]:
        """What of the sampler will be seen in the pictures."""
        how = self.how()
        return doubts(with_sampler(model, sizes, how["sampler"], how["grid"]), sizes, self.steps)

    def check(self, sizes: ModelSizes, most_work: int) -> None:
        """Raise a ``ValueError``, which says what to change, for what cannot be drawn, or takes too much work.

        Args:
            sizes: of the model.
            most_work: steps times pictures that one request may take.
        """
        for name, value, least in (("steps", self.steps, 1), ("pictures", self.count, 1), ("seed", self.seed, 0)):
            if value != int(value) or value < least:
                raise ValueError(f"{name} ({value}) must be a whole number, at least {least}")
        if self.seed >= 2**32:
            raise ValueError(f"seed ({self.seed}) must be below 2^32")
        if not math.isfinite(self.guidance_scale) or abs(self.guidance_scale) > 100:
            raise ValueError(f"guidance ({self.guidance_scale}) must be a number between -100 and 100")
        if self.prompt is not None and len(self.prompt) > 1000:
            raise ValueError("the prompt is longer than 1,000 letters; shorten it")
        if self.steps * self.count > most_work:
            raise ValueError(too_much(self.steps * self.count, most_work))
        self.wanted(sizes)
        self.how()


def too_much(work: int, most_work: int) -> str:
    """The message about a request that is too large."""
    return f"{work:,} calls of the network are more than the {most_work:,} of one request; take fewer steps or pictures"
