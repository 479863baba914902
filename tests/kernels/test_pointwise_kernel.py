"""The product at each position against PyTorch's in float64, from and to planes and tokens."""

import itertools

import pytest
import torch
from torch import Tensor

from diffusion_labs.kernels.pointwise import fits, matrix_product, matrix_product_weight_gradient, pointwise_convolution
from diffusion_labs.layers import conv
from tests.kernels.comparison import error, tangent

pytestmark = pytest.mark.usefixtures("kernels_on")

TOLERANCE = 2e-6
LAYOUTS = list(itertools.product([False, True], repeat=2))
SHAPES = [(32, 32, 48, 64), (40, 96, 32, 20), (8, 16, 16, 1024), (1, 256, 64, 300)]


def tensors(b: int, c: int, o: int, n: int, from_tokens: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(b, *((n, c) if from_tokens else (c, n))), torch.randn(o, c), torch.randn(o)


def definition(x: Tensor, weight: Tensor, bias: Tensor, from_tokens: bool, to_tokens: bool) -> Tensor:
    y = torch.einsum("oc,bnc->bno" if from_tokens else "oc,bcn->bno", weight, x) + bias
    return y if to_tokens else y.mT


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("from_tokens", "to_tokens"), LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_outputs_and_gradients_equal_those_in_float64(
    shape: tuple[int, ...], from_tokens: bool, to_tokens: bool, threads: int
) -> None:
    torch.set_num_threads(threads)
    inputs = [value.requires_grad_() for value in tensors(*shape, from_tokens)]
    exact = [value.detach().double().requires_grad_() for value in inputs]
    y = pointwise_convolution(*inputs, from_tokens=from_tokens, to_tokens=to_tokens)
    y_exact = definition(*exact, from_tokens, to_tokens)
    assert fits(*inputs, from_tokens)
    assert error(y, y_exact) < TOLERANCE
    dy = torch.randn_like(y)
    for value, expected in zip(
        torch.autograd.grad(y, inputs, dy), torch.autograd.grad(y_exact, exact, dy.double()), strict=True
    ):
        assert error(value, expected) < TOLERANCE


@pytest.mark.parametrize(("from_tokens", "to_tokens"), LAYOUTS)
def test_gradients_of_gradients_equal_those_in_float64(from_tokens: bool, to_tokens: bool) -> None:
    inputs = [value.requires_grad_() for value in tensors(16, 32, 64, 64, from_tokens)]
    exact = [value.detach().double().requires_grad_() for value in inputs]

    def second(y: Tensor, values: list[Tensor]) -> tuple[Tensor, ...]:
        first = torch.autograd.grad(y.square().sum(), values[:2], create_graph=True)
        return torch.autograd.grad(sum(value.square().sum() for value in first), values)

    results = second(pointwise_convolution(*inputs, from_tokens=from_tokens, to_tokens=to_tokens), inputs)
    for value, expected in zip(results, second(definition(*exact, from_tokens, to_tokens), exact), strict=True):
        assert error(value, expected) < 10 * TOLERANCE


@pytest.mark.parametrize("shape", [(16, 33, 32, 64), (16, 32, 3, 64), (16, 32, 32, 63), (1, 16, 16, 64)])
@pytest.mark.parametrize(("from_tokens", "to_tokens"), LAYOUTS)
def test_other_sizes_are_left_to_pytorch(shape: tuple[int, ...], from_tokens: bool, to_tokens: bool) -> None:
    x, weight, bias = tensors(*shape, from_tokens)
    assert not fits(x, weight, bias, from_tokens)
    expected = definition(x, weight, bias, from_tokens, to_tokens)
    torch.testing.assert_close(
        pointwise_convolution(x, weight, bias, from_tokens=from_tokens, to_tokens=to_tokens), expected
    )


def test_a_layer_takes_images_and_vectors_in_a_row_as_they_are() -> None:
    images, sequence = conv(2, 64, 32, 1), conv(1, 64, 32, 1)
    x, tokens = torch.randn(16, 64, 8, 8), torch.randn(16, 64, 64)
    expected = torch.einsum("oc,bchw->bohw", images.weight[..., 0, 0], x) + images.bias[:, None, None]
    torch.testing.assert_close(images(x), expected)
    torch.testing.assert_close(images(x, to_tokens=True), expected.flatten(2).mT)
    torch.testing.assert_close(sequence(tokens.mT), sequence(tokens.mT.contiguous()))
    with torch.profiler.profile() as profile:
        sequence(tokens.mT, to_tokens=True)
    assert "aten::copy_" not in {event.key for event in profile.key_averages()}


@pytest.mark.parametrize(("from_tokens", "to_tokens"), LAYOUTS)
def test_the_operators_keep_the_rules_of_pytorch(from_tokens: bool, to_tokens: bool) -> None:
    x, weight, bias = (value.requires_grad_() for value in tensors(2, 32, 16, 12, from_tokens))
    y = matrix_product(x, weight, bias, from_tokens, to_tokens, False).detach().requires_grad_()
    torch.library.opcheck(matrix_product.registered, (x, weight, bias, from_tokens, to_tokens, False))
    torch.library.opcheck(matrix_product.registered, (y, weight, None, to_tokens, from_tokens, True))
    torch.library.opcheck(matrix_product_weight_gradient.registered, (x, y, from_tokens, to_tokens))


@pytest.mark.parametrize("channels", [32, 128])
def test_other_channels_are_an_error(channels: int) -> None:
    layer = conv(2, 64, 64, 1)
    with pytest.raises(RuntimeError, match="size"):
        layer(torch.randn(8, channels, 32, 32))


@pytest.mark.parametrize("grad", [True, False])
def test_the_operators_read_nothing_beyond_their_tensors(grad: bool) -> None:
    x, weight, bias = tensors(16, 32, 64, 64)
    wrong = [
        (x[:, :16], weight, bias),
        (x, weight[:8], bias[:8]),
        (x, weight, bias[:16]),
        (x[..., :63], weight, bias),
        (x, weight[:16], bias),
        (x.double(), weight, bias),
        (x[0], weight, bias),
    ]
    with torch.set_grad_enabled(grad):
        for inputs in wrong:
            with pytest.raises(ValueError, match=r"not written for|float32"):
                torch.ops.diffusion_labs.matrix_product(*inputs, False, False, False)
        for dy in (x[:8], x[:, :8], x[..., :32], x.double(), x[0]):
            with pytest.raises(ValueError, match=r"not written for|float32"):
                torch.ops.diffusion_labs.matrix_product_weight_gradient(x, dy, False, False)


def test_tensors_without_elements_are_taken() -> None:
    x, weight, bias = tensors(16, 32, 64, 64)
    assert matrix_product(x[:0], weight, bias, False, False, False).shape == (0, 64, 64)
    assert torch.equal(matrix_product_weight_gradient(x[:0], x[:0], False, False), torch.zeros(32, 32))
    assert matrix_product_weight_gradient(x, x[:, :0], False, False).shape == (0, 32)


def test_tangents_are_those_of_the_definition() -> None:
    x, weight, bias = tensors(16, 32, 64, 64)
    with torch.no_grad():
        result = tangent(lambda x: pointwise_convolution(x, weight, bias, from_tokens=False, to_tokens=False), x, x)
    assert result is not None
    torch.testing.assert_close(result, weight @ x)
