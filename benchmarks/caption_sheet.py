"""What a run of ldm-emoji or dalle2-emoji draws for 25 captions, beside the nearest of its training images.

Each cell shows the caption, the sample, and right of it the training image with the smallest mean squared difference,
so that the reader sees what is memory and what is new. A star marks captions that the training data do not have.
Printed is how near the samples are to the training images of their captions: the correlation of colours in fields,
beside that of samples in a wrong order, and the share whose nearest image is the caption's own.

    python -m benchmarks caption_sheet runs/ldm-emoji --data-dir DIR
    python -m benchmarks caption_sheet runs/dalle2-emoji --data-dir DIR --out docs/dalle2-emoji.png
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import tyro
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from diffusion_labs.data import TarImages
from diffusion_labs.recipes.drawing import draw, guide_prior
from diffusion_labs.recipes.latent_diffusion import dataset_images
from diffusion_labs.recipes.run import load_run

CAPTIONS = (
    *(
        "smiling face with open mouth",
        "unamused face",
        "angry face",
        "smiling cat face with heart-shaped eyes",
        "snowman",
    ),
    *("green apple", "red apple", "tangerine", "banana", "broccoli"),
    *("large purple circle", "large orange circle", "large red square", "large blue square", "yellow heart"),
    *("japan flag", "france flag", "raised hand, dark skin tone", "man: blond hair", "woman teacher, light skin tone"),
    *("blue apple", "purple cat face", "green snowman", "large pink square", "orange face"),
)
PIXELS = 96  # side of an image on the sheet
MARGIN, TEXT = 8, 30


def main(arguments: Sequence[str]) -> None:
    """Run with command line arguments."""
    tyro.cli(sheet, args=arguments, prog="python -m benchmarks caption_sheet")


def sheet(
    run_dir: tyro.conf.Positional[Path],
    data_dir: Path,
    out: Path = Path("docs/ldm-emoji.png"),
    guidance_scale: float = 3.0,
    prior_guidance_scale: float | None = None,
    steps: int = 50,
    seed: int = 0,
    overfitted: int | None = None,
) -> None:
    """Draw the sheet, and print how near the samples are.

    Args:
        run_dir: the run.
        data_dir: the tars that it was trained on.
        out: the picture.
        guidance_scale: of the samples.
        prior_guidance_scale: of their embeddings, for DALL-E 2; the prior's own if not given.
        steps: calls of the network for each sample.
        seed: of the first sample.
        overfitted: the run's ``--count``: its first 25 training images are drawn, and the root mean squared error
            to them is printed.
    """
    model, sizes = load_run(run_dir)
    guide_prior(model, prior_guidance_scale)
    dataset = TarImages(data_dir, sizes.image_shape[1], count=overfitted)
    images = dataset_images(dataset, range(len(dataset)))
    captions = CAPTIONS if overfitted is None else dataset.captions[: len(CAPTIONS)]
    samples = draw(model, sizes, captions, seed=seed, guidance_scale=guidance_scale, steps=steps, progress_bar=True)
    nearest = torch.cdist(samples.flatten(1), images.flatten(1)).argmin(1)
    known = [caption in dataset.captions for caption in captions]
    titles = [caption if old else f"{caption} *" for caption, old in zip(captions, known, strict=True)]
    paint(samples, images[nearest], titles, out)

    places = torch.tensor([dataset.captions.index(title) for title in titles if title in dataset.captions])
    drawn, meant = samples[torch.tensor(known)], images[places]
    report = {
        "nearest_is_the_caption_s": (nearest[torch.tensor(known)] == places).float().mean().item(),
        "colour_correlation": correlation(drawn, meant),
        "colour_correlation_of_a_wrong_order": correlation(drawn.roll(1, 0), meant),
        "root_mean_squared_error": (drawn - meant).square().mean().sqrt().item(),
    }
    print(json.dumps(report, indent=2))
    print(out)


def correlation(samples: Tensor, meant: Tensor) -> float:
    """The correlation of the mean colours in 4 x 4 fields of two sets of images."""
    pooled = [torch.nn.functional.adaptive_avg_pool2d(images, 4).flatten() for images in (samples, meant)]
    return float(torch.corrcoef(torch.stack(pooled))[0, 1])


def paint(samples: Tensor, neighbours: Tensor, captions: Sequence[str], out: Path, columns: int = 5) -> None:
    """Write the sheet."""
    width, height = 2 * PIXELS + 2 * MARGIN, PIXELS + TEXT + MARGIN
    rows = -(-len(captions) // columns)
    picture = Image.new("RGB", (columns * width + MARGIN, rows * height + MARGIN), "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(12)
    for i, caption in enumerate(captions):
        left, top = MARGIN + i % columns * width, MARGIN + i // columns * height
        pen.multiline_text((left, top), wrapped(caption, pen, font, 2 * PIXELS), fill="black", font=font, spacing=1)
        picture.paste(tile(samples[i], PIXELS), (left, top + TEXT))
        picture.paste(tile(neighbours[i], PIXELS // 2), (left + PIXELS + MARGIN, top + TEXT + PIXELS // 2))
    out.parent.mkdir(parents=True, exist_ok=True)
    picture.save(out)


def tile(image: Tensor, side: int) -> Image.Image:
    """An image ``[3, h, w]`` in [-1, 1] of a size."""
    pixels = ((image.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)


def wrapped(text: str, pen: ImageDraw.ImageDraw, font: Any, width: int) -> str:
    """A text in lines of a width."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if pen.textlength(longer, font=font) > width and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    return "\n".join(lines)
