"""What a visitor asks for, and whether it may be done."""

import math
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from diffusion_labs.playground.counting import calls
from diffusion_labs.recipes.components import find_component
from diffusion_labs.recipes.model_sizes import ModelSizes
from diffusion_labs.recipes.variants import doubts, with_sampler
from diffusion_labs.recipes.wanted import wanted

# What is wrong with pictures of a sampler on a grid, by the findings of lint that other settings change
DOUBTS = {
    "long step": "give noise: the steps are too long for it",
    "lost spread": "give pictures that are too much alike: the steps are few, or badly placed",
    "last time": "start where the model expects a trace of the picture, and there is none",
}


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
        prior_guidance_scale: see ``guide_prior``.
    """

    class_name: str | None = None
    prompt: str | None = None
    sampler: str = "ddim"
    grid: str = "trailing"
    steps: int = 25
    guidance_scale: float = 2.0
    seed: int = 0
    count: int = 4
    prior_guidance_scale: float | None = None

    def __str__(self) -> str:
        return f"{self.steps} step{'s' * (self.steps > 1)} of {self.sampler} on {self.grid}"

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

    def calls(self, model: Any, sizes: ModelSizes, most: int) -> int:
        """Calls of the network for a picture, or ``most + 1`` if there are more."""
        own, how = sizes.sampler(model), self.how()
        return calls(own.schedule, how["sampler"], how["grid"], self.steps, most)

    def doubt(self, model: Any, sizes: ModelSizes) -> str:
        """What of the sampler will be seen in the pictures, and two settings without it; nothing if all is well."""
        wrong = self._wrong(model, sizes)
        if wrong is None:
            return ""
        others = [
            replace(self, grid="trailing"),
            replace(self, grid="karras"),
            replace(self, steps=max(25, 2 * self.steps)),
            replace(self, sampler="dpm-solver-pp-2m"),
            replace(self, sampler="dpm-solver-pp-2m", grid="trailing"),
            replace(self, sampler="ddim", grid="trailing", steps=max(25, self.steps)),
        ]
        fine = (str(other) for other in others if other != self and other._wrong(model, sizes) is None)
        return f"{self} {wrong}; try {' or '.join([*dict.fromkeys(fine)][:2]) or 'more steps'}"

    def _wrong(self, model: Any, sizes: ModelSizes) -> str | None:
        how = self.how()
        found = doubts(with_sampler(model, sizes, how["sampler"], how["grid"]), sizes, self.steps)
        return next((DOUBTS[finding.name] for finding in found if finding.name in DOUBTS), None)

    def check(self, model: Any, sizes: ModelSizes, most_work: int) -> None:
        """Raise a ``ValueError``, which says what to change, for what cannot be drawn, or takes too much work.

        Args:
            model: what ``sizes.build`` returned.
            sizes: of the model.
            most_work: calls of the network, times pictures, that one request may take.
        """
        for name, value, least in (("steps", self.steps, 1), ("pictures", self.count, 1), ("seed", self.seed, 0)):
            if value < least:
                raise ValueError(f"{name} ({value}) must be a whole number, at least {least}")
        if self.seed >= 2**32:
            raise ValueError(f"seed ({self.seed}) must be below 2^32")
        for name, scale in (("guidance", self.guidance_scale), ("guidance of the prior", self.prior_guidance_scale)):
            if scale is not None and (not math.isfinite(scale) or abs(scale) > 100):
                raise ValueError(f"{name} ({scale}) must be a number between -100 and 100")
        if self.prompt is not None and len(self.prompt) > 1000:
            raise ValueError("the prompt is longer than 1,000 letters; shorten it")
        self.wanted(sizes)
        most = most_work // self.count
        if self.steps > most or self.calls(model, sizes, most) > most:
            raise ValueError(too_much(self, most_work))


def too_much(request: Request, most_work: int) -> str:
    """The message about a request that is too large."""
    pictures = f"{request.count} picture{'s' * (request.count > 1)}"
    return (
        f"{request} for {pictures} take more than {most_work:,} calls of the network, the most for one request "
        "(--most-work); take fewer steps or pictures, or another sampler"
    )
