"""Laws of adapters: every ordered pair stacks, every key arrives, nothing is written to."""

import itertools
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

import diffusion_labs as dl
from tests import catalogue
from tests.catalogue import ADAPTERS

# Outer, inner: the inner one needs x_t and its time as the process has them, which the outer one changes.
REFUSED = [
    *itertools.product(
        ("patchify", "edm_preconditioning"), ("classifier_guidance", "known_region", "linear_posterior")
    ),
    ("patchify", "micro_conditioning"),
    *itertools.product(("inpainting", "concatenation", "super_resolution"), ("edm_preconditioning",)),
    *itertools.product(("edm_preconditioning",), ("cfguidance_projected", "expert_denoisers")),
]
PAIRS = [pair for pair in itertools.permutations(ADAPTERS, 2) if pair not in REFUSED]
# Their guidance is not linear in the prediction, or depends on the class: the order is a choice.
GRADIENTS = ("classifier_guidance", "linear_posterior")


class Recorder(nn.Module):
    """A foreign network, not a ``ConditionalModule``: notes what it gets and predicts the first channels."""

    attention_blocks = ("middle",)
    null_conditions: Mapping[str, int] = {"class": catalogue.NUM_CLASSES}

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.calls: list[tuple[Tensor, Tensor, Mapping[str, Tensor]]] = []

    def forward(self, x: Tensor, timestep: Tensor, conditional_inputs: Mapping[str, Tensor]) -> dl.DiffusionOutput:
        self.calls.append((x, timestep, conditional_inputs))
        return dl.DiffusionOutput(x[:, : self.out_channels], x[:, : self.out_channels].sigmoid())


def stack(names: tuple[str, ...], make=catalogue.TinyNetwork) -> nn.Module:
    """Adapters around a network, the first name outermost."""
    channels, out = 1, 1
    for name in names:
        channels, out = ADAPTERS[name].grow(channels, out)
    model = make(channels, out)
    for name in reversed(names):
        model = ADAPTERS[name].wrap(model)
    return model


def inputs(names: tuple[str, ...]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    x = torch.randn(4, *catalogue.SIZE)
    conditions: dict[str, Tensor] = {"class": torch.tensor([0, 1, 2, 0])}
    for name in names:
        conditions |= ADAPTERS[name].inputs(x)
    return x, torch.tensor([0, 10, 500, 999]), conditions


@pytest.mark.parametrize("names", PAIRS, ids="-".join)
@pytest.mark.parametrize("training", [True, False])
def test_every_ordered_pair_stacks(names: tuple[str, ...], training: bool) -> None:
    model = stack(names, catalogue.TinyNetwork).train(training)
    x, t, conditions = inputs(names)
    before = dict(conditions)
    output = model(x, t, conditions)
    assert output.prediction.shape == x.shape
    assert conditions.keys() == before.keys()
    assert all(conditions[key] is before[key] for key in before)


@pytest.mark.parametrize("names", REFUSED, ids="-".join)
def test_the_one_order_of_a_pair_that_has_one_is_named(names: tuple[str, ...]) -> None:
    outer, inner = (type(ADAPTERS[name].wrap(catalogue.TinyNetwork())).__name__ for name in names)
    with pytest.raises(ValueError, match=f"{outer} changes .* put {inner} around {outer}"):
        stack(names)


@pytest.mark.parametrize("names", PAIRS, ids="-".join)
def test_every_key_arrives_at_the_network_whoever_consumed_it(names: tuple[str, ...]) -> None:
    channels, out = 1, 1
    for name in names:
        channels, out = ADAPTERS[name].grow(channels, out)
    model = stack(names, lambda *_: Recorder(out)).eval()
    x, t, conditions = inputs(names)
    conditions["unheard_of"] = torch.arange(4)
    model(x, t, conditions)
    calls = [call for module in model.modules() if isinstance(module, Recorder) for call in enumerate(module.calls)]
    assert {row for _, (*_, seen) in calls for row in seen["unheard_of"].tolist()} == {0, 1, 2, 3}
    same = conditions.keys() - frozenset().union(*(ADAPTERS[name].rescales for name in names))
    for i, (grown, _, seen) in calls:  # of the passes of guidance, the first is that with all conditions
        rows = sorted(set(seen["unheard_of"].tolist()))
        assert rows == [0, 1, 2, 3] or "expert_denoisers" in names
        assert set(conditions) <= set(seen) <= set(conditions) | {"identity_attention"}
        assert i > 0 or all(torch.equal(seen[key][: len(rows)], conditions[key][rows]) for key in same)
        assert all(len(value) == len(grown) for value in seen.values())
        assert grown.shape[1] == channels


LINEAR = set(ADAPTERS) - {"cfguidance_projected", *GRADIENTS}
GUIDANCE = {"cfguidance", "cfguidance_plus_plus", "autoguidance", "perturbed_attention"}


@pytest.mark.parametrize(
    "names", [pair for pair in itertools.combinations(ADAPTERS, 2) if set(pair) <= LINEAR and set(pair) & GUIDANCE]
)
def test_the_order_of_linear_guidance_and_other_adapters_does_not_matter(names: tuple[str, ...]) -> None:
    """It is linear in the predictions, so it commutes with other guidance, and with adapters that only prepare x."""
    x, t, conditions = inputs(names)
    left, right = (stack(order).eval()(x, t, conditions) for order in (names, names[::-1]))
    torch.testing.assert_close(left.prediction, right.prediction)
    assert (left.renoise_prediction is not None) == ("cfguidance_plus_plus" in names)
    torch.testing.assert_close(left.renoise_prediction, right.renoise_prediction)


@pytest.mark.parametrize("names", PAIRS, ids="-".join)
def test_a_misspelt_key_is_named_with_those_understood(names: tuple[str, ...]) -> None:
    model = stack(names)
    x, t, conditions = inputs(names)
    with pytest.raises(ValueError, match=r"\['clas'\], which nothing in this model consumes.*'class'"):
        model(x, t, {**conditions, "clas": conditions["class"]})


@pytest.mark.parametrize("name", ADAPTERS)
def test_every_parameter_gets_a_gradient_with_and_without_conditions(name: str) -> None:
    model = stack((name,)).train()
    x, t, conditions = inputs((name,))
    for given in (conditions, {key: value for key, value in conditions.items() if key != "class"}):
        model.zero_grad()
        model(x, t, given).prediction.square().mean().backward()
        assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_condition_of_another_batch_is_named(name: str) -> None:
    x, t, conditions = inputs((name,))
    with pytest.raises(ValueError, match=r"conditional_inputs\['class'\] has shape \[3\]"):
        stack((name,))(x, t, {**conditions, "class": conditions["class"][:3]})
