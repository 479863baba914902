"""Groups of processes that divide the layers of a model among them train as one process does."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

import diffusion_labs as dl
from diffusion_labs.training import OptionError
from diffusion_labs.training.tensor_parallelism import describe_layers, grouped
from diffusion_labs.training.world import World
from tests.catalogue import NETWORKS, TinyNetwork
from tests.training.divided_runs import DIVIDED, Run, carry_out, found_in

STEPS = 4
PAIR = {"tensor_parallel": 2}
IN_PARTS = {**PAIR, "parallelism": "fsdp"}

# By name: how often conditions are dropped, and who trains. Two groups draw other numbers for dropout than one process,
# which is off where no conditions are dropped
WAYS: dict[str, Run] = {
    "a pair": (0.5, [(2, STEPS, PAIR)]),
    "a pair that recomputes": (0.5, [(2, STEPS, {**PAIR, "checkpointing": "selective"})]),
    "two pairs": (0.0, [(4, STEPS, PAIR)]),
    "two pairs in parts": (0.0, [(4, STEPS, IN_PARTS)]),
    "two pairs, each with a copy": (0.0, [(4, STEPS, {**PAIR, "shards": 1})]),
    "one after the other": (
        0.0,
        [(2, 1, PAIR), (1, 2, {}), (2, 3, {"parallelism": "fsdp"}), (4, STEPS, IN_PARTS)],
    ),
}
ALONE = {drop: f"alone, {drop}" for drop in (0.0, 0.5)}
USUAL = ("a pair", "two pairs", "two pairs in parts")
ALL = [
    *((name, way) for name in DIVIDED for way in (WAYS if name == "mmdit" else USUAL)),
    *(("clip", way) for way in ("two pairs", "two pairs in parts")),
]


def trained(folder: Path, *pairs: tuple[str, str]) -> Path:
    """Train networks in ways, and alone."""
    runs = {}
    for name, way in pairs:
        drop, parts = WAYS[way]
        runs[f"{name}, {way}"] = (name, drop, parts)
        runs[f"{name}, {ALONE[drop]}"] = (name, drop, [(1, STEPS, {})])
    carry_out(folder, runs)
    return folder


def assert_trains_as_one(folder: Path, name: str, way: str) -> None:
    """Losses, norms, weights, averages, moments, place in the data and pictures."""
    found, alone = found_in(folder / f"{name}, {way}"), found_in(folder / f"{name}, {ALONE[WAYS[way][0]]}")
    torch.testing.assert_close(found, alone, rtol=1e-9, atol=1e-10)
    assert min(found["gradient_norm"]) > 0.01  # so that gradients were clipped
    assert len(found["power_averages"]) == 2


def test_a_pair_trains_as_one_process(tmp_path: Path) -> None:
    """A network that has all: norms of heads, joint attention, heads that only others attend to."""
    assert_trains_as_one(trained(tmp_path, ("mmdit", "a pair")), "mmdit", "a pair")


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Where a network is trained in all its ways, when it is first asked for."""

    @cache
    def carried_out(name: str) -> Path:
        return trained(tmp_path_factory.mktemp("divided"), *(case for case in ALL if case[0] == name))

    return carried_out


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("name", "way"), ALL)
def test_every_network_is_trained_as_by_one_process(folder_of: Callable[[str], Path], name: str, way: str) -> None:
    assert_trains_as_one(folder_of(name), name, way)


def model_of(*heads: int) -> nn.Module:
    return nn.ModuleList(dl.layers.SelfAttention(12, count) for count in heads)


@pytest.mark.parametrize(
    ("size", "heads", "message"),
    [
        (3, (3,), r"tensor_parallel \(3\) must divide the number of processes \(4\)"),
        (2, (3, 1), r"tensor_parallel \(2\) must divide the heads .* 1, 3; choose another"),
    ],
)
def test_what_cannot_be_divided_is_an_error(size: int, heads: tuple[int, ...], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        grouped(World(1, 4), size, model_of(*heads))


def test_groups_are_of_neighbours() -> None:
    worlds = [grouped(World(rank, 6), 2, model_of(1, 2)) for rank in range(6)]
    assert [world.data_rank for world in worlds] == [0, 0, 1, 1, 2, 2]
    assert {world.data_size for world in worlds} == {3}


def test_a_model_without_layers_to_divide_is_trained_by_each_process_for_itself() -> None:
    """It may be a stage of a recipe, whose other stages have some."""
    assert grouped(World(1, 4), 2, TinyNetwork()) == World(1, 4)
    assert describe_layers(TinyNetwork(), 2) == "no layer of this model can be divided"


def test_layers_that_stay_whole_are_told() -> None:
    told = describe_layers(NETWORKS["pixart"](), 2)
    assert told.endswith("the others have 3 heads or channels, and stay whole")
