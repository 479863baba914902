"""The objectives of autoencoders with FSDP2: two processes, and one that sees the batches of both."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

TWO_AND_ONE = """
import os, sys, torch
from functools import partial
import diffusion_labs as dl
from diffusion_labs.layers import GroupNorm
from torch.distributed.fsdp import fully_shard
folder, kind = sys.argv[1:]
rank = int(os.environ["RANK"])
torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
sizes = {"in_channels": 1, "channels": (4, 8), "num_res_blocks": 1, "num_groups": 4, "middle_attention": False}

def make():
    torch.manual_seed(0)
    critic = dl.PatchDiscriminator(1, channels=8, num_layers=1, norm=partial(GroupNorm, num_groups=4))
    if kind == "kl":
        model = dl.autoencoder_kl(latent_channels=2, **sizes)
        return dl.KLObjective(model, learn_scale=True, discriminator=critic, disc_start=2)
    model = dl.vq_model(latent_channels=2, num_codes=16, **sizes)
    with torch.no_grad():
        model.quantizer.codebook[1:] += 50.0  # dead, and revived after the third update
    return dl.VQObjective(model, discriminator=critic, disc_start=2, revive_after=3)

def update(objective, optimizer, step, parts):
    losses = {}
    for part in parts:
        torch.manual_seed(10 * step + part)  # noise of the latents, candidates for codes
        loss = objective({"x": x[2 * part : 2 * part + 2]})
        (loss / len(parts)).backward()
        losses[part] = loss.item()
    optimizer.step()
    optimizer.zero_grad()
    objective.after_update(step + 1)
    return losses

x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
objective = make()
for level in [*objective.autoencoder.encoder.levels, *objective.autoencoder.decoder.levels]:
    fully_shard(level)
fully_shard(objective)
optimizer = torch.optim.Adam(objective.parameter_groups(1e-3), betas=(0.5, 0.9))
losses = [update(objective, optimizer, step, [rank])[rank] for step in range(6)]
assert all(hasattr(value, "full_tensor") for value in objective.parameters())  # in parts
if kind == "vq":
    codes = objective.autoencoder.quantizer.codebook.full_tensor()
    assert codes.abs().max() < 20
d_weight = objective.metrics()["d_weight"].item()
whole = make()
optimizer = torch.optim.Adam(whole.parameter_groups(1e-3), betas=(0.5, 0.9))
torch.distributed.destroy_process_group()  # from here on, alone
expected = [update(whole, optimizer, step, [1, 0])[rank] for step in range(6)]
torch.save({"losses": losses, "expected": expected, "d_weight": d_weight}, f"{folder}/{rank}.pt")
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_shards_have_the_losses_of_one_process(tmp_path: Path, kind: str) -> None:
    """Before and in the game, and with revived codes; one process has the two batches one after the other."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TWO_AND_ONE, str(tmp_path), kind], env={**environment, "RANK": str(rank)}
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=1500) for process in processes] == [0, 0]
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(found["losses"], found["expected"], rtol=1e-5, atol=1e-5)
        assert found["d_weight"] > 0
