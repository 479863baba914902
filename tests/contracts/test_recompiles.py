"""What a compiled component may be given without another compilation: other values, and batches of another size."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import diffusion_labs as dl
from tests import catalogue
from tests.catalogue import ADAPTERS, LOSSES, NETWORKS, SCHEDULES
from tests.contracts.test_compiled import Graphs

SIZES = (4, 2, 3)  # up to 4 as `catalogue.batch`; and from 8 on, PyTorch chooses another convolution on a CPU
FAST = ("loss-hybrid", "adapter-cfguidance", "adapter-train-cfguidance", "adapter-inpainting", "network-dit")
CASES = (
    *(f"network-{name}" for name in NETWORKS),
    *(f"adapter-{name}" for name in ADAPTERS),
    *(f"adapter-train-{name}" for name in ADAPTERS),
    *(f"loss-{name}" for name in LOSSES),
)


def component(case: str) -> nn.Module:
    kind, _, name = case.partition("-")
    if kind == "network":
        return NETWORKS[name]()
    if kind == "loss":
        return LOSSES[name]()
    name = name.removeprefix("train-")
    model = ADAPTERS[name].wrap(catalogue.TinyNetwork(*ADAPTERS[name].grow(1, 1)))
    return model.train(case.startswith("adapter-train"))


def arguments(case: str, size: int, seed: int) -> tuple[Any, ...]:
    """Of a call with another batch, in which every tensor may have any number of samples."""
    torch.manual_seed(seed)
    kind, _, name = case.partition("-")
    if kind == "loss":
        given: tuple[Any, ...] = (catalogue.output(size), catalogue.batch(size))
    else:
        x = torch.randn(size, *catalogue.SIZE)
        inputs = ADAPTERS[name.removeprefix("train-")].inputs(x) if kind == "adapter" else {}
        inputs["class"] = (torch.arange(size) + seed) % 3
        given = (x, torch.randint(0, 1000, (size,)), inputs)
    for value in torch.utils._pytree.tree_leaves(given):
        if isinstance(value, Tensor):
            torch._dynamo.mark_dynamic(value, 0)
    return given


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[] if case in FAST else [pytest.mark.slow]) for case in CASES]
)
def test_batches_of_other_sizes_and_values_need_no_other_graph(case: str) -> None:
    module, graphs = component(case), Graphs()
    compiled = torch.compile(module, fullgraph=True, backend=graphs)
    for seed, size in enumerate(SIZES):
        results = []
        for called in (compiled, module):
            given = arguments(case, size, seed)
            results.append([leaf for leaf in torch.utils._pytree.tree_leaves(called(*given)) if leaf is not None])
        torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)
    assert graphs.count == 1


def test_every_update_of_a_training_is_made_by_the_graphs_of_the_second() -> None:
    """Transform, model and loss are one graph from the first; so is AdamW; EMA's decay is a number from the second."""
    schedule = SCHEDULES["cosine"]()
    predictor = dl.VPredictor(schedule)
    model = dl.DDPMSampler(dl.CFGuidance(catalogue.TinyNetwork(), {"class": 0.5}), schedule, predictor)
    transform = nn.Sequential(dl.RandomDiffusionSteps(schedule), dl.ComputeTarget(predictor))
    objective = dl.Objective(transform, model, dl.SimpleLoss(), conditions=["class"])
    optimizer, ema = torch.optim.AdamW(objective.parameters(), lr=torch.tensor(1e-3)), dl.EMA(model, 0.9)

    graphs = {name: Graphs() for name in ("loss", "optimizer", "average")}
    loss_of = torch.compile(objective, fullgraph=True, backend=graphs["loss"])
    step = torch.compile(optimizer.step, backend=graphs["optimizer"])
    average = torch.compile(ema.update, fullgraph=True, backend=graphs["average"])
    counts = []
    for seed in range(4):
        torch.manual_seed(seed)
        loss_of({"x": torch.randn(4, *catalogue.SIZE), "class": torch.full((4,), seed % 3)}).backward()
        step()
        optimizer.zero_grad()
        optimizer.param_groups[0]["lr"].mul_(0.5)
        average(model)
        counts.append({name: each.count for name, each in graphs.items()})
    assert counts[0] == {"loss": 1, "optimizer": 1, "average": 1}
    assert counts[1:] == [counts[1]] * 3
    assert counts[1]["loss"] == 1
