"""Whole pipelines of diffusers: latent diffusion with or without text."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from diffusion_labs.adapters import CFGuidance
from diffusion_labs.files import whole_folder
from diffusion_labs.interop.diffusers_autoencoder import load_diffusers_autoencoder, save_diffusers_autoencoder
from diffusion_labs.interop.diffusers_classes import DEFAULTS
from diffusion_labs.interop.diffusers_config import FILE as SCHEDULER
from diffusion_labs.interop.diffusers_config import from_diffusers_config
from diffusion_labs.interop.diffusers_config_written import to_diffusers_config
from diffusion_labs.interop.diffusers_unet import load_diffusers_unet, save_diffusers_unet
from diffusion_labs.interop.ldm_text import CLASS as LDM_TEXT_CLASS
from diffusion_labs.interop.ldm_text import load_diffusers_ldm_text, save_diffusers_ldm_text
from diffusion_labs.models.autoencoder import AutoencoderKL, VQModel
from diffusion_labs.models.encoders import CLIPTextEncoder, Conditioner, LDMTextEncoder
from diffusion_labs.models.encoders.tokenizer import load_tokenizer
from diffusion_labs.models.ldm import LatentDiffusion, LatentScale
from diffusion_labs.samplers.ddim import DDIMSampler
from diffusion_labs.samplers.sampler import Sampler

INDEX = "model_index.json"
TEXT, LDM_TEXT, LATENT = "StableDiffusionPipeline", "LDMTextToImagePipeline", "LDMPipeline"
# The parts of each pipeline that are read, with the classes that they may be of; None is any scheduler
PARTS: dict[str, dict[str, tuple[str, ...] | None]] = {
    TEXT: {
        "unet": ("UNet2DConditionModel",),
        "vae": ("AutoencoderKL",),
        "text_encoder": ("CLIPTextModel",),
        "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
        "scheduler": None,
    },
    LDM_TEXT: {
        "unet": ("UNet2DConditionModel",),
        "vqvae": ("AutoencoderKL", "VQModel"),
        "bert": (LDM_TEXT_CLASS,),
        "tokenizer": ("BertTokenizer", "BertTokenizerFast"),
        "scheduler": None,
    },
    LATENT: {"unet": ("UNet2DModel",), "vqvae": ("VQModel", "AutoencoderKL"), "scheduler": None},
}
# Parts that do not change the image that is sampled: what hides it, and what prepares images for that
BESIDE = frozenset({"safety_checker", "feature_extractor", "requires_safety_checker", "image_encoder"})
AUTOENCODERS = {TEXT: "vae", LDM_TEXT: "vqvae", LATENT: "vqvae"}
LDM_LENGTH = 77  # tokens, whatever its encoder has

MakeSampler = Callable[..., Sampler]


class TextPart(NamedTuple):
    """The text encoder of a pipeline.

    Attributes:
        encoder: its class here.
        folder: beside that of the tokenizer.
        read: from the folder of the pipeline.
        write: to its own folder; returns the name of its class there.
        library: of its class there.
        tokenizer: the class of its tokenizer there.
    """

    encoder: type
    folder: str
    read: Callable[[Path], Any]
    write: Callable[[Any, Path], str]
    library: str
    tokenizer: str


def _read_clip(folder: Path) -> Any:
    return CLIPTextEncoder.from_pretrained(folder, model_folder="text_encoder", tokenizer_folder="tokenizer")


def _write_clip(encoder: Any, folder: Path) -> str:
    encoder.model.save_pretrained(folder)
    return type(encoder.model).__name__


def _read_ldm_text(folder: Path) -> Any:
    tokenizer = load_tokenizer(folder, "tokenizer", needed_by=LDM_TEXT)
    encoder = load_diffusers_ldm_text(folder / "bert", tokenizer)
    _check_length(encoder)
    return encoder


def _write_ldm_text(encoder: Any, folder: Path) -> str:
    _check_length(encoder)
    save_diffusers_ldm_text(encoder, folder)
    return LDM_TEXT_CLASS


TEXTS: dict[str, TextPart] = {
    TEXT: TextPart(CLIPTextEncoder, "text_encoder", _read_clip, _write_clip, "transformers", "CLIPTokenizer"),
    LDM_TEXT: TextPart(LDMTextEncoder, "bert", _read_ldm_text, _write_ldm_text, "latent_diffusion", "BertTokenizer"),
}


def load_diffusers_pipeline(
    folder: str | Path,
    *,
    sampler: MakeSampler = DDIMSampler,
    eval_steps: int = 50,
    guidance_scale: float = 7.5,
    caption: str = "caption",
    variant: str | None = None,
) -> LatentDiffusion:
    """Read a pipeline that diffusers saved. It need not be installed.

    It may be a ``StableDiffusionPipeline``, ``LDMTextToImagePipeline`` or ``LDMPipeline``.

    Sampling ends at the estimate of clean data. That is what diffusers' ``DDIMScheduler`` does with
    ``set_alpha_to_one=True`` (the default, and not what Stable Diffusion's own configuration says: that leaves the
    noise of the first time in the image), without ``clip_sample``, and with as many steps as divide those of training,
    or ``timestep_spacing="trailing"``; then the images are the same.

    Args:
        folder: has ``model_index.json``. A safety checker in it is not read.
        sampler: what makes the sampler: a class, or a ``functools.partial`` of one.
        eval_steps: calls of the network in sampling.
        guidance_scale: of classifier-free guidance, with 1 for none, as in diffusers.
        caption: the name of the text among the conditional inputs.
        variant: of the names of the weights of U-Net and autoencoder, for example ``"fp16"``.

    Returns:
        The system, in eval mode. Text that is not given is "", and ``negative_<caption>`` is the negative prompt.

    Raises:
        FileNotFoundError: without such files.
        ValueError: naming the part, or its key, that cannot be represented; or listing the weights that do not fit.
        ImportError: naming the extra, for a pipeline with text and without transformers.

    Example:
        >>> system = load_diffusers_pipeline("stable-diffusion-v1-5")
        >>> noise = system.sample_prior(1, (512, 512), seeded([0]))
        >>> image = system(noise, conditional_inputs={"caption": ["a photo of a cat"]})
    """
    folder = Path(folder)
    name = _checked(folder)
    network: Any = load_diffusers_unet(folder / "unet", variant=variant)
    autoencoder, usage = load_diffusers_autoencoder(folder / AUTOENCODERS[name], variant=variant)
    schedule, predictor, spacing = from_diffusers_config(_scheduler(folder / "scheduler" / SCHEDULER, name))
    conditioner = None
    if name in TEXTS:
        conditioner = Conditioner({caption: TEXTS[name].read(folder)})
        network = CFGuidance(network, {"text": 0.1}, guidance_scale=guidance_scale)
    made = sampler(network, schedule, predictor, eval_steps=eval_steps, grid=spacing)
    scale = LatentScale(scale=usage["scaling_factor"])  # all that these pipelines read, also where there is a shift
    return LatentDiffusion(autoencoder, made, conditioner, scale).eval()


def save_diffusers_pipeline(model: LatentDiffusion, folder: str | Path, *, sample_size: int | None = None) -> None:
    """Write a folder that ``DiffusionPipeline.from_pretrained`` of diffusers reads, for the same images.

    A system with text is written as ``StableDiffusionPipeline`` or ``LDMTextToImagePipeline``, by its encoder, and one
    without conditions as ``LDMPipeline``. Steps and scale of the guidance are no part of it; see
    ``to_diffusers_config`` for the rest of the sampler.

    Args:
        model: with a U-Net of ``ldm_unet`` or ``adm_unet``, in ``CFGuidance`` or bare; with one ``CLIPTextEncoder`` or
            ``LDMTextEncoder``, or no condition.
        folder: is made.
        sample_size: the side of the latents that diffusers makes if it is asked for no size.

    Raises:
        ValueError: naming the part that diffusers has not.
        FileExistsError: if there is something in the folder.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} has files, which would be lost; give a folder of its own")
    scheduler: Any = to_diffusers_config(model.sampler)
    network: Any = model.sampler.model
    encoders: list[Any] = list(model.conditioner.encoders.values())
    kinds = [type(encoder) for encoder in encoders]
    name = next((name for name, part in TEXTS.items() if kinds == [part.encoder]), None if encoders else LATENT)
    if name is None:
        known = ", ".join(f"a {name} one {part.encoder.__name__}" for name, part in TEXTS.items())
        raise ValueError(f"the conditioner has {[kind.__name__ for kind in kinds]}, but {known}, and a {LATENT} none")
    if name == TEXT:
        _check_scheduler(scheduler, model.sampler)
    if type(network) is CFGuidance:
        network = network.model
    autoencoder: Any = model.autoencoder
    classes = {AutoencoderKL: "AutoencoderKL", VQModel: "VQModel"}
    parts: dict[str, list[str | None]] = {
        "scheduler": ["diffusers", scheduler["_class_name"]],
        "unet": ["diffusers", PARTS[name]["unet"][0]],  # type: ignore[index]
        AUTOENCODERS[name]: ["diffusers", classes.get(type(autoencoder))],
    }

    with whole_folder(folder) as temporary:
        save_diffusers_unet(network, temporary / "unet", sample_size=sample_size)
        save_diffusers_autoencoder(autoencoder, temporary / AUTOENCODERS[name], _usage(model.scale))
        (temporary / "scheduler").mkdir()
        _write(temporary / "scheduler" / SCHEDULER, scheduler)
        for encoder in encoders:
            if encoder.tokenizer is None:
                raise ValueError("the text encoder has no tokenizer, which a pipeline needs; give it one")
            text = TEXTS[name]
            parts[text.folder] = [text.library, text.write(encoder, temporary / text.folder)]
            encoder.tokenizer.save_pretrained(temporary / "tokenizer")
            parts["tokenizer"] = ["transformers", text.tokenizer]
        notes: dict[str, Any] = {}
        if name == TEXT:
            parts |= {"safety_checker": [None, None], "feature_extractor": [None, None]}
            notes = {"requires_safety_checker": False}
        _write(temporary / INDEX, {"_class_name": name, "_diffusers_version": "0.30.0", **notes, **parts})
        _checked(temporary)


def _checked(folder: Path) -> str:
    """The name of a pipeline's class, after its parts were found to be known ones."""
    if not (folder / INDEX).is_file():
        raise FileNotFoundError(f"{folder} has no {INDEX}; give the folder of a pipeline that diffusers saved")
    index: dict[str, Any] = json.loads((folder / INDEX).read_text())
    name = index.get("_class_name")
    if name not in PARTS:
        raise ValueError(
            f"_class_name={name!r} is no pipeline of diffusers that is known here; give one of {list(PARTS)}"
        )
    for key, value in index.items():
        if (
            key not in PARTS[name]
            and key not in BESIDE
            and not key.startswith("_")
            and value not in (None, [None, None])
        ):
            raise ValueError(f"{name}: {key}={value!r} is not known; load its parts one by one")
    for key, classes in PARTS[name].items():
        found = (index.get(key) or [None, None])[1]
        if found is None or (classes is not None and found not in classes):
            wanted = "a scheduler" if classes is None else f"one of {list(classes)}"
            raise ValueError(
                f"{name}: {key} is of the class {found!r}, but must be {wanted}; load its parts one by one"
            )
    return str(name)


def _scheduler(path: Path, name: str) -> dict[str, Any]:
    """The configuration of a scheduler; with the changes that the pipeline with text makes when it is given it."""
    config: dict[str, Any] = json.loads(path.read_text())
    known = DEFAULTS.get(config.get("_class_name", ""), {})
    changed = {"steps_offset": 1, "clip_sample": False} if name == TEXT else {}
    return {**config, **{key: value for key, value in changed.items() if key in known}}


def _check_scheduler(config: Mapping[str, Any], sampler: Sampler) -> None:
    """Refuse what the pipeline with text changes when it is given it."""
    if config["steps_offset"] != 1:
        raise ValueError(
            f"a {TEXT} sets steps_offset to 1, but that of the grid is {config['steps_offset']}; give "
            "partial(leading, offset=1), or trailing"
        )
    if config["clip_sample"] or config["thresholding"]:
        raise ValueError(f"a {TEXT} has no clamp, but the predictor has {sampler.predictor.clamp}; set it to None")


def _check_length(encoder: Any) -> None:
    if encoder.max_length != LDM_LENGTH:
        raise ValueError(
            f"a {LDM_TEXT} has texts of {LDM_LENGTH} tokens, but the encoder has max_length={encoder.max_length}"
        )


def _usage(scale: LatentScale) -> dict[str, Any]:
    shift, factor = scale.shift.cpu(), scale.scale.cpu()
    if factor.numel() > 1 or bool((shift != 0).any()):
        raise ValueError(
            f"the scale has the shift {shift.tolist()} and the scale {factor.tolist()}, but these pipelines of "
            "diffusers read no shift, and one number"
        )
    return {"scaling_factor": float(str(factor.numpy().reshape(())))}  # 0.18215, not 0.18215000629425049


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
