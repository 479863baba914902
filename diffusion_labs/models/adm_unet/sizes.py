"""The sizes of the released networks of ADM, for ``adm_unet`` and ``adm_classifier``."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

# Attention at 32, 16 and 8 pixels
_64 = {"channel_mult": (1, 2, 3, 4), "attention_levels": (1, 2, 3)}
_128 = {"channel_mult": (1, 1, 2, 3, 4), "attention_levels": (2, 3, 4)}
_256 = {"channel_mult": (1, 1, 2, 2, 4, 4), "attention_levels": (3, 4, 5)}
_512 = {"channel_mult": (0.5, 1, 1, 2, 2, 4, 4), "attention_levels": (4, 5, 6)}
_CLASSES = {"classes": {"class": 1000}}
_HEADS_OF_64 = {"head_channels": 64}
_FOUR_HEADS = {"num_heads": 4}
_NETWORK = {"in_channels": 3, "model_channels": 256, "learned_variance": True}
_UPSAMPLER = {"in_channels": 6, "out_channels": 3, "model_channels": 192, "learned_variance": True}
_LSUN = _NETWORK | _256 | _HEADS_OF_64 | {"dropout": 0.1}

# Of all released networks only the first orders its heads in the "new" way
ADM_UNETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "imagenet_64": _NETWORK
        | _64
        | _CLASSES
        | _HEADS_OF_64
        | {"model_channels": 192, "num_res_blocks": 3, "attention_order": "new", "dropout": 0.1},
        "imagenet_128": _NETWORK | _128 | _CLASSES | _FOUR_HEADS,
        "imagenet_256": _NETWORK | _256 | _CLASSES | _HEADS_OF_64,
        "imagenet_256_uncond": _NETWORK | _256 | _HEADS_OF_64,
        "imagenet_512": _NETWORK | _512 | _CLASSES | _HEADS_OF_64,
        "lsun_bedroom": _LSUN,
        "lsun_cat": _LSUN,
        "lsun_horse": _LSUN,
        # Around these goes SuperResolution: they get the image of low resolution beside x
        "upsampler_64_256": _UPSAMPLER | _256 | _CLASSES | _FOUR_HEADS,
        "upsampler_128_512": _UPSAMPLER | _256 | _CLASSES | _HEADS_OF_64 | {"attention_levels": (4, 5)},
    }
)
"""Options of ``adm_unet``, by data set and size of the images; ``upsampler_64_256`` goes from 64 to 256 pixels."""

ADM_CLASSIFIERS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "imagenet_64": _64 | {"size": 64, "num_res_blocks": 4},
        "imagenet_128": _128 | {"size": 128},
        "imagenet_256": _256 | {"size": 256},
        "imagenet_512": _512 | {"size": 512},
    }
)
"""Options of ``adm_classifier``, by the names of the networks that they guide."""
