"""The sizes of the stages of a small DALL-E 2: plain data, kept with a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from torch import Tensor, nn

from diffusion_labs.adapters import Patchify
from diffusion_labs.models.adm_unet import adm_unet
from diffusion_labs.models.dalle2 import (
    DALLE2,
    DiffusionPrior,
    ScaledEmbedding,
    dalle2_decoder,
    dalle2_prior,
    dalle2_upsampler_256,
)
from diffusion_labs.models.encoders import TransformersCLIP, bpe_tokenizer, small_clip
from diffusion_labs.models.ldm import LatentScale
from diffusion_labs.models.transformer import prior_transformer
from diffusion_labs.predictors import VPredictor
from diffusion_labs.randomness import Generators
from diffusion_labs.samplers import DDIMSampler, DDPMSampler, Sampler


@dataclass(frozen=True)
class CLIPModel:
    """The sizes of a small CLIP and the tokens of its captions: plain data, kept with a run.

    Attributes:
        image_shape: ``(channels, height, width)``.
        class_names: names of the classes; empty if there are none.
        patch_size: see ``small_clip``, as for all that follows but ``merges``.
        embed_dim: width of the embeddings.
        image_dim: width of the Transformer of images.
        image_depth: its blocks.
        text_dim: width of the Transformer of texts.
        text_depth: its blocks.
        max_tokens: longer captions are cut.
        merges: see ``bpe_tokenizer``; the tokens are bytes if there are none.
    """

    image_shape: Sequence[int]
    class_names: Sequence[str] = ()
    patch_size: int = 4
    embed_dim: int = 64
    image_dim: int = 96
    image_depth: int = 3
    text_dim: int = 64
    text_depth: int = 2
    max_tokens: int = 64
    merges: Sequence[str] = ()

    def __post_init__(self) -> None:
        _, height, width = self.image_shape
        if height != width or height % self.patch_size:
            raise ValueError(
                f"images of {height} x {width} pixels do not fit this model: they must be square, and size a multiple "
                f"of {self.patch_size}"
            )

    def build_clip(self, *, frozen: bool) -> TransformersCLIP:
        """CLIP with random weights."""
        return small_clip(
            image_size=self.image_shape[1],
            in_channels=self.image_shape[0],
            patch_size=self.patch_size,
            embed_dim=self.embed_dim,
            image_dim=self.image_dim,
            image_depth=self.image_depth,
            text_dim=self.text_dim,
            text_depth=self.text_depth,
            tokenizer=bpe_tokenizer(self.merges) if self.merges else None,
            max_tokens=self.max_tokens,
            frozen=frozen,
        )

    def build(self) -> nn.Module:
        """The model with random weights."""
        return self.build_clip(frozen=False)


@dataclass(frozen=True)
class PriorModel(CLIPModel):
    """The sizes of a diffusion prior and of its CLIP.

    Attributes:
        prior_dim: see ``prior_transformer``.
        prior_depth: see ``prior_transformer``.
        prior_heads: see ``prior_transformer``.
        text_dropout: share of the training samples whose caption is dropped, for guidance.
    """

    prior_dim: int = 128
    prior_depth: int = 4
    prior_heads: int = 4
    text_dropout: float = 0.1

    def build_prior(self) -> DiffusionPrior:
        """The prior with random weights, and a scale that changes nothing until it is loaded or measured."""
        network = prior_transformer(
            embed_dim=self.embed_dim,
            text_dim=self.text_dim,
            max_tokens=self.max_tokens,
            dim=self.prior_dim,
            depth=self.prior_depth,
            num_heads=self.prior_heads,
        )
        clip = self.build_clip(frozen=True)
        return dalle2_prior(network, clip=clip, scale=LatentScale(), dropout=self.text_dropout)

    def build(self) -> nn.Module:
        """The model with random weights."""
        return self.build_prior()


@dataclass(frozen=True)
class SmallImages:
    """Small images inside of large ones.

    Attributes:
        image_shape: ``(channels, height, width)`` of the large ones.
        decoder_size: height and width of the small ones.
    """

    image_shape: Sequence[int]
    decoder_size: int = field(default=16, kw_only=True)

    @property
    def upsampling(self) -> int:
        """How many times larger the large images are."""
        return self.image_shape[1] // self.decoder_size

    def check_multiple(self, size: int, multiple: int) -> None:
        """Raise a ``ValueError`` unless the large images are small ones times a number, and a network takes a size."""
        if self.upsampling < 2 or self.image_shape[1] % self.decoder_size or size % multiple:
            raise ValueError(
                f"images of {self.image_shape[1]} pixels from {self.decoder_size} do not fit this model: size must be "
                f"at least twice decoder_size, a multiple of it, and {size} pixels a multiple of {multiple}"
            )

    def pixels(self, images: int, patch_size: int) -> dict[str, Any]:
        """The channels of a network on patches, of which some images are inputs and one is the output."""
        channels = self.image_shape[0] * patch_size**2
        return {"in_channels": images * channels, "out_channels": channels}


@dataclass(frozen=True)
class DecoderModel(CLIPModel, SmallImages):
    """The sizes of a decoder, from embeddings and captions to small images, and of its CLIP.

    Attributes:
        decoder_patch: pixels a side of the patches that its U-Net works on, see ``Patchify``.
        decoder_channels: width of the U-Net, see ``adm_unet``, as for all that follows.
        decoder_mult: widths of its levels.
        decoder_blocks: residual blocks of a level.
        decoder_head_channels: channels of a head.
    """

    decoder_patch: int = field(default=2, kw_only=True)
    decoder_channels: int = field(default=64, kw_only=True)
    decoder_mult: Sequence[float] = field(default=(1, 2), kw_only=True)
    decoder_blocks: int = field(default=1, kw_only=True)
    decoder_head_channels: int = field(default=32, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_multiple(self.decoder_size, self.decoder_patch * 2 ** (len(self.decoder_mult) - 1))

    def build_decoder(self) -> DDPMSampler:
        """The decoder with random weights, with the conditions of the paper's, that predicts v, and 50 steps."""
        network = adm_unet(
            **self.pixels(1, self.decoder_patch),
            model_channels=self.decoder_channels,
            channel_mult=self.decoder_mult,
            num_res_blocks=self.decoder_blocks,
            attention_levels=range(len(self.decoder_mult)),
            head_channels=self.decoder_head_channels,
            learned_variance=True,
            vectors={"image_embedding": self.embed_dim},
            vector_tokens={"image_embedding": 4},
            tokens={"text": self.text_dim},
        )
        scaled = ScaledEmbedding(Patchify(network, self.decoder_patch), LatentScale())
        return dalle2_decoder(scaled, predictor=VPredictor, eval_steps=50)

    def build(self) -> nn.Module:
        """The model with random weights."""
        return self.build_decoder()


@dataclass(frozen=True)
class UpsamplerModel(SmallImages):
    """The sizes of an upsampler, from small images to large ones.

    Attributes:
        upsampler_patch: pixels a side of the patches that its U-Net works on, see ``Patchify``.
        upsampler_channels: width of the U-Net, see ``adm_unet``, as for all that follows.
        upsampler_mult: widths of its levels.
        upsampler_blocks: residual blocks of a level.
    """

    upsampler_patch: int = field(default=2, kw_only=True)
    upsampler_channels: int = field(default=32, kw_only=True)
    upsampler_mult: Sequence[float] = field(default=(1, 2), kw_only=True)
    upsampler_blocks: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        self.check_multiple(self.crop_size, self.upsampler_patch * 2 ** (len(self.upsampler_mult) - 1))

    @property
    def crop_size(self) -> int:
        """Height and width of the parts of images that it is trained on: half of the image's.

        The paper's are a quarter, of images with at least eight times as many pixels a side.
        """
        return self.image_shape[1] // 2

    def build_upsampler(self) -> DDIMSampler:
        """The upsampler with random weights: no attention, v, 27 steps."""
        network = adm_unet(
            **self.pixels(2, self.upsampler_patch),
            model_channels=self.upsampler_channels,
            channel_mult=self.upsampler_mult,
            num_res_blocks=self.upsampler_blocks,
            middle_attention=False,
        )
        return dalle2_upsampler_256(Patchify(network, self.upsampler_patch), predictor=VPredictor)

    def build(self) -> nn.Module:
        """The model with random weights."""
        return self.build_upsampler()


@dataclass(frozen=True)
class DALLE2Model(PriorModel, DecoderModel, UpsamplerModel):
    """The sizes of all stages, which draw together: a ``ModelSizes``."""

    def __post_init__(self) -> None:
        DecoderModel.__post_init__(self)
        UpsamplerModel.__post_init__(self)

    @property
    def conditions(self) -> list[str]:
        """The caption."""
        return ["caption"]

    @property
    def known(self) -> Mapping[str, int]:
        """Nothing is known of the image to draw."""
        return {}

    def build(self) -> DALLE2:
        """The model with random weights. Only the decoder shows its progress."""
        prior, decoder, upsampler = self.build_prior(), self.build_decoder(), self.build_upsampler()
        prior.sampler.progress_bar = upsampler.progress_bar = False
        sides = (self.decoder_size, self.image_shape[1])
        return DALLE2(clip_of(prior), prior, decoder, [upsampler], sizes=sides, channels=self.image_shape[0])

    def sampler(self, model: DALLE2) -> Sampler:
        """The decoder."""
        return model.decoder

    def sample(self, model: DALLE2, count: int, conditions: Mapping[str, Any], generators: Generators) -> Tensor:
        """See ``ModelSizes``."""
        images: Tensor = model(conditions["caption"], generator=generators)
        return images

    def noised(self, model: DALLE2, images: Tensor, conditions: Mapping[str, Any], generators: Generators) -> None:
        """Each stage is trained on something else."""


Part = TypeVar("Part", CLIPModel, PriorModel, DecoderModel, UpsamplerModel)


def part_of(sizes: DALLE2Model, kind: type[Part]) -> Part:
    """The sizes of some stages, of those of all."""
    return kind(**{each.name: getattr(sizes, each.name) for each in fields(kind)})


def clip_of(prior: DiffusionPrior) -> Any:
    """The CLIP that encodes the captions of a prior."""
    return prior.conditioner.encoders["caption"]
