"""What a sampler's model may return."""

import pytest
import torch
from torch import Tensor, nn

import diffusion_labs as dl


class Returning(nn.Module):
    """A model that returns what a function makes of x."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor, timestep: Tensor, conditional_inputs: object = None) -> object:
        return self.function(x)


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (lambda x: x, TypeError, r"Returning returned a Tensor; return DiffusionOutput\(prediction\)"),
        (lambda x: dl.DiffusionOutput(torch.cat([x, x], 1)), ValueError, r"predicts \[2, 4\] for x of shape \[2, 2\]"),
        (lambda x: dl.DiffusionOutput(x[:, :1]), ValueError, r"predicts \[2, 1\] for x of shape \[2, 2\]"),
    ],
    ids=["a tensor", "more channels", "what would broadcast"],
)
def test_another_output_than_the_data_is_named(function, error: type[Exception], message: str) -> None:
    """One channel for two would broadcast, and every number would be wrong."""
    schedule = dl.CosineSchedule()
    sampler = dl.DDIMSampler(Returning(function), schedule, dl.VPredictor(schedule), eval_steps=2, progress_bar=False)
    x = torch.randn(2, 2)
    with pytest.raises(error, match=message):
        sampler.train()(x, torch.full((2,), 0.5))
    with pytest.raises(error, match=message):
        sampler.eval()(x)
