"""The size of an image as a condition."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

import diffusion_labs as dl


class Sizes(dl.ConditionalModule):
    """Predicts the sum of the six numbers, each with a weight of its own."""

    def __init__(self) -> None:
        super().__init__(["sizes", "text"])

    def forward(
        self, x: Tensor, timestep: Tensor, conditional_inputs: Mapping[str, Tensor] | None = None
    ) -> dl.DiffusionOutput:
        sizes = self.check_conditions(conditional_inputs, x)["sizes"]
        assert sizes.dtype == torch.float32
        return dl.DiffusionOutput((sizes @ 10.0 ** torch.arange(6))[:, None, None, None] + 0 * x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_image_that_says_nothing_has_its_own_size_and_was_not_cropped(dtype: torch.dtype) -> None:
    """1,000 pixels are not a number of bfloat16."""
    model = dl.CFGuidance(dl.MicroConditioning(Sizes(), 8), {"text": 0.1}, guidance_scale=3.0).eval()
    x, t = torch.zeros(2, 4, 125, 3, dtype=dtype), torch.zeros(2)
    given = torch.tensor([[1000.0, 24.0, 0.0, 0.0, 1000.0, 24.0]]).expand(2, -1)
    for conditions in ({}, {"text": torch.zeros(2, 1, 4)}):
        without = model(x.float(), t, conditions).prediction
        torch.testing.assert_close(without, model(x.float(), t, {**conditions, "sizes": given}).prediction)
        torch.testing.assert_close(model(x, t, conditions).prediction.float(), without)
    others = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [0.0, 0.0, 0.0, 0.0, 0.0, 0.0]])
    assert model(x.float(), t, {"sizes": others}).prediction[:, 0, 0, 0].tolist() == [654321.0, 0.0]


def test_it_stands_around_what_changes_the_size() -> None:
    with pytest.raises(ValueError, match="put MicroConditioning around Patchify"):
        dl.Patchify(dl.MicroConditioning(Sizes()), 2)
    with pytest.raises(ValueError, match=r"factor \(0\) must be at least 1"):
        dl.MicroConditioning(Sizes(), 0)
