"""The UCI handwritten digits, which are part of the package."""

from diffusion_labs.data import Digits
from diffusion_labs.recipes.image_diffusion import ImageModel, image_stages
from diffusion_labs.recipes.stages import Stages


def digits(
    steps: int = 1500,
    batch_size: int = 128,
    learning_rate: float = 2e-3,
    model_channels: int = 64,
    ema_decay: float = 0.995,
    seed: int = 0,
) -> Stages:
    """Class-conditional diffusion on 1,500 handwritten digits of 8x8 pixels: minutes on a laptop, no download.

    Args:
        steps: updates of the whole run.
        batch_size: images per update.
        learning_rate: the highest learning rate.
        model_channels: width of the network.
        ema_decay: of the averaged weights.
        seed: of weights, noise and the order of the data.
    """
    dataset = Digits("train")
    sizes = ImageModel(
        dataset.image_shape,
        dataset.class_names,
        patch_size=1,
        model_channels=model_channels,
        channel_mult=(1, 2),
        num_res_blocks=1,
        attention_levels=(1,),
    )
    return image_stages(
        dataset,
        sizes,
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        ema_decay=ema_decay,
        seed=seed,
    )
