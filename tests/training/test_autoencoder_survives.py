"""Thousands of updates with the discriminator, and updates of several processes."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

import diffusion_labs as dl
from diffusion_labs.layers import GroupNorm

MODELS = {
    "kl": (partial(dl.autoencoder_kl, latent_channels=1), partial(dl.KLObjective, kl_weight=1e-4)),
    "vq": (partial(dl.vq_model, latent_channels=3, num_codes=32), partial(dl.VQObjective, revive_after=50)),
}


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("kind", "bfloat16"), [("kl", False), ("vq", True)])
def test_two_thousand_updates_with_the_discriminator(kind: str, bfloat16: bool) -> None:
    """Handwritten digits under noise, which no latents can hold; two accumulated batches an update in bfloat16.

    Without the game reconstructions are smooth: the best for L1 is the digits alone. The discriminator sees that, the
    autoencoder answers with noise of its own, and nothing explodes. The hinge loss of the discriminator alone tells
    little: it is 1, which is chance, also where the autoencoder has won.
    """
    torch.manual_seed(0)
    make, make_objective = MODELS[kind]
    sizes = {"in_channels": 1, "channels": (8, 16), "num_res_blocks": 1, "num_groups": 4, "middle_attention": False}
    critic = dl.PatchDiscriminator(1, channels=16, num_layers=1, norm=partial(GroupNorm, num_groups=4))
    model = make(**sizes)
    objective = make_objective(model, discriminator=critic, disc_start=200)
    optimizer = torch.optim.Adam(objective.parameter_groups(1e-3), betas=(0.5, 0.9))
    digits = dl.Digits("train")
    clean = 0.7 * (torch.stack([digits[i]["x"] for i in range(len(digits))]).float() / 127.5 - 1)
    x = clean + 0.3 * torch.randn(clean.shape)
    accumulate, size = (2, 4) if bfloat16 else (1, 8)

    lines = []
    for step in range(2000):
        for _ in range(accumulate):
            chosen = torch.randint(len(x), (size,))
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
                loss = objective({"x": x[chosen]}) / accumulate
            loss.backward()
        for group in optimizer.param_groups:
            torch.nn.utils.clip_grad_norm_(group["params"], 1.0, error_if_nonfinite=True)
        optimizer.step()
        optimizer.zero_grad()
        objective.after_update(step + 1)
        if (step + 1) % 100 == 0:
            lines.append({name: value.item() for name, value in objective.metrics().items()})
            with torch.no_grad():
                y = model.decode(model.posterior(x[:256]).mean)
            lines[-1]["roughness"] = roughness(y) / roughness(x)

    before, game = lines[:2], lines[2:]
    assert all(value.isfinite().all() for value in objective.state_dict().values())
    assert all(line["d_weight"] == 0 for line in before)
    assert all(0 < line["d_weight"] < 100 for line in game)
    assert all(abs(line[name]) < 20 for line in game for name in ("logits_real", "logits_fake"))
    assert all(line["discriminator"] < 1.1 for line in game)
    assert all(1.5 * before[-1]["roughness"] < line["roughness"] < 1.5 for line in game[-10:])
    assert all(line["reconstruction"] < 1.1 * before[-1]["reconstruction"] for line in game[-10:])


def roughness(images: torch.Tensor) -> float:
    """The mean square of the steps between neighbouring pixels."""
    return sum(images.diff(dim=dim).square().mean().item() for dim in (-1, -2))


ONE_OF_TWO = """
import os, sys, torch
from functools import partial
import diffusion_labs as dl
from diffusion_labs.layers import GroupNorm
from torch.nn.parallel import DistributedDataParallel
rank = int(os.environ["RANK"])
torch.distributed.init_process_group("gloo", init_method=f"file://{sys.argv[1]}/store", rank=rank, world_size=2)
torch.manual_seed(0)
model = dl.vq_model(in_channels=1, channels=(4, 8), latent_channels=2, num_codes=16, num_res_blocks=1, num_groups=4)
with torch.no_grad():
    model.quantizer.codebook[1:] += 50.0
critic = dl.PatchDiscriminator(1, channels=8, num_layers=1, norm=partial(GroupNorm, num_groups=4))
objective = dl.VQObjective(model, discriminator=critic, disc_start=2, revive_after=3)
optimizer = torch.optim.SGD(objective.parameter_groups(1e-2))
x = torch.randn(4, 1, 8, 8)
torch.manual_seed(rank)  # each draws its own candidates
wrapped = DistributedDataParallel(objective)
for step in range(5):
    optimizer.zero_grad()
    wrapped({"x": x[2 * rank : 2 * rank + 2]}).backward()
    optimizer.step()
    objective.after_update(step + 1)
    if step == 1:
        torch.save(objective.state_dict(), f"{sys.argv[1]}/before-{rank}.pt")
torch.save(objective.state_dict(), f"{sys.argv[1]}/after-{rank}.pt")
if rank == 0:  # the same alone, until the game begins
    torch.manual_seed(0)
    model = dl.vq_model(in_channels=1, channels=(4, 8), latent_channels=2, num_codes=16, num_res_blocks=1, num_groups=4)
    with torch.no_grad():
        model.quantizer.codebook[1:] += 50.0
    alone = dl.VQObjective(model)
    optimizer = torch.optim.SGD(alone.parameter_groups(1e-2))
    for step in range(2):
        optimizer.zero_grad()
        alone({"x": x}).backward()
        optimizer.step()
    torch.save(alone.autoencoder.state_dict(), f"{sys.argv[1]}/alone.pt")
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_agree_before_and_in_the_game_and_on_revived_codes(tmp_path: Path) -> None:
    """DDP without the search for unused parameters, and until the game begins the updates of one process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen([sys.executable, "-c", ONE_OF_TWO, str(tmp_path)], env={**environment, "RANK": str(rank)})
        for rank in range(2)
    ]
    assert [process.wait(timeout=280) for process in processes] == [0, 0]
    for moment in ("before", "after"):
        states = [torch.load(tmp_path / f"{moment}-{rank}.pt", weights_only=True) for rank in range(2)]
        for name, value in states[0].items():
            if not name.startswith("revival"):  # of the last batch of each
                assert torch.equal(value, states[1][name]), (moment, name)
    codebook = states[0]["autoencoder.quantizer.codebook"]
    assert (codebook < 20).all()  # the far ones are revived
    before = torch.load(tmp_path / "before-0.pt", weights_only=True)
    for name, value in torch.load(tmp_path / "alone.pt", weights_only=True).items():
        torch.testing.assert_close(before[f"autoencoder.{name}"], value, rtol=1e-4, atol=1e-5)
