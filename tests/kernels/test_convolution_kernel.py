"""The Winograd convolution against PyTorch's in float64, and where it is not used."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion_labs.kernels.convolution import convolution_3x3, winograd_convolution, winograd_weight_gradient
from tests.kernels.comparison import assert_same_error, error, operators, tangent

pytestmark = pytest.mark.usefixtures("kernels_on")

TOLERANCE = 1e-5  # of float32; the plain convolution has 1e-6
SHAPES = [
    *((16, 32, 32, 32, 32), (2, 16, 48, 32, 8), (16, 128, 64, 4, 4), (3, 32, 16, 12, 20), (1, 256, 16, 16, 16)),
    *((4, 32, 3, 16, 16), (2, 16, 1, 16, 16), (1, 48, 40, 16, 16)),  # outputs that are padded
    *((5, 512, 512, 4, 4), (9, 512, 272, 24, 24)),  # larger weights than tiles, or than the cache
]


def tensors(b: int, c: int, o: int, h: int, w: int) -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(b, c, h, w), torch.randn(o, c, 3, 3), torch.randn(o)


def used(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether the kernel is what computes."""
    return "diffusion_labs::winograd_convolution" in operators(convolution_3x3, x, weight, bias)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_outputs_and_gradients_equal_those_in_float64(shape: tuple[int, ...], threads: int) -> None:
    torch.set_num_threads(threads)
    inputs = [value.requires_grad_() for value in tensors(*shape)]
    exact = [value.detach().double().requires_grad_() for value in inputs]
    assert used(*inputs)
    y, y_exact = convolution_3x3(*inputs), F.conv2d(*exact, padding=1)
    dy = torch.randn_like(y)
    assert error(y, y_exact) < TOLERANCE
    for value, expected in zip(
        torch.autograd.grad(y, inputs, dy), torch.autograd.grad(y_exact, exact, dy.double()), strict=True
    ):
        assert error(value, expected) < TOLERANCE


def test_gradients_of_gradients_equal_those_in_float64() -> None:
    inputs = [value.requires_grad_() for value in tensors(2, 32, 16, 16, 16)]
    exact = [value.detach().double().requires_grad_() for value in inputs]

    def second(y: Tensor, values: list[Tensor]) -> tuple[Tensor, ...]:
        first = torch.autograd.grad(y.square().sum(), values[:2], create_graph=True)
        return torch.autograd.grad(sum(value.square().sum() for value in first), values)

    results = second(convolution_3x3(*inputs), inputs)
    for value, expected in zip(results, second(F.conv2d(*exact, padding=1), exact), strict=True):
        assert error(value, expected) < 10 * TOLERANCE


def test_the_transpose_is_the_adjoint() -> None:
    """``<conv(x), y> == <x, transpose(y)>``, and the gradient of the weights is that of the same number."""
    x, weight, _ = tensors(2, 32, 48, 16, 16)
    y = torch.randn(2, 48, 16, 16)
    product = (winograd_convolution(x, weight, None, False).double() * y).sum()
    scale = x.norm() * weight.norm() * y.norm()
    assert abs(product - (winograd_convolution(y, weight, None, True).double() * x).sum()) < 1e-7 * scale
    assert abs(product - (winograd_weight_gradient(x, y).double() * weight).sum()) < 1e-7 * scale


def test_takes_any_layout() -> None:
    x, weight, bias = tensors(4, 32, 16, 16, 16)
    expected = convolution_3x3(x, weight, bias)
    torch.testing.assert_close(
        convolution_3x3(x.to(memory_format=torch.channels_last), weight.mT.contiguous().mT, bias), expected
    )


def test_the_result_is_the_same_each_time() -> None:
    x, weight, _ = tensors(16, 32, 32, 16, 16)
    first, second = ((convolution_3x3(x, weight, None), winograd_weight_gradient(x, x)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    "shape", [(16, 33, 32, 16, 16), (16, 32, 32, 15, 16), (16, 32, 32, 16, 18), (1, 32, 32, 4, 8), (1, 32, 3, 8, 8)]
)
def test_other_sizes_are_left_to_pytorch(shape: tuple[int, ...]) -> None:
    inputs = tensors(*shape)
    assert not used(*inputs)
    assert torch.equal(convolution_3x3(*inputs), F.conv2d(*inputs, padding=1))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_are_left_to_pytorch(dtype: torch.dtype) -> None:
    inputs = [value.to(dtype) for value in tensors(16, 32, 16, 8, 8)]
    assert torch.equal(convolution_3x3(*inputs), F.conv2d(*inputs, padding=1))


def test_autocast_and_function_transforms_are_left_to_pytorch() -> None:
    x, weight, bias = tensors(4, 32, 16, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        assert convolution_3x3(x, weight, bias).dtype == torch.bfloat16
    _, tangent = torch.func.jvp(lambda value: convolution_3x3(value, weight, bias), (x,), (x,))
    torch.testing.assert_close(tangent, F.conv2d(x, weight, padding=1), rtol=1e-4, atol=1e-4)
    gradient = torch.func.grad(lambda value: convolution_3x3(value, weight, bias).sum())(x)
    assert gradient.shape == x.shape


def test_the_switch_is_read_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = tensors(4, 32, 16, 16, 16)
    assert used(*inputs)
    monkeypatch.setenv("DIFFUSION_LABS_KERNELS", "0")
    assert not used(*inputs)


def test_the_operators_keep_the_rules_of_pytorch() -> None:
    x, weight, bias = (value.requires_grad_() for value in tensors(2, 16, 32, 16, 16))
    for flipped, value in ((False, x), (True, torch.randn(2, 32, 16, 16, requires_grad=True))):
        torch.library.opcheck(winograd_convolution.registered, (value, weight, None if flipped else bias, flipped))
    torch.library.opcheck(winograd_weight_gradient.registered, (x, torch.randn(2, 32, 16, 16, requires_grad=True)))


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize(
    "sizes",
    [
        ((4, 16, 16, 16), (32, 32, 3, 3), (32,)),
        ((4, 64, 16, 16), (32, 32, 3, 3), (32,)),
        ((4, 32, 16, 16), (32, 32, 3, 3), (16,)),
        ((4, 32, 16, 16), (32, 32, 3, 5), (48,)),
        ((4, 32, 16, 16), (3, 32, 3, 3), (16,)),
    ],
)
def test_sizes_that_do_not_agree_are_the_error_of_pytorch(sizes: tuple[tuple[int, ...], ...], grad: bool) -> None:
    inputs = [torch.randn(size) for size in sizes]
    with torch.set_grad_enabled(grad):
        assert_same_error(lambda: convolution_3x3(*inputs), lambda: F.conv2d(*inputs, padding=1))


def test_other_sizes_of_kernels_are_left_to_pytorch() -> None:
    x, weight = torch.randn(4, 32, 16, 16), torch.randn(32, 32, 1, 5)
    assert torch.equal(convolution_3x3(x, weight, None), F.conv2d(x, weight, padding=1))


@pytest.mark.parametrize("grad", [True, False])
def test_the_operators_read_nothing_beyond_their_tensors(grad: bool) -> None:
    x, weight, bias = tensors(4, 32, 16, 16, 16)
    operator = torch.ops.diffusion_labs.winograd_convolution
    wrong = [
        (x[:, :16], weight, bias),
        (x, weight, bias[:8]),
        (x, weight[:8], None),
        (x[:, :, :15], weight, bias),
        (x[0], weight, bias),
        (x.double(), weight.double(), None),
        (x, weight.double(), None),
    ]
    with torch.set_grad_enabled(grad):
        for inputs in wrong:
            with pytest.raises(ValueError, match=r"not written for|float32"):
                operator(*inputs, False)
            with pytest.raises(ValueError, match=r"not written for|float32"):
                winograd_convolution(*inputs, False)
        for dy in (x[:2], x[:, :, :8], x[:, :8], x.double()):
            with pytest.raises(ValueError, match=r"not written for|float32"):
                torch.ops.diffusion_labs.winograd_weight_gradient(x, dy)
        x.untyped_storage().resize_(0)
        with pytest.raises(ValueError, match="memory"):
            operator(x, weight, bias, False)


def test_tensors_without_elements_are_taken() -> None:
    x, weight, bias = tensors(4, 32, 16, 16, 16)
    assert winograd_convolution(x[:0], weight, bias, False).shape == (0, 16, 16, 16)
    assert torch.equal(winograd_weight_gradient(x[:0], x[:0]), torch.zeros(32, 32, 3, 3))
    assert winograd_weight_gradient(x, x[:, :0]).shape == (0, 32, 3, 3)


def test_a_compiled_convolution_takes_a_batch_of_none() -> None:
    """In a graph the kernel is chosen for any number of samples."""
    x, weight, bias = tensors(4, 32, 16, 16, 16)
    compiled = torch.compile(convolution_3x3, backend="eager")
    assert compiled(x[:0], weight, bias).shape == (0, 16, 16, 16)


def test_memory_may_be_shared_in_any_way() -> None:
    _, weight, bias = tensors(4, 32, 16, 16, 16)
    numbers = torch.randn(5000)
    for x in (
        numbers[:16].expand(4, 32, 16, 16),
        numbers.as_strided((4, 32, 16, 16), (7, 5, 3, 1)),
        torch.randn(4 * 32 * 256 + 3)[3:].view(4, 32, 16, 16),
        torch.view_as_complex(torch.randn(4, 32, 16, 16, 2)).conj().imag,
    ):
        assert (
            error(
                convolution_3x3(x, weight, bias[:1].expand(16)),
                F.conv2d(x.double(), weight.double(), bias[:1].expand(16).double(), padding=1),
            )
            < TOLERANCE
        )


@pytest.mark.parametrize("grad", [True, False])
def test_tangents_are_those_of_pytorch(grad: bool) -> None:
    x, weight, bias = tensors(4, 32, 16, 16, 16)
    with torch.set_grad_enabled(grad):
        result = tangent(lambda value: convolution_3x3(value, weight, bias), x, x)
    assert result is not None
    assert error(result, F.conv2d(x.double(), weight.double(), padding=1)) < TOLERANCE


def test_gradients_of_a_batch_are_those_of_each() -> None:
    x, weight, bias = (value.requires_grad_() for value in tensors(2, 32, 16, 16, 16))
    y = convolution_3x3(x, weight, bias)
    directions = torch.randn(3, *y.shape)
    batch = torch.autograd.grad(y, (x, weight), directions, is_grads_batched=True, retain_graph=True)
    for i, dy in enumerate(directions):
        for value, expected in zip(batch, torch.autograd.grad(y, (x, weight), dy, retain_graph=True), strict=True):
            torch.testing.assert_close(value[i], expected)
