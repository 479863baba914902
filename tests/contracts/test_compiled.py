"""Sampling as one graph: the whole loop of every solver, and what may change without another compilation."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import diffusion_labs as dl
from tests.catalogue import SAMPLERS, SCHEDULES, TinyNetwork

COMPILED = ("ddpm", "heun", "unipc_2")  # `make test-slow` has them all
DATA_DEPENDENT = ("adaptive",)  # each sample chooses its steps: how many there are is not known before they are made


class Graphs:
    """A backend that runs the graphs as they are, and counts them."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        self.count += 1
        return graph.forward


def build(name: str, schedule: str = "continuous_cosine") -> dl.Sampler:
    made = SCHEDULES[schedule]()
    model = dl.CFGuidance(TinyNetwork(), {"class": 0.1}, guidance_scale=2.0)
    return SAMPLERS[name](model, made, dl.VPredictor(made), eval_steps=5, progress_bar=False).eval()


def draw(sampler: Callable[..., Tensor], size: int = 4, seed: int = 0, label: int = 0) -> Tensor:
    torch.manual_seed(seed)
    x, classes = torch.randn(size, 1, 8, 8), torch.full((size,), label)
    return sampler(x, conditional_inputs={"class": classes})


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in COMPILED else [pytest.mark.slow])
        for name in SAMPLERS
        if name not in DATA_DEPENDENT
    ],
)
@pytest.mark.parametrize("schedule", ["continuous_cosine", pytest.param("zero_terminal_snr", marks=pytest.mark.slow)])
def test_the_whole_loop_is_one_graph_that_equals_eager(name: str, schedule: str) -> None:
    sampler, graphs = build(name, schedule), Graphs()
    compiled = torch.compile(sampler, fullgraph=True, backend=graphs)
    torch.testing.assert_close(draw(compiled), draw(sampler), rtol=1e-5, atol=1e-5)
    draw(compiled, seed=1, label=2)
    assert graphs.count == 1


@pytest.mark.parametrize("name", DATA_DEPENDENT)
def test_a_loop_that_depends_on_the_data_says_so(name: str) -> None:
    compiled = torch.compile(build(name), fullgraph=True, backend="eager")
    with pytest.raises(torch._dynamo.exc.UserError, match="data-dependent"):
        draw(compiled)


def test_nothing_but_the_number_of_steps_compiles_the_loop_again() -> None:
    """Seed, class, batch size, guidance scale and eta; another grid is another graph, with the right levels."""
    sampler, graphs = build("ddim_stochastic"), Graphs()
    compiled = torch.compile(sampler, fullgraph=True, dynamic=True, backend=graphs)

    def check() -> None:
        for size, seed, label in ((4, 0, 0), (5, 1, 1), (2, 2, 2)):
            actual, expected = (draw(model, size, seed, label) for model in (compiled, sampler))
            torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)

    check()
    for scale, eta in ((3.0, 0.5), (0.5, 0.2)):
        sampler.model.guidance_scale, sampler.eta = scale, eta
        check()
    assert graphs.count == 1

    sampler.eval_steps = 3
    check()
    sampler.grid = dl.linspace
    check()
    assert graphs.count == 3


def test_one_graph_of_the_model_serves_all_steps_of_all_solvers() -> None:
    """What ``diffusion-labs sample --compile`` compiles: the time is a tensor in it, whatever the solver and grid."""
    graphs = Graphs()
    first = build("ddim")
    model = torch.compile(first.model, fullgraph=True, dynamic=True, backend=graphs)
    for name in ("ddim", "heun", "dpmpp_2m", "ddpm"):
        for steps in (3, 7):
            sampler = SAMPLERS[name](model, first.schedule, first.predictor, eval_steps=steps, progress_bar=False)
            plain = SAMPLERS[name](first.model, first.schedule, first.predictor, eval_steps=steps, progress_bar=False)
            torch.testing.assert_close(draw(sampler.eval()), draw(plain.eval()), rtol=1e-5, atol=1e-5)
    assert graphs.count == 1


@pytest.mark.parametrize("name", ["ddpm", "euler_ancestral", "edm_stochastic"])
def test_seeds_of_a_compiled_loop_are_keys(name: str) -> None:
    """The samples are those of eager mode, whatever the batch, and other seeds are no other graph."""
    sampler, graphs = build(name), Graphs()
    compiled = torch.compile(sampler, fullgraph=True, dynamic=True, backend=graphs)
    x, label = torch.randn(4, 1, 8, 8), torch.zeros(4, dtype=torch.int64)

    def sample(model: Callable[..., Tensor], rows: slice, seeds: Tensor) -> Tensor:
        given, generator = {"class": label[rows].clone()}, dl.KeyedGenerator(seeds.clone())
        return model(x[rows].clone(), conditional_inputs=given, generator=generator)

    for seeds in (torch.tensor([5, 6, 7, 8]), torch.tensor([1, 6])):
        expected = sample(sampler, slice(len(seeds)), seeds)
        torch.testing.assert_close(sample(compiled, slice(len(seeds)), seeds), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(sample(sampler, slice(1, 2), seeds[1:2]), expected[1:2], rtol=1e-5, atol=1e-5)
    assert graphs.count == 1
