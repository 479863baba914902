"""Latent diffusion on MNIST, and everything in its format."""

from pathlib import Path

from diffusion_labs.data import IDXImages
from diffusion_labs.recipes.latent_diffusion import class_stages
from diffusion_labs.recipes.latent_model import LatentModel
from diffusion_labs.recipes.mnist import mnist_folder
from diffusion_labs.recipes.stages import Stages


def ldm_mnist(
    data_dir: Path | None = None,
    autoencoder_steps: int = 800,
    steps: int = 2000,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    disc_start: int | None = None,
    size: int = 32,
    ema_decay: float = 0.998,
    seed: int = 0,
) -> Stages:
    """Class-conditional latent diffusion on MNIST: a KL autoencoder, the latents on disk, a U-Net on them.

    Args:
        data_dir: folder of the four IDX files; MNIST is downloaded if none is given.
        autoencoder_steps: updates of the autoencoder.
        steps: updates of the network on its latents.
        batch_size: images per update of the network; half as many for the autoencoder.
        learning_rate: the highest learning rate.
        disc_start: updates after which a discriminator joins the training of the autoencoder; never if not given. In
            the log ``discriminator`` falls below 1 where it finds reconstructions too smooth, and is 1, which is
            chance, where it sees no difference; what it gains on these images has not been measured.
        size: images are centred on a square of this many pixels, or shrunk to it.
        ema_decay: of the averaged weights of the network.
        seed: of weights, noise and the order of the data.
    """
    dataset = IDXImages(mnist_folder(data_dir), "train", size=size)
    sizes = LatentModel(dataset.image_shape, dataset.class_names, model_channels=32, num_res_blocks=2, head_channels=16)
    return class_stages(
        dataset,
        sizes,
        autoencoder_steps=autoencoder_steps,
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        disc_start=disc_start,
        ema_decay=ema_decay,
        seed=seed,
    )
