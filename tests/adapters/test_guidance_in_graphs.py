"""Guidance in an interval of noise levels, where the adapter is part of a graph: which passes it makes there."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

import diffusion_labs as dl
from diffusion_labs.interop.exported_sampler import sampling_program
from tests.catalogue import GUIDANCE, NETWORKS, SCHEDULES, TinyNetwork, randomise

ROWS: list[int] = []
INSIDE = [False, True, False]
TIMES = torch.tensor([100, 700, 999])


@torch.library.custom_op("diffusion_labs_tests::count_rows", mutates_args=())
def count_rows(x: Tensor) -> Tensor:
    """A copy, and a note of how many samples there are: when a graph runs, not when it is traced."""
    ROWS.append(len(x))
    return x.clone()


count_rows.register_fake(torch.empty_like)
count_rows.register_autograd(lambda _, grad: grad)


class Counted(dl.ConditionalModule):
    """A network that counts the samples it gets, and reads a number of its own, as most do."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model.condition_names)
        self.model = model
        self.scale = 0.5
        self.null_conditions, self.attention_blocks = model.null_conditions, model.attention_blocks

    def forward(self, x: Tensor, timestep: Tensor, conditional_inputs: Mapping[str, Tensor] | None = None):
        return self.model(self.scale * count_rows(x), timestep, conditional_inputs)


def guidance(name: str, make=TinyNetwork) -> nn.Module:
    network, weaker = (Counted(randomise(make(), seed)) for seed in (0, 1))
    options = {"interval": GUIDANCE["interval"]()}
    wrap = {
        "cfg": lambda: dl.CFGuidance(network, {"class": 0.1}, guidance_scale=3.0, **options),
        "rescaled": lambda: dl.CFGuidance(
            network, {"class": 0.1}, guidance_scale=3.0, combine=GUIDANCE["rescale"](), **options
        ),
        "cfg++": lambda: dl.CFGuidancePlusPlus(network, {"class": 0.1}, guidance_scale=0.6, **options),
        "auto": lambda: dl.AutoGuidance(network, weaker, guidance_scale=3.0, **options),
        "pag": lambda: dl.PerturbedAttentionGuidance(network, guidance_scale=3.0, **options),
    }[name]
    return wrap().double().eval()


def given(size: int) -> tuple[Tensor, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(size)
    return torch.randn(size, 1, 8, 8, generator=generator, dtype=torch.float64), {"class": torch.arange(size) % 3}


def rows_of(call, *args, **options) -> tuple[object, int]:
    ROWS.clear()
    with torch.no_grad():
        output = call(*args, **options)
    return output, sum(ROWS)


@pytest.mark.parametrize("variance", [False, True])
@pytest.mark.parametrize("name", ["cfg", "rescaled", "cfg++", "auto", "pag"])
def test_one_graph_makes_the_second_pass_where_a_sample_is_inside_alone(name: str, variance: bool) -> None:
    model = guidance(name, lambda: TinyNetwork(learned_variance=variance))
    assert model.interval(TIMES).tolist() == INSIDE
    graphs = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, fullgraph=True, backend=graphs)
    x, conditions = given(3)
    for times in [*(t.expand(3).clone() for t in TIMES), TIMES]:
        expected, _ = rows_of(model, x, times, conditions)
        actual, rows = rows_of(compiled, x, times, conditions)
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)
        assert rows == (6 if model.interval(times).any() else 3)
    assert graphs.frame_count == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "backend"),
    [(NETWORKS["adm_unet_learned_variance"], "aot_eager"), (TinyNetwork, "inductor")],
    ids=["adm_unet", "inductor"],
)
def test_batches_of_any_size(make, backend: str) -> None:
    model = guidance("cfg", make)
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    for size in (3, 4, 5):
        x, conditions = given(size)
        for t in TIMES:
            expected, rows = rows_of(model, x, t.expand(size), conditions)
            actual, made = rows_of(compiled, x, t.expand(size), conditions)
            torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)
            assert made == rows


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cfg", "cfg++"])
def test_a_graph_that_may_not_branch_gives_the_same(name: str) -> None:
    """With ``dynamic=True``: both passes at every level."""
    model = guidance(name)
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
    for size, t in ((3, 100), (3, 700), (5, 999)):
        x, conditions = given(size)
        expected, actual = (call(x, torch.full((size,), t), conditions) for call in (model, compiled))
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


def sampler(name: str) -> dl.Sampler:
    model, schedule = guidance(name), SCHEDULES["cosine"]()
    return dl.DDIMSampler(model, schedule, dl.VPredictor(schedule), eval_steps=6, progress_bar=False).eval()


def as_graph(sampler: dl.Sampler) -> nn.Module:
    return torch.compile(sampler, fullgraph=True, backend="aot_eager")


def as_program(sampler: dl.Sampler) -> nn.Module:
    return sampling_program(sampler, *given(2)).module()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cfg", "cfg++", "auto", "pag"])
@pytest.mark.parametrize("made", [as_graph, as_program])
def test_a_loop_in_a_graph_makes_as_many_passes_as_eager_mode(name: str, made) -> None:
    plain, (x, conditions) = sampler(name), given(4)
    inside = plain.model.interval(plain.times()).sum().item()
    call = made(plain)
    expected, rows = rows_of(plain, x, None, conditions)
    graph = (x, None, conditions) if made is as_graph else (x, conditions)
    actual, counted = rows_of(call, *graph)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)
    assert counted == rows == 4 * (6 + inside)
    assert 0 < inside < 6
