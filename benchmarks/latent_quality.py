"""How good a run of the recipe ldm-mnist is, and whether it passes its gates.

The peak signal-to-noise ratio of reconstructions of test images, and how many of them a classifier, trained on the real
training images, still recognises; the standard deviation of the scaled latents; the share of samples recognised as the
class that was asked for, without guidance and with a scale of 2.

    python -m benchmarks latent_quality runs/ldm-mnist --data-dir DIR
"""

from collections.abc import Sequence
from pathlib import Path

import torch
import tyro

from benchmarks.gates import check
from diffusion_labs.data import IDXImages
from diffusion_labs.metrics import accuracy, train_classifier
from diffusion_labs.recipes.drawing import draw
from diffusion_labs.recipes.latent_diffusion import dataset_images
from diffusion_labs.recipes.run import load_run

# What a run with the recipe's own settings reaches with room to spare
GATES = {"psnr": (22.0, 99.0), "latent_std": (0.95, 1.05), "recognised_guidance_2": (0.90, 1.0)}


def main(arguments: Sequence[str]) -> None:
    """Run with command line arguments."""
    tyro.cli(measure, args=arguments, prog="python -m benchmarks latent_quality")


@torch.no_grad()
def measure(run_dir: tyro.conf.Positional[Path], data_dir: Path, count: int = 1000, steps: int = 50) -> None:
    """Measure a run, write ``quality.json`` into its folder, and fail if a gate is missed.

    Args:
        run_dir: the run.
        data_dir: the IDX files that it was trained on.
        count: test images, and samples for each guidance scale.
        steps: calls of the network for each sample.
    """
    model, sizes = load_run(run_dir)
    train, test = (IDXImages(data_dir, split, size=sizes.image_shape[1]) for split in ("train", "test"))
    with torch.enable_grad():
        classifier = train_classifier(train.images, train.labels, train.num_classes)
    images = dataset_images(test, range(count))
    posteriors = [model.autoencoder.posterior(some) for some in images.split(250)]
    found = torch.cat([model.autoencoder.decode(posterior.mean) for posterior in posteriors]).clamp(-1, 1)
    latents = torch.cat([model.scale.normalize(posterior.sample()) for posterior in posteriors])
    error = (found - images).square().flatten(1).mean(1)

    labels = torch.arange(count) % len(sizes.class_names)
    report = {
        "psnr": (10 * torch.log10(4 / error)).mean().item(),  # values span 2
        "latent_std": latents.std().item(),
        "recognised_real": accuracy(classifier, images, test.labels[:count]),
        "recognised_reconstructions": accuracy(classifier, found, test.labels[:count]),
        **{
            f"recognised_guidance_{scale:g}": accuracy(
                classifier,
                draw(model, sizes, labels, seed=0, guidance_scale=scale, steps=steps, progress_bar=True),
                labels,
            )
            for scale in (1.0, 2.0)
        },
    }
    check(report, GATES, run_dir / "quality.json")
