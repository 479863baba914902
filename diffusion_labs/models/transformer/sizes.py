"""The sizes of the paper's Transformers, for ``dit``."""

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
