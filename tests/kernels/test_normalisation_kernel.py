"""The fused norm, SiLU and dropout against PyTorch's operations in float64."""

import pytest
import torch
from torch import Tensor

from diffusion_labs.kernels.normalisation import (
    fits_norm,
    group_norm,
    group_norm_gradient,
    norm,
    random_mask,
    reference,
)
from diffusion_labs.layers import GroupNorm, GroupNormSiLU
from tests.kernels.comparison import error, tangent

pytestmark = pytest.mark.usefixtures("kernels_on")

TOLERANCE = 2e-6


def tensors(b: int, c: int, *size: int) -> list[Tensor]:
    return [3 * torch.randn(b, c, *size) + 1, torch.randn(b, c), torch.randn(b, c)]


@pytest.mark.parametrize("silu", [True, False])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("shape", [(4, 32, 32, 32), (3, 96, 8, 4), (2, 64, 48), (2, 32, 4, 4, 4)])
def test_outputs_and_gradients_equal_those_in_float64(shape: tuple[int, ...], dropout: float, silu: bool) -> None:
    inputs = [value.requires_grad_() for value in tensors(*shape)]
    exact = [value.detach().double().requires_grad_() for value in inputs]
    seed = torch.tensor(2**61 + 12345) if dropout else None
    y, *_ = group_norm(*inputs, seed, 16, 1e-5, silu, dropout)
    y_exact = reference(*exact, seed, 16, 1e-5, silu, dropout)
    assert error(y, y_exact) < TOLERANCE
    dy = torch.randn_like(y)
    for value, expected in zip(
        torch.autograd.grad(y, inputs, dy), torch.autograd.grad(y_exact, exact, dy.double()), strict=True
    ):
        assert error(value, expected) < TOLERANCE


@pytest.mark.parametrize(("dropout", "silu"), [(0.0, True), (0.3, True), (0.0, False)])
def test_gradients_of_gradients_equal_those_in_float64(dropout: float, silu: bool) -> None:
    inputs = [value.requires_grad_() for value in tensors(2, 32, 8, 8)]
    exact = [value.detach().double().requires_grad_() for value in inputs]
    seed = torch.tensor(7) if dropout else None

    def second(y: Tensor, values: list[Tensor]) -> tuple[Tensor, ...]:
        first = torch.autograd.grad(y.pow(3).sum(), values, create_graph=True)  # squares of a norm are constant
        return torch.autograd.grad(sum(value.square().sum() for value in first), values)

    results = second(group_norm(*inputs, seed, 32, 1e-5, silu, dropout)[0], inputs)
    for value, expected in zip(results, second(reference(*exact, seed, 32, 1e-5, silu, dropout), exact), strict=True):
        assert error(value, expected) < 1e-4


def test_large_inputs_neither_overflow_nor_vanish() -> None:
    x, scale, shift = torch.randn(1, 32, 8, 8), torch.full((1, 32), 100.0), torch.zeros(1, 32)
    y = norm(x, scale, shift, 32, 1e-5, silu=True)
    assert torch.isfinite(y).all()
    torch.testing.assert_close(y, reference(x, scale, shift, None, 32, 1e-5, True, 0.0))


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_mask_drops_at_its_rate_and_independently(rate: float) -> None:
    masks = torch.stack([random_mask(torch.Size([2**18]), torch.randint(2**62, ()), rate) for _ in range(4)])
    assert masks.unique().tolist() == pytest.approx([0.0, 1 / (1 - rate)])
    deviation = (rate / (1 - rate)) ** 0.5  # of one element, whose mean is 1
    assert (masks.mean(1) - 1).abs().max() < 5 * deviation / 2**9
    centred = (masks - 1) / deviation
    correlations = (centred @ centred.T / 2**18).fill_diagonal_(0)
    assert correlations.abs().max() < 5 / 2**9
    for distance in (1, 2, 8, 32, 1024):
        assert (centred[:, distance:] * centred[:, :-distance]).mean(1).abs().max() < 5 / 2**9


def test_dropout_follows_the_seed_of_torch() -> None:
    layer, x = GroupNormSiLU(32, dropout=0.2).train(), torch.randn(16, 32, 16, 16)

    def draw(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return layer(x)

    assert fits_norm(x, layer.weight, layer.bias)
    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))
    assert (draw(0) == 0).float().mean() == pytest.approx(0.2, abs=0.01)
    assert (layer.eval()(x) == 0).float().mean() < 1e-3


@pytest.mark.parametrize("given", ["neither", "shift", "both"])
def test_the_layer_equals_its_plain_path(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x, dy = GroupNormSiLU(64), torch.randn(4, 64, 32, 32, requires_grad=True), torch.randn(4, 64, 32, 32)
    torch.nn.init.normal_(layer.weight)
    torch.nn.init.normal_(layer.bias)
    scale, shift = torch.randn(4, 64, requires_grad=True), torch.randn(4, 64, requires_grad=True)
    modulation = {"neither": {}, "shift": {"shift": shift}, "both": {"scale": scale, "shift": shift}}[given]
    values = [x, layer.weight, layer.bias, *modulation.values()]

    def run() -> list[Tensor]:
        y = layer(x, **modulation)
        return [y, *torch.autograd.grad(y, values, dy)]

    assert fits_norm(x, layer.weight, layer.bias, scale, shift)
    results = run()
    monkeypatch.setenv("DIFFUSION_LABS_KERNELS", "0")
    assert not fits_norm(x, layer.weight, layer.bias, scale, shift)
    for value, expected in zip(results, run(), strict=True):
        assert error(value, expected.double()) < 1e-5


def test_the_operators_keep_the_rules_of_pytorch() -> None:
    x, scale, shift = (value.requires_grad_() for value in tensors(2, 32, 8, 8))
    seed = torch.tensor(3)
    for arguments in ((None, 32, 1e-5, True, 0.0), (seed, 32, 1e-5, False, 0.5)):
        torch.library.opcheck(group_norm.registered, (x, scale, shift, *arguments))
    mean, rstd = torch.zeros(2, 32), torch.ones(2, 32)
    values = (x.detach(), *(value.detach() for value in (x, scale, shift)), mean, rstd)
    torch.library.opcheck(group_norm_gradient.registered, (*values, seed, 1e-5, True, 0.5))


@pytest.mark.parametrize("layer", [GroupNorm(64), GroupNorm(1, num_groups=1)])
@pytest.mark.parametrize("channels", [32, 128])
def test_other_channels_are_the_error_of_pytorch(layer: GroupNorm, channels: int) -> None:
    with pytest.raises(RuntimeError, match="Expected weight to be a vector of size equal to the number of channels"):
        layer(torch.randn(4, channels, 32, 32))


@pytest.mark.parametrize("grad", [True, False])
def test_the_operators_read_nothing_beyond_their_tensors(grad: bool) -> None:
    x, scale, shift = tensors(2, 32, 8, 8)
    wrong = [
        (x, scale[:1], shift, 16),
        (x, scale, shift[:, :16], 16),
        (x[..., :3], scale, shift, 16),
        (x, scale, shift, 0),
        (x, scale, shift, 5),
        (x, scale.double(), shift, 16),
        (x, scale[0], shift[0], 16),
    ]
    options = (1e-5, True, 0.0)
    mean = torch.zeros(2, 16)
    with torch.set_grad_enabled(grad):
        for x_, scale_, shift_, groups in wrong:
            with pytest.raises(ValueError, match=r"not written for|float32"):
                torch.ops.diffusion_labs.group_norm(x_, scale_, shift_, None, groups, *options)
        with pytest.raises(ValueError, match="rate"):
            torch.ops.diffusion_labs.group_norm(x, scale, shift, None, 16, 1e-5, True, 1.5)
        for dy, mean_, rstd in (
            (x[:1], mean, mean),
            (x, mean, mean[:1]),
            (x, mean[:1], mean[:1]),
            (x.double(), mean, mean),
        ):
            with pytest.raises(ValueError, match=r"not written for|float32"):
                torch.ops.diffusion_labs.group_norm_gradient(dy, x, scale, shift, mean_, rstd, None, *options)


def test_dropout_of_everything_leaves_nothing() -> None:
    layer, x = GroupNormSiLU(32, dropout=1.0).train(), torch.randn(16, 32, 16, 16)
    assert fits_norm(x, layer.weight, layer.bias)
    assert torch.equal(layer(x), torch.zeros_like(x))
    assert torch.equal(random_mask(torch.Size([64]), torch.tensor(3), 1.0), torch.zeros(64))


@pytest.mark.parametrize("grad", [True, False])
def test_whole_numbers_are_taken_as_numbers(grad: bool) -> None:
    x, scale, shift = tensors(2, 32, 8, 8)
    with torch.set_grad_enabled(grad):
        y, *_ = group_norm(x, scale, shift, None, 16, 1, True, 0)
    torch.testing.assert_close(y, reference(x, scale, shift, None, 16, 1.0, True, 0.0))


@pytest.mark.parametrize("grad", [True, False])
def test_tangents_are_those_of_pytorch(grad: bool) -> None:
    layer, x = GroupNormSiLU(32), torch.randn(4, 32, 32, 32)
    with torch.set_grad_enabled(grad):
        result = tangent(layer, x, torch.ones_like(x) + x)
        expected = tangent(lambda x: torch.nn.functional.silu(torch.nn.functional.group_norm(x, 32)), x, 1 + x)
    assert result is not None
    torch.testing.assert_close(result, expected)


def test_third_derivatives_equal_those_of_the_reference() -> None:
    x, scale, shift = (value.requires_grad_() for value in tensors(2, 32, 4, 4))

    def third(y: Tensor) -> Tensor:
        for _ in range(3):
            (y,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        return y

    y, *_ = group_norm(x, scale, shift, None, 16, 1e-5, True, 0.0)
    expected = third(reference(x.double(), scale.double(), shift.double(), None, 16, 1e-5, True, 0.0))
    assert error(third(y), expected) < 1e-4
