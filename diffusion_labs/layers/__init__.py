"""Building blocks that several networks share."""

from diffusion_labs.layers.attention import (
    SplitHeads,
    attention,
    merge_heads,
    split_heads_interleaved,
    split_heads_stacked,
)
from diffusion_labs.layers.class_condition import ClassCondition
from diffusion_labs.layers.conditions import tokens_of, vector_of
from diffusion_labs.layers.convolution import Conv, conv, zero_init
from diffusion_labs.layers.embeddings import TimeEmbedding, sinusoidal_embedding
from diffusion_labs.layers.modulated_transformer import (
    FeedForward,
    ModulatedTransformerBlock,
    SelfAttention,
    gelu_tanh,
    modulate,
    modulation,
)
from diffusion_labs.layers.normalisation import GroupNorm
from diffusion_labs.layers.positions import sinusoidal_positions
from diffusion_labs.layers.resampling import Downsample, Upsample, average_pool, nearest_upsample
from diffusion_labs.layers.transformer import EncoderBlock, GatedFeedForward, MultiHeadAttention, TransformerBlock

__all__ = [
    "ClassCondition",
    "Conv",
    "Downsample",
    "EncoderBlock",
    "FeedForward",
    "GatedFeedForward",
    "GroupNorm",
    "ModulatedTransformerBlock",
    "MultiHeadAttention",
    "SelfAttention",
    "SplitHeads",
    "TimeEmbedding",
    "TransformerBlock",
    "Upsample",
    "attention",
    "average_pool",
    "conv",
    "gelu_tanh",
    "merge_heads",
    "modulate",
    "modulation",
    "nearest_upsample",
    "sinusoidal_embedding",
    "sinusoidal_positions",
    "split_heads_interleaved",
    "split_heads_stacked",
    "tokens_of",
    "vector_of",
    "zero_init",
]
