"""``DALLE2`` written as the ``UnCLIPPipeline`` of diffusers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from diffusion_labs.adapters import CFGuidance, ExpertDenoisers, SuperResolution
from diffusion_labs.files import check_vacant, whole_folder, write_json
from diffusion_labs.interop.diffusers_config import FILE as SCHEDULER
from diffusion_labs.interop.diffusers_config_written import to_diffusers_config
from diffusion_labs.interop.diffusers_pipeline_index import INDEX, UNCLIP, UNCLIP_PARTS
from diffusion_labs.interop.diffusers_prior import save_diffusers_prior
from diffusion_labs.interop.diffusers_text import write_unclip_text_encoder
from diffusion_labs.interop.diffusers_unclip import save_diffusers_unclip_decoder
from diffusion_labs.interop.diffusers_unclip_pipeline import LAST, VARIANCES, check_images
from diffusion_labs.interop.diffusers_unet import save_diffusers_unet
from diffusion_labs.models.adm_unet import ADMUNet
from diffusion_labs.models.adm_unet.network import LearnedVarianceHead
from diffusion_labs.models.dalle2 import DALLE2, DiffusionPrior, unchanged
from diffusion_labs.models.encoders import UnCLIPTextEncoder
from diffusion_labs.models.transformer import PriorTransformer
from diffusion_labs.samplers.sampler import Sampler

# Keys that an UnCLIPScheduler has no choice of
FIXED = {"beta_schedule": "squaredcos_cap_v2", "timestep_spacing": "linspace", "thresholding": False}
TEXT_PROJ = "diffusers.pipelines.deprecated.unclip.text_proj"
SHARED = ("num_train_timesteps", "beta_schedule", "prediction_type", "clip_sample", "clip_sample_range")


def save_diffusers_unclip(model: DALLE2, folder: str | Path) -> None:
    """Write a folder that ``UnCLIPPipeline.from_pretrained`` of diffusers reads, for the same images.

    Steps and scales of the guidance are no part of it. The text projection is named by its place in diffusers since the
    pipeline is deprecated there; for older versions, it is ``"unclip"`` in the index, as in released folders.

    Args:
        model: as ``load_diffusers_unclip`` reads it: texts by an ``UnCLIPTextEncoder``, whose "" is what no text is to
            the guidance; a ``DiffusionPrior`` with ``finish=unchanged``; one upsampler, of one network or of
            ``ExpertDenoisers`` for the last step; ``DDPMSampler`` on the grid ``linspace`` in all of them.
        folder: is made.

    Raises:
        ValueError: naming the part that diffusers has not.
        FileExistsError: if there is something in the folder.
    """
    folder = Path(folder)
    check_vacant(folder)
    clip: Any = _of("clip", model.clip, UnCLIPTextEncoder)
    prior: Any = _of("prior", model.prior, DiffusionPrior)
    if prior.finish is not unchanged or len(prior.conditioner.encoders):
        raise ValueError(
            "the prior finishes or encodes what it is given, which that of diffusers does not; build it "
            "with finish=unchanged and without a conditioner"
        )
    guided: Any = _of("model of the prior", prior.sampler.model, CFGuidance)
    network: Any = _of("network of the prior", guided.model, PriorTransformer)
    decoder: Any = _of("model of the decoder", model.decoder.model, CFGuidance)
    for part, guidance in (("prior", guided), ("decoder", decoder)):
        _check_nulls(part, guidance, clip.empty())
    check_images(model.decoder)
    if len(model.upsamplers) != 1:
        raise ValueError(f"there are {len(model.upsamplers)} upsamplers, but an {UNCLIP} has one")
    upsampler: Any = model.upsamplers[0]
    first, last = _networks(upsampler.model)
    schedulers = {
        "prior_scheduler": _scheduler(prior.sampler, False),
        "decoder_scheduler": _scheduler(model.decoder, _learns(decoder.model)),
        "super_res_scheduler": _scheduler(upsampler, _learns(first)),
    }

    with whole_folder(folder) as temporary:
        save_diffusers_prior(network, temporary / "prior", scale=prior.scale)
        save_diffusers_unclip_decoder(decoder, temporary, sample_size=model.sizes[0])
        for place, unet in (("super_res_first", first), ("super_res_last", last)):
            save_diffusers_unet(unet, temporary / place, sample_size=model.sizes[1])
        for name, config in schedulers.items():
            (temporary / name).mkdir()
            write_json(temporary / name / SCHEDULER, config)
        write_unclip_text_encoder(clip, temporary)
        write_json(temporary / INDEX, {"_class_name": UNCLIP, "_diffusers_version": "0.30.0", **_index()})


def _of(what: str, value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise ValueError(f"the {what} is a {type(value).__name__}, but that of an {UNCLIP} is a {kind.__name__}")
    return value


def _check_nulls(part: str, guidance: Any, empty: Mapping[str, Any]) -> None:
    """Refuse guidance from anything but the text ""."""
    for name, value in empty.items():
        null = getattr(guidance, f"null_{name}", None)
        if null is None or null.shape != value.shape or not torch.allclose(null.to(value), value, rtol=1e-3, atol=1e-4):
            raise ValueError(
                f"the {part} has not the encoding of '' as its null {name!r}, but an {UNCLIP} has; give it that of "
                "clip.empty()"
            )


def _networks(adapter: Any) -> tuple[ADMUNet, ADMUNet]:
    """Those of the steps before the last, and of the last."""
    _of("model of the upsampler", adapter, SuperResolution)
    if (adapter.mode, adapter.antialias) != ("bicubic", True):
        raise ValueError(
            f"the upsampler resizes with mode={adapter.mode!r} and antialias={adapter.antialias}, but diffusers with "
            "'bicubic' and True"
        )
    first: Any = adapter.model
    last: Any = first
    if type(first) is ExpertDenoisers:
        if first.highest_times != (LAST,):
            raise ValueError(
                f"the experts are for the times up to {list(first.highest_times)}, but in diffusers there is one for "
                f"the last step, {LAST}"
            )
        first, last = first.model, first.experts[0]
    return _of("network of the upsampler", first, ADMUNet), _of("network of the last step", last, ADMUNet)


def _learns(network: Any) -> bool:
    return type(network.head) is LearnedVarianceHead


def _scheduler(sampler: Sampler, learned: bool) -> dict[str, Any]:
    """The configuration of an ``UnCLIPScheduler``."""
    config = to_diffusers_config(sampler)
    wrong = {key: config.get(key) for key, value in FIXED.items() if config.get(key) != value}
    expected = {
        "_class_name": "DDPMScheduler",
        "variance_type": config.get("variance_type") if learned else "fixed_small",
    }
    wrong |= {key: config.get(key) for key, value in expected.items() if config.get(key) != value}
    if wrong:
        raise ValueError(
            f"a {type(sampler).__name__} with {wrong} is no UnCLIPScheduler; give DDPMSampler on the cosine schedule, "
            "with the grid linspace and the smaller variance"
        )
    return {
        "_class_name": "UnCLIPScheduler",
        **{key: config[key] for key in SHARED if key in config},
        "variance_type": VARIANCES[learned],
    }


def _index() -> dict[str, list[str]]:
    libraries = {"text_encoder": "transformers", "tokenizer": "transformers", "text_proj": TEXT_PROJ}
    return {name: [libraries.get(name, "diffusers"), classes[0]] for name, classes in UNCLIP_PARTS.items()}
