"""``diffusion-labs evaluate RUN_OR_FOLDER --reference DATA``: how good samples are, beside real images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from diffusion_labs.cli import UserError, check_out
from diffusion_labs.cli.parsing import parse
from diffusion_labs.spelling import nearest

CLASSIFIER = "classifier"
FILES = (".pt", ".pth", ".ts")  # of TorchScript networks


def run(words: Sequence[str]) -> None:
    """Run the command with these arguments."""
    parse(evaluate_samples, words, "diffusion-labs evaluate")


def evaluate_samples(
    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_OR_FOLDER")],
    reference: Path,
    features: str = "classifier",
    count: int = 1000,
    size: int | None = None,
    steps: int = 50,
    guidance_scale: float = 1.0,
    seed: int = 0,
    level: float = 0.95,
    levels: int | None = None,
    likelihood: int | None = None,
    clip: Path | None = None,
    out: Path | None = None,
    device: str = "cpu",
) -> None:
    """Measure the samples of a run, or the images in a folder, beside real images, and write a card of it.

    `torchrun --nproc-per-node N -m diffusion_labs evaluate ...` divides the work among N processes.

    Args:
        source: a run's folder, from which samples are drawn, or images, as in --reference.
        reference: real images: IDX files, a tar or a folder of tars, or a folder of image files. Best those that the
            model was trained on: then copies of them are found.
        features: what distances are measured in: "classifier", trained on the classes of the reference; the file of a
            TorchScript network (.pt), such as FID's Inception; or a vision model of transformers, by its folder or its
            name on the hub, such as facebook/dinov2-base.
        count: samples, and as many real images; of these at least twice as many are read, and 10,000 for a classifier.
        size: height and width of the images; the model's if not given.
        steps: calls of the network for each sample.
        guidance_scale: 1 follows the model.
        seed: of the first sample, the choice of real images, and the classifier.
        level: of the confidence intervals.
        levels: noise levels at which the loss of a run's model is measured, on the reference, without guidance; 10 if
            not given, 0 for none.
        likelihood: images of the reference whose bits per dimension are measured, under a run's model of pixels without
            guidance. Slow: a few hundred calls of the network, with gradients, for each.
        clip: folder of a CLIP of transformers, for the score of samples and the captions they were drawn from. Best not
            the one that the model was trained with.
        out: file of the card; evaluation.json in the folder if not given.
        device: where to compute.
    """
    from diffusion_labs.cli.evaluation_card import evaluated, table
    from diffusion_labs.cli.mistakes import MISTAKES
    from diffusion_labs.cli.model_measures import Wanted, model_table
    from diffusion_labs.files import write_json
    from diffusion_labs.recipes.card import EVALUATION
    from diffusion_labs.training.world import joined, local_device

    if count < 1 or steps < 1:
        raise UserError(f"--count ({count}) and --steps ({steps}) must be at least 1")
    check_out(out)
    check_features(features)
    try:
        with joined() as world:  # over gloo: what they exchange is on the CPU
            evaluation, card = evaluated(
                source,
                reference,
                features,
                count,
                size,
                steps,
                guidance_scale,
                seed,
                level,
                local_device(device),
                Wanted(levels, likelihood, clip),
            )
    except MISTAKES as error:
        raise UserError(str(error)) from error
    if not world.main:
        return
    path = out or source / EVALUATION
    write_json(path, card)
    print(table(evaluation))
    print(model_table(card), end="")
    print(path)


def check_features(features: str) -> None:
    """Refuse a misspelt name, or a file that is not there, before the hub is asked for it."""
    if features == CLASSIFIER or Path(features).exists():
        return
    if features.endswith(FILES):
        raise UserError(f"--features is {features}, and there is no such file")
    if nearest(features, [CLASSIFIER]):
        raise UserError(f"unknown features '{features}'; did you mean '{CLASSIFIER}'?")
