"""Tars of images that are larger than memory or a disk."""

from functools import partial
from typing import Literal

from diffusion_labs.data import StreamBatches, TarStream
from diffusion_labs.recipes.image_diffusion import image_sizes, image_stages
from diffusion_labs.recipes.stages import Stages


def image_stream(
    tars: str,
    size: int = 32,
    num_classes: int | None = None,
    channels: Literal[1, 3] = 3,
    on_error: Literal["raise", "skip"] = "raise",
    buffer_size: int = 1000,
    steps: int = 20_000,
    batch_size: int = 64,
    learning_rate: float = 5e-4,
    model_channels: int = 64,
    ema_decay: float = 0.9995,
    seed: int = 0,
) -> Stages:
    """Diffusion on images in WebDataset tars, class-conditional if they have classes, read as a stream.

    Args:
        tars: a path, a folder, a pattern or an http(s) URL, with ranges: "https://example.org/part-{000..127}.tar".
        size: images are resized and cropped to a square of this many pixels.
        num_classes: if given, each image has a .cls, or a .json with a class, from 0 to num_classes - 1.
        channels: 3 for colour, 1 for grey.
        on_error: what to do with damaged samples: stop, or skip and count them, up to a tenth.
        buffer_size: samples among which the next one is chosen; all processes hold as many in memory.
        steps: updates of the whole run.
        batch_size: images per update.
        learning_rate: the highest learning rate.
        model_channels: width of the network.
        ema_decay: of the averaged weights.
        seed: of weights, noise and the order of the data.
    """
    stream = TarStream(tars, size, captions=False, num_classes=num_classes, channels=channels, on_error=on_error)
    return image_stages(
        stream,
        image_sizes(stream, model_channels),
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        ema_decay=ema_decay,
        seed=seed,
        batches=partial(StreamBatches, buffer_size=buffer_size),
    )
