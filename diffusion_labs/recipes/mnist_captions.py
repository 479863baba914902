"""MNIST with captions."""

from pathlib import Path

from diffusion_labs.data import IDXImages, TemplateCaptions
from diffusion_labs.recipes.mnist import mnist_folder

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
WORDS = {str(digit): word for digit, word in enumerate(DIGITS)}
TEMPLATES = (
    "a photo of the digit {word}",
    "{name}",
    "{word}, handwritten",
    "the number {name}",
    "a handwritten {word}",
    "{word}",
)


def captioned_mnist(data_dir: Path | None, size: int, split: str = "train") -> TemplateCaptions:
    """MNIST, or a data set in its format, of which each image has one of ``TEMPLATES`` as its caption."""
    return TemplateCaptions(IDXImages(mnist_folder(data_dir), split, size=size), TEMPLATES, words=WORDS)
