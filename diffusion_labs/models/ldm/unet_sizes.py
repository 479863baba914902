"""The sizes of released latent U-Nets, for ``ldm_unet``."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

# The latents of VQ-f4 have 3 channels, and the networks on them the widths and the attention of ADM's at 64x64.
_VQ_F4 = {"in_channels": 3, "channel_mult": (1, 2, 3, 4), "attention_levels": (1, 2, 3)}
_HEADS_OF_32 = {"head_channels": 32}
_IMAGENET = {"model_channels": 192, "channel_mult": (1, 2, 3, 5)}
_STABLE_DIFFUSION = {
    "in_channels": 4,
    "model_channels": 320,
    "channel_mult": (1, 2, 4, 4),
    "attention_levels": (0, 1, 2),
}

LDM_UNETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        # Without conditions: CelebA-HQ, FFHQ and LSUN bedrooms share the first
        "celebahq": _VQ_F4 | _HEADS_OF_32 | {"model_channels": 224},
        "lsun_churches": {
            "in_channels": 4,
            "model_channels": 192,
            "channel_mult": (1, 2, 2, 4, 4),
            "attention_levels": (0, 1, 2, 3),
            "num_heads": 8,
            "scale_shift": True,
            "residual_resampling": True,
        },
        # Cross-attention: a class as one token, text, the boxes of a layout
        "cin256": {
            "in_channels": 4,
            "model_channels": 256,
            "channel_mult": (1, 2, 4),
            "attention_levels": (0, 1, 2),
            "tokens": {"class_token": 512},
        }
        | _HEADS_OF_32,
        "cin256_v2": _VQ_F4 | _IMAGENET | {"num_heads": 1, "tokens": {"class_token": 512}},
        "txt2img_large": _STABLE_DIFFUSION | {"num_heads": 8, "tokens": {"text": 1280}},
        "text2img256": _VQ_F4 | _IMAGENET | _HEADS_OF_32 | {"tokens": {"text": 640}},
        "layout2img_openimages256": _VQ_F4
        | _HEADS_OF_32
        | {"model_channels": 128, "depth": 3, "tokens": {"layout": 512}},
        # Concatenation: a low resolution; a mask and the latent of what it leaves; a map of classes
        "bsr_sr": _HEADS_OF_32
        | {
            "in_channels": 6,
            "out_channels": 3,
            "model_channels": 160,
            "channel_mult": (1, 2, 2, 4),
            "attention_levels": (3,),
        },
        "inpainting_big": _VQ_F4
        | {"in_channels": 7, "out_channels": 3, "model_channels": 256, "num_heads": 8, "residual_resampling": True},
        "semantic_synthesis": {
            "in_channels": 6,
            "out_channels": 3,
            "model_channels": 128,
            "channel_mult": (1, 4, 8),
            "attention_levels": (),
            "num_heads": 8,
        },
        # Stable Diffusion; "inpainting" gets a mask and a latent beside its own
        "stable_diffusion_1": _STABLE_DIFFUSION | {"num_heads": 8, "tokens": {"text": 768}},
        "stable_diffusion_1_inpainting": _STABLE_DIFFUSION
        | {"in_channels": 9, "out_channels": 4, "num_heads": 8, "tokens": {"text": 768}},
        "stable_diffusion_2": _STABLE_DIFFUSION | {"head_channels": 64, "tokens": {"text": 1024}},
        "stable_diffusion_xl": {
            "in_channels": 4,
            "model_channels": 320,
            "channel_mult": (1, 2, 4),
            "attention_levels": (1, 2),
            "depth": (0, 2, 10),
            "head_channels": 64,
            "tokens": {"text": 2048},
            "vectors": {"pooled_text": 1280},
            "numbers": {"sizes": 6},
        },
    }
)
"""Options of ``ldm_unet``, by the names of the configurations that were released with the weights."""
