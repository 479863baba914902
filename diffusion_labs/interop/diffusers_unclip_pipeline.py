"""The whole ``UnCLIPPipeline`` of diffusers, the layout of Karlo, read as ``DALLE2``."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from diffusion_labs.adapters import CFGuidance, ExpertDenoisers, SuperResolution
from diffusion_labs.interop.diffusers_config import FILE as SCHEDULER
from diffusion_labs.interop.diffusers_config import from_diffusers_config
from diffusion_labs.interop.diffusers_models import find_model, read_config
from diffusion_labs.interop.diffusers_pipeline_index import UNCLIP, UNCLIP_PARTS, check_parts, read_index
from diffusion_labs.interop.diffusers_prior import load_diffusers_prior
from diffusion_labs.interop.diffusers_text import read_unclip_text_encoder
from diffusion_labs.interop.diffusers_unclip import load_diffusers_unclip_decoder
from diffusion_labs.interop.diffusers_unet import load_diffusers_unet
from diffusion_labs.models.dalle2 import DALLE2, DiffusionPrior, unchanged
from diffusion_labs.predictors.clamp import StaticClamp
from diffusion_labs.samplers.ddpm import DDPMSampler
from diffusion_labs.samplers.sampler import Sampler

VARIANCES = {False: "fixed_small_log", True: "learned_range"}
LAST = 0  # the time of the last step, which is another network's


def load_diffusers_unclip(
    folder: str | Path,
    *,
    eval_steps: tuple[int, int, int] = (25, 25, 7),
    guidance_scales: tuple[float, float] = (4.0, 8.0),
    variant: str | None = None,
) -> DALLE2:
    """Read a whole ``UnCLIPPipeline`` that diffusers saved, such as Karlo. It need not be installed.

    Images are the pipeline's, from the same generator and ``candidates=1``. No text is "", as there: prior and decoder
    have its encoding as their null value. The upsampler is ``ExpertDenoisers`` of its two networks. It has no encoder
    of images, so it draws and does not edit.

    Args:
        folder: has ``model_index.json``.
        eval_steps: of prior, decoder and upsampler; the pipeline's by default.
        guidance_scales: of prior and decoder, with 1 for none; the pipeline's by default.
        variant: of the names of the weights, for example ``"fp16"``.

    Returns:
        The system, in torch's default dtype.

    Raises:
        FileNotFoundError: without such files, naming them.
        ValueError: naming the part, or its key, that is missing or cannot be represented; or listing the weights that
            do not fit.
        ImportError: naming the extra, without transformers.

    Example:
        >>> model = load_diffusers_unclip("karlo-v1-alpha")
        >>> images = model("a red apple", candidates=1, generator=seeded([0]))
    """
    folder = Path(folder)
    index = read_index(folder)
    if index.get("_class_name") != UNCLIP:
        raise ValueError(f"_class_name={index.get('_class_name')!r} must be {UNCLIP!r}; see load_diffusers_pipeline")
    check_parts(index, UNCLIP_PARTS)
    missing = [part for part in UNCLIP_PARTS if not (folder / part).is_dir()]
    if missing:
        raise FileNotFoundError(f"{folder} has no {missing}, which its index lists; get the missing folders")

    clip = read_unclip_text_encoder(folder, variant)
    empty = clip.empty()
    network, scale = load_diffusers_prior(folder / "prior", variant=variant)
    guided = CFGuidance(network, {tuple(empty): 0.1}, null=empty, guidance_scale=guidance_scales[0])
    prior_sampler = _sampler(guided, folder / "prior_scheduler", eval_steps[0], learned=False)

    arguments = load_diffusers_unclip_decoder(
        folder, variant=variant, guidance_scale=guidance_scales[1]
    ).constructor_arguments()
    decoder = CFGuidance(**{**arguments, "null": arguments["null"] | empty})
    config, size = _sized(folder / "decoder")
    learned = config["out_channels"] == 2 * config["in_channels"]
    decoder_sampler = _sampler(decoder, folder / "decoder_scheduler", eval_steps[1], learned=learned)
    check_images(decoder_sampler)

    learned = _scheduler(folder / "super_res_scheduler").get("variance_type") == VARIANCES[True]
    first, last = (
        load_diffusers_unet(folder / part, variant=variant, learned_variance=learned)
        for part in ("super_res_first", "super_res_last")
    )
    upsampler = SuperResolution(ExpertDenoisers(first, {LAST: last}), mode="bicubic", antialias=True)
    _, large = _sized(folder / "super_res_first")
    return DALLE2(
        clip,
        DiffusionPrior(prior_sampler, scale, finish=unchanged),
        decoder_sampler,
        [_sampler(upsampler, folder / "super_res_scheduler", eval_steps[2], learned=learned)],
        sizes=(size, large),
        channels=config["in_channels"],
    )


def _scheduler(folder: Path) -> dict[str, Any]:
    if not (folder / SCHEDULER).is_file():
        raise FileNotFoundError(f"{folder} has no {SCHEDULER}; get the missing file")
    config: dict[str, Any] = json.loads((folder / SCHEDULER).read_text())
    return config


def _sampler(model: nn.Module, folder: Path, eval_steps: int, *, learned: bool) -> DDPMSampler:
    config = _scheduler(folder)
    variance = config.get("variance_type", VARIANCES[False])
    if variance != VARIANCES[learned]:
        raise ValueError(
            f"{folder.name}: variance_type={variance!r} must be {VARIANCES[learned]!r}, as its network "
            f"{'predicts' if learned else 'does not predict'} the variance"
        )
    schedule, predictor, spacing = from_diffusers_config(config)
    return DDPMSampler(model, schedule, predictor, eval_steps=eval_steps, grid=spacing)


def _sized(folder: Path) -> tuple[Mapping[str, Any], int]:
    """The configuration of a network, and the side of its images."""
    config = read_config(find_model(folder, ()))
    size = config.get("sample_size")
    if not isinstance(size, int):
        raise ValueError(f"{folder.name}: sample_size={size!r} must be one number, the side of its images")
    return config, size


def check_images(sampler: Sampler) -> None:
    """Refuse a decoder whose images may leave [-1, 1], as the pipeline clips them there before they are upsampled."""
    match sampler.predictor.clamp:
        case StaticClamp(low, high) if low >= -1 and high <= 1:
            return
    raise ValueError(
        f"decoder_scheduler: its estimates are bounded by {sampler.predictor.clamp}, but images must be in [-1, 1]; "
        "set clip_sample to true, and clip_sample_range to 1 at most"
    )
