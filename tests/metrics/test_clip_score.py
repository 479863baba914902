"""CLIP's score, of embeddings that are known, and beside torchmetrics' formula."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from diffusion_labs.metrics import clip_score


class KnownCLIP(nn.Module):
    """An image's embedding is its pixels; a text's is the direction that it names, in degrees."""

    embed_dim = 2

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def encode_image(self, x: Tensor) -> Tensor:
        assert not self.training
        return x.flatten(1)

    def encode_text(self, texts: list[str]) -> SimpleNamespace:
        angles = torch.tensor([float(text) for text in texts]).deg2rad()
        return SimpleNamespace(embedding=torch.stack([angles.cos(), angles.sin()], 1))


def test_it_is_the_cosine_of_each_image_with_its_own_caption() -> None:
    images = torch.tensor([[3.0, 0.0], [0.0, 0.5], [1.0, 0.0], [1.0, 1.0]]).reshape(4, 1, 1, 2)
    clip = KnownCLIP().train()
    for batch_size in (1, 3, 64):
        found = clip_score(images, ["0", "30", "180", "45"], clip, batch_size=batch_size)
        torch.testing.assert_close(found, torch.tensor([100.0, 50.0, 0.0, 100.0]), rtol=1e-5, atol=1e-4)
    assert clip.training


@pytest.mark.parametrize("captions", [["0"], []])
def test_another_number_of_captions_is_refused(captions: list[str]) -> None:
    with pytest.raises(ValueError, match="one caption for each image"):
        clip_score(torch.zeros(2, 1, 1, 2), captions, KnownCLIP())
