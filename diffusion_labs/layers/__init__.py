"""Building blocks that several networks share."""

from diffusion_labs.layers.attention import (
    SplitHeads,
    attention,
    heads_of_channels,
    merge_attended,
    merge_heads,
    split_heads_interleaved,
    split_heads_stacked,
)
from diffusion_labs.layers.class_condition import ClassCondition
from diffusion_labs.layers.condition_embedding import ConditionEmbedding, check_names, concatenate, entry_name
from diffusion_labs.layers.condition_layers import (
    CaptionCondition,
    Context,
    JointCondition,
    NumberCondition,
    ProjectedTokenCondition,
    VectorTokens,
)
from diffusion_labs.layers.conditions import tokens_of, vector_of
from diffusion_labs.layers.convolution import Conv, Conv3x3, conv, zero_init
from diffusion_labs.layers.embeddings import TimeEmbedding, sinusoidal_embedding
from diffusion_labs.layers.joint_transformer import AttendedStream, DualStream, JointTransformerBlock, Stream
from diffusion_labs.layers.modulated_transformer import ModulatedCrossAttentionBlock, ModulatedTransformerBlock
from diffusion_labs.layers.modulation import TableModulation, modulate, modulation
from diffusion_labs.layers.normalisation import GroupNorm, GroupNormSiLU, RMSNorm, over_positions
from diffusion_labs.layers.positions import CroppedPositions, RotaryPositions, StretchedPositions, sinusoidal_positions
from diffusion_labs.layers.resampling import Downsample, Upsample, average_pool, nearest_upsample
from diffusion_labs.layers.transformer import (
    EncoderBlock,
    FeedForward,
    GatedFeedForward,
    MultiHeadAttention,
    SelfAttention,
    SkipEncoderBlock,
    TransformerBlock,
    gelu_tanh,
)

__all__ = [
    "AttendedStream",
    "CaptionCondition",
    "ClassCondition",
    "ConditionEmbedding",
    "Context",
    "Conv",
    "Conv3x3",
    "CroppedPositions",
    "Downsample",
    "DualStream",
    "EncoderBlock",
    "FeedForward",
    "GatedFeedForward",
    "GroupNorm",
    "GroupNormSiLU",
    "over_positions",
    "JointCondition",
    "JointTransformerBlock",
    "ModulatedCrossAttentionBlock",
    "ModulatedTransformerBlock",
    "MultiHeadAttention",
    "NumberCondition",
    "ProjectedTokenCondition",
    "RMSNorm",
    "RotaryPositions",
    "SelfAttention",
    "SkipEncoderBlock",
    "SplitHeads",
    "Stream",
    "StretchedPositions",
    "TableModulation",
    "TimeEmbedding",
    "TransformerBlock",
    "Upsample",
    "VectorTokens",
    "attention",
    "average_pool",
    "check_names",
    "concatenate",
    "conv",
    "entry_name",
    "gelu_tanh",
    "heads_of_channels",
    "merge_attended",
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
