"""The losses of Latent Diffusion's autoencoders, against formulas and a training step written a second time."""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import diffusion_labs as dl
from diffusion_labs.layers import GroupNorm
from diffusion_labs.training import Experiment, TrainOptions, train
from diffusion_labs.training.adversarial_loss import adaptive_weight
from tests.catalogue import randomise, tiny_kl, tiny_vq
from tests.training.test_loop import EVERY_FIVE, DyingBatches, Killed, assert_equal_states

group_norm = partial(GroupNorm, num_groups=4)


class PowerDistance(nn.Module):
    """A perceptual distance with a closed form."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return ((x - y) ** 4).flatten(1).sum(1)


def discriminator(norm: Callable[[int], nn.Module] = nn.BatchNorm2d) -> nn.Module:
    return randomise(dl.PatchDiscriminator(1, channels=8, num_layers=1, norm=norm))


def images(size: int = 4) -> Tensor:
    return torch.rand(size, 1, 8, 8, generator=torch.Generator().manual_seed(5)) * 2 - 1


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.grad.clone() for name, value in module.named_parameters() if value.grad is not None}


@pytest.mark.parametrize(("error", "power"), [(dl.absolute_error, 1), (dl.squared_error, 2)])
def test_the_loss_of_a_kl_autoencoder_is_the_papers(error, power: int) -> None:
    """Sums over the values of each image, term by term, and a mean over the batch."""
    model, x = tiny_kl().double(), images(3).double()
    objective = dl.KLObjective(
        model, kl_weight=0.01, error=error, perceptual=PowerDistance(), perceptual_weight=0.3
    ).double()
    nn.init.constant_(objective.log_scale, 0.4)
    torch.manual_seed(1)
    loss = objective({"x": x})
    torch.manual_seed(1)
    y, posterior = model(x)

    expected = 0.0
    for i in range(3):
        distance = sum(abs(a - b) ** 4 for a, b in zip(x[i].flatten().tolist(), y[i].flatten().tolist(), strict=True))
        for a, b in zip(x[i].flatten().tolist(), y[i].flatten().tolist(), strict=True):
            expected += ((abs(a - b) ** power + 0.3 * distance) / 2.718281828459045**0.4 + 0.4) / 3
        normal = torch.distributions.Normal(posterior.mean[i], posterior.std[i])
        standard = torch.distributions.Normal(torch.zeros_like(posterior.mean[i]), 1.0)
        expected += 0.01 * torch.distributions.kl_divergence(normal, standard).sum().item() / 3
    assert loss.item() == pytest.approx(expected, rel=1e-10)


def test_the_loss_of_a_vq_autoencoder_is_the_published_ones() -> None:
    """Means, and the loss of the codebook with its weights exchanged."""
    model, x = tiny_vq().double(), images(3).double()
    objective = dl.VQObjective(model, codebook_weight=0.7, perceptual=PowerDistance())
    h = model.encode(x)
    codes = model.quantizer.codebook[
        torch.cdist(h.movedim(1, -1).flatten(0, 2), model.quantizer.codebook).argmin(1)
    ].reshape(3, 4, 4, 3)
    codebook = 1.25 * ((h.movedim(1, -1) - codes) ** 2).mean()
    y = model.decode(h)
    expected = (x - y).abs().mean() + ((x - y) ** 4).sum((1, 2, 3)).mean() + 0.7 * codebook
    torch.testing.assert_close(objective({"x": x}), expected)


def test_the_scale_of_the_errors_is_trained_where_asked() -> None:
    """Its gradient is zero where exp(s) is the mean error."""
    objective = dl.KLObjective(tiny_kl(), kl_weight=0.0, learn_scale=True)
    assert not dl.KLObjective(tiny_kl()).log_scale.requires_grad
    torch.manual_seed(1)
    objective({"x": images()})
    mean = objective.metrics()["reconstruction"]
    nn.init.constant_(objective.log_scale, mean.log().item())
    torch.manual_seed(1)
    objective({"x": images()}).backward()
    assert objective.log_scale.grad.abs() < 1e-4 * 64
    assert any(parameter is objective.log_scale for parameter in objective.parameter_groups(1.0)[0]["params"])


class TwoSteps:
    """The step of Latent Diffusion's code: two losses, two backward passes, two optimisers."""

    def __init__(self, model: nn.Module, critic: nn.Module, lr: float) -> None:
        self.model, self.critic = model, critic
        self.optimizers = [torch.optim.Adam(part.parameters(), lr, betas=(0.5, 0.9)) for part in (model, critic)]

    def __call__(self, x: Tensor) -> float:
        """One step, both on the weights before it; returns the adaptive weight."""
        output = self.model(x)
        y, last = output.reconstruction, self.model.decoder.head.conv.weight
        nll = (x - y).abs().mean()
        copied = copy.deepcopy(self.critic)  # whose statistics this pass may change
        g = -copied(y).mean()
        norms = []
        for loss in (nll, g):
            last.grad = None
            loss.backward(retain_graph=True)
            norms.append(last.grad.pow(2).sum().sqrt())
        weight = min(float(norms[0] / (norms[1] + 1e-4)), 1e4) * 0.75
        self.model.zero_grad()
        (nll + output.quantized.loss + weight * g).backward()

        self.critic.zero_grad()
        real, fake = self.critic(x), self.critic(y.detach())
        (0.5 * ((1 - real).clamp(min=0).mean() + (1 + fake).clamp(min=0).mean())).backward()
        for optimizer in self.optimizers:
            optimizer.step()
        return weight


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, group_norm], ids=["batch", "group"])
def test_one_backward_pass_is_the_two_steps_of_the_paper(norm) -> None:
    """Gradients, adaptive weight, running statistics, and three updates of one Adam beside two."""
    model, critic, x = tiny_vq().double(), discriminator(norm).double(), images().double()
    theirs = TwoSteps(copy.deepcopy(model), copy.deepcopy(critic), lr=1e-3)
    objective = dl.VQObjective(model, discriminator=critic, disc_start=0)
    optimizer = torch.optim.Adam(objective.parameter_groups(1e-3), betas=(0.5, 0.9))
    for step in range(3):
        optimizer.zero_grad()
        objective({"x": x}).backward()
        optimizer.step()
        objective.after_update(step + 1)
        weight = theirs(x)
        assert objective.metrics()["d_weight"].item() == pytest.approx(weight, rel=1e-5)
        for ours, other in ((model, theirs.model), (critic, theirs.critic)):
            torch.testing.assert_close(gradients(ours), gradients(other), rtol=1e-6, atol=1e-12)
            torch.testing.assert_close(dict(ours.state_dict()), dict(other.state_dict()), rtol=1e-6, atol=1e-9)


def test_before_its_start_the_discriminator_does_nothing_and_takes_part() -> None:
    """All its gradients are zeros, so Adam leaves it alone; the autoencoder is trained as without it."""
    model = tiny_vq()
    alone = dl.VQObjective(copy.deepcopy(model))
    objective = dl.VQObjective(model, discriminator=discriminator(), disc_start=2)
    before = copy.deepcopy(dict(objective.game.named_parameters()))
    optimizers = [torch.optim.Adam(part.parameter_groups(1e-3), betas=(0.5, 0.9)) for part in (objective, alone)]
    for step in range(3):
        started = step == 2
        losses = []
        for part, optimizer in zip((objective, alone), optimizers, strict=True):
            optimizer.zero_grad()
            losses.append(part({"x": images()}))
            losses[-1].backward()
        assert all(value.grad is not None for value in objective.game.parameters())
        assert any(value.grad.any() for value in objective.game.parameters()) == started
        assert torch.equal(*losses) != started
        assert (objective.metrics()["d_weight"] > 0) == started
        same = [torch.equal(a, b) for a, b in zip(gradients(model).values(), gradients(alone).values(), strict=True)]
        assert all(same) != started
        for part, optimizer in zip((objective, alone), optimizers, strict=True):
            optimizer.step()
            part.after_update(step + 1)
        unchanged = [torch.equal(before[name], value) for name, value in objective.game.named_parameters()]
        assert all(unchanged) != started


def test_accumulated_gradients_are_those_of_the_whole_batch() -> None:
    """The discriminator's, and the autoencoder's before the game: the adaptive weight is that of each part."""
    x = images()
    repeated = torch.cat([x[:2], x[:2]])
    for start, batch, whole in ((0, x, False), (1, x, True), (0, repeated, True)):
        objective = dl.VQObjective(tiny_vq(), discriminator=discriminator(group_norm), disc_start=start).double()
        results = []
        for parts in (batch.double().chunk(1), batch.double().chunk(2)):
            objective.zero_grad()
            for part in parts:
                (objective({"x": part}) / len(parts)).backward()
            results.append(gradients(objective))
        compared = [name for name in results[0] if whole or name.startswith("game")]
        assert compared
        for name in compared:
            torch.testing.assert_close(results[0][name], results[1][name], rtol=1e-8, atol=1e-10)


def test_autocast_to_bfloat16_keeps_the_adaptive_weight_and_the_gradients() -> None:
    model = tiny_kl()
    objective = dl.KLObjective(model, discriminator=discriminator(group_norm), disc_start=0)
    results, weights = [], []
    for enabled in (False, True):
        objective.zero_grad()
        torch.manual_seed(2)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            loss = objective({"x": images()})
        assert loss.dtype == torch.float32
        loss.backward()
        weights.append(objective.metrics()["d_weight"].item())
        for part in (model, objective.game):
            assert all(value.dtype == torch.float32 for value in gradients(part).values())
            results.append(torch.cat([value.flatten() for value in gradients(part).values()]))
    assert weights[1] == pytest.approx(weights[0], rel=0.05)
    for exact, rounded in zip(results[:2], results[2:], strict=True):
        assert F.cosine_similarity(exact, rounded, dim=0) > 0.995
        assert rounded.norm() / exact.norm() == pytest.approx(1.0, rel=0.05)


def test_without_gradients_there_is_no_adaptive_weight() -> None:
    objective = dl.VQObjective(tiny_vq(), discriminator=discriminator(group_norm), disc_start=0)
    with torch.no_grad():
        loss = objective({"x": images()})
    metrics = objective.metrics()
    assert metrics["d_weight"] == 0
    parts = metrics["reconstruction"] + metrics["codebook"] + metrics["discriminator"]
    torch.testing.assert_close(loss, parts)


def test_the_metrics_are_means_since_they_were_last_asked_for() -> None:
    model, critic = tiny_vq(), discriminator(group_norm)
    objective = dl.VQObjective(model, perceptual=PowerDistance(), discriminator=critic, disc_start=0)
    halves = images().chunk(2)
    objective({"x": images()})
    objective.metrics()
    for half in halves:
        objective({"x": half})
    metrics = objective.metrics()
    outputs = [model(half) for half in halves]
    y = torch.cat([output.reconstruction for output in outputs]).detach()
    real, fake = critic(images()), critic(y)
    hinge = (1 - real).relu().mean() / 2 + (1 + fake).relu().mean() / 2
    expected = {
        "reconstruction": (images() - y).abs().mean(),
        "codebook": (outputs[0].quantized.loss + outputs[1].quantized.loss) / 2,
        "perceptual": PowerDistance()(images(), y).mean(),
        "generator": -fake.mean(),
        "discriminator": hinge,
        "logits_real": real.mean(),
        "logits_fake": fake.mean(),
    }
    usage = dl.code_usage(torch.cat([output.quantized.indices for output in outputs]), 8)
    expected |= {"perplexity": usage.perplexity, "codes_used": usage.used}
    assert set(metrics) == {*expected, "d_weight"}
    for name, value in expected.items():
        torch.testing.assert_close(metrics[name], value.detach(), check_dtype=False)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_the_objective_compiles_as_one_graph(kind: str) -> None:
    make = {"kl": lambda: dl.KLObjective(tiny_kl(), **options()), "vq": lambda: dl.VQObjective(tiny_vq(), **options())}

    def options() -> dict[str, object]:
        return {"discriminator": discriminator(), "disc_start": 0, "perceptual": PowerDistance()}

    results = []
    for compiled in (False, True):
        objective = make[kind]()
        call = torch.compile(objective, fullgraph=True, backend="aot_eager") if compiled else objective
        torch.manual_seed(3)
        with torch._dynamo.config.patch(trace_autograd_ops=True):
            call({"x": images()}).backward()
        results.append((gradients(objective), objective.metrics()))
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-6)


def make_experiment() -> Experiment:
    """12 updates with a discriminator that begins at the fourth, batch norm, accumulation and dead codes."""
    torch.manual_seed(7)
    generator = torch.Generator().manual_seed(3)
    data = [{"x": torch.randint(0, 256, (1, 8, 8), dtype=torch.uint8, generator=generator)} for _ in range(40)]
    model = tiny_vq()
    nn.init.constant_(model.quantizer.codebook, 9.0)
    objective = dl.VQObjective(
        model, transform=dl.NormalizeImages(), discriminator=discriminator(), disc_start=4, revive_after=3
    )
    return Experiment(
        objective=objective,
        model=model,
        batches=dl.Batches(data, 8, seed=1),
        optimizer=torch.optim.Adam(objective.parameter_groups(1e-2, 2e-2), betas=(0.5, 0.9)),
        steps=12,
        ema_decay=0.9,
        accumulate=2,
    )


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, object], Path]:
    """The state after all updates in one go, and its folder."""
    folder = tmp_path_factory.mktemp("whole")
    return train(make_experiment(), folder, TrainOptions(save_every=5, log_every=4)).state_dict(), folder


@pytest.mark.parametrize("killed_after", [11, 14, 22])
def test_a_killed_run_continues_bit_for_bit(
    run_dir: Path, whole_run: tuple[dict[str, object], Path], killed_after: int
) -> None:
    """Codes, their counts and candidates, running statistics and the number of updates, too."""

    def die() -> None:
        raise Killed

    whole, whole_folder = whole_run
    experiment = make_experiment()
    experiment.batches = DyingBatches(experiment.batches, killed_after, die)
    with pytest.raises(Killed):
        train(experiment, run_dir, EVERY_FIVE)
    torch.manual_seed(999)
    resumed = train(make_experiment(), run_dir, EVERY_FIVE)
    assert_equal_states(resumed.state_dict(), whole)
    lines = [(folder / "metrics.jsonl").read_text().splitlines() for folder in (run_dir, whole_folder)]
    without_time = [[line.partition('"images_per_second": ')[0] for line in part] for part in lines]
    assert without_time[0] == without_time[1]
    assert '"codes_used": ' in lines[0][-1]
    assert '"d_weight": ' in lines[0][-1]


def test_the_gradient_of_each_group_is_clipped_by_itself(run_dir: Path) -> None:
    """After one step of plain gradient descent, each network has moved by the learning rate times the largest norm."""
    experiment = make_experiment()
    experiment.steps, experiment.gradient_clip = 1, 1e-3
    groups = experiment.objective.parameter_groups(0.5, 0.25)
    experiment.objective.game.start = 0
    experiment.objective.revival = None
    experiment.optimizer = torch.optim.SGD(groups)
    before = [[value.detach().clone() for value in group["params"]] for group in groups]
    train(experiment, run_dir, TrainOptions())
    for group, old in zip(groups, before, strict=True):
        moved = [((a - b) ** 2).sum() for a, b in zip(group["params"], old, strict=True)]
        assert sum(moved).sqrt().item() == pytest.approx(group["lr"] * 1e-3, rel=0.02)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"disc_start \(-1\)"):
        dl.KLObjective(tiny_kl(), discriminator=discriminator(), disc_start=-1)
    with pytest.raises(ValueError, match=r"revive_after \(0\)"):
        dl.VQObjective(tiny_vq(), revive_after=0)
    with pytest.raises(KeyError, match=r"lacks 'x'; it has \['y'\]"):
        dl.KLObjective(tiny_kl())({"y": images()})


def test_what_fsdp_must_keep_whole_is_named() -> None:
    """A weight that is no longer in the graph, and a discriminator that would bring its own parameters."""
    loss = torch.ones((), requires_grad=True) * 2
    with pytest.raises(ValueError, match=r"decoder's last layer.*call fully_shard on blocks"):
        adaptive_weight(loss, loss, nn.Parameter(torch.ones(1)))
    critic = discriminator()
    critic.layers.unshard = None  # as FSDP2 gives it to what it shards
    with pytest.raises(ValueError, match="discriminator is sharded by itself"):
        dl.VQObjective(tiny_vq(), discriminator=critic)({"x": images()})
