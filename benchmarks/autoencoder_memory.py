"""The memory and the seams of large images in tiles: the autoencoder of Stable Diffusion, with random weights.

python -m benchmarks autoencoder_memory --side 2048
"""

import json
import resource
import sys
import time
from collections.abc import Callable, Sequence

import torch
import tyro
from torch import Tensor

from diffusion_labs.models.autoencoder import DiagonalGaussian, kl_f8, tiled


def main(arguments: Sequence[str]) -> None:
    """Run with command line arguments."""
    tyro.cli(measure, args=arguments, prog="python -m benchmarks autoencoder_memory")


def measure(side: int = 2048, tile: int = 512, overlap: int = 128, whole_side: int = 0) -> None:
    """Encode and decode an image in tiles, and print the largest resident memory of the process.

    Args:
        side: of the image, in pixels.
        tile: side of the tiles, in pixels.
        overlap: pixels that tiles share.
        whole_side: side of a second image that is also done at once, to compare; 0 for none.
    """
    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    model = kl_f8().eval()
    report: dict[str, float] = {"before_gib": _peak_gib()}

    def encode(x: Tensor) -> Tensor:
        return DiagonalGaussian.of(tiled(model.describe, x, tile=tile, overlap=overlap)).mode()

    def decode(z: Tensor) -> Tensor:
        return tiled(model.decode, z, tile=tile // model.factor, overlap=overlap // model.factor)

    z = _timed(report, f"encode_{side}", encode, _picture(side))
    _timed(report, f"decode_{side}", decode, z)

    if whole_side:
        x = _picture(whole_side)
        z = _timed(report, f"whole_encode_{whole_side}", lambda x: model.encode(x).mode(), x)
        whole = _timed(report, f"whole_decode_{whole_side}", model.decode, z)
        report["latents_relative_error"] = _relative_error(encode(x), z)
        report["image_relative_error"] = _relative_error(decode(z), whole)
        report |= _seams(decode(z), whole, tile, overlap)
    print(json.dumps({name: round(value, 5) for name, value in report.items()}, indent=2))


def _picture(side: int) -> Tensor:
    """A smooth image with detail: waves of many lengths, in [-1, 1]."""
    position = torch.linspace(0, 1, side)
    waves = [
        torch.sin(frequency * (position[:, None] * (channel + 1) + position * (3 - channel)))
        for channel in range(3)
        for frequency in (5.0, 60.0, 400.0)
    ]
    return torch.stack(waves).reshape(3, 3, side, side).mean(1)[None]


def _timed(report: dict[str, float], name: str, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    began = time.perf_counter()
    y = function(x)
    report[f"{name}_seconds"] = time.perf_counter() - began
    report[f"{name}_peak_gib"] = _peak_gib()
    return y


def _relative_error(y: Tensor, expected: Tensor) -> float:
    return ((y - expected).norm() / expected.norm()).item()


def _seams(image: Tensor, whole: Tensor, tile: int, overlap: int) -> dict[str, float]:
    """How much larger steps between neighbouring columns are where tiles blend, tiled and at once: 1 is no seam."""
    blends = torch.zeros(image.shape[-1] - 1, dtype=torch.bool)
    for start in range(tile - overlap, image.shape[-1] - overlap, tile - overlap):
        blends[start : start + overlap] = True
    ratios = {}
    for name, picture in (("tiled", image), ("whole", whole)):
        steps = picture.diff(dim=-1).abs().mean((0, 1, 2))
        ratios[f"step_in_blends_over_elsewhere_{name}"] = (steps[blends].mean() / steps[~blends].mean()).item()
    return ratios


def _peak_gib() -> float:
    """The largest resident memory of this process so far; Linux counts in KiB, macOS in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** (30 if sys.platform == "darwin" else 20)
