"""Models from any format that is known here to any other."""

import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from diffusion_labs.files import surviving_folder, whole_file
from diffusion_labs.interop.compvis_autoencoder import load_compvis_autoencoder, to_compvis_autoencoder
from diffusion_labs.interop.compvis_checkpoint import load_compvis_checkpoint, to_compvis_checkpoint
from diffusion_labs.interop.compvis_unet import load_compvis_unet, to_compvis_unet
from diffusion_labs.interop.diffusers_folder import read_diffusers
from diffusion_labs.interop.dit import load_dit, to_dit
from diffusion_labs.interop.guided_diffusion import load_guided_diffusion, to_guided_diffusion
from diffusion_labs.interop.released_systems import SYSTEMS
from diffusion_labs.interop.torchmultimodal import (
    load_torchmultimodal_autoencoder,
    load_torchmultimodal_unet,
    to_torchmultimodal_autoencoder,
    to_torchmultimodal_unet,
)
from diffusion_labs.interop.weight_files import read_weights
from diffusion_labs.models.adm_unet import (
    ADM_CLASSIFIERS,
    ADM_UNETS,
    ADMClassifier,
    ADMUNet,
    adm_classifier,
    adm_unet,
)
from diffusion_labs.models.autoencoder import AutoencoderKL, VQModel, presets
from diffusion_labs.models.ldm import LDM_UNETS, LatentDiffusion, ldm_unet
from diffusion_labs.models.transformer import DITS, DiT, dit
from diffusion_labs.pretrained import from_pretrained
from diffusion_labs.pretrained.folder import CONFIG, FORMAT

# A format, and the beginnings of keys that all of its files have
FAMILIES: dict[str, tuple[str, ...]] = {
    "compvis": ("model.diffusion_model.", "first_stage_model."),
    "compvis_unet": ("time_embed.0.", "input_blocks.0.0.", "middle_block.0."),
    "compvis_autoencoder": ("encoder.down.0.", "decoder.up.0.", "encoder.mid.block_1."),
    "dit": ("x_embedder.proj.", "t_embedder.mlp.0.", "final_layer.linear."),
    "diffusers_unet": ("time_embedding.linear_1.", "down_blocks.0.", "mid_block."),
    "diffusers_autoencoder": ("encoder.down_blocks.0.", "decoder.up_blocks.0.", "encoder.mid_block."),
    "torchmultimodal_unet": ("timestep_encoder.1.", "down.0.", "bottleneck."),
    "torchmultimodal_autoencoder": ("encoder.resnet_encoder.", "decoder.resnet_decoder."),
}
_SHOWN = 5  # keys that an error lists

AUTOENCODERS: dict[str, Callable[[], nn.Module]] = {
    name: getattr(presets, name)
    for name in ("kl_f4", "kl_f8", "kl_f16", "kl_f32", "vq_f4", "vq_f4_noattn", "vq_f8", "vq_f8_n256", "vq_f16")
}
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    **{name: partial(ldm_unet, **sizes) for name, sizes in LDM_UNETS.items()},
    **{name: partial(dit, **sizes) for name, sizes in DITS.items()},
    **{f"adm_{name}": partial(adm_unet, **sizes) for name, sizes in ADM_UNETS.items()},
    **{f"adm_classifier_{name}": partial(adm_classifier, **sizes) for name, sizes in ADM_CLASSIFIERS.items()},
    **AUTOENCODERS,
}
PRESETS = tuple(NETWORKS)


def detect_format(keys: Iterable[str]) -> str:
    """The format of weights by the families of their keys.

    guided-diffusion and Latent Diffusion name the keys of U-Nets alike: both are ``"compvis_unet"``.

    Args:
        keys: of the weights.

    Returns:
        One of ``FAMILIES``.

    Raises:
        ValueError: if they are of none.
    """
    keys = list(keys)
    for name, beginnings in FAMILIES.items():
        if all(any(key.startswith(beginning) for key in keys) for beginning in beginnings):
            return name
    raise ValueError(f"keys like {sorted(keys)[:_SHOWN]} are of no format that is known here: {list(FAMILIES)}")


def read_model(
    source: str | Path,
    *,
    preset: str | None = None,
    like: str | Path | None = None,
    averaged: bool = False,
    variant: str | None = None,
) -> nn.Module:
    """A model in any format.

    Args:
        source: a folder of ours or of diffusers (of a pipeline, U-Net, Transformer, prior or autoencoder, or with
            ``decoder`` and ``text_proj`` of unCLIP), or a file of weights of Stable Diffusion, Latent Diffusion,
            guided-diffusion or torchmultimodal.
        preset: of files, which do not hold the sizes: one of ``PRESETS``.
        like: likewise: a folder of ours with a model of the same sizes.
        averaged: of files: take the moving averages of the U-Net.
        variant: of folders of diffusers: of the names of the weights, for example ``"fp16"``.

    Raises:
        FileNotFoundError: without such files.
        ValueError: for a format or a part that is not known; for missing sizes; or listing the weights that do not fit.
    """
    source = surviving_folder(Path(source))
    if source.is_file():
        tensors = read_weights(source)
        kind = detect_format(tensors)
        if kind.startswith("diffusers"):
            raise ValueError(f"{source} is a {kind} without its {CONFIG}; give the folder that has both")
        return _filled(_sized(kind, preset, like), tensors, averaged)
    if preset is not None or like is not None:
        raise ValueError("preset and like give the sizes of files, but a folder holds its own; leave them out")
    if not source.exists():
        raise FileNotFoundError(f"there is no file or folder {source}")
    config = json.loads((source / CONFIG).read_text()) if (source / CONFIG).is_file() else {}
    if config.get("format") == FORMAT:
        return from_pretrained(source)
    return read_diffusers(source, variant=variant)


def write_compvis(model: nn.Module, file: str | Path, *, version: int = 1) -> None:
    """Write a model as a ``.safetensors`` file by the names of Latent Diffusion.

    Args:
        model: a ``LatentDiffusion``, U-Net or autoencoder.
        file: is written whole or not at all.
        version: see ``to_compvis_checkpoint``.

    Raises:
        ValueError: for a model that has no names there.
    """
    _write(_of(model, COMPVIS, "CompVis")(model, version), file)


def write_guided_diffusion(model: nn.Module, file: str | Path) -> None:
    """Write a U-Net or a classifier as a ``.safetensors`` file by the names of guided-diffusion, without a null class.

    Raises:
        ValueError: for a model that has no names there.
    """
    _write(_of(model, GUIDED_DIFFUSION, "guided-diffusion")(model), file)


def write_torchmultimodal(model: nn.Module, file: str | Path) -> None:
    """Write a U-Net or an autoencoder as a ``.safetensors`` file by the names of torchmultimodal.

    Raises:
        ValueError: for a model that has no names there.
    """
    _write(_of(model, TORCHMULTIMODAL, "torchmultimodal")(model), file)


def _write(tensors: Mapping[str, Tensor], file: str | Path) -> None:
    with whole_file(Path(file)) as temporary:
        save_file(
            {key: value.detach().cpu().contiguous() for key, value in tensors.items()}, temporary, {"format": "pt"}
        )


def _sized(kind: str, preset: str | None, like: str | Path | None) -> nn.Module:
    """The network for the weights of a file."""
    if like is not None and preset is None:
        return from_pretrained(like)
    if preset is None or like is not None:
        raise ValueError(
            f"the file is of the format {kind}, which does not hold its sizes; give either a preset, or a folder with "
            "a model that it is like"
        )
    if kind == "compvis" and preset in SYSTEMS:
        return SYSTEMS[preset]()
    if kind == "compvis" and preset in LDM_UNETS:
        raise ValueError(
            f"a whole checkpoint of {preset} is not read; convert a folder of diffusers, or load the U-Net alone by "
            "load_compvis_unet"
        )
    if preset not in NETWORKS:
        raise ValueError(f"preset ({preset!r}) must be one of {list(PRESETS)}")
    return NETWORKS[preset]()


def _filled(model: nn.Module, tensors: Mapping[str, Tensor], averaged: bool) -> nn.Module:
    _of(model, FILLED, "files of CompVis")(model, tensors, averaged)
    return model.eval()


def _of(model: nn.Module, table: Mapping[type, Callable[..., Any]], what: str) -> Callable[..., Any]:
    if type(model) not in table:
        names = [kind.__name__ for kind in table]
        raise ValueError(f"a {type(model).__name__} is nothing that {what} has; give one of {names}")
    return table[type(model)]


def _parts(model: LatentDiffusion) -> dict[str, Any]:
    """The networks of a system, as ``load_compvis_checkpoint`` takes them."""
    encoders = list(model.conditioner.encoders.values())
    if len(encoders) > 1:
        raise ValueError(f"the conditioner has {len(encoders)} encoders, but a checkpoint of CompVis has one")
    return {
        "unet": next((part for part in model.sampler.model.modules() if type(part) is ADMUNet), None),
        "autoencoder": model.autoencoder,
        "condition_encoder": encoders[0] if encoders else None,
    }


def _fill_unet(model: ADMUNet, tensors: Mapping[str, Tensor], averaged: bool) -> None:
    classes = tensors.get("label_emb.weight")
    if detect_format(tensors) == "torchmultimodal_unet":
        load_torchmultimodal_unet(model, tensors)
    elif classes is not None and len(classes) in model.null_conditions.values():  # of guided-diffusion: no null class
        load_guided_diffusion(model, tensors)
    else:
        load_compvis_unet(model, tensors, averaged=averaged)


def _fill_kl(model: AutoencoderKL, tensors: Mapping[str, Tensor], averaged: bool) -> None:
    other = detect_format(tensors) == "torchmultimodal_autoencoder"
    (load_torchmultimodal_autoencoder if other else load_compvis_autoencoder)(model, tensors)


def _fill_system(model: LatentDiffusion, tensors: Mapping[str, Tensor], averaged: bool) -> None:
    factor = load_compvis_checkpoint(tensors, **_parts(model), averaged=averaged)
    if factor is not None:
        model.scale.scale.fill_(factor)


def _system_to_compvis(model: LatentDiffusion, version: int) -> dict[str, Tensor]:
    shift, factor = model.scale.shift, model.scale.scale
    if factor.numel() > 1 or bool((shift != 0).any()):
        raise ValueError("the scale of a checkpoint is one number, and it has no shift")
    return to_compvis_checkpoint(**_parts(model), scale_factor=factor.item(), version=version)


FILLED: dict[type, Callable[..., Any]] = {
    ADMUNet: _fill_unet,
    ADMClassifier: lambda model, tensors, averaged: load_guided_diffusion(model, tensors),
    AutoencoderKL: _fill_kl,
    VQModel: lambda model, tensors, averaged: load_compvis_autoencoder(model, tensors),
    DiT: lambda model, tensors, averaged: load_dit(model, tensors, averaged=averaged),
    LatentDiffusion: _fill_system,
}
COMPVIS: dict[type, Callable[..., Any]] = {
    ADMClassifier: lambda model, version: to_guided_diffusion(model),
    DiT: lambda model, version: to_dit(model),
    ADMUNet: lambda model, version: to_compvis_unet(model, conv_projections=version == 1),
    **dict.fromkeys((AutoencoderKL, VQModel), lambda model, version: to_compvis_autoencoder(model)),
    LatentDiffusion: _system_to_compvis,
}
GUIDED_DIFFUSION: dict[type, Callable[..., Any]] = dict.fromkeys((ADMUNet, ADMClassifier), to_guided_diffusion)
TORCHMULTIMODAL: dict[type, Callable[..., Any]] = {
    ADMUNet: to_torchmultimodal_unet,
    AutoencoderKL: to_torchmultimodal_autoencoder,
}
