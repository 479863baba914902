"""Features that are reused: which stages are called when, equality where nothing changes, and loops at once."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

import diffusion_labs as dl
from tests import catalogue
from tests.catalogue import SCHEDULES

STEPS = 7


def sampler(model: nn.Module, **options: object) -> dl.Sampler:
    schedule = SCHEDULES["cosine"]()
    predictor = dl.VPredictor(schedule)
    return dl.DDIMSampler(model, schedule, predictor, eval_steps=STEPS, progress_bar=False, **options).eval()


def draw(model: nn.Module, size: int = 2, seed: int = 0) -> Tensor:
    x = torch.randn(size, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    return sampler(model)(x, conditional_inputs={"class": torch.arange(size) % 3})


def count_calls(module: nn.Module) -> list[int]:
    """One entry for each call from now on."""
    calls: list[int] = []
    module.register_forward_hook(lambda *_: calls.append(1))
    return calls


@pytest.mark.parametrize(("interval", "whole"), [(1, 7), (2, 4), (3, 3), (7, 1), (100, 1)])
def test_all_stages_are_called_every_interval_and_the_last_in_every_call(interval: int, whole: int) -> None:
    network = catalogue.network()
    model = dl.DeepCache(network, interval=interval)
    deep, first, last = (count_calls(part) for part in (network.middle, network.encoder[0], network.decoder[-1]))
    for _ in range(2):  # the next sampling begins anew
        for calls in (deep, first, last):
            calls.clear()
        draw(model)
        assert len(deep) == len(first) == whole
        assert len(last) == STEPS


def test_more_stages_call_more_of_the_encoder() -> None:
    network = catalogue.network()
    calls = [count_calls(stage) for stage in network.encoder]
    draw(dl.DeepCache(network, interval=STEPS, stages=3))
    assert [len(each) for each in calls] == [STEPS] * 2 + [1] * (len(calls) - 2)


def test_with_the_features_of_the_same_input_the_output_is_the_same() -> None:
    """And is that of ``forward``, for any number of stages."""
    network = catalogue.network(learned_variance=True).eval()
    x, t, given = torch.randn(2, 1, 8, 8), torch.tensor([3, 900]), {"class": torch.tensor([0, 2])}
    expected = network(x, t, given)
    for stages in range(len(network.decoder) + 1):
        whole, features = network.reusing(x, t, given, stages=stages)
        reused, again = network.reusing(x, t, given, stages=stages, features=features)
        assert again is features
        for output in (whole, reused):
            torch.testing.assert_close(output, expected, rtol=0, atol=0)


def test_reusing_less_comes_nearer_to_the_whole_network() -> None:
    network = catalogue.network()
    expected = draw(network)
    torch.testing.assert_close(draw(dl.DeepCache(network, interval=1)), expected, rtol=0, atol=0)
    errors = [(draw(dl.DeepCache(network, interval=n)) - expected).norm() for n in (2, STEPS)]
    assert 0 < errors[0] < errors[1]


def test_it_is_found_inside_of_other_adapters_and_batches_of_guidance_are_never_mixed() -> None:
    """Guidance in an interval calls the network with twice the batch, and then with the batch alone."""
    network = catalogue.network()
    schedule = SCHEDULES["cosine"]()
    interval = dl.GuidanceInterval(schedule, low=0.5)
    model = dl.CFGuidance(dl.DeepCache(network, interval=STEPS), {"class": 0.1}, guidance_scale=2.0, interval=interval)
    deep, last = count_calls(network.middle), count_calls(network.decoder[-1])
    draw(model)
    assert len(deep) == 2
    assert len(last) == STEPS


def test_loops_at_once_have_features_of_their_own() -> None:
    model = dl.DeepCache(catalogue.network(), interval=3)
    made = sampler(model)
    paths = [made.generator(torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(i))) for i in range(2)]
    expected = [
        list(made.generator(torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(i)))) for i in (0, 1)
    ]
    for step, turns in enumerate(zip(*paths, strict=True)):
        for i, x in enumerate(turns):
            assert torch.equal(x, expected[i][step])
    with ThreadPoolExecutor(2) as pool:
        for i, x in enumerate(pool.map(lambda seed: draw(model, seed=seed), range(4))):
            torch.testing.assert_close(x, draw(model, seed=i))


def test_training_and_calls_outside_of_a_loop_are_those_of_the_network() -> None:
    network = catalogue.network()
    model = dl.DeepCache(network, interval=3)
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([3, 900])
    for training in (True, False):
        model.train(training)
        for _ in range(2):
            torch.testing.assert_close(model(x, t), network(x, t), rtol=0, atol=0)
    assert model.train().for_sampling() is model


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: dl.DeepCache(catalogue.TinyNetwork()), "TinyNetwork cannot reuse features"),
        (lambda: dl.DeepCache(dl.CFGuidance(catalogue.network(), {"class": 0.1})), "put DeepCache directly around"),
        (lambda: dl.DeepCache(catalogue.network(), interval=0), r"interval \(0\) must be at least 1"),
        (lambda: dl.DeepCache(catalogue.network(), stages=99), r"stages \(99\) from 1 to"),
    ],
)
def test_what_cannot_be_is_named(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_it_is_found_among_experts_and_in_the_weaker_network() -> None:
    network, weaker = catalogue.network(), catalogue.network()
    deep = [count_calls(part.middle) for part in (network, weaker)]
    draw(dl.ExpertDenoisers(dl.DeepCache(network, interval=STEPS), {499: dl.DeepCache(weaker, interval=STEPS)}))
    assert [len(calls) for calls in deep] == [1, 1]
    draw(dl.AutoGuidance(network, dl.DeepCache(weaker, interval=STEPS), guidance_scale=2.0))
    assert [len(calls) for calls in deep] == [1 + STEPS, 2]
