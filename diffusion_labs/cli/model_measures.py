"""What ``diffusion-labs evaluate`` measures of a model itself, and of samples with captions."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion_labs.cli import UserError
from diffusion_labs.metrics import (
    HutchinsonTrace,
    LossPerLevel,
    bits_per_dimension,
    clip_score,
    log_likelihood,
    loss_per_level,
    mean_interval,
)
from diffusion_labs.metrics.classifier import to_float
from diffusion_labs.metrics.processes import in_parts
from diffusion_labs.models.encoders import TransformersCLIP
from diffusion_labs.models.encoders.tokenizer import import_transformers
from diffusion_labs.randomness import seeded
from diffusion_labs.recipes.any_images import AnyImages
from diffusion_labs.recipes.card import interval_text
from diffusion_labs.recipes.drawing import guided_by
from diffusion_labs.recipes.model_sizes import ModelSizes, NoisedData
from diffusion_labs.samplers import Sampler
from diffusion_labs.training.log import progress_bar
from diffusion_labs.training.world import current_world

LEVELS = 10  # noise levels, if not said otherwise
BIN = 2 / 255  # between neighbouring values of 8-bit images in [-1, 1]
BATCH_SIZE = 50  # images whose likelihood is computed at once


@dataclass(frozen=True)
class Wanted:
    """What is asked for; see ``diffusion_labs.cli.evaluate``.

    Attributes:
        levels: noise levels; ``None`` is as many as usual where there is a loss.
        likelihood: images.
        clip: folder.
    """

    levels: int | None = None
    likelihood: int | None = None
    clip: Path | None = None

    def check_folder(self, source: Path) -> None:
        """Refuse what a folder of images has not."""
        for option, value in (("levels", self.levels), ("likelihood", self.likelihood), ("clip", self.clip)):
            if value is not None:
                raise UserError(f"--{option} is for the model of a run, and {source} is none; leave it out")

    def check(self, sizes: ModelSizes, data: NoisedData | None, real: AnyImages) -> None:
        """Refuse what does not apply to a model, or to these real images."""
        if self.levels is not None and self.levels < 0:
            raise UserError(f"--levels is {self.levels}; it must be at least 0")
        if self.levels and data is None:
            raise UserError("this model is a system of several, each trained on something else; leave --levels out")
        if self.likelihood is not None:
            if data is None or not data.pixels:
                raise UserError(
                    "the noise of this model is not added to pixels, so that it has no likelihood of images; leave "
                    "--likelihood out"
                )
            if not 2 <= self.likelihood <= len(real.images):
                raise UserError(
                    f"--likelihood is {self.likelihood}; it must be from 2 to the {len(real.images)} real images read"
                )
        if self.clip is not None:
            if "caption" not in sizes.conditions:
                raise UserError("this model takes no captions, which CLIP could compare with samples; leave --clip out")
            check_clip(self.clip)

    def measure(self, sampler: Sampler, data: NoisedData | None, count: int, seed: int, level: float) -> dict[str, Any]:
        """The loss at noise levels and the likelihood, of the first samples of some data, as plain data."""
        found: dict[str, Any] = {}
        levels = LEVELS if self.levels is None else self.levels
        if data is None:
            return found
        with guided_by(sampler, 1.0):
            if levels:
                found["loss_per_level"] = losses(sampler, some(data, 0, count), levels, seed, level)
            if self.likelihood is not None:
                found["bits_per_dimension"] = bits(sampler, some(data, 0, self.likelihood), seed, level)
        return found


def some(data: NoisedData, first: int, stop: int) -> NoisedData:
    """The samples at the places ``first`` to ``stop - 1``."""
    given = {name: value[first:stop] for name, value in data.conditional_inputs.items()}
    return data._replace(x0=data.x0[first:stop], conditional_inputs=given)


def noised(model: Any, sizes: ModelSizes, real: AnyImages, count: int, seed: int) -> NoisedData | None:
    """What the model's noise is added to, of the first real images, with what is said of them."""
    device = next(model.parameters()).device
    images = to_float(real.images[:count]).to(device)
    names = list(sizes.class_names)
    conditions: dict[str, Any] = {}
    if "caption" in sizes.conditions and real.captions is not None:
        conditions["caption"] = real.captions[:count]
    elif names and real.labels is not None and set(real.class_names) <= set(names):
        own = torch.tensor([names.index(name) for name in real.class_names])
        conditions["class"] = own[real.labels[:count]].to(device)
    with torch.no_grad():
        return sizes.noised(model, images, conditions, seeded(range(seed, seed + len(images))))


def losses(sampler: Sampler, data: NoisedData, levels: int, seed: int, level: float) -> dict[str, Any]:
    """The errors at noise levels."""

    def of_part(first: int, stop: int) -> LossPerLevel:
        part = some(data, first, stop)
        return loss_per_level(sampler, part.x0, part.conditional_inputs, levels=levels, seed=seed, first=first)

    parts = in_parts(len(data.x0), of_part)
    x0s, noises = torch.cat([part.x0 for part in parts], 1), torch.cat([part.noise for part in parts], 1)
    rows = [
        {
            "log_snr": log_snr.item(),
            "x0": mean_interval(x0, level).within(0.0)._asdict(),
            "noise": mean_interval(noise, level).within(0.0)._asdict(),
        }
        for log_snr, x0, noise in zip(parts[0].log_snr, x0s, noises, strict=True)
    ]
    return {**_of(data), "levels": rows}


def bits(sampler: Sampler, data: NoisedData, seed: int, level: float) -> dict[str, Any]:
    """Bits per dimension of 8-bit images, a bound: uniform noise of their steps is added, and the trace estimated.

    The noise and the estimate of image i are drawn from the seed ``seed + i``.
    """

    def of_part(first: int, stop: int) -> Tensor:
        found = []
        with progress_bar("likelihood", "image", stop - first, disable=not current_world().main) as bar:
            for place in range(first, stop, BATCH_SIZE):
                x0, given, _ = some(data, place, min(place + BATCH_SIZE, stop))
                generators = seeded(range(seed + place, seed + place + len(x0)))
                uniform = torch.stack([torch.rand(x0.shape[1:], generator=generator) for generator in generators])
                x0 = x0 + (uniform.to(x0) - 0.5) * BIN
                nats = log_likelihood(sampler, x0, given, trace=HutchinsonTrace(x0, generators))
                found.append(bits_per_dimension(nats, x0, bin_width=BIN).cpu())
                bar.update(len(x0))
        return torch.cat(found)

    found = torch.cat(in_parts(len(data.x0), of_part))
    return {**_of(data), **mean_interval(found, level)._asdict()}


def check_clip(folder: Path) -> None:
    """Raise a ``UserError`` if a folder has no CLIP."""
    if not folder.is_dir():
        raise UserError(f"--clip is {folder}, which is no folder; give that of a CLIP of transformers")
    kind = import_transformers("--clip").AutoConfig.from_pretrained(folder).model_type
    if kind != "clip":
        raise UserError(f"--clip is {folder}, which has a model of the type '{kind}', and not a CLIP")


def score_by_clip(
    folder: Path, samples: Tensor, real: AnyImages, chosen: Tensor, level: float, device: str
) -> dict[str, Any]:
    """CLIP's score of samples that were drawn from the captions of chosen real images, and that of these images."""
    clip: Any = TransformersCLIP.from_pretrained(folder).to(device)
    assert real.captions is not None  # samples were drawn from them
    captions = [real.captions[i] for i in chosen.tolist()]

    def of_part(first: int, stop: int) -> list[Tensor]:
        return [clip_score(images[first:stop], captions[first:stop], clip) for images in (samples, real.images[chosen])]

    scores, others = (torch.cat(parts) for parts in zip(*in_parts(len(captions), of_part), strict=True))
    return {"clip": str(folder), **mean_interval(scores, level)._asdict(), "real": others.mean().item()}


def model_table(card: Mapping[str, Any]) -> str:
    """The figures of a card as lines of text; none if it has none."""
    lines = []
    if "clip_score" in card:
        found = card["clip_score"]
        lines.append(f"CLIP score {interval_text(found)}; real images with these captions {found['real']:.5g}")
    if "bits_per_dimension" in card:
        found = card["bits_per_dimension"]
        lines.append(f"bits per dimension of {found['images']} real images {interval_text(found)}")
    if "loss_per_level" in card:
        found = card["loss_per_level"]
        lines.append(f"squared error of {found['of']} of {found['images']} real images at noise levels")
        lines.append(f"{'log-SNR':>10}{'clean data':>14}   {'interval':^25}{'noise':>12}   {'interval':^25}".rstrip())
        for row in found["levels"]:
            lines.append(f"{row['log_snr']:10.2f}{_columns(row['x0'], 14)}{_columns(row['noise'], 12)}".rstrip())
    return "".join(f"{line}\n" for line in lines)


def _of(data: NoisedData) -> dict[str, Any]:
    """How many, of what, and with which conditional inputs of the network."""
    kind = "pixels" if data.pixels else "latents"
    return {"images": len(data.x0), "of": kind, "conditional_inputs": sorted(data.conditional_inputs)}


def _columns(found: Mapping[str, Any], width: int) -> str:
    interval = f"{found['low']:.5g} to {found['high']:.5g}"
    return f"{found['value']:{width}.5g}   {interval:^25}"
