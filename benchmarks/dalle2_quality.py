"""How good a run of the recipe dalle2-mnist is, and whether it passes its gates.

The share of images from captions that a classifier, trained on the real training images, recognises as the class of the
caption, beside that of images decoded from the embedding of any training image. How much nearer the prior's embeddings
are to the mean embedding of the images of their class than those of the captions are, and how many are nearer to it
than to that of any other class. The peak signal-to-noise ratio of test images that were inverted and decoded again, in
several numbers of steps, at the size of the decoder.

    python -m benchmarks dalle2_quality runs/dalle2-mnist --data-dir DIR --out docs/dalle2-mnist.png
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import tyro
from torch import Tensor

from benchmarks.gates import check
from diffusion_labs.data import EncodedDataset, IDXImages
from diffusion_labs.metrics import accuracy, train_classifier
from diffusion_labs.randomness import seeded
from diffusion_labs.recipes.dalle2.clip import embeddings_of
from diffusion_labs.recipes.drawing import draw, guide_prior, save_grid, settings
from diffusion_labs.recipes.latent_diffusion import dataset_images
from diffusion_labs.recipes.mnist_captions import captioned_mnist
from diffusion_labs.recipes.run import load_run

GATES = {
    "recognised_from_text": (0.93, 1.0),
    "recognised_from_a_random_embedding": (0.0, 0.2),
    "prior_nearer_than_text": (0.98, 1.0),
    "prior_nearest_to_its_class": (0.98, 1.0),
    "smallest_rise_of_inversion_psnr": (2.0, 99.0),  # dB
}
INVERSION_STEPS = (5, 10, 20, 50)
SHOWN = 40  # images on the picture


def main(arguments: Sequence[str]) -> None:
    """Run with command line arguments."""
    tyro.cli(measure, args=arguments, prog="python -m benchmarks dalle2_quality")


def measure(
    run_dir: tyro.conf.Positional[Path],
    data_dir: Path,
    count: int = 500,
    steps: int = 50,
    guidance_scale: float = 2.0,
    prior_guidance_scale: float = 1.0,
    inversions: int = 64,
    out: Path | None = None,
) -> None:
    """Measure a run, write ``quality.json`` into its folder, and fail if a gate is missed.

    Args:
        run_dir: the run.
        data_dir: the IDX files that it was trained on.
        count: images of each kind.
        steps: calls of the decoder for each.
        guidance_scale: of the decoder.
        prior_guidance_scale: of the prior.
        inversions: test images to invert.
        out: picture of the first images from captions.
    """
    model, sizes = load_run(run_dir)
    guide_prior(model, prior_guidance_scale)
    size = sizes.image_shape[1]
    train, test = (IDXImages(data_dir, split, size=size) for split in ("train", "test"))
    classifier = train_classifier(train.images, train.labels, train.num_classes)
    embeddings = torch.cat([*embeddings_of(EncodedDataset(run_dir / "embeddings"))])

    labels = torch.arange(count) % train.num_classes
    captioned = captioned_mnist(data_dir, size)
    captions = [captioned.caption(i // train.num_classes, label) for i, label in enumerate(labels.tolist())]
    how: dict[str, Any] = {"guidance_scale": guidance_scale, "steps": steps}
    images = draw(model, sizes, captions, seed=0, progress_bar=True, **how)
    if out is not None:
        save_grid(images[:SHOWN], out, columns=train.num_classes)
    anyone = embeddings[torch.randperm(len(embeddings), generator=torch.Generator().manual_seed(0))[:count]]
    random = decode(model, anyone, **how)
    ratios = {
        number: inversion_psnr(model, dataset_images(test, range(inversions)), number) for number in INVERSION_STEPS
    }
    rises = torch.tensor(list(ratios.values())).diff()
    report = {
        "recognised_real": accuracy(classifier, test.images, test.labels),
        "recognised_from_text": accuracy(classifier, images, labels),
        "recognised_from_a_random_embedding": accuracy(classifier, random, labels[: len(random)]),
        **prior_report(model, captions, labels, class_means(embeddings, train.labels)),
        **{f"inversion_psnr_{number}_steps": ratio for number, ratio in ratios.items()},
        "smallest_rise_of_inversion_psnr": rises.min().item(),
    }
    check(report, GATES, run_dir / "quality.json")


def class_means(embeddings: Tensor, labels: Tensor) -> Tensor:
    """The direction of the mean embedding of each class, ``[classes, d]``."""
    means = [embeddings[labels == label].mean(0) for label in range(int(labels.max()) + 1)]
    return F.normalize(torch.stack(means), dim=1)


@torch.no_grad()
def prior_report(model: Any, captions: Sequence[str], labels: Tensor, means: Tensor) -> dict[str, float]:
    """How near embeddings of the prior, and those of captions, are to the mean embeddings of classes."""
    conditions = model.encode_text(list(captions))
    drawn = model.prior.sample(conditions, generator=seeded(range(len(captions)))) @ means.T
    told = conditions["text_embedding"] @ means.T
    chosen = labels[:, None]
    nearer = drawn.gather(1, chosen) - told.gather(1, chosen)
    return {
        "prior_nearer_than_text": (nearer > 0).float().mean().item(),
        "cosine_of_prior": drawn.gather(1, chosen).mean().item(),
        "cosine_of_text": told.gather(1, chosen).mean().item(),
        "prior_nearest_to_its_class": (drawn.argmax(1) == labels).float().mean().item(),
        "text_nearest_to_its_class": (told.argmax(1) == labels).float().mean().item(),
    }


def decode(model: Any, embeddings: Tensor, *, guidance_scale: float, steps: int) -> Tensor:
    """Images of embeddings alone, in [-1, 1]."""
    found = []
    with settings(model.decoder, eval_steps=steps), settings(model.decoder.model, guidance_scale=guidance_scale):
        for first, some in zip(range(0, len(embeddings), 250), embeddings.split(250), strict=True):
            generators = seeded(range(first, first + len(some)))
            found.append(model.upsample(model.decode(some, generator=generators), generator=generators))
    return torch.cat(found).clamp(-1, 1)


def inversion_psnr(model: Any, images: Tensor, steps: int) -> float:
    """The peak signal-to-noise ratio of images that were encoded and decoded again, at the size of the decoder."""
    side = model.sizes[0]
    small = F.interpolate(images, size=(side, side), mode="bilinear", antialias=True)
    with settings(model.decoder, progress_bar=False):
        embedding, noise = model.encode(images, steps=steps)
        found = model.decode(embedding, noise=noise, sampler=model.deterministic(steps)).clamp(-1, 1)
    error = (found - small).square().flatten(1).mean(1)
    return (10 * torch.log10(4 / error)).mean().item()  # values span 2
