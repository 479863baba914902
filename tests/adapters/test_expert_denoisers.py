"""A network per range of noise levels: each sample by the network of its time, and nothing is computed in vain."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

import diffusion_labs as dl
from tests.catalogue import SIZE, TinyNetwork, randomise

TIMES = torch.tensor([999, 0, 500, 501, 100, 101, 0])
PLACES = [2, 0, 1, 2, 0, 1, 0]  # low up to 100, middle up to 500, high


class Counted(TinyNetwork):
    """Notes how many samples it computes."""

    def __init__(self, seed: int = 0, learned_variance: bool = False) -> None:
        super().__init__(learned_variance=learned_variance)
        randomise(self, seed)
        self.samples: list[int] = []

    def forward(self, x: Tensor, timestep: Tensor, conditional_inputs=None) -> dl.DiffusionOutput:
        self.samples.append(len(x))
        return super().forward(x, timestep, conditional_inputs)


def experts(learned_variance: bool = True) -> tuple[dl.ExpertDenoisers, list[Counted]]:
    low, middle, high = (Counted(seed, learned_variance) for seed in range(3))
    return dl.ExpertDenoisers(high, {500: middle, 100.0: low}), [low, middle, high]


def given(times: Tensor = TIMES) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    return torch.randn(len(times), *SIZE), times, {"class": torch.arange(len(times)) % 3}


def by_hand(networks: list[Counted], x: Tensor, t: Tensor, conditions: dict[str, Tensor]) -> list[dl.DiffusionOutput]:
    return [
        networks[place](x[[i]], t[[i]], {"class": conditions["class"][[i]]}) for i, place in enumerate(PLACES[: len(x)])
    ]


@pytest.mark.parametrize("training", [True, False])
def test_each_sample_is_computed_by_the_network_of_its_time(training: bool) -> None:
    model, networks = experts()
    model.train(training)
    x, t, conditions = given()
    expected = by_hand(networks, x, t, conditions)
    for network in networks:
        network.samples.clear()
    output = model(x, t, conditions)
    assert [network.samples for network in networks] == [[3], [2], [2]]
    for field in ("prediction", "variance_value"):
        rows = torch.cat([getattr(one, field) for one in expected])
        torch.testing.assert_close(getattr(output, field), rows)


@pytest.mark.slow
def test_one_graph_serves_every_batch_and_gives_the_same() -> None:
    low, middle, high = (randomise(TinyNetwork(), seed) for seed in range(3))
    model = dl.ExpertDenoisers(high, {500: middle, 100: low})
    x, t, conditions = given()
    for training in (True, False):
        expected = model.train(training)(x, t, conditions).prediction
        graphs = CompileCounterWithBackend("aot_eager")
        compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=graphs)
        made = []
        for count in (7, 3, 5):
            part = (x[:count].clone(), t[:count].clone(), {"class": conditions["class"][:count].clone()})
            torch.testing.assert_close(compiled(*part).prediction, expected[:count], rtol=1e-4, atol=1e-5)
            made.append(graphs.frame_count)
        assert made == [made[0]] * 3  # none is made for another batch


def test_in_sampling_one_network_computes_each_step() -> None:
    model, networks = experts()
    schedule = dl.DiscreteGaussianSchedule(dl.cosine_beta_schedule(1000))
    predictor = dl.VPredictor(schedule)
    options = {"grid": dl.linspace, "eval_steps": 7, "progress_bar": False}  # 999, 833, 666, 500, 333, 167, 0
    sampler = dl.DDIMSampler(model, schedule, predictor, **options).eval()
    x = torch.randn(2, *SIZE)
    image = sampler(x)
    assert [len(network.samples) for network in networks] == [1, 3, 3]

    levels = schedule.levels(sampler.times())
    for i, level in enumerate(levels):
        network = networks[sum(level.t.item() > time for time in (100, 500))]
        x0, eps = predictor.denoise_at(network(x, level.t.expand(2)).prediction, x, level)
        x = x0 if level is levels[-1] else levels[i + 1].alpha * x0 + levels[i + 1].sigma * eps
    torch.testing.assert_close(image, x)


def test_training_gives_each_network_the_gradients_of_its_own_samples() -> None:
    model, networks = experts(learned_variance=False)
    x, t, conditions = given(TIMES[:3])
    model.train()(x, t, conditions).prediction.square().sum().backward()
    alone = copy.deepcopy(networks)
    for network in alone:
        network.zero_grad()
    sum(one.prediction.square().sum() for one in by_hand(alone, x, t, conditions)).backward()
    for network, other in zip(networks, alone, strict=True):
        for parameter, same in zip(network.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(parameter.grad, same.grad)


def test_a_network_without_samples_has_gradients_of_zero_and_is_not_called_in_sampling() -> None:
    model, networks = experts()
    x, t, conditions = given(torch.tensor([700, 900]))
    model.train()(x, t, conditions).prediction.sum().backward()
    assert [network.samples for network in networks] == [[1], [1], [2]]
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert not any(parameter.grad.any() for network in networks[:2] for parameter in network.parameters())
    assert networks[2].conv.weight.grad.any()
    model.eval()(x, t, conditions)
    assert [len(network.samples) for network in networks] == [1, 1, 2]


class Conditioned(dl.ConditionalModule):
    """The sum of x and of the conditions that it knows."""

    def __init__(self, *names: str) -> None:
        super().__init__(names)

    def forward(self, x: Tensor, timestep: Tensor, conditional_inputs=None) -> dl.DiffusionOutput:
        known = self.check_conditions(conditional_inputs, x)
        return dl.DiffusionOutput(x + sum(known[name][:, None, None, None] for name in sorted(self.condition_names)))


def test_conditions_of_one_network_are_ignored_by_the_other() -> None:
    """As of the refiner of Stable Diffusion XL, which is told an aesthetic score and not the target's size."""
    model = dl.ExpertDenoisers(Conditioned("text", "size"), {10: Conditioned("text", "score")})
    conditions = {"text": torch.tensor([1.0, 1.0]), "size": torch.tensor([10.0, 10.0])}
    conditions |= {"score": torch.tensor([100.0, 100.0])}
    output = model(torch.zeros(2, *SIZE), torch.tensor([10, 11]), conditions)
    assert output.prediction[:, 0, 0, 0].tolist() == [101.0, 11.0]
    with pytest.raises(ValueError, match=r"\['scores'\], which nothing in this model consumes"):
        model(torch.zeros(2, *SIZE), torch.tensor([10, 11]), {"scores": conditions["score"]})


def test_guidance_inside_of_the_experts_is_taken_off() -> None:
    networks = [TinyNetwork(), randomise(TinyNetwork(), 1)]
    low, high = (dl.CFGuidance(network, {"class": 0.1}, guidance_scale=3.0) for network in networks)
    model = dl.ExpertDenoisers(high, {400: low}).eval()
    x, t, conditions = given()
    plain = dl.ExpertDenoisers(networks[1], {400: networks[0]}).eval()
    torch.testing.assert_close(model.unguided()(x, t, conditions), plain(x, t, conditions))
    assert (model(x, t, conditions).prediction - plain(x, t, conditions).prediction).abs().max() > 1e-2


def test_no_experts_are_an_error_and_times_must_be_one_a_sample() -> None:
    with pytest.raises(ValueError, match="experts is empty"):
        dl.ExpertDenoisers(TinyNetwork(), {})
    with pytest.raises(ValueError, match="one time for each sample"):
        dl.ExpertDenoisers(nn.Identity(), {1: nn.Identity()})(torch.zeros(2, *SIZE), torch.tensor(3))
