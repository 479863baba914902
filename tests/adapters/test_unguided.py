"""``unguided``: the same stack without what guides it."""

import pytest
import torch
from torch import nn

import diffusion_labs as dl
from tests.catalogue import ADAPTERS, SIZE, TinyNetwork

GUIDED = [name for name in ADAPTERS if name.startswith("cfguidance") or name.endswith(("_guidance", "_attention"))]
GUIDED += ["autoguidance"]


def call(model: nn.Module, inputs) -> dl.DiffusionOutput:
    x = torch.randn(4, *SIZE, generator=torch.Generator().manual_seed(1))
    conditions = {"class": torch.tensor([0, 1, 2, 0]), **inputs(x)}
    return model(x, torch.tensor([0, 10, 500, 999]), conditions)


@pytest.mark.parametrize("name", ADAPTERS)
def test_guidance_is_gone_and_all_else_is_the_same(name: str) -> None:
    case = ADAPTERS[name]
    adapter = case.wrap(TinyNetwork(*case.grow(1, 1))).eval()
    plain = adapter.unguided()
    expected = adapter.model if name in GUIDED else adapter
    inputs = (lambda x: {}) if name in GUIDED else case.inputs
    torch.testing.assert_close(call(plain, inputs), call(expected, inputs))
    if name in GUIDED and name != "classifier_guidance":
        assert (call(adapter, inputs).prediction - call(plain, inputs).prediction).abs().max() > 1e-3
    assert {id(p) for p in plain.parameters()} <= {id(p) for p in adapter.parameters()}


def test_guidance_inside_of_another_adapter_is_gone_too_and_the_stack_is_as_it_was() -> None:
    network = TinyNetwork(2)
    guided = dl.CFGuidance(network, {"class": 0.5}, null={"class": nn.Parameter(torch.tensor(3.0))}, guidance_scale=3.0)
    stack = dl.SuperResolution(guided).eval()
    inputs = lambda x: {"low_resolution": x[:, :, ::2, ::2]}  # noqa: E731
    before = call(stack, inputs)
    torch.testing.assert_close(call(stack.unguided(), inputs), call(dl.SuperResolution(network), inputs))
    assert stack.unguided().model.null_class is guided.null_class
    assert torch.equal(call(stack, inputs).prediction, before.prediction)
    assert stack.model is guided
    assert guided.guidance_scale == 3.0
