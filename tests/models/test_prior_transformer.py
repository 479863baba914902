"""The causal Transformer for embeddings: what each place sees, padding, dropping, and data of two dimensions."""

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import diffusion_labs as dl
from diffusion_labs.models.transformer.prior_transformer import causal_mask
from tests.catalogue import prior_network, prompt, randomise

T = torch.tensor([0, 10, 500, 999])


def test_each_place_sees_itself_and_the_valid_places_before() -> None:
    valid = torch.tensor([[False, True, False, True]])
    expected = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0], [0, 1, 0, 1]]
    assert torch.equal(causal_mask(valid)[0], torch.tensor(expected).bool())


def sequence(network: nn.Module, x: Tensor, t: Tensor, conditions: dict[str, Tensor]) -> Tensor:
    """The sequence after the last block."""
    kept: list[Tensor] = []
    handle = network.blocks[-1].register_forward_hook(lambda *call: kept.append(call[-1]))
    network(x, t, conditions)
    handle.remove()
    return kept[0]


def test_the_order_of_the_sequence_is_that_of_the_paper_and_causal() -> None:
    """A change is seen at its own place and at later ones: the text, its embedding, the time, x, the query."""
    network, x, conditions = prior_network(), torch.randn(4, 6), prompt()
    conditions["text_mask"] = torch.ones_like(conditions["text_mask"])
    before = sequence(network, x, T, conditions)
    assert before.shape[1] == 5 + 4
    text, vector = conditions["text"].clone(), conditions["text_embedding"] + 1
    text[:, 2] += 1
    changed = {
        2: (x, T, {**conditions, "text": text}),
        5: (x, T, {**conditions, "text_embedding": vector}),
        6: (x, T + 1, conditions),
        7: (x + 1, T, conditions),
    }
    for place, arguments in changed.items():
        differences = (sequence(network, *arguments) - before).abs().amax((0, 2))
        assert differences[:place].max() == 0, place
        assert differences[place:].min() > 1e-4, place


def test_padding_and_its_length_do_not_change_the_prediction() -> None:
    network, x, conditions = prior_network().double(), torch.randn(4, 6).double(), prompt()
    expected = network(x, T, conditions).prediction
    text, mask = conditions["text"].clone(), conditions["text_mask"]
    text[~mask] = 100.0
    padded = {"text": nn.functional.pad(text, (0, 0, 0, 2)), "text_mask": nn.functional.pad(mask, (0, 2))}
    torch.testing.assert_close(network(x, T, conditions | padded).prediction, expected)
    for i, n in enumerate(mask.sum(1).tolist()):  # and a text alone, without a mask
        alone = {"text": text[i : i + 1, :n], "text_embedding": conditions["text_embedding"][i : i + 1]}
        torch.testing.assert_close(network(x[i : i + 1], T[i : i + 1], alone).prediction, expected[i : i + 1])
    conditions["text_mask"] = torch.zeros_like(mask)  # no text at all is no reason for NaN
    assert network(x, T, conditions).prediction.isfinite().all()


def test_absent_conditions_are_zeros() -> None:
    network, x = prior_network(), torch.randn(4, 6)
    zeros = {"text": torch.zeros(4, 1, 8), "text_embedding": torch.zeros(4, 5)}
    assert torch.equal(network(x, T).prediction, network(x, T, zeros).prediction)
    network(x, T).prediction.sum().backward()  # every parameter takes part, as DistributedDataParallel needs
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_predicts_zero_until_it_is_trained_and_checkpointing_changes_nothing() -> None:
    sizes = {"embed_dim": 6, "text_dim": 8, "text_embed_dim": 5, "max_tokens": 5, "dim": 8, "depth": 2, "num_heads": 1}
    network = dl.prior_transformer(**sizes, norm_in=True, norm_text_embedding=True, time_dim=12)
    assert not network(torch.randn(4, 6), T, prompt()).prediction.any()
    randomise(network)
    other = copy.deepcopy(network)
    other.checkpointing = True
    x, conditions = torch.randn(4, 6), prompt()
    for model in (network, other):
        model(x, T, conditions).prediction.square().sum().backward()
    for parameter, same in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, same.grad)


class Recorder(dl.ConditionalModule):
    """Notes what the network is told."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network.condition_names)
        self.condition_shapes = network.condition_shapes
        self.given: list[dict[str, Tensor]] = []

    def forward(self, x: Tensor, timestep: Tensor, conditional_inputs: Any = None) -> dl.DiffusionOutput:
        self.given.append(dict(conditional_inputs))
        return dl.DiffusionOutput(x)


@pytest.mark.parametrize("empty_prompt", [False, True])
def test_text_and_its_embedding_are_dropped_together(empty_prompt: bool) -> None:
    """One draw for a sample; for the learned null, or for the encoding of the empty prompt."""
    recorder, n = Recorder(prior_network()), 2000
    null = {"text": nn.Parameter(torch.randn(8)), "text_embedding": nn.Parameter(torch.randn(5))}
    model = dl.CFGuidance(recorder, {("text", "text_embedding"): 0.1}, null=null).train()
    given = {"text": torch.randn(n, 5, 8), "text_mask": torch.ones(n, 5).bool(), "text_embedding": torch.randn(n, 5)}
    nulls = {"text": null["text"].expand(n, 5, 8), "text_embedding": null["text_embedding"].expand(n, 5)}
    tokens = 1
    if empty_prompt:
        tokens = 2
        negative = {"text": torch.randn(1, 2, 8), "text_embedding": torch.randn(1, 5)}
        negative = {name: value.expand(n, *value.shape[1:]) for name, value in negative.items()}
        given |= {f"negative_{name}": value for name, value in negative.items()}
        nulls = {**negative, "text": nn.functional.pad(negative["text"], (0, 0, 0, 3))}
    model(torch.randn(n, 6), torch.zeros(n), given)
    (told,) = recorder.given
    dropped = (told["text_embedding"] == nulls["text_embedding"]).all(1)
    assert abs(dropped.double().mean() - 0.1) < 5 * (0.09 / n) ** 0.5
    assert torch.equal(told["text_embedding"][~dropped], given["text_embedding"][~dropped])
    assert torch.equal(told["text"], torch.where(dropped[:, None, None], nulls["text"], given["text"]))
    assert torch.equal(told["text_mask"], (torch.arange(5) < tokens) | ~dropped[:, None])


# Every adapter that knows nothing of images works on vectors: as on images of one pixel. (Samplers, schedules and
# predictors do: contracts/test_invariance.py.)
SCHEDULE = dl.DiscreteGaussianSchedule(dl.cosine_beta_schedule(1000))
PREDICTOR = dl.TargetPredictor(SCHEDULE, clamp=dl.StaticClamp(-5, 5))


class Vectors(dl.ConditionalModule):
    """A linear network of vectors, or of images of one pixel."""

    def __init__(self) -> None:
        super().__init__(["vector"])
        self.linear = randomise(nn.Linear(6, 6))

    def forward(self, x: Tensor, timestep: Tensor, conditional_inputs: Any = None) -> dl.DiffusionOutput:
        vector = (conditional_inputs or {}).get("vector", torch.zeros(len(x), 6))
        return dl.DiffusionOutput((self.linear(x.flatten(1)) + vector).view_as(x))


def classify(x: Tensor, timestep: Tensor) -> Tensor:
    return x.flatten(1)[:, :3].tanh()


def guided(**options: Any) -> Callable[[nn.Module], nn.Module]:
    return lambda model: dl.CFGuidance(model, {"vector": 0.5}, guidance_scale=3.0, **options)


VECTOR_ADAPTERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "guidance": guided(),
    "rescaled": guided(combine=dl.GuidanceRescale(0.7)),
    "projected": guided(combine=dl.AdaptiveProjectedGuidance(PREDICTOR, norm_threshold=2.0)),
    "in_an_interval": guided(interval=dl.GuidanceInterval(SCHEDULE, low=0.5, high=5.0)),
    "plus_plus": lambda model: dl.CFGuidancePlusPlus(model, {"vector": 0.5}, guidance_scale=0.6),
    "autoguidance": lambda model: dl.AutoGuidance(model, Vectors(), guidance_scale=2.0),
    "edm": lambda model: dl.EDMPreconditioning(model, SCHEDULE),
    "classifier": lambda model: dl.ClassifierGuidance(model, Classifier(), PREDICTOR, guidance_scale=2.0),
}


class Classifier(nn.Module):
    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        return classify(x, timestep)


@pytest.mark.parametrize("name", VECTOR_ADAPTERS)
def test_adapters_work_on_vectors(name: str) -> None:
    model = VECTOR_ADAPTERS[name](Vectors()).eval()
    conditions = {"vector": torch.randn(4, 6)} | ({"class": torch.arange(4) % 3} if name == "classifier" else {})
    sampler = dl.DDPMSampler(model, SCHEDULE, PREDICTOR, eval_steps=3, progress_bar=False).eval()
    noise = torch.randn(4, 6)
    vectors = sampler(noise, conditional_inputs=conditions, generator=dl.seeded(range(4)))
    pixels = sampler(noise[..., None, None], conditional_inputs=conditions, generator=dl.seeded(range(4)))
    assert vectors.shape == (4, 6)
    torch.testing.assert_close(vectors, pixels[..., 0, 0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(4, 6, 1), T), "x has shape [4, 6, 1], but must be [4, 6]: one embedding"),
        ((torch.zeros(4, 6).long(), T), "x has dtype torch.int64"),
        ((torch.zeros(4, 6), T[:1]), "timestep has shape [1], but must be [4]"),
        ((torch.zeros(4, 6), T, {"text": torch.zeros(4, 8, 8)}), "'text' has 8 tokens, but this network has"),
        ((torch.zeros(4, 6), T, {"text": torch.zeros(4, 5, 7)}), "'text' has shape [4, 5, 7], but must be [4, n, 8]"),
        ((torch.zeros(4, 6), T, {"text_embedding": torch.zeros(4, 6)}), "'text_embedding' has shape [4, 6]"),
        ((torch.zeros(4, 6), T, {"texts": torch.zeros(4, 5, 8)}), "conditional_inputs has ['texts']"),
    ],
)
def test_inputs_that_do_not_fit(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        prior_network()(*arguments)


def test_sizes_that_do_not_fit() -> None:
    for change, message in (
        ({"num_heads": 3}, "num_heads (3) must divide dim (16)"),
        ({"depth": 0}, "depth (0) must be at least 1"),
        ({"max_tokens": 0}, "max_tokens (0) must be at least 1"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            dl.prior_transformer(**{"embed_dim": 6, "dim": 16, "depth": 1, "num_heads": 2, **change})
