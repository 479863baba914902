"""``diffusion-labs convert SRC DST``: a model from one format to another."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro
from safetensors import SafetensorError

from diffusion_labs.cli import UserError
from diffusion_labs.interop.convert import PRESETS, read_model, write_compvis, write_diffusers
from diffusion_labs.pretrained import save_pretrained


def run(words: Sequence[str]) -> None:
    """Run the command with these arguments."""
    tyro.cli(convert, args=words, prog="diffusion-labs convert")


def convert(
    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SRC")],
    target: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DST")],
    to: Literal["own", "diffusers"] = "own",
    preset: str | None = None,
    like: Path | None = None,
    averaged: bool = False,
    variant: str | None = None,
    version: Literal[1, 2] = 1,
) -> None:
    """Convert a model. The format of SRC is found from what is in it; a DST that ends in .safetensors is CompVis's.

    SRC is a folder of ours, a folder of diffusers (pipeline, U-Net or autoencoder), or a file of weights of Stable
    Diffusion, Latent Diffusion or guided-diffusion.

    Args:
        source: what to read.
        target: what to write: a folder, or a file that ends in .safetensors.
        to: the format of a folder.
        preset: sizes of the model in a file, by name: that of a U-Net such as cin256_v2 or stable_diffusion_1, also for
            the whole system in a checkpoint, or of an autoencoder such as kl_f8.
        like: a folder of ours with a model of the same sizes as the one in a file.
        averaged: take the moving averages of the U-Net of a file.
        variant: part of the names of the weights in a folder of diffusers, such as fp16.
        version: of the names in a file to write, those of Stable Diffusion 1 or 2.
    """
    if preset is not None and preset not in PRESETS:
        raise UserError(f"--preset is {preset}; choose one of: {', '.join(PRESETS)}")
    try:
        model = read_model(source, preset=preset, like=like, averaged=averaged, variant=variant)
        if target.suffix == ".safetensors":
            write_compvis(model, target, version=version)
        elif to == "diffusers":
            write_diffusers(model, target)
        else:
            save_pretrained(model, target)
    except (ValueError, OSError, ImportError, SafetensorError) as error:
        raise UserError(str(error)) from error
    print(target)
