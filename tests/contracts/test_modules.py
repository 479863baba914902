"""What every component promises as a module: copies, pickles, state, compilation, precision."""

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import diffusion_labs as dl
from tests import catalogue
from tests.catalogue import (
    ADAPTERS,
    AUTOENCODERS,
    CLASSIFIERS,
    DENSITIES,
    DISCRIMINATORS,
    LATENT_SCALES,
    LOSSES,
    NETWORKS,
    OBJECTIVES,
    PERCEPTUAL,
    PREDICTORS,
    SAMPLERS,
    SCHEDULES,
    SYSTEMS,
    TRANSFORMS,
)

Call = Callable[[], Any]


def adapted(name: str, training: bool = False) -> tuple[nn.Module, tuple[Any, ...]]:
    case = ADAPTERS[name]
    channels, out = case.grow(1, 1)
    model = case.wrap(catalogue.TinyNetwork(channels, out)).train(training)
    x = torch.randn(4, *catalogue.SIZE)
    return model, (
        x,
        torch.tensor([0, 10, 500, 999]),
        {**case.inputs(x), "class": torch.tensor([0, 1, 2, 0])},
    )


def conditioned(model: nn.Module) -> tuple[nn.Module, tuple[Any, ...]]:
    x = torch.randn(4, *catalogue.SIZE)
    return model, (x, torch.tensor([0, 10, 500, 999]), {"class": torch.tensor([0, 1, 2, 0])})


def sampled(name: str) -> tuple[nn.Module, tuple[Any, ...]]:
    schedule = SCHEDULES["cosine"]()
    return conditioned(SAMPLERS[name](catalogue.TinyNetwork(learned_variance=True), schedule, dl.VPredictor(schedule)))


def predicted(name: str) -> tuple[nn.Module, tuple[Any, ...]]:
    predictor = PREDICTORS[name](SCHEDULES["cosine"](), clamp=dl.StaticClamp())
    return Method(predictor, "denoise"), (
        torch.randn(4, 1, 8, 8),
        torch.randn(4, 1, 8, 8),
        torch.tensor([0, 1, 500, 999]),
    )


def scheduled(name: str) -> tuple[nn.Module, tuple[Any, ...]]:
    x = torch.randn(4, 1, 8, 8)
    return AtFixedTimes(SCHEDULES[name]()), (x, 0.5 * x, torch.rand_like(x))


class AtFixedTimes(nn.Module):
    """The posterior of a schedule, at times that no conversion of the arguments rounds."""

    def __init__(self, schedule: dl.Schedule) -> None:
        super().__init__()
        self.schedule = schedule
        self.t = schedule.snap(torch.linspace(schedule.first, schedule.terminal, 4, dtype=torch.float64))

    def forward(self, x0: Tensor, xt: Tensor, variance_value: Tensor) -> tuple[Tensor, Tensor]:
        return self.schedule.q_posterior(x0, xt, self.t, variance_value)


def drawn(name: str) -> tuple[nn.Module, tuple[Any, ...]]:
    steps = dl.RandomDiffusionSteps(SCHEDULES["shifted_flow"](), DENSITIES[name]())
    return steps, ({"x": torch.randn(4, *catalogue.SIZE)},)


class Method(nn.Module):
    """A module whose forward is a method of another."""

    def __init__(self, module: nn.Module, name: str) -> None:
        super().__init__()
        self.module = module
        self.name = name

    def forward(self, *args: Any) -> Any:
        return getattr(self.module, self.name)(*args)


COMPONENTS: dict[str, Call] = {
    **{f"schedule-{n}": lambda n=n: scheduled(n) for n in SCHEDULES},
    **{f"density-{n}": lambda n=n: drawn(n) for n in DENSITIES},
    **{f"predictor-{n}": lambda n=n: predicted(n) for n in PREDICTORS},
    **{f"network-{n}": lambda n=n: conditioned(NETWORKS[n]()) for n in NETWORKS},
    **{f"autoencoder-{n}": lambda n=n: (AUTOENCODERS[n](), (torch.randn(4, 1, 8, 8),)) for n in AUTOENCODERS},
    **{
        f"scale-{n}": lambda n=n: (Method(LATENT_SCALES[n](), "normalize"), (torch.randn(4, 1, 8, 8),))
        for n in LATENT_SCALES
    },
    **{f"system-{n}": SYSTEMS[n] for n in SYSTEMS},
    **{f"discriminator-{n}": lambda n=n: (DISCRIMINATORS[n](), (torch.randn(4, 1, 8, 8),)) for n in DISCRIMINATORS},
    **{f"loss-{n}": lambda n=n: (PERCEPTUAL[n](), tuple(torch.rand(2, 2, 1, 16, 16))) for n in PERCEPTUAL},
    **{f"objective-{n}": lambda n=n: (OBJECTIVES[n](), (catalogue.batch(),)) for n in OBJECTIVES},
    **{f"classifier-{n}": lambda n=n: (CLASSIFIERS[n](), conditioned(nn.Identity())[1][:2]) for n in CLASSIFIERS},
    **{f"adapter-{n}": lambda n=n: adapted(n) for n in ADAPTERS},
    **{f"adapter-train-{n}": lambda n=n: adapted(n, training=True) for n in ADAPTERS},
    **{f"sampler-{n}": lambda n=n: sampled(n) for n in SAMPLERS},
    **{f"transform-{n}": lambda n=n: (TRANSFORMS[n](), (catalogue.batch(),)) for n in TRANSFORMS},
    **{f"loss-{n}": lambda n=n: (LOSSES[n](), (catalogue.output(), catalogue.batch())) for n in LOSSES},
}


def run(module: nn.Module, args: tuple[Any, ...]) -> list[Tensor]:
    torch.manual_seed(0)
    tensors, _ = torch.utils._pytree.tree_flatten(module(*args))
    return [value for value in tensors if value is not None]


def assert_same(left: list[Tensor], right: list[Tensor], **tolerance: float) -> None:
    assert len(left) == len(right) > 0
    for a, b in zip(left, right, strict=True):
        torch.testing.assert_close(a, b, **tolerance)


# What is compiled anyway, with other settings, in a whole or by a test of its own; tables and shifts of a schedule; and
# samplers, of which only DDPM has another train mode than the base class. `make test-slow` has them too.
MORE_GRAPHS = (
    "objective-vq",
    *("autoencoder-kl_without_quant_conv", "network-adm_unet_learned_variance", "adapter-train-cfguidance_projected"),
    *("autoencoder-kl", "autoencoder-vq", "loss-vlb_importance", "loss-weighted_importance"),
    *(f"system-{name}" for name in ("diffusion_prior", "conditioner", "byte_text_encoder", "transformers_clip")),
    *("system-sentence_encoder", "system-concat_text_encoder"),
    "system-unclip_encoder",
    *(f"schedule-{name}" for name in ("linear", "scaled_linear", "quadratic", "sigmoid", "short", "cosine_flow")),
    *(f"schedule-{name}" for name in ("shifted_flow", "flow_to_1000", "shifted_cosine", "cauchy")),
    *(f"density-{name}" for name in ("mode_of_the_ends", "loss_second_moment_of_normal", "edm", "logit_normal")),
    *(f"sampler-{name}" for name in SAMPLERS if name not in ("ddpm", "ddim")),
)
GRAPHS = [pytest.param(name, marks=[pytest.mark.slow] if name in MORE_GRAPHS else []) for name in COMPONENTS]


@pytest.mark.parametrize("backend", ["eager", pytest.param("aot_eager", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", GRAPHS)
def test_compiles_as_one_graph_that_equals_eager(name: str, backend: str) -> None:
    """The graph is the same; the second backend also traces through autograd and custom operators."""
    module, args = COMPONENTS[name]()
    compiled = torch.compile(module, fullgraph=True, backend=backend)
    assert_same(run(compiled, args), run(module, args), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", COMPONENTS)
def test_copies_and_pickles_compute_the_same(name: str) -> None:
    module, args = COMPONENTS[name]()
    expected = run(module, args)
    assert_same(run(copy.deepcopy(module), args), expected, rtol=0, atol=0)
    assert_same(run(pickle.loads(pickle.dumps(module)), args), expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", COMPONENTS)
def test_state_dict_restores_the_computation(name: str) -> None:
    module, args = COMPONENTS[name]()
    expected = run(module, args)
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    other, _ = COMPONENTS[name]()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)
    other.load_state_dict(torch.load(file, weights_only=True), strict=True)
    assert_same(run(other, args), expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", COMPONENTS)
def test_leaves_its_arguments_as_they_were(name: str) -> None:
    module, args = COMPONENTS[name]()
    before = copy.deepcopy(args)
    run(module, args)
    assert [set(arg) for arg in args if isinstance(arg, dict)] == [set(arg) for arg in before if isinstance(arg, dict)]
    for now, then in zip(*(torch.utils._pytree.tree_leaves(value) for value in (args, before)), strict=True):
        assert now is then is None or torch.equal(now, then)


# Not losses and objectives, which return float32 at least, and not densities and transforms that draw other numbers in
# another dtype.
IN_ANY_DTYPE = [
    name
    for name in COMPONENTS
    if not name.startswith(("loss", "objective", "density", "transform"))
    or name in ("transform-compute_target", "transform-compute_v")
]


@pytest.mark.parametrize("name", IN_ANY_DTYPE)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_keeps_the_dtype_of_the_data_and_agrees_with_float32(name: str, dtype: torch.dtype) -> None:
    """Converted as a whole by ``.to(dtype)``, a component computes the same in the precision of ``dtype``."""

    def convert(value: Any) -> Any:
        return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

    module, args = COMPONENTS[name]()
    expected = run(module, args)
    actual = run(module.to(dtype), torch.utils._pytree.tree_map(convert, args))
    tolerance = 2e-3 if dtype == torch.float64 else 0.15
    for a, b in zip(actual, expected, strict=True):
        if b.is_floating_point():
            assert a.dtype == dtype
            assert (a.double() - b.double()).norm() <= tolerance * b.double().norm() + 1e-6


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_takes_an_empty_batch(name: str) -> None:
    """As an adapter or a process may have no samples for it: no error, and gradients that are zero."""
    module, (x, timestep, conditions) = conditioned(NETWORKS[name]())
    empty = module(x[:0], timestep[:0], {key: value[:0] for key, value in conditions.items()})
    assert empty.prediction.shape == module(x, timestep, conditions).prediction[:0].shape
    if empty.prediction.requires_grad:
        empty.prediction.sum().backward()
    assert not any(p.grad.any() for p in module.parameters() if p.grad is not None)
