"""A convolution of size 1 is torch's, with its gradients, in any number of dimensions."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from diffusion_labs.layers import conv


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("batch", [0, 1, 3])
def test_pointwise_is_the_convolution(dims: int, batch: int) -> None:
    layer = conv(dims, 4, 6, 1).double()
    x = torch.randn(batch, 4, *(5, 3, 2)[:dims], dtype=torch.float64)
    plain = (torch.nn.functional.conv1d, torch.nn.functional.conv2d, torch.nn.functional.conv3d)[dims - 1]
    torch.testing.assert_close(layer(x), plain(x, layer.weight, layer.bias))
    torch.testing.assert_close(layer(x.transpose(1, -1).contiguous().transpose(1, -1)), layer(x))  # other strides


def test_gradients_of_pointwise() -> None:
    layer = conv(2, 2, 3, 1).double()
    x = torch.randn(2, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    arguments = (x, *(parameter.detach().requires_grad_() for parameter in layer.parameters()))

    def call(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x,))

    assert gradcheck(call, arguments)
    assert gradgradcheck(call, arguments)


@pytest.mark.parametrize("mode", ["circular", "reflect"])
def test_padding_that_is_set_in_a_finished_network_counts(mode: str) -> None:
    """Circular padding makes textures that can be tiled."""
    layer, x = conv(2, 16, 16, 3, padding=1), torch.randn(4, 16, 16, 16)
    layer.padding_mode = mode
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1), mode=mode)
    torch.testing.assert_close(layer(x), torch.nn.functional.conv2d(padded, layer.weight, layer.bias))
