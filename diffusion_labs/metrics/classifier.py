"""A small image classifier, the judge of class-conditional samples and the source of their features."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion_labs.modes import evaluating


class ImageClassifier(nn.Module):
    """A small convolutional network for images of 8x8 to 64x64 pixels.

    Three 3x3 convolutions with batch normalisation; images over 8 pixels are halved before each of the
    last two (64 pixels: twice before the first of them), so that all work is done at about 8x8. Then a 4x4
    average, and a hidden layer whose activations are the features.

    It trains in seconds, on the data at hand. Its features stand in for Inception's where those mean
    nothing (digits) or cannot be had; distances in them compare models on one data set with one
    classifier, and are not FID.

    Args:
        channels: of the images.
        size: height and width of the images.
        num_classes: at least 2.
        width: channels of the first convolution; the others have twice and four times as many.
        feature_dim: length of the feature vectors.

    Raises:
        ValueError: if a size is not positive or there are fewer than two classes.
    """

    def __init__(self, channels: int, size: int, num_classes: int, *, width: int = 16, feature_dim: int = 64) -> None:
        super().__init__()
        if channels < 1 or size < 4 or width < 1 or feature_dim < 1:
            raise ValueError(
                f"channels ({channels}), width ({width}) and feature_dim ({feature_dim}) must be positive, "
                f"and size ({size}) at least 4"
            )
        if num_classes < 2:
            raise ValueError(f"num_classes is {num_classes}; a classifier needs at least 2")
        self.channels = channels
        self.size = size
        self.num_classes = num_classes
        self.convolutions = nn.Sequential(
            *_block(channels, width),
            *_halvings(max(0, math.ceil(math.log2(size / 16)))),
            *_block(width, 2 * width),
            *_halvings(1 if size > 8 else 0),
            *_block(2 * width, 4 * width),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
        )
        self.hidden = nn.Sequential(nn.Linear(4 * width * 16, feature_dim), nn.ReLU())
        self.output = nn.Linear(feature_dim, num_classes)

    def features(self, x: Tensor) -> Float[Tensor, "b d"]:
        """The activations before the last layer.

        Args:
            x: images, ``[b, channels, size, size]``, float in [-1, 1].

        Raises:
            ValueError: for another shape, or integers.
        """
        if x.ndim != 4 or tuple(x.shape[1:]) != (self.channels, self.size, self.size) or not x.is_floating_point():
            raise ValueError(
                f"x must be float [b, {self.channels}, {self.size}, {self.size}] in [-1, 1], "
                f"got {x.dtype} {list(x.shape)}"
            )
        return self.hidden(self.convolutions(x))

    def forward(self, x: Tensor) -> Float[Tensor, "b num_classes"]:
        """The logits of the classes; see ``features``."""
        return self.output(self.features(x))


def train_classifier(
    images: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    steps: int = 600,
    batch_size: int = 128,
    learning_rate: float = 4e-3,
    max_shift: int | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> ImageClassifier:
    """Train a classifier on real images: AdamW, a one-cycle learning rate, randomly shifted images.

    The result is a function of the arguments (on one machine); torch's global random state is left as
    it was. On the CPU it trains in one thread: the work of a step is too small to share, and on a busy
    machine threads that wait for each other took twenty times as long.

    Args:
        images: ``[n, c, size, size]`` uint8.
        labels: ``[n]`` integers in 0..num_classes-1.
        num_classes: at least 2.
        steps: batches to train on, whatever the size of the data: small data are seen more often.
        batch_size: samples in a batch (all images, if there are fewer).
        learning_rate: the highest.
        max_shift: images are moved by up to this many pixels in each direction, their edges repeated;
            by default 1 for each 14 pixels of size, rounded, at least 1.
        seed: of initialisation, order and shifts.
        device: where to train.

    Returns:
        The classifier, in eval mode.

    Raises:
        ValueError: if images and labels do not fit each other or ``num_classes``.
    """
    _check_images(images)
    if images.dtype != torch.uint8 or images.shape[2] != images.shape[3]:
        raise ValueError(f"images must be square uint8 [n, c, size, size], got {images.dtype} {list(images.shape)}")
    _check_labels(labels, len(images))
    if int(labels.min()) < 0 or int(labels.max()) >= num_classes:
        raise ValueError(f"labels span {int(labels.min())}..{int(labels.max())}, outside 0..{num_classes - 1}")
    if steps < 1 or batch_size < 2 or len(images) < 2:
        raise ValueError(f"steps ({steps}) must be at least 1; batch_size ({batch_size}) and images ({len(images)}) 2")
    channels, size = images.shape[1:3]
    shift = max(1, round(size / 14)) if max_shift is None else max_shift

    device = torch.device(device)
    with torch.random.fork_rng(devices=[] if device.type == "cpu" else [device], device_type=device.type):
        torch.manual_seed(seed)
        classifier = ImageClassifier(channels, size, num_classes).to(device)
    classifier = classifier.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(classifier.parameters(), lr=learning_rate, weight_decay=0.01)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=steps + 1, pct_start=0.2)

    generator = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.long)
    batch_size = min(batch_size, len(images))
    with _one_thread():
        for _ in range(steps):
            if len(order) < batch_size:
                order = torch.randperm(len(images), generator=generator)
            chosen, order = order[:batch_size], order[batch_size:]
            x = random_shift(to_float(images[chosen]), shift, generator).to(device)
            logits = classifier(x.contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits, labels[chosen].long().to(device), label_smoothing=0.05)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            rate.step()
    return classifier.eval()


@torch.no_grad()
def extract_features(classifier: ImageClassifier, images: Tensor, *, batch_size: int = 512) -> Float[Tensor, "n d"]:
    """The features of images (uint8, or float in [-1, 1]), in eval mode, on the CPU."""
    return _in_batches(classifier, classifier.features, images, batch_size)


@torch.no_grad()
def predict_classes(classifier: ImageClassifier, images: Tensor, *, batch_size: int = 512) -> Int[Tensor, " n"]:
    """The most likely class of each image (uint8, or float in [-1, 1]), in eval mode, on the CPU."""
    return _in_batches(classifier, classifier, images, batch_size).argmax(1)


@torch.no_grad()
def log_probabilities(
    classifier: ImageClassifier, images: Tensor, *, batch_size: int = 512
) -> Float[Tensor, "n num_classes"]:
    """Log-probabilities of the classes of images (uint8, or float in [-1, 1]), in eval mode, on the CPU."""
    return _in_batches(classifier, classifier, images, batch_size).log_softmax(1)


def accuracy(classifier: ImageClassifier, images: Tensor, labels: Tensor, *, batch_size: int = 512) -> float:
    """The share of images (uint8, or float in [-1, 1]) that the classifier takes for their label.

    Raises:
        ValueError: if there are no images, one holds NaN, or labels are not one integer per image.
    """
    _check_images(images)
    _check_labels(labels, len(images))
    predicted = predict_classes(classifier, images, batch_size=batch_size)
    return (predicted == labels.cpu()).double().mean().item()


def to_float(images: Tensor) -> Tensor:
    """Images as float in [-1, 1]: bytes 0..255 are scaled, floats are returned as they are."""
    return images.float() / 127.5 - 1 if images.dtype == torch.uint8 else images


def random_shift(x: Tensor, max_shift: int, generator: torch.Generator) -> Float[Tensor, "b c h w"]:
    """Move each image ``[b, c, h, w]`` by up to ``max_shift`` whole pixels each way, repeating its edges."""
    batch, _, height, width = x.shape
    down, right = torch.randint(-max_shift, max_shift + 1, (2, batch, 1), generator=generator)
    rows = (torch.arange(height) - down).clamp(0, height - 1)
    columns = (torch.arange(width) - right).clamp(0, width - 1)
    sample = torch.arange(batch)[:, None, None]
    return x[sample, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _block(in_channels: int, out_channels: int) -> list[nn.Module]:
    convolution = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(out_channels), nn.ReLU()]


def _halvings(count: int) -> list[nn.Module]:
    return [nn.MaxPool2d(2, ceil_mode=True) for _ in range(count)]


def _in_batches(
    classifier: ImageClassifier, function: Callable[[Tensor], Tensor], images: Tensor, batch_size: int
) -> Tensor:
    _check_images(images)
    device = next(classifier.parameters()).device
    with evaluating(classifier):
        return torch.cat([function(to_float(part).to(device)).cpu() for part in images.split(batch_size)])


def _check_images(images: Tensor) -> None:
    if images.ndim != 4 or len(images) == 0:
        raise ValueError(f"images must be [n, c, h, w] with n at least 1, got {list(images.shape)}")
    if images.is_floating_point() and not images.isfinite().all():
        raise ValueError("images hold NaN or infinity; a model that makes them has diverged")


def _check_labels(labels: Tensor, count: int) -> None:
    if labels.shape != (count,) or labels.is_floating_point():
        raise ValueError(f"labels must be {count} integers, one per image, got {labels.dtype} {list(labels.shape)}")
