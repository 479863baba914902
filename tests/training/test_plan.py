"""Plans against closed forms, against FSDP2 in a process group that pretends, and against real memory."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_labs.cli import main
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


def test_accumulation_makes_more_passes_and_as_many_reductions() -> None:
    once, thrice = (trace_update(experiment(Products(), accumulate=n), BATCH, device="cpu") for n in (1, 3))
    assert thrice.flops == 3 * once.flops
    assert thrice.samples == 3 * once.samples
    assert thrice.on(4, "ddp").sent == once.on(4, "ddp").sent
    gathered = (DEPTH + 1 + DEPTH) * 3 * MATRIX
    assert thrice.on(4, "fsdp").sent - once.on(4, "fsdp").sent == 2 * gathered // 4
    assert thrice.on(4, "fsdp").gradients == thrice.on(4, "ddp").gradients  # kept whole, until they are reduced


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
    plan = TracedUpdate(1, 1, [], [], [], [], 0, {0: 0}, [], Block([Part(1, 8)], [Part(1, 8)], 1), 600).on(2, "ddp")
    assert plan.seconds(peak_flops=1000.0, bandwidth=4.0, efficiency=0.3) == pytest.approx((2.0, 4.0))


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stop:
        main(["plan", "digits", *words])
    captured = capsys.readouterr()
    return stop.value.code, captured.out + captured.err


def test_the_command_says_that_it_does_not_fit_and_what_to_change(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model-channels", "32", "--batch-size", "64", "--world-size", "2", "--parallelism", "ddp"]
    code, text = run(capsys, *words, "--memory", "0.001")
    assert code == 1
    assert "digits: 2 devices by ddp, each with 32 samples an update" in text
    assert "does not fit: 0." in text
    assert "take more devices with --parallelism fsdp" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--world-size", "0"], "world_size (0) must be at least 1"),
        (["--memory", "-1"], "memory (-1.0) must be positive"),
        (["--world-size", "2", "--peak-tflops", "100"], "needs bandwidth_gb_s"),
        (["--world-size", "3", "--batch-size", "64"], "batch_size (64) must be a multiple of world_size (3)"),
    ],
)
def test_bad_input_is_one_line(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    code, text = run(capsys, *words)
    assert code == 2
    assert message in text
    assert len(text.splitlines()) == 1
