"""What is known of a picture, and its file."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from diffusion_labs.recipes.known import Known, read_known


@pytest.mark.parametrize("channels", [1, 3])
def test_every_level_and_mask_comes_back_from_a_file(channels: int, tmp_path: Path) -> None:
    image = torch.arange(256.0).view(1, 16, 16).expand(channels, -1, -1) / 127.5 - 1
    mask = (torch.arange(256) % 3 == 0).float().view(16, 16)
    Image.fromarray(Known(image, mask).pixels().numpy()).save(tmp_path / "known.png")
    known = read_known(tmp_path / "known.png")
    assert torch.equal(known.image, image)
    assert torch.equal(known.mask, mask)


def test_a_picture_without_transparency_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "whole.png")
    with pytest.raises(ValueError, match="make it transparent where it is to be drawn anew"):
        read_known(tmp_path / "whole.png")
