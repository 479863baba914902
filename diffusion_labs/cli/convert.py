"""``diffusion-labs convert SRC DST``: a model from one format to another."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from diffusion_labs.cli import UserError, choose
from diffusion_labs.cli.parsing import parse

# Formats by the end of DST, the default first; other names are those of folders
FORMATS = {
    ".safetensors": ("compvis", "guided-diffusion", "torchmultimodal"),
    ".pt2": ("pt2", "aoti"),
}
FOLDERS = ("own", "diffusers")
PROGRAMS = FORMATS[".pt2"]
# Of files that are not written: no folder is meant by such a name
FOREIGN = (".ckpt", ".pt", ".pth", ".bin", ".pkl", ".onnx", ".gguf", ".zip")


def run(words: Sequence[str]) -> None:
    """Run the command with these arguments."""
    parse(convert, words, "diffusion-labs convert")


def convert(
    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SRC")],
    target: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DST")],
    to: Literal["own", "diffusers", "compvis", "guided-diffusion", "torchmultimodal", "pt2", "aoti"] | None = None,
    preset: str | None = None,
    like: Path | None = None,
    averaged: bool = False,
    variant: str | None = None,
    version: Literal[1, 2] = 1,
    sigma_rel: float | None = None,
    guidance_scale: float = 2.0,
    license: str = "unknown",
) -> None:
    """Convert a model. The format of SRC is found from what is in it.

    SRC is the folder of a run, a folder of ours, a folder of diffusers (pipeline, U-Net, Transformer, prior or
    autoencoder, or unCLIP's decoder with its text_proj), or a file of weights of Stable Diffusion, Latent Diffusion,
    guided-diffusion or torchmultimodal.

    Args:
        source: what to read; of a run, the averaged weights of its newest whole checkpoint.
        target: what to write: a folder, a file of weights that ends in .safetensors, or a program that ends in .pt2.
        to: the format of DST. It is "own" for a folder and "compvis" for weights if this is not given; "diffusers" is
            another of folders, "guided-diffusion" (which has no null class) and "torchmultimodal" are others of
            weights. A program draws from noise, with the sampler of a run, and needs PyTorch alone: "pt2" of
            torch.export, or "aoti", compiled by AOTInductor for machines like this one.
        preset: sizes of the model in a file, by name: that of a U-Net such as cin256_v2 or stable_diffusion_1, also for
            the whole system in a checkpoint, or of an autoencoder such as kl_f8.
        like: a folder of ours with a model of the same sizes as the one in a file.
        averaged: take the moving averages of the U-Net of a file.
        variant: part of the names of the weights in a folder of diffusers, such as fp16.
        version: of the names that "compvis" writes, those of Stable Diffusion 1 or 2.
        sigma_rel: relative width of the average of the weights, such as 0.07, of a run with snapshots (train
            --ema-snapshot-every).
        guidance_scale: of a program: 1 follows the model, more exaggerates the class.
        license: of the weights of a run, such as mit, for the card in the folder.
    """
    if target.suffix in FOREIGN:
        raise UserError(
            f"DST is {target}, and files of the kind {target.suffix} are not written; end it in .safetensors for "
            "weights, which hold no code, in .pt2 for a program, or give the name of a folder"
        )
    from diffusion_labs.cli.mistakes import MISTAKES
    from diffusion_labs.interop import compile_sampler, export_sampler
    from diffusion_labs.interop.convert import (
        PRESETS,
        read_model,
        write_compvis,
        write_guided_diffusion,
        write_torchmultimodal,
    )
    from diffusion_labs.interop.diffusers_folder import WRITERS as DIFFUSERS
    from diffusion_labs.interop.diffusers_folder import write_diffusers
    from diffusion_labs.pretrained import save_pretrained
    from diffusion_labs.recipes.card import model_card
    from diffusion_labs.recipes.kinds import described
    from diffusion_labs.recipes.program import write_program
    from diffusion_labs.recipes.run import load_run, read_run
    from diffusion_labs.recipes.stages import RUN_FILE

    if preset is not None:
        choose("preset", preset, PRESETS)
    formats = FORMATS.get(target.suffix, FOLDERS)
    name = to or formats[0]
    if name not in formats:
        ends = [f"a file that ends in {end}" for end, names in FORMATS.items() if name in names]
        raise UserError(f"--to {name} writes {(*ends, 'a folder')[0]}, but DST is {target}; change one of them")
    writers: dict[str, Callable[..., Any]] = {
        "own": save_pretrained,
        "diffusers": write_diffusers,
        "compvis": partial(write_compvis, version=version),
        "guided-diffusion": write_guided_diffusion,
        "torchmultimodal": write_torchmultimodal,
    }
    try:
        if (source / RUN_FILE).is_file() and preset is None and like is None:
            model, sizes = load_run(source, sigma_rel=sigma_rel)
            if name == "diffusers" and type(model) not in DIFFUSERS:
                raise UserError(
                    f"{source} has a {type(model).__name__}, for which diffusers has no class; leave --to out for a "
                    "folder of ours, or end DST in .pt2 for a program"
                )
            told = {"sizes": described(sizes), "recipe": read_run(source)["recipe"]}
            card = model_card(source, license=license, name=str(target))
            writers["own"] = partial(save_pretrained, about=told, card=card)
            for program, write in zip(PROGRAMS, (export_sampler, compile_sampler), strict=True):
                writers[program] = partial(write_program, sizes=sizes, write=write, guidance_scale=guidance_scale)
        elif name in PROGRAMS:
            raise UserError(f"--to {name} is for the folder of a run alone; export_sampler takes any sampler")
        elif sigma_rel is not None:
            raise UserError("--sigma-rel is for the folder of a run alone")
        else:
            model = read_model(source, preset=preset, like=like, averaged=averaged, variant=variant)
        writers[name](model, target)
    except MISTAKES as error:
        raise UserError(str(error)) from error
    print(target)
