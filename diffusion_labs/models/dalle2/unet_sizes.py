"""The sizes of the networks of DALL-E 2, for ``adm_unet``."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

_UPSAMPLER = {"in_channels": 6, "out_channels": 3, "attention_levels": (), "middle_attention": False}

DALLE2_UNETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        # Attention at 32, 16 and 8 pixels
        "decoder": {
            "in_channels": 3,
            "model_channels": 512,
            "channel_mult": (1, 2, 3, 4),
            "num_res_blocks": 3,
            "attention_levels": (1, 2, 3),
            "head_channels": 64,
            "learned_variance": True,
            "dropout": 0.1,
            "vectors": {"image_embedding": 1024},
            "vector_tokens": {"image_embedding": 4},
            "tokens": {"text": 2048},
        },
        # Around these goes SuperResolution: they get the image of low resolution beside x, and any size
        "upsampler_64_256": _UPSAMPLER
        | {"model_channels": 320, "channel_mult": (1, 2, 3, 4), "num_res_blocks": 3, "dropout": 0.1},
        "upsampler_256_1024": _UPSAMPLER
        | {"model_channels": 192, "channel_mult": (1, 1, 2, 2, 4, 4), "num_res_blocks": 2},
    }
)
"""Options of ``adm_unet``: Table 3 of "Hierarchical Text-Conditional Image Generation with CLIP Latents" (arXiv
2204.06125). The text that the decoder takes is the encoding of its own Transformer, of width 2048."""
