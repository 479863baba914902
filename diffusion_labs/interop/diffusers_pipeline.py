"""Whole pipelines of diffusers: of pixels, and of latents without text, with one encoder of it, or with two."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from diffusion_labs.adapters import CFGuidance, InPainting, KnownRegion, MicroConditioning, mask_then_image
from diffusion_labs.files import check_vacant, whole_folder, write_json
from diffusion_labs.interop.diffusers_autoencoder import load_diffusers_autoencoder, save_diffusers_autoencoder
from diffusion_labs.interop.diffusers_classes import DEFAULTS
from diffusion_labs.interop.diffusers_config import FILE as SCHEDULER
from diffusion_labs.interop.diffusers_config import from_diffusers_config
from diffusion_labs.interop.diffusers_config_written import to_diffusers_config
from diffusion_labs.interop.diffusers_pipeline_index import (
    INDEX,
    INPAINT,
    LATENT,
    LDM_TEXT,
    PIPELINES,
    TEXT,
    XL,
    ZEROS,
    checked_index,
)
from diffusion_labs.interop.diffusers_unet import load_diffusers_unet, save_diffusers_unet
from diffusion_labs.models.adm_unet import ADMUNet
from diffusion_labs.models.autoencoder import AutoencoderKL, VQModel
from diffusion_labs.models.encoders import CLIPTextEncoder, ConcatTextEncoder, Conditioner, LDMTextEncoder
from diffusion_labs.models.ldm import LatentDiffusion, LatentScale
from diffusion_labs.samplers.ddim import DDIMSampler
from diffusion_labs.samplers.sampler import Sampler

OF_ENCODER = {CLIPTextEncoder: TEXT, ConcatTextEncoder: XL, LDMTextEncoder: LDM_TEXT}
MakeSampler = Callable[..., Sampler]


def load_diffusers_pipeline(
    folder: str | Path,
    *,
    sampler: MakeSampler = DDIMSampler,
    eval_steps: int = 50,
    guidance_scale: float = 7.5,
    caption: str = "caption",
    variant: str | None = None,
) -> Any:
    """Read a pipeline that diffusers saved. It need not be installed.

    It may be one of Stable Diffusion (1, 2, XL; 1 and 2 also to change images, ``image_to_image``, and to paint parts
    of them), ``LDMTextToImagePipeline``, ``LDMPipeline``, or one of pixels, ``DDPMPipeline`` and ``DDIMPipeline``.

    A ``StableDiffusionInpaintPipeline`` takes ``mask`` ``[b, 1, h, w]``, 1 where to paint, and ``masked_image``
    ``[b, 3, h, w]`` in [-1, 1] as conditional inputs. Its network of nine channels gets them by ``InPainting``: the
    image is then 0 where to paint, and a latent is painted of which any pixel is (diffusers looks at the first).
    With one of four channels what is known is put back by ``KnownRegion``: the image is whole, and the mask of the
    latents' size.

    Sampling ends at the estimate of clean data. That is what diffusers' ``DDIMScheduler`` does with
    ``set_alpha_to_one=True`` (the default, and not what Stable Diffusion's own configuration says: that leaves the
    noise of the first time in the image), without ``clip_sample``, and with as many steps as divide those of training,
    or ``timestep_spacing="trailing"``; then the images are the same.

    The autoencoder of Stable Diffusion XL overflows in float16. It takes every dtype and computes in its own, so it can
    stay in float32: ``system.half().autoencoder.float()``.

    Args:
        folder: has ``model_index.json``. A safety checker in it is not read.
        sampler: what makes the sampler: a class, or a ``functools.partial`` of one.
        eval_steps: calls of the network in sampling.
        guidance_scale: of classifier-free guidance, with 1 for none, as in diffusers.
        caption: the name of the text among the conditional inputs.
        variant: of the names of the weights, for example ``"fp16"``.

    Returns:
        A ``LatentDiffusion``, for pixels a ``Sampler``; in eval mode and torch's default dtype. Text that is not given
        is "", and ``negative_<caption>`` is the negative prompt. In Stable Diffusion XL what is not given is zeros,
        unless its index says otherwise, and ``sizes`` are those of ``MicroConditioning``.

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
    index = checked_index(folder)
    name = index["_class_name"]
    pipeline = PIPELINES[name]
    network: Any = load_diffusers_unet(folder / "unet", variant=variant)
    config = _scheduler(folder / "scheduler" / SCHEDULER, pipeline.scheduler)
    schedule, predictor, spacing = from_diffusers_config(config)
    if not pipeline.autoencoder:
        return sampler(network, schedule, predictor, eval_steps=eval_steps, grid=spacing).eval()
    autoencoder, usage = load_diffusers_autoencoder(folder / pipeline.autoencoder, variant=variant)
    channels: int = autoencoder.latent_channels
    joined = name == INPAINT and network.conv_in.in_channels > channels
    if joined:
        network = InPainting(network, channels, join=mask_then_image)
    conditioner = None
    if pipeline.read_text is not None:
        encoder = pipeline.read_text(folder, variant)
        zeros = name == XL and index.get(ZEROS, True)
        conditioner = Conditioner({caption: encoder}, encoded_nulls=() if zeros else None)
        if name == XL:
            network = MicroConditioning(network, autoencoder.factor)
        network = CFGuidance(network, {encoder.names: 0.1}, guidance_scale=guidance_scale)
    if name == INPAINT and not joined:
        network = KnownRegion(network, predictor)
    made = sampler(network, schedule, predictor, eval_steps=eval_steps, grid=spacing)
    encoded = ["masked_image"] if name == INPAINT else []
    return LatentDiffusion(autoencoder, made, conditioner, _scale(usage, name), encoded=encoded).eval()


def save_diffusers_pipeline(model: nn.Module, folder: str | Path, *, sample_size: int | None = None) -> None:
    """Write a folder that ``DiffusionPipeline.from_pretrained`` of diffusers reads, for the same images.

    A system with text is written as ``StableDiffusionPipeline`` (with ``InPainting`` as its
    ``StableDiffusionInpaintPipeline``), ``StableDiffusionXLPipeline`` or ``LDMTextToImagePipeline``, by its encoder;
    one without conditions as ``LDMPipeline``. Steps and scale of the
    guidance are no part of it; see ``to_diffusers_config`` for the rest of the sampler.

    Args:
        model: a ``LatentDiffusion`` with a U-Net of ``ldm_unet`` or ``adm_unet``, in ``CFGuidance`` and
            ``MicroConditioning`` or bare; with one ``CLIPTextEncoder``, a ``ConcatTextEncoder`` of two, one
            ``LDMTextEncoder``, or no condition.
        folder: is made.
        sample_size: the side of the latents that diffusers makes if it is asked for no size.

    Raises:
        ValueError: naming the part that diffusers has not.
        FileExistsError: if there is something in the folder.
    """
    folder = Path(folder)
    if not isinstance(model, LatentDiffusion):
        raise ValueError(
            f"a {type(model).__name__} is no pipeline of diffusers; give a LatentDiffusion, or save a network alone by "
            "save_diffusers_unet, save_diffusers_autoencoder or their like"
        )
    check_vacant(folder)
    scheduler: Any = to_diffusers_config(model.sampler)
    encoders: list[Any] = list(model.conditioner.encoders.values())
    if len(encoders) > 1 or any(type(encoder) not in OF_ENCODER for encoder in encoders):
        known = ", ".join(f"a {name} one {kind.__name__}" for kind, name in OF_ENCODER.items())
        names = [type(encoder).__name__ for encoder in encoders]
        raise ValueError(f"the conditioner has {names}, but {known}, and a {LATENT} none")
    name = OF_ENCODER[type(encoders[0])] if encoders else LATENT
    if name == TEXT and type(getattr(model.sampler.model, "model", None)) is InPainting:
        name = INPAINT
    pipeline = PIPELINES[name]
    if pipeline.scheduler:
        _check_scheduler(scheduler, model.sampler)
    network = _bare(model.sampler.model, name)
    notes = _notes(model, name)
    autoencoder: Any = model.autoencoder
    classes = {AutoencoderKL: "AutoencoderKL", VQModel: "VQModel"}
    parts: dict[str, list[str | None]] = {
        "scheduler": ["diffusers", scheduler["_class_name"]],
        "unet": ["diffusers", pipeline.parts["unet"][0]],  # type: ignore[index]
        pipeline.autoencoder: ["diffusers", classes.get(type(autoencoder))],
    }

    with whole_folder(folder) as temporary:
        save_diffusers_unet(network, temporary / "unet", sample_size=sample_size)
        save_diffusers_autoencoder(autoencoder, temporary / pipeline.autoencoder, _usage(model, name))
        (temporary / "scheduler").mkdir()
        write_json(temporary / "scheduler" / SCHEDULER, scheduler)
        if pipeline.write_text is not None:
            parts |= pipeline.write_text(encoders[0], temporary)
        write_json(temporary / INDEX, {"_class_name": name, "_diffusers_version": "0.30.0", **notes, **parts})
        checked_index(temporary)


def _bare(network: Any, name: str) -> Any:
    """The U-Net in what a pipeline has around it."""
    nulls: dict[str, Any] = {}
    if type(network) is CFGuidance:
        nulls, network = network.constructor_arguments()["null"], network.model
    if type(network) is MicroConditioning and name == XL:
        network = network.model
    if type(network) is InPainting and name == INPAINT:
        if network.join is not mask_then_image:
            raise ValueError(f"InPainting has join={network.join}, but that of diffusers is mask_then_image")
        network = network.model
    if any(bool(null.any()) for null in nulls.values()):
        raise ValueError(f"the guidance has null values of {sorted(nulls)}, but those of diffusers are zeros or texts")
    conditions = getattr(network, "condition_shapes", {})
    if len(conditions) != PIPELINES[name].conditions:
        raise ValueError(
            f"the network takes {sorted(conditions)}, but conditions of that of a {name} are "
            f"{PIPELINES[name].conditions}"
        )
    if not isinstance(network, ADMUNet):
        raise ValueError(f"a {type(network).__name__} around the U-Net is no part of a {name}; leave it out")
    return network


def _notes(model: LatentDiffusion, name: str) -> dict[str, Any]:
    """What the index of a pipeline says beside its parts."""
    left_out = model.conditioner.encoders.keys() - (model.conditioner.encoded_nulls or ())
    zeros = model.conditioner.encoded_nulls is not None and bool(left_out)
    if name in (TEXT, INPAINT, LDM_TEXT) and zeros:
        raise ValueError(f"no text is zeros for this conditioner, but a {name} encodes it; leave out encoded_nulls")
    nothing: dict[str, Any] = {"feature_extractor": [None, None]}
    unchecked = {**nothing, "safety_checker": [None, None], "requires_safety_checker": False}
    return {
        TEXT: unchecked,
        INPAINT: {**unchecked, "image_encoder": [None, None]},
        XL: {**nothing, "image_encoder": [None, None], ZEROS: zeros},
        LDM_TEXT: {},
        LATENT: {},
    }[name]


def _scheduler(path: Path, changed: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a scheduler, with the changes that the pipeline makes when it is given it."""
    config: dict[str, Any] = json.loads(path.read_text())
    known = DEFAULTS.get(config.get("_class_name", ""), {})
    return {**config, **{key: value for key, value in changed.items() if key in known}}


def _check_scheduler(config: Mapping[str, Any], sampler: Sampler) -> None:
    """Refuse what the pipeline with text changes when it is given it."""
    if config["steps_offset"] != PIPELINES[TEXT].scheduler["steps_offset"]:
        raise ValueError(
            f"a {TEXT} sets steps_offset to 1, but that of the grid is {config['steps_offset']}; give "
            "partial(leading, offset=1), or trailing"
        )
    if sampler.predictor.clamp is not None:
        raise ValueError(f"a {TEXT} has no clamp, but the predictor has {sampler.predictor.clamp}; set it to None")


def _scale(usage: Mapping[str, Any], name: str) -> LatentScale:
    """What a pipeline reads of the use of the latents: one number, or for XL those of the channels, too."""
    mean, std = usage.get("latents_mean"), usage.get("latents_std")
    if name == XL and mean is not None and std is not None:
        return LatentScale(mean, usage["scaling_factor"] / torch.tensor(std))
    return LatentScale(scale=usage["scaling_factor"])


def _usage(model: LatentDiffusion, name: str) -> dict[str, Any]:
    shift, factor = model.scale.shift.cpu(), model.scale.scale.cpu()
    if factor.numel() == 1 and not bool(shift.any()):
        number = {"scaling_factor": float(str(factor.numpy().reshape(())))}  # 0.18215, not 0.18215000629425049
        return number | ({"latents_mean": None, "latents_std": None} if name == XL else {})
    channels: int = model.autoencoder.latent_channels
    if name != XL or channels != 4:
        raise ValueError(
            f"the scale has the shift {shift.tolist()} and the scale {factor.tolist()}, but these pipelines of "
            "diffusers read no shift, and one number"
        )
    mean, std = shift.expand(channels), (1 / factor).expand(channels)
    return {"scaling_factor": 1.0, "latents_mean": mean.tolist(), "latents_std": std.tolist()}
