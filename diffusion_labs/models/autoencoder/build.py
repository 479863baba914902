"""Builds the autoencoders of Latent Diffusion from sizes."""

from collections import OrderedDict
from collections.abc import Collection, Sequence
from functools import partial

from torch import nn

from diffusion_labs.construction import builder
from diffusion_labs.layers import Downsample, GroupNorm, Upsample, conv
from diffusion_labs.models.autoencoder.autoencoder_kl import AutoencoderKL
from diffusion_labs.models.autoencoder.blocks import AttentionBlock, ResBlock
from diffusion_labs.models.autoencoder.coders import Decoder, Encoder
from diffusion_labs.models.autoencoder.vector_quantizer import VectorQuantizer
from diffusion_labs.models.autoencoder.vq_model import VQModel


@builder
def autoencoder_kl(
    *,
    in_channels: int = 3,
    out_channels: int | None = None,
    channels: Sequence[int] = (128, 256, 512, 512),
    latent_channels: int = 4,
    encoder_channels: int | None = None,
    num_res_blocks: int = 2,
    attention_levels: Collection[int] = (),
    middle_attention: bool = True,
    quant_conv: bool = True,
    dropout: float = 0.0,
    dims: int = 2,
    num_groups: int = 32,
    norm_eps: float = 1e-6,
) -> AutoencoderKL:
    """Build the KL-regularised autoencoder of Latent Diffusion (arXiv 2112.10752); the defaults are KL-f8.

    Args:
        in_channels: channels of the images.
        out_channels: channels of the reconstructions; ``in_channels`` by default.
        channels: the width of each level, from the full resolution down; each level has half the resolution of the
            one before, so n levels make latents of ``2^(n - 1)`` pixels a side.
        latent_channels: channels of the latents.
        encoder_channels: channels between encoder or decoder and the 1x1 convolutions; ``latent_channels`` by default.
        num_res_blocks: residual blocks per level of the encoder; the decoder has one more.
        attention_levels: the levels with attention, 0 for the full resolution; see ``levels_of_factors``.
        middle_attention: attention between the two blocks at the lowest resolution.
        quant_conv: 1x1 convolutions before and after the latents; Stable Diffusion 3 and Flux have none.
        dropout: dropout rate of the residual blocks.
        dims: number of spatial dimensions, 1, 2 or 3.
        num_groups: groups of every norm.
        norm_eps: eps of every norm.

    Raises:
        ValueError: for sizes that do not fit together.
    """
    features = latent_channels if encoder_channels is None else encoder_channels
    if not quant_conv and features != latent_channels:
        raise ValueError(
            f"encoder_channels ({features}) must be latent_channels ({latent_channels}) without quant_conv, which "
            "changes their number; leave it out"
        )
    encoder, decoder = _coders(
        in_channels=in_channels,
        out_channels=in_channels if out_channels is None else out_channels,
        channels=channels,
        encoded=2 * features,
        decoded=features,
        num_res_blocks=num_res_blocks,
        attention_levels=attention_levels,
        middle_attention=middle_attention,
        dropout=dropout,
        dims=dims,
        num_groups=num_groups,
        eps=norm_eps,
    )
    return AutoencoderKL(
        encoder,
        decoder,
        conv(dims, 2 * features, 2 * latent_channels, 1) if quant_conv else nn.Identity(),
        conv(dims, latent_channels, features, 1) if quant_conv else nn.Identity(),
        factor=2 ** (len(channels) - 1),
    )


@builder
def vq_model(
    *,
    in_channels: int = 3,
    out_channels: int | None = None,
    channels: Sequence[int] = (128, 256, 512),
    latent_channels: int = 3,
    encoder_channels: int | None = None,
    num_codes: int = 8192,
    num_res_blocks: int = 2,
    attention_levels: Collection[int] = (),
    middle_attention: bool = True,
    dropout: float = 0.0,
    dims: int = 2,
    num_groups: int = 32,
    norm_eps: float = 1e-6,
    codebook_weight: float = 0.25,
    commitment_weight: float = 1.0,
) -> VQModel:
    """Build the VQ-regularised autoencoder of Latent Diffusion (arXiv 2112.10752); the defaults are VQ-f4.

    Args:
        in_channels: see ``autoencoder_kl``.
        out_channels: see ``autoencoder_kl``.
        channels: see ``autoencoder_kl``.
        latent_channels: channels of the latents and of the codes.
        encoder_channels: see ``autoencoder_kl``.
        num_codes: the number of codes.
        num_res_blocks: see ``autoencoder_kl``.
        attention_levels: see ``autoencoder_kl``.
        middle_attention: see ``autoencoder_kl``.
        dropout: see ``autoencoder_kl``.
        dims: see ``autoencoder_kl``.
        num_groups: see ``autoencoder_kl``.
        norm_eps: see ``autoencoder_kl``.
        codebook_weight: see ``VectorQuantizer``.
        commitment_weight: see ``VectorQuantizer``.

    Raises:
        ValueError: for sizes that do not fit together.
    """
    features = latent_channels if encoder_channels is None else encoder_channels
    encoder, decoder = _coders(
        in_channels=in_channels,
        out_channels=in_channels if out_channels is None else out_channels,
        channels=channels,
        encoded=features,
        decoded=features,
        num_res_blocks=num_res_blocks,
        attention_levels=attention_levels,
        middle_attention=middle_attention,
        dropout=dropout,
        dims=dims,
        num_groups=num_groups,
        eps=norm_eps,
    )
    return VQModel(
        encoder,
        decoder,
        conv(dims, features, latent_channels, 1),
        conv(dims, latent_channels, features, 1),
        VectorQuantizer(
            num_codes, latent_channels, codebook_weight=codebook_weight, commitment_weight=commitment_weight
        ),
        factor=2 ** (len(channels) - 1),
    )


def _coders(
    *,
    in_channels: int,
    out_channels: int,
    channels: Sequence[int],
    encoded: int,
    decoded: int,
    num_res_blocks: int,
    attention_levels: Collection[int],
    middle_attention: bool,
    dropout: float,
    dims: int,
    num_groups: int,
    eps: float,
) -> tuple[Encoder, Decoder]:
    """The encoder to ``encoded`` channels, and the decoder from ``decoded`` ones."""
    if len(channels) == 0 or min(channels) < 1:
        raise ValueError(f"channels ({tuple(channels)}) must hold at least one level, of at least one channel each")
    if num_res_blocks < 1:
        raise ValueError(f"num_res_blocks ({num_res_blocks}) must be at least 1")
    last = len(channels) - 1
    if any(not 0 <= level <= last for level in attention_levels):
        raise ValueError(
            f"attention_levels ({tuple(attention_levels)}) must be between 0 and {last}, as channels has {last + 1} "
            "levels; for downsampling factors use levels_of_factors"
        )

    res_block = partial(ResBlock, dims=dims, dropout=dropout, num_groups=num_groups, eps=eps)
    attention_block = partial(AttentionBlock, dims=dims, num_groups=num_groups, eps=eps)

    def level_of(level: int, current: int, num_blocks: int, resample: nn.Module | None) -> nn.Sequential:
        width, blocks = channels[level], OrderedDict[str, nn.Module]()
        for i in range(num_blocks):
            blocks[f"block_{i}"] = res_block(width if i else current, width)
            if level in attention_levels:
                blocks[f"attention_{i}"] = attention_block(width)
        if resample is not None:
            blocks["resample"] = resample
        return nn.Sequential(blocks)

    def middle() -> nn.Sequential:
        blocks = OrderedDict[str, nn.Module](block_0=res_block(channels[-1], channels[-1]))
        if middle_attention:
            blocks["attention_0"] = attention_block(channels[-1])
        blocks["block_1"] = res_block(channels[-1], channels[-1])
        return nn.Sequential(blocks)

    def head(current: int, out: int) -> nn.Sequential:
        norm = GroupNorm(current, num_groups=num_groups, eps=eps)
        return nn.Sequential(OrderedDict(norm=norm, activation=nn.SiLU(), conv=conv(dims, current, out, 3, padding=1)))

    def down(level: int) -> nn.Module | None:
        return None if level == last else Downsample(channels[level], dims=dims, padding=(0, 1))

    def up(level: int) -> nn.Module | None:
        return None if level == 0 else Upsample(channels[level], dims=dims)

    encoder = Encoder(
        conv(dims, in_channels, channels[0], 3, padding=1),
        [level_of(i, channels[max(i - 1, 0)], num_res_blocks, down(i)) for i in range(last + 1)],
        middle(),
        head(channels[-1], encoded),
    )
    decoder = Decoder(
        conv(dims, decoded, channels[-1], 3, padding=1),
        middle(),
        [level_of(i, channels[min(i + 1, last)], num_res_blocks + 1, up(i)) for i in reversed(range(last + 1))],
        head(channels[0], out_channels),
    )
    return encoder, decoder
