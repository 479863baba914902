"""Updates that the device makes or skips by itself: what the host waits for, and what a skipped one leaves."""

import copy
import math
from collections import Counter, deque
from statistics import median

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from diffusion_labs.schedules import Schedule
from diffusion_labs.training import TrainOptions, train, updates
from diffusion_labs.training.update_guard import UpdateGuard
from diffusion_labs.training.updates import Told, step_unless


class Waits(TorchDispatchMode):
    """Counts what would wait for a device: numbers of it that become Python's."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket in (torch.ops.aten._local_scalar_dense, torch.ops.aten.is_nonzero)
        return func(*args, **(kwargs or {}))


class Noting(nn.Module):
    """A loss that notes in a list that it is computed."""

    def __init__(self, loss: nn.Module, events: list[str]) -> None:
        super().__init__()
        self.loss = loss
        self.events = events

    def forward(self, output, batch) -> torch.Tensor:
        self.events.append("compute")
        return self.loss(output, batch)


@pytest.mark.parametrize("fused", [True, False])
def test_the_host_waits_where_something_is_written_alone(make_experiment, run_dir, monkeypatch, fused: bool) -> None:
    """With a fused optimiser; before others it waits for each update. The first is decided by the host."""
    waits, found = Waits(), Counter()
    begin = updates.Updates.begin

    def counted(self) -> None:
        before = waits.count
        with waits:
            begin(self)
        found[self.state.step + 1] += waits.count - before

    monkeypatch.setattr(updates.Updates, "begin", counted)
    monkeypatch.setattr(Schedule, "check_times", lambda *_: None)  # which looks at times on a CPU alone
    experiment = make_experiment(fused=fused)
    train(experiment, run_dir, TrainOptions(log_every=5))
    assert [found[step] == 0 for step in range(1, 13)] == [fused and step > 1 for step in range(1, 13)]


def test_an_update_is_known_when_the_gradient_of_the_next_is_sent_off(make_experiment, run_dir, monkeypatch) -> None:
    events: list[str] = []
    read = Told.read

    def noted(self) -> list[float]:
        events.append("know")
        return read(self)

    monkeypatch.setattr(Told, "read", noted)
    experiment = make_experiment(fused=True, accumulate=1, steps=6)
    experiment.objective.loss = Noting(experiment.objective.loss, events)
    train(experiment, run_dir, TrainOptions(log_every=4))
    late, at_once = ["compute", "know"], ["know"]
    assert events == ["compute", *late * 3, *at_once, "compute", *late, *at_once]


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        (torch.optim.Adam, {"fused": True}),
        (torch.optim.AdamW, {"fused": True, "amsgrad": True}),
        (torch.optim.SGD, {"fused": True, "momentum": 0.9}),
        (torch.optim.AdamW, {}),
        (torch.optim.SGD, {"momentum": 0.9}),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_a_refused_step_leaves_weights_and_optimiser_as_they_are(optimizer, options, first: bool) -> None:
    torch.manual_seed(0)
    model = nn.Linear(5, 3)
    made = optimizer(model.parameters(), lr=0.1, **options)

    def step(scale: float, refused: bool) -> None:
        made.zero_grad()
        (scale * model(torch.ones(2, 5)).square().sum()).backward()
        step_unless(torch.tensor(refused), made)

    if not first:
        step(1.0, False)
    weights, state = copy.deepcopy(model.state_dict()), copy.deepcopy(made.state_dict())
    step(math.nan, True)
    torch.testing.assert_close(dict(model.state_dict()), dict(weights), rtol=0, atol=0)
    torch.testing.assert_close(made.state_dict()["state"], state["state"], rtol=0, atol=0)
    step(1.0, False)
    assert all(value.isfinite().all() for value in model.parameters())
    assert not torch.equal(model.weight, weights["weight"])


def far_above(value: float, recent: deque[float], factor: float) -> bool:
    """As the docstring of ``UpdateGuard`` has it, in plain Python."""
    if not math.isfinite(value):
        return True
    if len(recent) < 20:
        return False
    middle = median(recent)
    spread = median(abs(other - middle) for other in recent)
    return value - middle > factor * max(abs(middle), spread)


@pytest.mark.parametrize("saved_after", [0, 7, 99, 100, 101, 170, 260])
def test_the_guard_refuses_what_its_definition_refuses(saved_after: int) -> None:
    generator = torch.Generator().manual_seed(0)
    values = (torch.randn(300, 2, generator=generator).exp() + torch.tensor([-1.0, 0.0])).tolist()
    for place, bad in ((10, math.nan), (30, 1e3), (31, math.inf), (120, -math.inf), (150, 1e4), (250, 60.0)):
        values[place][place % 2] = bad
    guard, recent, refusals = UpdateGuard(), [deque(maxlen=100) for _ in range(2)], 0
    for i, pair in enumerate(values):
        if i == saved_after:
            saved = guard.state_dict()
            assert [saved["loss"], saved["gradient_norm"]] == [pytest.approx(list(each)) for each in recent]
            guard = UpdateGuard()
            guard.load_state_dict(saved)
        expected = any(far_above(value, each, 8.0) for value, each in zip(pair, recent, strict=True))
        assert bool(guard.refuses(*torch.tensor(pair).unbind(), 8.0)) == expected, i
        refusals += expected
        if not expected:
            for value, each in zip(pair, recent, strict=True):
                each.append(value)
    assert 6 <= refusals < 60
