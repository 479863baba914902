"""The sizes of released Transformers."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

# Table 1 of DiT, arXiv 2212.09748
_WIDTHS = {
    "S": {"depth": 12, "dim": 384, "num_heads": 6},
    "B": {"depth": 12, "dim": 768, "num_heads": 12},
    "L": {"depth": 24, "dim": 1024, "num_heads": 16},
    "XL": {"depth": 28, "dim": 1152, "num_heads": 16},
}
_IMAGENET = {"in_channels": 4, "size": 32, "learned_variance": True, "classes": {"class": 1000}}

DITS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        f"DiT-{name}/{patch_size}": _IMAGENET | width | {"patch_size": patch_size}
        for name, width in _WIDTHS.items()
        for patch_size in (2, 4, 8)
    }
)
"""Options of ``dit`` by the names of the paper, for 256x256 images; ``size=64`` is for 512x512."""

_PIXART = {"in_channels": 4, "learned_variance": True, "tokens": {"text": 4096}}

PIXARTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "PixArt-XL/2-256": _PIXART | {"size": 32},
        "PixArt-XL/2-512": _PIXART | {"size": 64},
        "PixArt-XL/2-1024": _PIXART
        | {"size": 128, "position_scale": 2.0, "numbers": {"resolution": 2, "aspect_ratio": 1}},
        "PixArt-Sigma-XL/2-256": _PIXART | {"size": 32, "position_scale": 0.5},
        "PixArt-Sigma-XL/2-512": _PIXART | {"size": 64},
        "PixArt-Sigma-XL/2-1024": _PIXART | {"size": 128, "position_scale": 2.0},
        "PixArt-Sigma-XL/2-2048": _PIXART | {"size": 256, "position_scale": 4.0},
    }
)
"""Options of ``pixart``, by the names of the released weights and the side of their images."""

MMDITS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "SD3-medium": {},
        "SD3.5-medium": {
            "max_size": 768,
            "position_scale": 6.0,
            "qk_norm": True,
            "dual_attention": tuple(range(13)),
        },
        "SD3.5-large": {"dim": 2432, "depth": 38, "num_heads": 38, "qk_norm": True},
    }
)
"""Options of ``mmdit``, by the names of the released weights."""

# The table of configurations of U-ViT, arXiv 2209.12152; "deep" among its networks with texts
_VITS = {
    "S": {"depth": 13, "dim": 512, "num_heads": 8},
    "S-deep": {"depth": 17, "dim": 512, "num_heads": 8},
    "M": {"depth": 17, "dim": 768, "num_heads": 12},
    "L": {"depth": 21, "dim": 1024, "num_heads": 16},
    "H": {"depth": 29, "dim": 1152, "num_heads": 16, "convolution": False},
}
_TEXTS = {"in_channels": 4, "size": 32, "tokens": {"text": 768}, "num_tokens": 77}

UVITS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "CIFAR10 U-ViT-S/2": _VITS["S"] | {"in_channels": 3, "size": 32},
        "CelebA64 U-ViT-S/4": _VITS["S"] | {"in_channels": 3, "size": 64, "patch_size": 4},
        **{
            f"ImageNet64 U-ViT-{name}/4": _VITS[name]
            | {"in_channels": 3, "size": 64, "patch_size": 4, "classes": {"class": 1000}}
            for name in ("M", "L")
        },
        **{
            f"ImageNet{8 * size} U-ViT-{name}/{size // 16}": _VITS[name]
            | {"in_channels": 4, "size": size, "patch_size": size // 16, "classes": {"class": 1000}}
            for size in (32, 64)
            for name in ("L", "H")
        },
        "MS-COCO U-ViT-S/2": _VITS["S"] | _TEXTS,
        "MS-COCO U-ViT-S/2-deep": _VITS["S-deep"] | _TEXTS,
    }
)
"""Options of ``uvit``, by data and name of the released weights; those of 256 and more pixels are of latents."""
