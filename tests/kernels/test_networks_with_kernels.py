"""A network with the kernels equals the network without, and keeps the promises of every component."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import diffusion_labs as dl
from diffusion_labs.checkpointing import keep_products
from diffusion_labs.kernels import normalisation
from diffusion_labs.kernels.build import library

NAMES = ("winograd_convolution", "winograd_weight_gradient", "group_norm_silu", "group_norm_silu_gradient")


@pytest.fixture(autouse=True)
def kernels_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFUSION_LABS_KERNELS", "1")
    monkeypatch.setattr(normalisation, "LEAST_SIZE", 1)
    if library() is None:
        pytest.skip("needs Linux, a processor with AVX2 and g++")


def network(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    model = dl.adm_unet(
        in_channels=3,
        model_channels=32,
        channel_mult=(1, 2),
        num_res_blocks=1,
        attention_levels=(1,),
        learned_variance=True,
        classes={"class": 3},
        **options,
    )
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05)  # what starts at zero would hide the rest
    return model


def batch(size: int = 4) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    return torch.randn(size, 3, 16, 16), torch.arange(size) * 100, {"class": torch.arange(size) % 3}


def results(model: nn.Module, inputs: tuple[Any, ...]) -> list[Tensor]:
    """Outputs, and the gradients of all parameters and of x."""
    x = inputs[0].clone().requires_grad_()
    output = model(x, *inputs[1:])
    loss = output.prediction.square().mean() + output.variance_value.square().mean()
    gradients = torch.autograd.grad(loss, [x, *model.parameters()])
    return [output.prediction.detach(), output.variance_value.detach(), *gradients]


def assert_close(left: list[Tensor], right: list[Tensor]) -> None:
    scale = max(float(value.norm()) for value in right[2:])
    for a, b in zip(left, right, strict=True):
        assert (a - b).norm() < 1e-4 * max(float(b.norm()), 1e-2 * scale)


def operators(run: Any) -> set[str]:
    """Which of the kernels are called."""
    with torch.profiler.profile() as profile:
        run()
    return {name for name in NAMES if any(e.key == f"diffusion_labs::{name}" for e in profile.key_averages())}


def test_outputs_and_gradients_equal_those_without(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = network(), batch()
    assert operators(lambda: results(model, inputs)) == set(NAMES)
    with_kernels = results(model, inputs)
    monkeypatch.setenv("DIFFUSION_LABS_KERNELS", "0")
    assert operators(lambda: results(model, inputs)) == set()
    assert_close(with_kernels, results(model, inputs))


def test_copies_and_pickles_compute_the_same() -> None:
    model, inputs = network(), batch()
    expected = results(model, inputs)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert all(torch.equal(a, b) for a, b in zip(results(other, inputs), expected, strict=True))


def test_compiles_as_one_graph_that_calls_the_kernels_for_any_batch() -> None:
    model = network()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=True)
    assert_close(results(compiled, batch()), results(model, batch()))
    with torch._dynamo.config.patch(error_on_recompile=True):
        assert_close(results(compiled, batch(5)), results(model, batch(5)))
        assert operators(lambda: results(compiled, batch(7))) == set(NAMES)


def test_an_exported_network_does_without_them() -> None:
    inputs = batch()
    exported = torch.export.export(network().eval(), inputs)
    assert not any("diffusion_labs" in str(node.target) for node in exported.graph.nodes)


@pytest.mark.parametrize("checkpointing", [True, keep_products])
def test_recomputed_blocks_give_the_same_gradients(checkpointing: Any) -> None:
    """Dropout included: the seed of its mask is drawn again."""
    inputs, expected = batch(), None
    for setting in (False, checkpointing):
        model = network(dropout=0.3).train()
        dl.set_checkpointing(model, setting) if setting else None
        torch.manual_seed(1)
        values = results(model, inputs)
        expected = values if expected is None else expected
        assert_close(values, expected)


def test_selective_checkpointing_keeps_the_convolutions() -> None:
    model, inputs = network(), batch()
    dl.set_checkpointing(model.train(), keep_products)
    with torch.profiler.profile() as profile:
        results(model, inputs)
    counts = {event.key: event.count for event in profile.key_averages()}
    layers = sum(
        isinstance(m, nn.Conv2d) and min(m.in_channels, m.out_channels) >= 16 and m.kernel_size == (3, 3)
        for m in model.modules()
    )
    assert counts["diffusion_labs::winograd_convolution"] == 2 * layers
