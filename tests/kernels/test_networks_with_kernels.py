"""A network with the kernels equals the network without, and keeps the promises of every component."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import diffusion_labs as dl
from diffusion_labs.checkpointing import keep_products
from diffusion_labs.kernels import build, convolution, normalisation, pointwise, resampling

NAMES = {
    *("winograd_convolution", "winograd_weight_gradient", "pointwise", "pointwise_weight_gradient"),
    *("group_norm", "group_norm_gradient", "halve", "repeat"),
}


@pytest.fixture(autouse=True)
def called(kernels_on: None, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the kernels that are called; they are for tensors of any size."""
    names: list[str] = []

    def call(name: str, *arguments: Any) -> None:
        names.append(name)
        build.call(name, *arguments)

    for module in (convolution, pointwise, normalisation, resampling):
        monkeypatch.setattr(module, "call", call)
    for module in (pointwise, normalisation, resampling):
        monkeypatch.setattr(module, "LEAST_SIZE", 1)
    return names


def network(channel_mult: tuple[int, ...] = (1, 2), **options: Any) -> nn.Module:
    torch.manual_seed(0)
    model = dl.adm_unet(
        in_channels=3,
        model_channels=32,
        channel_mult=channel_mult,
        num_res_blocks=1,
        learned_variance=True,
        classes={"class": 3},
        **options,
    )
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05)  # what starts at zero would hide the rest
    return model


def batch(size: int = 4) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    torch.manual_seed(1)
    return torch.randn(size, 3, 16, 16), torch.arange(size) * 100, {"class": torch.arange(size) % 3}


def results(model: nn.Module, inputs: tuple[Any, ...]) -> list[Tensor]:
    """Outputs, and the gradients of all parameters and of x."""
    x = inputs[0].clone().requires_grad_()
    output = model(x, *inputs[1:])
    loss = output.prediction.square().mean() + output.variance_value.square().mean()
    gradients = torch.autograd.grad(loss, [x, *model.parameters()])
    return [output.prediction.detach(), output.variance_value.detach(), *gradients]


def assert_close(left: list[Tensor], right: list[Tensor]) -> None:
    """Equal to 1e-4 of each; of a hundredth of the largest gradient for those that are smaller, which is rounding."""
    scale = max(float(value.norm()) for value in right[2:])
    for a, b in zip(left, right, strict=True):
        assert (a - b).norm() < 1e-4 * max(float(b.norm()), 1e-2 * scale)


def test_outputs_and_gradients_equal_those_without(called: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = network(attention_levels=(1,)), batch()
    with_kernels = results(model, inputs)
    assert set(called) == NAMES
    called.clear()
    monkeypatch.setenv("DIFFUSION_LABS_KERNELS", "0")
    assert_close(with_kernels, results(model, inputs))
    assert called == []


def test_copies_and_pickles_compute_the_same() -> None:
    model, inputs = network(), batch()
    expected = results(model, inputs)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert all(torch.equal(a, b) for a, b in zip(results(other, inputs), expected, strict=True))


@pytest.mark.slow
def test_compiles_as_one_graph_that_calls_the_kernels_for_any_batch(called: list[str]) -> None:
    model = network(channel_mult=(1,), middle_attention=False)
    expected = {size: results(model, batch(size)) for size in (4, 5)}
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=True)
    assert_close(results(compiled, batch(4)), expected[4])
    called.clear()
    with torch._dynamo.config.patch(error_on_recompile=True):
        assert_close(results(compiled, batch(5)), expected[5])
    assert set(called) == NAMES - {"halve", "repeat"}  # it has one level


@pytest.mark.slow
def test_an_exported_network_does_without_them() -> None:
    exported = torch.export.export(network(channel_mult=(1,)).eval(), batch())
    assert not any("diffusion_labs" in str(node.target) for node in exported.graph.nodes)


@pytest.mark.parametrize("checkpointing", [True, keep_products])
def test_recomputed_blocks_give_the_same_gradients(checkpointing: Any) -> None:
    """Dropout included: the seed of its mask is drawn again."""
    model, inputs = network(dropout=0.3).train(), batch()
    torch.manual_seed(1)
    expected = results(model, inputs)
    dl.set_checkpointing(model, checkpointing)
    torch.manual_seed(1)
    assert_close(results(model, inputs), expected)


def test_selective_checkpointing_keeps_the_convolutions(called: list[str]) -> None:
    counts = []
    for setting in (False, keep_products, True):
        model = network().train()
        dl.set_checkpointing(model, setting)
        called.clear()
        results(model, batch())
        counts.append({name: called.count(name) for name in ("winograd_convolution", "group_norm")})
    plain, selective, full = counts
    assert selective["winograd_convolution"] == plain["winograd_convolution"] < full["winograd_convolution"]
    assert selective["group_norm"] > plain["group_norm"]
