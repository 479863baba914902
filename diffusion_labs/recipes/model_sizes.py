"""What a model is built from, and how to draw from it, whatever kind of model it is."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn

from diffusion_labs.randomness import Generators
from diffusion_labs.samplers import Sampler


class NoisedData(NamedTuple):
    """What a model's noise is added to.

    Attributes:
        x0: images, or latents.
        conditional_inputs: of the network, one entry for each sample.
        pixels: whether x0 are the images themselves.
    """

    x0: Tensor
    conditional_inputs: Mapping[str, Tensor]
    pixels: bool


@runtime_checkable
class ModelSizes(Protocol):
    """Plain data from which a model is built, and how to draw from it."""

    @property
    def image_shape(self) -> Sequence[int]:
        """``(channels, height, width)``."""

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the classes; empty if there are none."""

    @property
    def conditions(self) -> Sequence[str]:
        """The conditional input that says what to draw, "class" or "caption"; none if there is none."""

    @property
    def known(self) -> Mapping[str, int]:
        """What is known of the image to draw, by the names of the inputs: how many channels each has."""

    def build(self) -> nn.Module:
        """The model with random weights."""

    def sampler(self, model: Any) -> Sampler:
        """The sampler of the model, around a ``CFGuidance``."""

    def sample(self, model: Any, count: int, conditions: Mapping[str, Any], generators: Generators) -> Tensor:
        """Images of ``image_shape``, from noise of the generators."""

    def noised(
        self, model: Any, images: Tensor, conditions: Mapping[str, Any], generators: Generators
    ) -> NoisedData | None:
        """What ``sampler(model)`` is trained to denoise, of images in [-1, 1]; ``None`` for a system of several."""
