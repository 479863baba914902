"""Small models with random weights, kept in folders."""

from pathlib import Path

import pytest
import torch
from torch import nn

from diffusion_labs.playground.painting import Subject
from diffusion_labs.pretrained import save_pretrained
from diffusion_labs.recipes.dalle2 import DALLE2Model
from diffusion_labs.recipes.image_diffusion import ImageModel
from diffusion_labs.recipes.kinds import described
from diffusion_labs.recipes.latent_model import LatentModel
from diffusion_labs.recipes.opened import open_model

PIXELS = ImageModel(
    (1, 8, 8), ("nought", "one"), model_channels=32, channel_mult=(1,), num_res_blocks=1, attention_levels=()
)
LATENTS = LatentModel(
    (3, 16, 16), ("nought", "one"), model_channels=32, channel_mult=(1,), attention_levels=(), condition_width=32
)
CHAIN = DALLE2Model((1, 16, 16), image_depth=1, text_depth=1, prior_depth=1, decoder_size=8, decoder_channels=32)


def subject(sizes: ImageModel | LatentModel | DALLE2Model, folder: Path) -> Subject:
    """The model of some sizes, whose output is not zero, as it comes from a folder."""
    torch.manual_seed(0)
    model = sizes.build()
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    save_pretrained(model, folder, about={"sizes": described(sizes)})
    return Subject(*open_model(folder), str(folder), most_work=600)


@pytest.fixture(scope="session")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """A model of pixels."""
    return subject(PIXELS, tmp_path_factory.mktemp("models") / "pixels")


@pytest.fixture(scope="session")
def latents(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """A model of latents."""
    return subject(LATENTS, tmp_path_factory.mktemp("models") / "latents")


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """A model with a prior."""
    return subject(CHAIN, tmp_path_factory.mktemp("models") / "chain")
