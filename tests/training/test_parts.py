"""The objective, the average of the weights and the learning rate."""

import weakref

import pytest
import torch
from torch import nn

import diffusion_labs as dl
from diffusion_labs.training import EMA, Objective, WarmupCosine
from diffusion_labs.training.checkpoint import snapshot
from tests.catalogue import SCHEDULES, TinyNetwork


class Echo(nn.Module):
    """Notes what it is called with."""

    def forward(self, x, timestep, conditional_inputs):
        self.seen = x, timestep, conditional_inputs
        return dl.DiffusionOutput(x)


def test_the_objective_is_the_loss_of_the_denoiser_on_the_transformed_batch() -> None:
    echo = Echo()
    objective = Objective(
        lambda b: {**b, "xt": b["x"] + 1, "target": b["x"]}, echo, dl.SimpleLoss(), conditions=["class"]
    )
    batch = {"x": torch.zeros(2, 3), "t": torch.tensor([1, 2]), "class": torch.tensor([0, 1])}
    assert objective(batch) == 1
    assert torch.equal(echo.seen[0], torch.ones(2, 3))
    assert echo.seen[1] is batch["t"]
    assert echo.seen[2] == {"class": batch["class"]}


def test_a_field_that_is_missing_from_the_batch_is_named() -> None:
    objective = Objective(nn.Identity(), Echo(), dl.SimpleLoss(), conditions=["class"])
    with pytest.raises(KeyError, match=r"lacks \['xt', 'class'\]; it has \['t'\]"):
        objective({"t": torch.zeros(1)})


def test_the_whole_objective_compiles_as_one_graph(make_experiment) -> None:
    experiment = make_experiment()
    batch = next(experiment.batches)
    compiled = torch.compile(experiment.objective, fullgraph=True, backend="aot_eager")
    losses, gradients = [], []
    for objective in (experiment.objective, compiled):
        torch.manual_seed(0)
        experiment.objective.zero_grad()
        loss = objective(batch)
        loss.backward()
        losses.append(loss.detach())
        gradients.append([p.grad.clone() for p in experiment.objective.parameters()])
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)


def test_the_average_is_the_recurrence_with_warm_up() -> None:
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(0.0)
    ema = EMA(model, decay=0.5)
    expected = 0.0
    for n in range(30):
        model.weight.data.fill_(float(n + 1))
        ema.update(model)
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * (n + 1)
        assert ema.model.weight.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_average_of_imprecise_weights_does_not_stand_still(dtype: torch.dtype) -> None:
    """A step of a ten-thousandth is lost in these; what is drawn with has the data type of the model."""
    model = nn.Linear(4, 4).to(dtype)
    ema = EMA(model, 0.9999)
    ema.updates = 200_000
    start = ema.model.weight.clone()
    with torch.no_grad():
        model.weight.add_(1.0)
    for _ in range(1000):
        ema.update(model)
    way = (ema.model.weight - start) / (model.weight - start)
    torch.testing.assert_close(way, torch.full_like(way, 1 - 0.9999**1000), rtol=1e-3, atol=0.0)

    again = EMA(model, 0.9999)
    again.load_state_dict(ema.state_dict())
    assert torch.equal(again.model.weight, ema.model.weight)
    precise = ema.model.weight.clone()
    with ema.as_trained(model) as averaged:
        assert averaged(torch.ones(4, dtype=dtype)).dtype == dtype
    assert torch.equal(ema.model.weight, precise)
    model.load_state_dict(ema.state_dict()["model"])
    assert torch.equal(model.weight, precise.to(dtype))


def test_the_average_keeps_what_is_tied_tied() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    averaged = EMA(model, 0.9).model
    assert averaged[1].weight is averaged[0].weight
    assert averaged[0].weight is not model[0].weight


def test_buffers_are_copied_and_schedules_are_left_alone() -> None:
    schedule = SCHEDULES["cosine"]()
    model = nn.ModuleDict(
        {
            "norm": nn.BatchNorm1d(2),
            "sampler": dl.DDIMSampler(TinyNetwork(), schedule, dl.VPredictor(schedule)),
        }
    )
    ema = EMA(model, 0.9)
    model["norm"](torch.randn(8, 2))
    ema.update(model)
    assert torch.equal(ema.model["norm"].running_mean, model["norm"].running_mean)
    table, copied = schedule.log_snr_table, ema.model["sampler"].schedule.log_snr_table
    assert copied.dtype == torch.float64
    assert torch.equal(copied, table)
    assert not any("table" in name and "embed" not in name for name in ema.state_dict()["model"] if "schedule" in name)
    assert not ema.model.training
    assert not any(p.requires_grad for p in ema.model.parameters())


def test_frozen_parameters_are_shared_and_stay_as_they_are() -> None:
    model = nn.Sequential(nn.Linear(2, 2).requires_grad_(False), nn.Linear(2, 2))
    before = model[0].weight.clone()
    ema = EMA(model, 0.9)
    with torch.no_grad():
        model[1].weight.add_(1)
    ema.update(model)
    assert ema.model[0].weight is model[0].weight
    assert torch.equal(model[0].weight, before)
    assert ema.model[1].weight is not model[1].weight
    torch.testing.assert_close(ema.model[1].weight, model[1].weight - 0.1)  # the first decay is 1 / 10
    assert model[1].weight.requires_grad


def test_the_average_goes_on_from_its_state() -> None:
    model = nn.Linear(2, 2)
    first, second = EMA(model, 0.9), EMA(model, 0.9)
    for ema in (first, first, first):
        nn.init.normal_(model.weight)
        ema.update(model)
    second.load_state_dict(first.state_dict())
    nn.init.normal_(model.weight)
    first.update(model)
    second.update(model)
    assert torch.equal(first.model.weight, second.model.weight)


def test_learning_rate_rises_then_falls_to_its_final_share() -> None:
    rate = WarmupCosine(steps=100, warmup=10, final=0.1)
    values = [rate(step) for step in range(101)]
    assert values[0] == pytest.approx(1 / 11)
    assert values[10] == 1
    assert values[:11] == sorted(values[:11])
    assert values[10:] == sorted(values[10:], reverse=True)
    assert values[55] == pytest.approx(0.55)
    assert values[100] == pytest.approx(0.1)


def test_impossible_settings_are_named(make_experiment) -> None:
    with pytest.raises(ValueError, match=r"decay \(1.0\)"):
        EMA(nn.Linear(1, 1), 1.0)
    for name in ("steps", "accumulate", "gradient_clip"):
        with pytest.raises(ValueError, match=rf"{name} \(0\) must be positive"):
            make_experiment(**{name: 0})


def test_tensors_in_parts_are_kept_where_they_are_wanted_and_one_at_a_time() -> None:
    """Each is gathered everywhere, since that is an exchange; but no second one before the first is let go."""
    alive: list[weakref.ref[torch.Tensor]] = []

    class Part:
        def full_tensor(self) -> torch.Tensor:
            assert not any(gathered() is not None for gathered in alive)  # but the copies that are kept
            tensor = torch.ones(3)
            alive.append(weakref.ref(tensor))
            return tensor

    value = {"a": [Part(), Part()], "b": (torch.zeros(2), 5)}
    assert snapshot(value, keep=False).tensors == {}
    assert len(alive) == 2
    alive.clear()
    kept = snapshot(value)
    torch.testing.assert_close(kept.tensors["a"], {"a.0": torch.ones(3), "a.1": torch.ones(3)})
    assert kept.structure == snapshot(value, keep=False).structure
