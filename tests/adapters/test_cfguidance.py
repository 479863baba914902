"""Classifier-free guidance."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

import diffusion_labs as dl
from diffusion_labs.randomness import sample_keys
from tests import catalogue


class Sum(dl.ConditionalModule):
    """Predicts x plus the sum of its conditions, and notes them; the variance tells the condition too."""

    def __init__(self) -> None:
        super().__init__(["class", "text", "tokens"])
        self.null_conditions = {"class": 10}
        self.calls: list[dict[str, Tensor]] = []

    def forward(self, x: Tensor, timestep: Tensor, conditional_inputs: Mapping[str, Tensor] | None = None):
        conditions = self.check_conditions(conditional_inputs, x)
        self.calls.append(dict(conditions))
        total = sum(value.reshape(len(x), -1).to(x).sum(1) for value in conditions.values())
        shift = torch.as_tensor(total).reshape(-1, *[1] * (x.dim() - 1))
        return dl.DiffusionOutput(x + shift, torch.zeros_like(x) + shift / 100)


def call(model: nn.Module, **conditions: Tensor) -> tuple[dl.DiffusionOutput, dict[str, Tensor]]:
    network = next(module for module in model.modules() if isinstance(module, Sum))
    network.calls.clear()
    batch = next((len(value) for value in conditions.values()), 2)
    output = model(torch.zeros(batch, 1), torch.zeros(batch), conditions)
    assert len(network.calls) == 1
    return output, network.calls[0]


def test_guidance_extrapolates_from_null_to_condition() -> None:
    """u + s (c - u), with c = 3 and u = 10: the network's own null class."""
    model = dl.CFGuidance(Sum(), {"class": 0.1}).eval()
    for scale in (-1.0, 0.5, 2.0, 7.5):
        model.guidance_scale = scale
        output, seen = call(model, **{"class": torch.tensor([3, 4])})
        expected = 10 + scale * (torch.tensor([[3.0], [4.0]]) - 10)
        torch.testing.assert_close(output.prediction, expected)
        assert seen["class"].tolist() == [3, 4, 10, 10]


def test_learned_variance_comes_from_the_conditional_half() -> None:
    model = dl.CFGuidance(Sum(), {"class": 0.1}, guidance_scale=5.0).eval()
    output, _ = call(model, **{"class": torch.tensor([3, 4])})
    torch.testing.assert_close(output.variance_value, torch.tensor([[0.03], [0.04]]))


def test_no_guidance_is_one_pass_of_the_batch() -> None:
    model = dl.CFGuidance(Sum(), {"class": 0.1}, guidance_scale=1.0).eval()
    output, seen = call(model, **{"class": torch.tensor([3, 4])})
    assert seen["class"].tolist() == [3, 4]
    torch.testing.assert_close(output.prediction, torch.tensor([[3.0], [4.0]]))


def test_scale_zero_is_one_unconditional_pass() -> None:
    model = dl.CFGuidance(Sum(), {"class": 0.1}, guidance_scale=0.0).eval()
    output, seen = call(model, **{"class": torch.tensor([3, 4])})
    assert seen["class"].tolist() == [10, 10]
    torch.testing.assert_close(output.prediction, torch.tensor([[10.0], [10.0]]))


def test_without_conditions_it_is_one_unconditional_pass() -> None:
    model = dl.CFGuidance(Sum(), {"class": 0.1}, guidance_scale=4.0).eval()
    _, seen = call(model)
    assert seen["class"].tolist() == [10, 10]


def test_an_absent_condition_counts_as_null_while_another_is_guided() -> None:
    model = dl.CFGuidance(Sum(), {"class": 0.1, "text": 0.1}, null={"text": torch.ones(3)}, guidance_scale=2.0).eval()
    _, seen = call(model, text=torch.zeros(2, 3))
    assert seen["class"].tolist() == [10] * 4
    assert seen["text"].tolist() == [[0.0] * 3] * 2 + [[1.0] * 3] * 2


def test_conditions_that_are_not_dropped_stay_in_both_halves() -> None:
    model = dl.CFGuidance(Sum(), {"class": 0.1}, guidance_scale=2.0).eval()
    _, seen = call(model, **{"class": torch.tensor([3, 4]), "text": torch.ones(2, 3)})
    assert torch.equal(seen["text"], torch.ones(4, 3))


def test_each_condition_is_dropped_with_its_own_probability_and_groups_jointly() -> None:
    model = dl.CFGuidance(Sum(), {"class": 0.3, ("text", "tokens"): 0.6}).train()
    n = 20_000
    _, seen = call(
        model,
        **{"class": torch.ones(n, dtype=torch.long), "text": torch.ones(n, 2), "tokens": torch.ones(n, 4, 3)},
    )
    dropped = {
        "class": seen["class"] == 10,
        "text": (seen["text"] == 0).all(1),
        "tokens": (seen["tokens"] == 0).all(2).all(1),
    }
    kept = {"class": seen["class"] == 1, "text": (seen["text"] == 1).all(1)}
    assert all(bool((dropped[name] ^ kept[name]).all()) for name in kept)
    assert torch.equal(dropped["text"], dropped["tokens"])
    margin = 5 * 0.5 / n**0.5
    assert abs(dropped["class"].double().mean() - 0.3) < margin
    assert abs(dropped["text"].double().mean() - 0.6) < margin
    assert abs((dropped["class"] & dropped["text"]).double().mean() - 0.18) < margin


def test_what_is_dropped_of_a_sample_is_a_function_of_its_key_where_the_training_gives_it() -> None:
    """Whatever its batch and the state of torch; with the right probability, and of each condition on its own."""
    n = 20_000
    keys = sample_keys(seed=0, epoch=1, places=torch.arange(n))
    batch = {"class": torch.ones(n, dtype=torch.long), "text": torch.ones(n, 2), "sample_key": keys}
    model = dl.CFGuidance(Sum(), {"class": 0.3, "text": 0.6}).train()
    _, seen = call(model, **batch)
    by_class, by_text = seen["class"] == 10, seen["text"][:, 0] == 0
    margin = 5 * 0.5 / n**0.5
    assert abs(by_class.double().mean() - 0.3) < margin
    assert abs(by_text.double().mean() - 0.6) < margin
    assert abs((by_class & by_text).double().mean() - 0.18) < margin

    some = torch.randperm(n)[:7]
    _, alone = call(model, **{name: value[some] for name, value in batch.items()})
    assert torch.equal(alone["class"], seen["class"][some])
    assert torch.equal(alone["text"], seen["text"][some])


def test_an_objective_gives_the_keys_to_a_model_that_takes_them_alone() -> None:
    x, keys = torch.zeros(3, 1), torch.arange(3)
    data = {"xt": x, "t": torch.zeros(3), "class": keys, "sample_key": keys}
    for network, names in (
        (Sum(), {"class"}),
        (dl.CFGuidance(Sum(), {"class": 0.5}), {"class", "sample_key"}),
    ):
        objective = dl.Objective(dict, network, lambda output, data: output.prediction.sum(), conditions=["class"])
        objective.train()(data)
        calls = next(module.calls for module in network.modules() if isinstance(module, Sum))
        assert calls[0].keys() == names


def test_nothing_is_dropped_in_eval_mode_or_at_probability_zero() -> None:
    for model in (dl.CFGuidance(Sum(), {"class": 1.0}).eval(), dl.CFGuidance(Sum(), {"class": 0.0}).train()):
        _, seen = call(model, **{"class": torch.tensor([3, 4])})
        assert seen["class"].tolist() == [3, 4]


def test_a_learned_null_embedding_gets_a_gradient_whatever_was_dropped() -> None:
    null = nn.Parameter(torch.randn(3))
    for p in (0.0, 0.5, 1.0):
        model = dl.CFGuidance(Sum(), {"tokens": p}, null={"tokens": null}).train()
        output, seen = call(model, tokens=torch.randn(4, 5, 3))
        null.grad = None
        output.prediction.sum().backward()
        assert null.grad is not None
        dropped = (seen["tokens"] == null).all(2).all(1).sum()
        torch.testing.assert_close(null.grad, torch.full((3,), 5.0 * dropped))
    assert [name for name, _ in model.named_parameters()] == ["null_tokens"]


def unet_with_tokens() -> nn.Module:
    return catalogue.network(tokens={"text": 6}, vectors={"image": 5}, context_dim=8)


def test_dropped_absent_and_null_are_the_same_to_the_network() -> None:
    """Whatever the number of the tokens and their mask: one null token, a zero vector, the null class."""
    model = dl.CFGuidance(unet_with_tokens(), {("class", "text", "image"): 1.0}, guidance_scale=0.0)
    x, t = torch.randn(3, 1, 8, 8), torch.tensor([0, 500, 999])
    expected = model.eval()(x, t).prediction
    for n in (1, 4):
        given = {"class": torch.tensor([0, 1, 2]), "text": torch.randn(3, n, 6), "image": torch.randn(3, 5)}
        for mask in ({}, {"text_mask": torch.ones(3, n, dtype=torch.bool)}):
            for training in (True, False):  # dropped with probability 1, or the unconditional half alone
                output = model.train(training)(x, t, given | mask).prediction
                torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5)


def test_learned_nulls_stand_in_for_absent_tokens_and_vectors() -> None:
    null = {"text": nn.Parameter(torch.randn(6)), "image": nn.Parameter(torch.randn(5))}
    model = dl.CFGuidance(unet_with_tokens(), {"text": 1.0, "image": 1.0}, null=null).train()
    x, t = torch.randn(3, 1, 8, 8), torch.tensor([0, 500, 999])
    given = {"text": torch.randn(3, 4, 6), "image": torch.randn(3, 5)}
    absent, dropped = model(x, t).prediction, model(x, t, given).prediction
    torch.testing.assert_close(absent, dropped, rtol=1e-5, atol=1e-5)
    absent.sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in null.values())


@pytest.mark.parametrize("count", [2, 5])
def test_several_null_tokens_stand_for_fewer_or_more_of_the_condition(count: int) -> None:
    """As ``negative_text`` of the same tokens does, and as they do alone, where the condition is absent."""
    null = torch.randn(count, 6)
    network = unet_with_tokens()
    fixed = dl.CFGuidance(network, {"text": 1.0}, null={"text": null}, guidance_scale=3.0).eval()
    plain = dl.CFGuidance(network, {"text": 1.0}, guidance_scale=3.0).eval()
    x, t = torch.randn(3, 1, 8, 8), torch.tensor([0, 500, 999])
    text, mask = torch.randn(3, 4, 6), torch.arange(4) < torch.tensor([[1], [4], [3]])
    many = null.expand(3, -1, -1)
    alone = plain(x, t, {"text": many, "negative_text": many}).prediction
    for given in ({"text": text}, {"text": text, "text_mask": mask}):
        expected = plain(x, t, given | {"negative_text": many}).prediction
        torch.testing.assert_close(fixed.eval()(x, t, given).prediction, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(fixed.train()(x, t, given).prediction, alone, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(fixed.eval()(x, t).prediction, alone, rtol=1e-5, atol=1e-5)


def test_adapters_work_around_a_wrapper_that_is_not_ours() -> None:
    class Wrapper(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, *arguments):
            return self.module(*arguments)

    model = dl.InPainting(Wrapper(catalogue.TinyNetwork(3)), 1)
    x = torch.randn(2, 1, 8, 8)
    conditions = {"mask": torch.ones_like(x), "masked_image": x, "class": torch.tensor([0, 1])}
    assert model(x, torch.tensor([0, 1]), conditions).prediction.shape == x.shape


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dropout": {"class": 1.5}}, "dropout of 'class' is 1.5"),
        ({"dropout": {"clas": 0.1}}, r"dropout names \['clas'\]"),
        ({"dropout": {"class": 0.1, ("text", "class"): 0.1}}, "twice"),
        ({"dropout": {"class": 0.1}, "null": {"text": 0.0}}, r"null names \['text'\]"),
    ],
)
def test_impossible_settings_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dl.CFGuidance(Sum(), **arguments)


def test_integers_without_a_null_are_refused() -> None:
    with pytest.raises(ValueError, match="give CFGuidance null="):
        call(dl.CFGuidance(Sum(), {"text": 0.1}), text=torch.ones(2, 3, dtype=torch.long))
