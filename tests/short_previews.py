"""Pictures during training that take two calls of the network, for tests of everything around them."""

from collections.abc import Iterator

import pytest

from diffusion_labs.recipes import image_diffusion, latent_diffusion, ldm_emoji, restoration
from diffusion_labs.recipes.dalle2 import previews


@pytest.fixture(autouse=True, scope="package")
def short_previews() -> Iterator[None]:
    """Two calls instead of twenty."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (previews, image_diffusion, latent_diffusion, ldm_emoji, restoration):
            patch.setattr(module, "PREVIEW_STEPS", 2)
        yield
