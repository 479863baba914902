"""Plans against closed forms, against FSDP2 in a process group that pretends, and against real memory."""

import json
import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import diffusion_labs as dl
from benchmarks.plan_memory import CASES, GATE, diffusion, measured, planned
from diffusion_labs.cli import main
from diffusion_labs.cli.plan_report import PlanOptions, advice, fits
from diffusion_labs.layers import FeedForward
from diffusion_labs.training import BaseObjective, Experiment, TracedUpdate, plan_update, trace_update, unallocated
from diffusion_labs.training.meter import Meter
from diffusion_labs.training.traced_update import Block, Part

WIDTH, DEPTH, SAMPLES = 48, 3, 1000


class Products(BaseObjective):
    """The sum of a product of matrices, all of whose memory and work is known."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(DEPTH))
        self.first = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, batch: dict[str, Any]) -> Tensor:
        x = self.first(batch["x"])
        for block in self.blocks:
            x = block(x)
        return x.sum()


def experiment(objective: BaseObjective, **settings: Any) -> Experiment:
    optimizer = torch.optim.AdamW(objective.parameters(), 0.1, fused=True)
    return Experiment(objective=objective, model=objective, batches=None, optimizer=optimizer, steps=1, **settings)


MATRIX, ROWS, SCALAR = 4 * WIDTH**2, 4 * SAMPLES * WIDTH, 4
BATCH = {"x": torch.zeros(SAMPLES, WIDTH)}


@pytest.fixture(scope="module")
def traced() -> TracedUpdate:
    with unallocated():
        return trace_update(experiment(Products()), BATCH, device="cpu")


def test_one_device_in_closed_form(traced: TracedUpdate) -> None:
    """Most is alive when the last layer but one is done: the inputs of all before the last, and two of the gradients.

    The gradients of the two results, and those of the two matrices.
    """
    plan = traced.on(1, "ddp")
    count = DEPTH + 1
    assert plan.parameters == plan.average == count * MATRIX
    assert plan.optimizer == count * (2 * MATRIX + SCALAR)
    assert plan.exchange == plan.sent == plan.buffers == 0
    assert plan.gradients == MATRIX
    assert plan.activations == pytest.approx((count - 1 + 2) * ROWS + MATRIX, abs=64)
    assert plan.flops == (3 * count - 1) * 2 * SAMPLES * WIDTH**2  # the batch has no gradient


def test_several_devices_in_closed_form(traced: TracedUpdate) -> None:
    whole, shared = traced.on(10, "ddp"), traced.on(10, "fsdp")
    count, part = DEPTH + 1, 4 * WIDTH * math.ceil(WIDTH / 10)
    assert whole.parameters == whole.exchange == count * MATRIX
    assert whole.sent == 2 * 9 * count * MATRIX // 10
    assert shared.parameters == shared.average == count * part
    assert shared.optimizer == count * (2 * part + SCALAR)
    # Gathered: all for the forward pass, all but the root for the backward pass. Reduced: all
    assert shared.sent == (count + DEPTH + count) * part * 9
    # The root and its gradients, a block and the next, the gradients of it and of the one before
    assert shared.exchange == (2 + 4) * part * 10
    assert shared.flops == whole.flops


def test_groups_that_have_a_copy_each_in_closed_form(traced: TracedUpdate) -> None:
    """Gathered and reduced in a group of five as if there were no others; then a ring of the parts of two groups."""
    alone, hybrid = traced.on(5, "fsdp"), traced.on(10, "fsdp", shards=5)
    assert hybrid.sent - alone.sent == 2 * (DEPTH + 1) * 4 * WIDTH * math.ceil(WIDTH / 5) // 2
    assert replace(hybrid, sent=alone.sent, world_size=5) == alone
    with pytest.raises(ValueError, match=r"shards \(4\) must divide world_size \(10\)"):
        traced.on(10, "fsdp", shards=4)


def test_gathered_weights_that_stay_in_closed_form(traced: TracedUpdate) -> None:
    """One gathering the less, and all blocks at once."""
    given_back, kept = traced.on(4, "fsdp"), traced.on(4, "fsdp", reshard=False)
    assert given_back.sent - kept.sent == DEPTH * MATRIX * 3 // 4
    assert kept.exchange == (DEPTH + 1) * MATRIX + 2 * MATRIX  # and the gradients of the root and of the last block
    assert traced.on(1, "ddp", reshard=False) == traced.on(1, "ddp")


def test_blocks_gathered_in_bfloat16_send_half(traced: TracedUpdate) -> None:
    """But not their gradients, nor what is in no block."""
    full, half = traced.on(4, "fsdp"), traced.on(4, "fsdp", bfloat16=True)
    assert full.sent - half.sent == 2 * DEPTH * MATRIX // 2 * 3 // 4
    assert full.exchange - half.exchange == 2 * MATRIX // 2
    assert half.parameters == full.parameters


def test_each_average_is_a_copy_of_the_weights(traced: TracedUpdate) -> None:
    for parallelism in ("ddp", "fsdp"):
        one, three = (traced.on(4, parallelism, averages=count) for count in (1, 3))
        assert three.memory - one.memory == 2 * one.average


def test_accumulation_makes_more_passes_and_as_many_reductions() -> None:
    once, thrice = (trace_update(experiment(Products(), accumulate=n), BATCH, device="cpu") for n in (1, 3))
    assert thrice.flops == 3 * once.flops
    assert thrice.samples == 3 * once.samples
    assert thrice.on(4, "ddp").sent == once.on(4, "ddp").sent
    gathered = (DEPTH + 1 + DEPTH) * 3 * MATRIX
    assert thrice.on(4, "fsdp").sent - once.on(4, "fsdp").sent == 2 * gathered // 4
    assert thrice.on(4, "fsdp").gradients == thrice.on(4, "ddp").gradients  # kept whole, until they are reduced


class Forwards(BaseObjective):
    """The sum of what comes out of feed-forward networks, which devices can divide."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(FeedForward(WIDTH, mult=4, activation=nn.Identity()) for _ in range(DEPTH))

    def forward(self, batch: dict[str, Any]) -> Tensor:
        x = batch["x"][None]
        for block in self.blocks:
            x = block(x)
        return x.sum()


def test_layers_that_devices_divide_in_closed_form() -> None:
    """Of each layer half, but all of the bias of the sum; sums of what goes in, of its gradient, and of what comes out.

    What goes into the first layer has no gradient.
    """
    whole, half = (trace_update(experiment(Forwards()), BATCH, device="cpu", tensor=n) for n in (1, 2))
    matrix, bias = 4 * MATRIX, 4 * WIDTH
    assert whole.on(1, "ddp").parameters == DEPTH * (2 * matrix + 5 * bias)
    plan = half.on(2, "ddp")
    assert plan.parameters == plan.average == DEPTH * (matrix + 2 * bias + bias)
    assert half.summed == (DEPTH + DEPTH - 1) * ROWS
    assert plan.sent == 2 * half.summed // 2
    assert 2 * plan.flops == whole.flops
    with pytest.raises(ValueError, match=r"tensor_parallel \(2\) must divide world_size \(3\)"):
        half.on(3, "ddp")


def test_groups_that_divide_layers_share_as_devices_do_and_their_sums_are_sent_besides() -> None:
    half = trace_update(experiment(Forwards()), BATCH, device="cpu", tensor=2)
    alone = replace(half, tensor=1, summed=0)
    for parallelism in ("ddp", "fsdp"):
        groups, devices = half.on(8, parallelism), alone.on(4, parallelism)
        assert groups == replace(devices, world_size=8, tensor=2, sent=devices.sent + half.summed)


def test_the_experiment_stays_as_it_is_and_modules_are_allocated_again() -> None:
    """Real weights may be planned with, too."""
    objective = Products()
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    plan_update(experiment(objective), BATCH)
    torch.testing.assert_close(objective.state_dict(), before, rtol=0, atol=0)
    assert all(value.grad is None for value in objective.parameters())
    with unallocated():
        assert nn.Linear(2, 2).weight.is_meta
    assert not nn.Linear(2, 2).weight.is_meta


def test_attention_counts_as_its_matrix_products() -> None:
    """Two products of queries, keys and values; in the backward pass four, and one to have the first again."""
    q = torch.randn(2, 3, 5, 4, requires_grad=True)
    with Meter() as meter:
        F.scaled_dot_product_attention(q, q.detach(), q.detach()).sum().backward()
    assert meter.flops == (2 + 5) * 2 * (2 * 3 * 5 * 5 * 4)


def test_time_lies_between_all_exchange_hidden_and_none() -> None:
    plan = TracedUpdate(1, 1, [], [], [], [], 0, {0: 0}, {0: 0}, [], Block([Part(1, 8)], [Part(1, 8)], 1), 600).on(
        2, "ddp"
    )
    assert plan.seconds(peak_flops=1000.0, bandwidth=4.0, efficiency=0.3) == pytest.approx((2.0, 4.0))


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = 0
    try:
        main(["plan", "digits", *words])
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    return code, captured.out + captured.err


@pytest.mark.parametrize(
    ("memory", "parallelism", "code", "said"),
    [
        (0.002, "ddp", 0, "fits: 0.001 of 0.002 GiB are left"),
        (0.00101, "ddp", 1, "With --parallelism fsdp it needs 0.001 GiB, and fits"),
        (0.00001, "fsdp", 1, "take more devices with --parallelism fsdp, or a smaller model"),
    ],
)
def test_the_command_says_whether_it_fits_and_what_to_change(
    traced: TracedUpdate,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    memory: float,
    parallelism: str,
    code: int,
    said: str,
) -> None:
    monkeypatch.setattr("diffusion_labs.cli.plan_report.trace_recipe", lambda *_, **__: {"": traced})
    found, text = run(capsys, "--world-size", "8", "--memory", str(memory), "--parallelism", parallelism)
    assert said in text
    assert found == code


def test_about_as_many_samples_fit_as_are_advised(traced: TracedUpdate) -> None:
    """What they need besides activations, which grow with them, makes little."""
    options = PlanOptions(world_size=8, memory=0.0006)
    plan = traced.on(8, "fsdp")
    assert not fits(plan, options)
    samples = int(re.search(r"about (\d+) samples", advice(traced, plan, options)).group(1))
    batch = {"x": torch.zeros(samples, WIDTH)}
    fewer = plan_update(experiment(Products()), batch, world_size=8, parallelism="fsdp", device="cpu")
    assert fewer.memory == pytest.approx(options.memory * 2**30, rel=0.02)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--world-size", "0"], "world_size (0) must be at least 1"),
        (["--memory", "-1"], "memory (-1.0) must be positive"),
        (["--world-size", "2", "--peak-tflops", "100"], "needs bandwidth_gb_s"),
        (
            ["--world-size", "4", "--tensor-parallel", "3"],
            "tensor_parallel (3) must divide the number of processes (4)",
        ),
        (["--world-size", "3", "--batch-size", "64"], "batch_size (64) must be a multiple of world_size (3)"),
    ],
)
def test_bad_input_is_one_line(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    code, text = run(capsys, *words)
    assert code == 2
    assert message in text
    assert len(text.splitlines()) == 1


ONE_OF_MANY = """
import json, sys, torch
import torch.distributed as dist
from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
from torch.distributed._tools.mem_tracker import MemTracker
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from benchmarks.plan_memory import CASES
from diffusion_labs.training.parallelism import Sharing, share
from diffusion_labs.training.state import TrainState
from diffusion_labs.training.tensor_parallelism import divide_layers
from diffusion_labs.training.world import World

name, backend, rank, size, folder = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
way = json.loads(sys.argv[6])
store = {"store": FakeStore()} if backend == "fake" else {"init_method": f"file://{folder}/store"}
dist.init_process_group(backend, rank=rank, world_size=size, **store)
experiment, batch = CASES[name](0.3)
state = TrainState(experiment)
world = World(rank, size, way.get("tensor", 1))
shards = way.get("shards", world.data_size)
sharing = Sharing("fsdp", shards, way.get("reshard", True), way.get("bfloat16", False))
tensors = divide_layers(state, world, timeout=1)
objective = share(state, sharing, world, torch.device("cpu"), tensors.peers).train()

class Sent(TorchDispatchMode):
    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in ("_allgather_base_", "_reduce_scatter_base_"):
            self.total += min(value.nbytes for value in args[:2]) * (sharing.shards - 1)
        elif func.overloadpacket.__name__ == "allreduce_":
            copies = world.data_size // sharing.shards
            self.total += sum(2 * value.nbytes * (copies - 1) // copies for value in args[0])
        elif func.overloadpacket.__name__ == "all_reduce":
            self.total += 2 * args[0].nbytes * (world.tensor - 1) // world.tensor
        return func(*args, **(kwargs or {}))

def local(values):
    values = [value.to_local() if hasattr(value, "to_local") else value for value in values if value is not None]
    return sum(value.nbytes for value in values)

def backward():
    with torch.autocast("cpu", torch.bfloat16, sharing.bfloat16):
        loss = objective(batch)
    loss.backward()
    tensors.complete_gradients()

with Sent() as sent:
    backward()
found = {"sent": sent.total, "gradients": local(value.grad for value in objective.parameters())}
state.optimizer.step()
state.optimizer.zero_grad()
found["parameters"] = local(objective.parameters())
own = {id(value) for value in objective.parameters()}
found["average"] = local(value for value in state.ema.model.parameters() if id(value) not in own)
found["optimizer"] = local(value for of_one in state.optimizer.state.values() for value in of_one.values())
alone, frozen = world.data_size == 1, not all(value.requires_grad for value in objective.parameters())
if backend == "fake" and not (alone and frozen):  # MemTracker cannot follow these
    tracker = MemTracker() if alone else FSDPMemTracker(objective, state.optimizer)
    if alone:
        tracker.track_external(objective, state.optimizer)
    with tracker:
        backward()
        state.optimizer.step()
        state.optimizer.zero_grad()
    [found["memory"]] = [sizes["Total"] for sizes in tracker.get_tracker_snapshot("peak").values()]
with open(f"{folder}/{rank}.json", "w") as file:
    json.dump(found, file)
dist.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "size", "way"),
    [
        ("gloo", 2, {}),
        ("fake", 8, {}),
        ("fake", 8, {"shards": 4}),
        ("fake", 8, {"reshard": False}),
        ("fake", 8, {"bfloat16": True}),
        ("gloo", 4, {"tensor": 2}),
        ("fake", 2, {"tensor": 2}),
    ],
    ids=["real", "eight", "groups", "kept", "bfloat16", "divided, in parts", "divided"],
)
@pytest.mark.parametrize("name", ["dit", "adm_unet"])
def test_parts_are_those_of_fsdp2(tmp_path: Path, name: str, backend: str, size: int, way: dict[str, Any]) -> None:
    """Two real processes, or the first of eight of which seven pretend: there PyTorch's tracker follows the memory."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ONE_OF_MANY, name, backend, str(rank), str(size), str(tmp_path), json.dumps(way)],
            env=environment,
        )
        for rank in range(1 if backend == "fake" else size)
    ]
    case, device = CASES[name](0.3), "cuda" if way.get("bfloat16") else "cpu"
    traced = trace_update(*case, device=device, tensor=way.get("tensor", 1))
    plan = traced.on(size, "fsdp", **{option: value for option, value in way.items() if option != "tensor"})
    assert [process.wait(timeout=250) for process in processes] == [0] * len(processes)
    found = json.loads((tmp_path / "0.json").read_text())
    for what in ("parameters", "average", "optimizer", "sent"):
        assert found[what] == getattr(plan, what)
    assert found["gradients"] == sum(
        part.share(plan.shards) for block in (*traced.blocks, traced.root) for part in block.trained
    )
    if "memory" in found:  # which follows neither the averaged model nor the batch
        memory = plan.memory - plan.average - plan.buffers // 2
        assert found["memory"] <= memory
        if not way.get("bfloat16"):  # then more is in bfloat16 than where autocast has it so, as is planned
            assert memory <= 1.1 * found["memory"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", CASES)
def test_memory_is_that_of_real_updates(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest resident memory of a process that makes them, within a tenth, where kernels are on elsewhere."""
    monkeypatch.setenv("DIFFUSION_LABS_KERNELS", "1")
    assert GATE[0] < planned(name) / measured(name) < GATE[1]


@pytest.mark.slow
def test_dit_xl_has_the_published_size_and_work() -> None:
    """DiT-XL/2 on 256 x 256 pixels: 675 M parameters, 118.64 G multiplications with additions (arXiv 2212.09748).

    The backward pass is twice that, and half more for attention.
    """
    with unallocated():
        network = dl.dit(**dl.DITS["DiT-XL/2"])
        trained, batch = diffusion(network, (4, 32, 32), count=2)
    plan = plan_update(trained, batch)
    assert plan.flops == pytest.approx(2 * 3 * 2 * 118.64e9, rel=0.03)
    assert plan.parameters / 4 == pytest.approx(675e6, rel=0.01)
