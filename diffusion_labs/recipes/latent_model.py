"""The models of latent diffusion on small images: an autoencoder, and a network on its latents."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from diffusion_labs.adapters import CFGuidance
from diffusion_labs.models.autoencoder import AutoencoderKL, autoencoder_kl
from diffusion_labs.models.encoders import ByteTextEncoder, ClassEmbedding, Conditioner
from diffusion_labs.models.ldm import LatentDiffusion, ldm_unet
from diffusion_labs.models.transformer import dit
from diffusion_labs.predictors import VPredictor
from diffusion_labs.randomness import Generators
from diffusion_labs.recipes.model_sizes import NoisedData
from diffusion_labs.samplers import DDIMSampler, Sampler
from diffusion_labs.schedules import DiscreteGaussianSchedule, cosine_beta_schedule


@dataclass(frozen=True)
class AutoencodedModel(ABC):
    """The sizes of a KL autoencoder and a network on its latents: plain data, kept with a run.

    Attributes:
        image_shape: ``(channels, height, width)``.
        class_names: names of the classes; empty if there are none.
        autoencoder_channels: see ``autoencoder_kl``; n widths make latents of ``2^(n - 1)`` pixels a side.
        latent_channels: see ``autoencoder_kl``.
        condition_dropout: share of the training images whose class or caption is dropped, for guidance.
    """

    image_shape: Sequence[int]
    class_names: Sequence[str] = ()
    autoencoder_channels: Sequence[int] = field(default=(16, 32, 32), kw_only=True)
    latent_channels: int = field(default=4, kw_only=True)
    condition_dropout: float = field(default=0.1, kw_only=True)

    def __post_init__(self) -> None:
        multiple = self.factor * self.latent_multiple
        if any(side % multiple for side in self.image_shape[1:]):
            raise ValueError(
                f"images of {self.image_shape[1]} x {self.image_shape[2]} pixels do not fit this model: size must be a "
                f"multiple of {multiple}"
            )

    @property
    def factor(self) -> int:
        """Pixels along a side of a latent."""
        return 2 ** (len(self.autoencoder_channels) - 1)

    @property
    @abstractmethod
    def latent_multiple(self) -> int:
        """The sides of the latents must be multiples of this."""

    @property
    def conditions(self) -> list[str]:
        """What says what to draw: the class, or nothing."""
        return ["class"] if self.class_names else []

    @property
    def known(self) -> Mapping[str, int]:
        """Nothing is known of the image to draw."""
        return {}

    @abstractmethod
    def build_network(self) -> tuple[nn.Module, Conditioner, Sequence[str]]:
        """The network, what encodes conditions for it, and the conditional inputs that are dropped for guidance."""

    def build_autoencoder(self) -> AutoencoderKL:
        """The first stage with random weights."""
        return autoencoder_kl(
            in_channels=self.image_shape[0],
            channels=self.autoencoder_channels,
            latent_channels=self.latent_channels,
            num_res_blocks=1,
            num_groups=8,
        )

    def build(self) -> LatentDiffusion:
        """The model with random weights: v prediction on a cosine schedule, DDIM."""
        network, conditioner, guided = self.build_network()
        dropout: dict[str | tuple[str, ...], float] = {tuple(guided): self.condition_dropout} if guided else {}
        schedule = DiscreteGaussianSchedule(cosine_beta_schedule(1000))
        sampler = DDIMSampler(CFGuidance(network, dropout), schedule, VPredictor(schedule), eval_steps=50)
        return LatentDiffusion(self.build_autoencoder(), sampler, conditioner)

    def sampler(self, model: LatentDiffusion) -> Sampler:
        """The sampler of latents."""
        return model.sampler

    def sample(
        self, model: LatentDiffusion, count: int, conditions: Mapping[str, Any], generators: Generators
    ) -> Tensor:
        """See ``ModelSizes``."""
        noise = model.sample_prior(count, self.image_shape[1:], generators)
        images: Tensor = model(noise, conditional_inputs=conditions, generator=generators)
        return images

    def noised(
        self, model: LatentDiffusion, images: Tensor, conditions: Mapping[str, Any], generators: Generators
    ) -> NoisedData:
        """Latents of the images, and their conditions encoded."""
        latents = model.encode(images, generators)
        return NoisedData(latents, model.condition(conditions, latents), pixels=False)


@dataclass(frozen=True)
class LatentModel(AutoencodedModel):
    """A U-Net on latents that attends to the class or to the caption.

    Attributes:
        captions: whether captions say what to draw, and not classes.
        model_channels: see ``ldm_unet``.
        channel_mult: see ``ldm_unet``.
        num_res_blocks: see ``ldm_unet``.
        attention_levels: see ``ldm_unet``.
        head_channels: see ``ldm_unet``.
        condition_width: width of the tokens that the network attends to.
        text_depth: blocks of the text encoder.
        max_bytes: longer captions are cut.
        ngrams: see ``ByteTextEncoder``.
        pooled_text: whether the mean of the encoded caption enters with the time, besides the tokens.
    """

    captions: bool = False
    model_channels: int = 64
    channel_mult: Sequence[float] = (1, 2)
    num_res_blocks: int = 1
    attention_levels: Sequence[int] = (0, 1)
    head_channels: int = 32
    condition_width: int = 64
    text_depth: int = 2
    max_bytes: int = 64
    ngrams: Sequence[int] = ()
    pooled_text: bool = False

    @property
    def latent_multiple(self) -> int:
        """Whole latents at the lowest level."""
        return 2 ** (len(self.channel_mult) - 1)

    @property
    def conditions(self) -> list[str]:
        """What says what to draw: the caption, or the class, or nothing."""
        return ["caption"] if self.captions else super().conditions

    def build_network(self) -> tuple[nn.Module, Conditioner, Sequence[str]]:
        """See ``AutoencodedModel``."""
        encoders: dict[str, nn.Module] = {}
        tokens: dict[str, int] = {}
        vectors: dict[str, int] = {}
        if self.captions:
            encoders["caption"] = ByteTextEncoder(
                self.condition_width,
                depth=self.text_depth,
                max_bytes=self.max_bytes,
                ngrams=self.ngrams,
                pooled_name="pooled_text" if self.pooled_text else None,
            )
            tokens["text"] = self.condition_width
            if self.pooled_text:
                vectors["pooled_text"] = self.condition_width
        elif self.class_names:
            encoders["class"] = ClassEmbedding(len(self.class_names), self.condition_width)
            tokens["class_token"] = self.condition_width
        network = ldm_unet(
            in_channels=self.latent_channels,
            model_channels=self.model_channels,
            channel_mult=self.channel_mult,
            num_res_blocks=self.num_res_blocks,
            attention_levels=self.attention_levels,
            head_channels=self.head_channels,
            tokens=tokens,
            vectors=vectors,
        )
        return network, Conditioner(encoders), [*tokens, *vectors]


@dataclass(frozen=True)
class LatentTransformer(AutoencodedModel):
    """A diffusion Transformer on latents, whose blocks the class modulates.

    Attributes:
        patch_size: see ``dit``.
        dim: see ``dit``.
        depth: see ``dit``.
        num_heads: see ``dit``.
    """

    patch_size: int = 2
    dim: int = 128
    depth: int = 6
    num_heads: int = 4

    @property
    def latent_multiple(self) -> int:
        """Whole patches."""
        return self.patch_size

    def build_network(self) -> tuple[nn.Module, Conditioner, Sequence[str]]:
        """See ``AutoencodedModel``."""
        network = dit(
            in_channels=self.latent_channels,
            size=(self.image_shape[1] // self.factor, self.image_shape[2] // self.factor),
            patch_size=self.patch_size,
            dim=self.dim,
            depth=self.depth,
            num_heads=self.num_heads,
            classes={name: len(self.class_names) for name in self.conditions},
        )
        return network, Conditioner({}), self.conditions
