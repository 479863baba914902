"""The ``model_index.json`` of diffusers' pipelines: the classes that are known here, and their parts."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from diffusion_labs.interop.diffusers_text import (
    CLASSES,
    read_ldm_text_encoder,
    read_text_encoder,
    read_text_encoders,
    write_ldm_text_encoder,
    write_text_encoder,
    write_text_encoders,
)
from diffusion_labs.interop.ldm_text import CLASS as LDM_TEXT_CLASS

INDEX = "model_index.json"
_TOKENIZERS = ("CLIPTokenizer", "CLIPTokenizerFast")
ZEROS = "force_zeros_for_empty_prompt"


class Pipeline(NamedTuple):
    """A class of diffusers.

    Attributes:
        parts: those that are read, with the classes that they may be of; ``None`` is any scheduler.
        autoencoder: the name of that part; "" for diffusion of pixels.
        conditions: how many its network has.
        scheduler: keys that it sets, whatever its scheduler says.
        read_text: the encoder of texts in a folder, if there is one.
        write_text: likewise.
    """

    parts: dict[str, tuple[str, ...] | None]
    autoencoder: str
    conditions: int
    scheduler: dict[str, Any] = {}  # noqa: RUF012 (a tuple has no attributes of its class)
    read_text: Callable[[Path, str | None], Any] | None = None
    write_text: Callable[[Any, Path], dict[str, list[str | None]]] | None = None


_TEXT_PARTS: dict[str, tuple[str, ...] | None] = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": CLASSES[:1],
    "tokenizer": _TOKENIZERS,
    "scheduler": None,
}
LATENT, LDM_TEXT = "LDMPipeline", "LDMTextToImagePipeline"
TEXT, XL = "StableDiffusionPipeline", "StableDiffusionXLPipeline"
INPAINT = "StableDiffusionInpaintPipeline"
_TEXT = Pipeline(
    _TEXT_PARTS,
    autoencoder="vae",
    conditions=1,
    scheduler={"steps_offset": 1, "clip_sample": False},
    read_text=read_text_encoder,
    write_text=write_text_encoder,
)
_PIXELS = Pipeline({"unet": ("UNet2DModel",), "scheduler": None}, autoencoder="", conditions=0)
PIPELINES = {
    TEXT: _TEXT,
    "StableDiffusionImg2ImgPipeline": _TEXT,
    INPAINT: _TEXT._replace(scheduler={"steps_offset": 1}),
    XL: Pipeline(
        {**_TEXT_PARTS, "text_encoder_2": CLASSES[1:], "tokenizer_2": _TOKENIZERS},
        autoencoder="vae",
        conditions=3,
        read_text=read_text_encoders,
        write_text=write_text_encoders,
    ),
    LDM_TEXT: Pipeline(
        {
            "unet": ("UNet2DConditionModel",),
            "vqvae": ("AutoencoderKL", "VQModel"),
            "bert": (LDM_TEXT_CLASS,),
            "tokenizer": ("BertTokenizer", "BertTokenizerFast"),
            "scheduler": None,
        },
        autoencoder="vqvae",
        conditions=1,
        read_text=read_ldm_text_encoder,
        write_text=write_ldm_text_encoder,
    ),
    LATENT: Pipeline(
        {"unet": ("UNet2DModel",), "vqvae": ("VQModel", "AutoencoderKL"), "scheduler": None},
        autoencoder="vqvae",
        conditions=0,
    ),
    "DDPMPipeline": _PIXELS,
    "DDIMPipeline": _PIXELS,
}
UNCLIP = "UnCLIPPipeline"
UNCLIP_PARTS = {
    "prior": ("PriorTransformer",),
    "decoder": ("UNet2DConditionModel",),
    "text_encoder": CLASSES[1:],
    "tokenizer": _TOKENIZERS,
    "text_proj": ("UnCLIPTextProjModel",),
    "super_res_first": ("UNet2DModel",),
    "super_res_last": ("UNet2DModel",),
    "prior_scheduler": ("UnCLIPScheduler",),
    "decoder_scheduler": ("UnCLIPScheduler",),
    "super_res_scheduler": ("UnCLIPScheduler",),
}
# What does not change the image that is sampled: what hides or marks it, and what prepares images for that
BESIDE = frozenset(
    {"safety_checker", "feature_extractor", "requires_safety_checker", "image_encoder", "add_watermarker", ZEROS}
)


def read_index(folder: Path) -> dict[str, Any]:
    """The index of a pipeline.

    Raises:
        FileNotFoundError: without one.
    """
    if not (folder / INDEX).is_file():
        raise FileNotFoundError(f"{folder} has no {INDEX}; give the folder of a pipeline that diffusers saved")
    index: dict[str, Any] = json.loads((folder / INDEX).read_text())
    return index


def checked_index(folder: Path) -> dict[str, Any]:
    """The index of a pipeline, after its parts were found to be known ones.

    Raises:
        FileNotFoundError: without an index.
        ValueError: naming the class or part that is not known.
    """
    index = read_index(folder)
    name = index.get("_class_name")
    if name not in PIPELINES:
        raise ValueError(
            f"_class_name={name!r} is no pipeline of diffusers that is known here; give one of {list(PIPELINES)}, or "
            f"read an {UNCLIP} by load_diffusers_unclip"
        )
    check_parts(index, PIPELINES[name].parts)
    return index


def check_parts(index: Mapping[str, Any], parts: Mapping[str, tuple[str, ...] | None]) -> None:
    """Raise a ``ValueError`` that names a part of an index which is missing, of another class, or not known."""
    name = index["_class_name"]
    for key, value in index.items():
        if key not in parts and key not in BESIDE and not key.startswith("_") and value not in (None, [None, None]):
            raise ValueError(f"{name}: {key}={value!r} is not known; load its parts one by one")
    for key, classes in parts.items():
        found = (index.get(key) or [None, None])[1]
        if found is None or (classes is not None and found not in classes):
            wanted = "a scheduler" if classes is None else f"one of {list(classes)}"
            raise ValueError(
                f"{name}: {key} is of the class {found!r}, but must be {wanted}; load its parts one by one"
            )
