"""What is kept from step to step of a sampling: the samples are those without it, whatever changes between them."""

import gc
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext

import pytest
import torch
from torch import Tensor, nn

import diffusion_labs as dl
from diffusion_labs.keeping import AT_ONCE, call_with, kept
from diffusion_labs.layers import TimeEmbedding
from diffusion_labs.samplers import sampler as sampler_module
from tests.catalogue import ADAPTERS, GUIDANCE, NETWORKS, NUM_CLASSES, SAMPLERS, SCHEDULES, SOLVERS, TinyNetwork

STEPS = 4
ROUNDING = {"rtol": 1e-9, "atol": 1e-9}  # of float64: products of more rows at once add up in another order
SIZE = 3
TEXTS = ("ldm_unet", "pixart", "mmdit", "uvit")
CROSS_ATTENTION = ("ldm_unet", "pixart")


def network(name: str) -> nn.Module:
    return NETWORKS[name]().double()


def conditions_of(model: nn.Module, seed: int = 0, tokens: int = 4) -> dict[str, Tensor]:
    """All that a network takes, in float64, with a mask where there are tokens."""
    generator = torch.Generator().manual_seed(seed)
    given: dict[str, Tensor] = {}
    for name, sides in getattr(model, "condition_shapes", {}).items():
        if sides == ():
            given[name] = torch.randint(NUM_CLASSES, (SIZE,), generator=generator)
            continue
        shape = [tokens if side is None else side for side in sides]
        given[name] = torch.randn(SIZE, *shape, generator=generator, dtype=torch.float64)
        if None in sides:
            given[f"{name}_mask"] = torch.rand(SIZE, tokens, generator=generator) > 0.2
    return given


def guided(model: nn.Module, **options: object) -> nn.Module:
    names = [name for name in conditions_of(model) if not name.endswith("_mask")]
    return dl.CFGuidance(model, {tuple(names): 0.1}, guidance_scale=2.0, **options)


def sampler(model: nn.Module, name: str = "ddim", steps: int = STEPS) -> dl.Sampler:
    schedule = SCHEDULES["cosine"]()
    predictor = dl.VPredictor(schedule, clamp=dl.StaticClamp())
    return SAMPLERS[name](model, schedule, predictor, eval_steps=steps, progress_bar=False).eval()


@torch.no_grad()  # which the check of shapes hides from generators
def path(made: dl.Sampler, given: Mapping[str, Tensor], after_step: Callable[[], object] = lambda: None) -> Tensor:
    """x after each step, between which something happens."""
    x = torch.randn(SIZE, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    xs = []
    for xt in made.generator(x, None, given, generator=dl.seeded(range(SIZE))):
        xs.append(xt)
        after_step()
    return torch.stack(xs)


@contextmanager
def forgetting() -> Iterator[None]:
    """Samplers that keep nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampler_module, "call_with", lambda memory, model, *arguments: model(*arguments))
        yield


def check(made: dl.Sampler, given: Mapping[str, Tensor]) -> None:
    with forgetting():
        expected = path(made, given)
    torch.testing.assert_close(path(made, given), expected, **ROUNDING)


@pytest.mark.parametrize("interval", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network(name: str, interval: bool) -> None:
    model = network(name)
    given = conditions_of(model) or {"class": torch.arange(SIZE)}
    check(sampler(model), given)
    if conditions_of(model):
        check(sampler(guided(model, interval=GUIDANCE["interval"]() if interval else None)), given)


@pytest.mark.parametrize("name", SOLVERS)
def test_every_solver(name: str) -> None:
    model = network("ldm_unet")
    check(sampler(guided(model), name), conditions_of(model))


@pytest.mark.parametrize("name", ADAPTERS)
def test_every_adapter(name: str) -> None:
    case = ADAPTERS[name]
    model = case.wrap(TinyNetwork(*case.grow(1, 1))).double()
    x = torch.randn(SIZE, 1, 8, 8, dtype=torch.float64)
    check(sampler(model), case.inputs(x))


STACKS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "perturbed": lambda model: dl.PerturbedAttentionGuidance(model, guidance_scale=2.0),
    "perturbed_outside_of_guidance": lambda model: dl.PerturbedAttentionGuidance(guided(model), guidance_scale=2.0),
    "guidance_outside_of_perturbed": lambda model: guided(dl.PerturbedAttentionGuidance(model, guidance_scale=2.0)),
    "two_networks": lambda model: dl.AutoGuidance(guided(model), guided(network("ldm_unet")), guidance_scale=2.0),
    "experts": lambda model: guided(dl.ExpertDenoisers(model, {500: network("ldm_unet")})),
    "cached": lambda model: guided(dl.DeepCache(model, interval=2)),
    "plus_plus": lambda model: dl.CFGuidancePlusPlus(model, {"text": 0.1}, guidance_scale=0.5),
    "each_on_its_own": lambda model: dl.CFGuidance(
        model, {"text": 0.1, "class": 0.1}, guidance_scale={"text": 2.0, "class": 3.0}
    ),
}


@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("name", STACKS)
def test_stacks(name: str, negative: bool) -> None:
    model = network("ldm_unet")
    given = conditions_of(model)
    stack = STACKS[name](model)
    if negative and "negative_text" in stack.condition_names:
        other = conditions_of(model, seed=1, tokens=7)
        given |= {f"negative_{key}": other[key] for key in ("text", "text_mask")}
    check(sampler(stack), given)


def count_calls(modules: list[nn.Module]) -> list[object]:
    calls: list[object] = []
    for module in modules:
        module.register_forward_hook(lambda *_: calls.append(None))
    return calls


@pytest.mark.parametrize("name", CROSS_ATTENTION)
def test_keys_and_values_of_a_context_are_made_once_for_each_batch(name: str) -> None:
    """Guidance in an interval calls the network with the batch, then with twice the batch, and with the batch again."""
    model = network(name)
    ends = ("cross_attention.key", "cross_attention.value")
    layers = [module for key, module in model.named_modules() if key.endswith(ends)]
    calls, given = count_calls(layers), conditions_of(model)
    inside = GUIDANCE["interval"]()(sampler(model).times())
    batches = 1 + int((inside[1:] != inside[:-1]).sum())
    assert batches > 1
    for stack, times in ((model, 1), (guided(model), 1), (guided(model, interval=GUIDANCE["interval"]()), batches)):
        calls.clear()
        path(sampler(stack), given)
        assert len(calls) == times * len(layers) > 0
    calls.clear()
    for _ in range(2):
        stack.eval()(torch.zeros(SIZE, 1, 8, 8, dtype=torch.float64), torch.full((SIZE,), 500), given)
    assert len(calls) == 2 * len(layers)


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("adm_unet", "encoder.0.0.norm_out.projection"),
        ("ldm_unet", "encoder.0.0.norm_out.projection"),
        ("dit", "blocks.0.modulation"),
        ("pixart", "modulation"),
        ("mmdit", "blocks.0.image.modulation"),
    ],
)
@pytest.mark.parametrize("solver", ["ddim", "heun"])
def test_times_are_embedded_and_projected_for_several_steps_at_once(name: str, layer: str, solver: str) -> None:
    model = network(name)
    time = next(module for module in model.modules() if isinstance(module, TimeEmbedding))
    calls, given = count_calls([time, model.get_submodule(layer)]), conditions_of(model)
    made = sampler(guided(model), solver, steps=2 * AT_ONCE + 1)
    x = path(made, given)
    assert len(calls) == 2 * 3
    with forgetting():
        torch.testing.assert_close(x, path(made, given), **ROUNDING)


@pytest.mark.parametrize("name", ["adm_unet", "dit"])
def test_classes_that_are_changed_in_place_count_from_the_next_step_on(name: str) -> None:
    model = network(name)
    made, paths = sampler(guided(model)), []
    for keeping in (True, False):
        given = conditions_of(model)
        with forgetting() if not keeping else nullcontext():
            paths.append(path(made, given, lambda given=given: given["class"].add_(1).remainder_(NUM_CLASSES)))
    torch.testing.assert_close(*paths, **ROUNDING)
    assert (paths[0] - path(made, conditions_of(model))).abs().max() > 1e-3


@pytest.mark.parametrize("name", TEXTS)
def test_conditions_that_are_changed_in_place_count_from_the_next_step_on(name: str) -> None:
    model = network(name)
    made, paths = sampler(guided(model)), []
    for keeping in (True, False):
        given = conditions_of(model)
        with forgetting() if not keeping else nullcontext():
            paths.append(path(made, given, lambda given=given: given["text"].mul_(-1.5)))
    torch.testing.assert_close(*paths, **ROUNDING)
    assert (paths[0] - path(made, conditions_of(model))).abs().max() > 1e-3


def test_other_conditions_give_other_samples() -> None:
    model = network("ldm_unet")
    made = sampler(guided(model))
    first, second = (path(made, conditions_of(model, seed)) for seed in (0, 1))
    assert (first - second).abs().max() > 1e-3
    torch.testing.assert_close(path(made, conditions_of(model, 0)), first, **ROUNDING)


def test_loops_at_once_and_in_threads_keep_their_own() -> None:
    model = network("ldm_unet")
    made = sampler(guided(model))
    expected = [path(made, conditions_of(model, seed)) for seed in range(3)]
    found: list[Tensor] = []
    path(made, conditions_of(model, 0), lambda: found.append(path(made, conditions_of(model, 1))))
    for inner in found:
        torch.testing.assert_close(inner, expected[1], **ROUNDING)
    with ThreadPoolExecutor(3) as pool:
        for own, samples in zip(
            expected, pool.map(lambda s: path(made, conditions_of(model, s)), range(3)), strict=True
        ):
            torch.testing.assert_close(samples, own, **ROUNDING)


class Sampling(dl.ConditionalModule):
    """A model that samples by another sampler, with the same network and other conditions, in each of its calls."""

    def __init__(self, inner: dl.Sampler, other: Mapping[str, Tensor]) -> None:
        super().__init__(inner.model.condition_names)
        self.model = inner.model
        self.inner = inner
        self.other = other

    def forward(self, x: Tensor, timestep: Tensor, conditional_inputs=None) -> dl.DiffusionOutput:
        before = self.model(x, timestep, conditional_inputs).prediction
        drawn = self.inner(x, conditional_inputs=self.other)
        after = self.model(x, timestep, conditional_inputs).prediction
        assert torch.equal(before, after)
        return dl.DiffusionOutput(after + 0.1 * drawn)


def test_a_sampler_within_another() -> None:
    model = network("ldm_unet")
    nested = Sampling(sampler(guided(model)), conditions_of(model, seed=1))
    check(sampler(nested), conditions_of(model))


def test_nothing_is_left_after_the_sampling() -> None:
    model = network("ldm_unet")
    layer = next(module for key, module in model.named_modules() if key.endswith("cross_attention.key"))
    made: list[weakref.ref[Tensor]] = []
    layer.register_forward_hook(lambda module, inputs, output: made.append(weakref.ref(output)))
    alive = []
    path(sampler(guided(model)), conditions_of(model), lambda: alive.append(made[-1]() is not None))
    gc.collect()
    assert alive == [True] * STEPS
    assert all(each() is None for each in made)


class Sum:
    """A function that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, values: Mapping[str, Tensor], factor: float = 1.0) -> Tensor:
        self.calls += 1
        return factor * torch.stack(list(values.values())).sum()


def test_only_the_very_same_arguments_are_the_same() -> None:
    function, memory = Sum(), {}
    a, b = torch.ones(2), torch.ones(2)

    def call(*arguments: object) -> Tensor:
        return call_with(memory, lambda: kept(function, *arguments))

    with torch.no_grad():
        first = call({"a": a, "b": b})
        assert call({"a": a, "b": b}) is first
        for different in (
            ({"a": b, "b": a},),
            ({"a": a},),
            ({"a": a, "c": b},),
            ({"a": a, "b": b}, 2.0),
            ({"a": a.clone()},),
        ):
            calls = function.calls
            assert torch.equal(call(*different), Sum()(*different))
            assert function.calls == calls + 1
        call({"a": a})
        a.add_(1)
        assert call({"a": a}) == 4
        kept(function, {"a": a})
        calls = function.calls
        kept(function, {"a": a})  # outside of a sampling
        assert function.calls == calls + 1


def test_where_gradients_are_recorded_or_changes_are_not_nothing_is_kept() -> None:
    function, memory = Sum(), {}
    a = torch.ones(2, requires_grad=True)
    for _ in range(2):
        call_with(memory, lambda: kept(function, {"a": a})).backward()
    with torch.inference_mode():
        b = torch.ones(2)
        for expected in (2, 4):
            assert call_with(memory, lambda: kept(function, {"b": b})) == expected
            b.mul_(2)
    assert function.calls == 4
