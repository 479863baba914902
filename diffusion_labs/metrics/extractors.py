"""From images to features, by a network that the reader of a figure must know of."""

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion_labs.files import sha256
from diffusion_labs.metrics.classifier import ImageClassifier, extract_features, log_probabilities, to_float


@runtime_checkable
class FeatureExtractor(Protocol):
    """What distances between images are measured in.

    Attributes:
        name: what it is, for the card of an evaluation: figures of other extractors cannot be compared.
    """

    name: str

    def features(self, images: Tensor) -> Tensor:
        """Features ``[n, d]`` of images ``[n, c, h, w]``, uint8, or float in [-1, 1]; float32 on the CPU."""

    def log_probabilities(self, images: Tensor) -> Tensor | None:
        """Log-probabilities of its classes, ``[n, classes]``; ``None`` if it has none."""


class ClassifierFeatures:
    """The features of a small classifier that was trained on the reference: distances in them are not FID.

    Args:
        classifier: see ``train_classifier``.
    """

    def __init__(self, classifier: ImageClassifier) -> None:
        self.classifier = classifier
        self.name = f"a classifier of {classifier.num_classes} classes, trained on the reference"

    def features(self, images: Tensor) -> Tensor:
        """See ``FeatureExtractor``."""
        return extract_features(self.classifier, images)

    def log_probabilities(self, images: Tensor) -> Tensor | None:
        """See ``FeatureExtractor``."""
        return log_probabilities(self.classifier, images)


class TorchScriptFeatures:
    """The features of a network in a TorchScript file, such as the Inception network that FID is defined by.

    It is called with uint8 images ``[n, 3, h, w]`` of any size, and returns ``[n, d]``: so does the file
    ``inception-2015-12-05.pt`` that NVIDIA publishes for StyleGAN's metrics, with ``return_features=True``, which is
    given if the network takes it.

    Args:
        path: the file. TorchScript cannot run Python, but calls operators: take it from where you trust.
        batch_size: images at once.
        device: where to compute.

    Raises:
        ValueError: if it cannot be read as TorchScript.
    """

    def __init__(self, path: Path, *, batch_size: int = 64, device: str = "cpu") -> None:
        try:
            self.network = torch.jit.load(str(path), map_location=device).eval()
        except (RuntimeError, ValueError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{path} cannot be read as a TorchScript network: {reason}") from error
        takes = {argument.name for argument in self.network.forward.schema.arguments}
        self.arguments = {"return_features": True} if "return_features" in takes else {}
        self.batch_size = batch_size
        self.device = device
        self.name = f"TorchScript {path.name}, sha256 {sha256(path)}"

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """See ``FeatureExtractor``."""
        parts = in_colour(to_bytes(images)).split(self.batch_size)
        return torch.cat([self.network(part.to(self.device), **self.arguments).flatten(1).cpu() for part in parts])

    def log_probabilities(self, images: Tensor) -> Tensor | None:
        """None: its classes are not known."""
        return None


class TransformersFeatures:
    """The features of a vision model of ``transformers``, such as DINOv2 or CLIP.

    DINOv2's agree with people's judgement better than Inception's (arXiv 2306.04675). Those of CLIP are the projected
    ones. Images are resized, by area where they shrink, to the size that the model was trained with.

    Args:
        name_or_folder: a local folder, or a model on the hub.
        batch_size: images at once.
        device: where to compute.

    Raises:
        ImportError: if ``transformers`` is not installed.
        ValueError: if it is no vision model.
    """

    def __init__(self, name_or_folder: str, *, batch_size: int = 64, device: str = "cpu") -> None:
        try:
            from transformers import AutoImageProcessor, AutoModel
        except ImportError as error:
            raise ImportError("features of transformers' models need `pip install diffusion-labs[text]`") from error
        try:
            processor: Any = AutoImageProcessor.from_pretrained(name_or_folder)
            self.network: Any = AutoModel.from_pretrained(name_or_folder).eval().to(device)
        except (OSError, ValueError) as error:
            raise ValueError(f"{name_or_folder} is no vision model of transformers: {error}") from error
        size = getattr(processor, "crop_size", None) or processor.size
        self.size = int(size.get("height") or size["shortest_edge"])
        self.mean, self.std = (
            torch.tensor(value)[:, None, None] for value in (processor.image_mean, processor.image_std)
        )
        self.batch_size = batch_size
        self.device = device
        self.name = f"transformers {name_or_folder} ({type(self.network).__name__})"

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """See ``FeatureExtractor``."""
        return torch.cat([self._features(part) for part in images.split(self.batch_size)])

    def _features(self, images: Tensor) -> Tensor:
        pixels = (in_colour(to_float(images)) + 1) / 2
        pixels = F.interpolate(pixels, size=(self.size, self.size), mode="bilinear", antialias=True)
        pixels = ((pixels - self.mean) / self.std).to(self.device)
        if hasattr(self.network, "get_image_features"):
            found = self.network.get_image_features(pixel_values=pixels)
        else:
            found = self.network(pixel_values=pixels)
        features: Tensor = getattr(found, "pooler_output", found)
        return features.float().cpu()

    def log_probabilities(self, images: Tensor) -> Tensor | None:
        """None: it has no classes."""
        return None


def to_bytes(images: Tensor) -> Tensor:
    """Images as uint8: floats in [-1, 1] are clamped, scaled and rounded, as when they are written to a file."""
    return images if images.dtype == torch.uint8 else ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def in_colour(images: Tensor) -> Tensor:
    """Images with three channels: one is repeated."""
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
