"""Building blocks that several networks share."""

from diffusion_labs.layers.attention import (
    SplitHeads,
    attention,
    merge_heads,
    split_heads_interleaved,
    split_heads_stacked,
)
from diffusion_labs.layers.convolution import Conv, conv, zero_init
from diffusion_labs.layers.embeddings import TimeEmbedding, sinusoidal_embedding
from diffusion_labs.layers.normalisation import GroupNorm
from diffusion_labs.layers.resampling import Downsample, Upsample, average_pool, nearest_upsample
from diffusion_labs.layers.transformer import GatedFeedForward, MultiHeadAttention, TransformerBlock

__all__ = [
    "Conv",
    "Downsample",
    "GatedFeedForward",
    "GroupNorm",
    "MultiHeadAttention",
    "SplitHeads",
    "TimeEmbedding",
    "TransformerBlock",
    "Upsample",
    "attention",
    "average_pool",
    "conv",
    "merge_heads",
    "nearest_upsample",
    "sinusoidal_embedding",
    "split_heads_interleaved",
    "split_heads_stacked",
    "zero_init",
]
