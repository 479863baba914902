# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From one CPU to many GPUs
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/)
#
# A training script that works on a laptop should work on a hundred GPUs, and be the same training there. In this notebook
# you write one script, and
#
# 1. run it in one process, then in two that share each batch (DDP), then in two that share the model as well (FSDP2), and
#    compare the losses
# 2. kill it in the middle, let it go on, and compare every bit
# 3. ask whether a model of 675 million parameters would fit, on GPUs that you do not have
#
# All of this runs here, on a CPU: the processes exchange gradients over gloo, as they would over NCCL on GPUs. Cells that
# start processes take some seconds, most of which is starting Python.

# %%
import subprocess
import sys
from importlib.util import find_spec

if find_spec("diffusion_labs") is None:  # on Colab
    source = "diffusion-labs"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", source, "matplotlib"], check=True)

# %%
import json
import os
import time
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import nn

import diffusion_labs as dl
from diffusion_labs.training import latest_checkpoint, trace_update, unallocated

SMALL = os.environ.get("TUTORIAL_SIZE") == "small"  # the tests plan a smaller model

# %% [markdown]
# ## The script
#
# It names no processes, ranks or devices. An **experiment** is everything that is trained: an objective, batches, an
# optimizer, a number of updates. `train` is the loop, with averaged weights, a log and checkpoints.
# [The first tutorial](mnist_training.ipynb) explains the parts.
#
# `batch_size` is that of all processes together. Noise, times and the order of the data are functions of the seed and the
# sample, and not of the process that happens to have it. That is why the training stays the same.

# %%
script = """
import argparse
from pathlib import Path

import torch
from torch import nn
import diffusion_labs as dl

parser = argparse.ArgumentParser()
parser.add_argument("run_dir", type=Path)
parser.add_argument("--parallelism", default="auto")
parser.add_argument("--steps", type=int, default=60)
arguments = parser.parse_args()

torch.manual_seed(0)
network = dl.dit(in_channels=1, size=(8, 8), patch_size=2, dim=64, depth=4, num_heads=4, classes={"class": 10})
schedule = dl.DiscreteGaussianSchedule(dl.cosine_beta_schedule(1000))
predictor = dl.VPredictor(schedule)
sampler = dl.DDIMSampler(network, schedule, predictor, eval_steps=20)
transform = nn.Sequential(dl.NormalizeImages(), dl.RandomDiffusionSteps(schedule), dl.ComputeTarget(predictor))

experiment = dl.Experiment(
    objective=dl.Objective(transform, sampler, dl.SimpleLoss(), conditions=["class"]),
    model=sampler,
    batches=dl.Batches(dl.Digits(), batch_size=64),
    optimizer=torch.optim.AdamW(sampler.parameters(), lr=1e-3),
    steps=arguments.steps,
)
options = dl.TrainOptions(resume=True, parallelism=arguments.parallelism, log_every=1, save_every=10)
dl.train(experiment, arguments.run_dir, options)
"""
Path("train_digits.py").write_text(script)

python = [sys.executable, "train_digits.py"]
torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "train_digits.py"]
environment = {**os.environ, "OMP_NUM_THREADS": "1"}


def run(command, *arguments):
    """Run a command, and show what it says about its processes."""
    done = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    for line in done.stderr.splitlines():
        if "processes" in line:
            print(line)


# %% [markdown]
# ## One process, and two
#
# `torchrun` starts the same file twice. Under DDP each process has the whole model and half of each batch. `torchrun` is
# short for what the command above says, `python -m torch.distributed.run`.

# %%
run(python, "runs/one")
run(torchrun, "runs/ddp", "--parallelism", "ddp")

# %% [markdown]
# Under FSDP2 each process has half of the weights, gradients, moments and averages as well, and gathers a block's weights
# where it needs them. A checkpoint holds whole tensors, so another number of processes can go on with it: we stop after 30
# updates on two, and make the others on one.

# %%
run(torchrun, "runs/fsdp", "--parallelism", "fsdp", "--steps", "30")
run(python, "runs/fsdp")


# %%
def losses(run_dir):
    lines = [json.loads(line) for line in Path(run_dir, "metrics.jsonl").read_text().splitlines()]
    return torch.tensor([line["loss"] for line in lines], dtype=torch.float64)


one, ddp, fsdp = losses("runs/one"), losses("runs/ddp"), losses("runs/fsdp")
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
left.plot(one, linewidth=5, color="lightsteelblue", label="one process")
left.plot(ddp, label="two, DDP")
left.plot(fsdp, "--", label="two, FSDP2, then one")
left.set(xlabel="update", ylabel="loss")
left.legend()
right.semilogy(((ddp - one) / one).abs().clamp(min=1e-9), label="two, DDP")
right.semilogy(((fsdp - one) / one).abs().clamp(min=1e-9), "--", label="two, FSDP2, then one")
right.set(xlabel="update", ylabel="relative difference to one process")
plt.show()

# %% [markdown]
# The three runs are one. What is left is rounding: gradients are summed in another order, and float32 has seven digits. Points
# at $10^{-9}$, the bottom of the plot, are losses that are equal to the last bit.

# %%
torch.testing.assert_close(ddp, one, rtol=1e-3, atol=0)
torch.testing.assert_close(fsdp, one, rtol=1e-3, atol=0)

# %% [markdown]
# ## Kill it
#
# The worst that can happen to a process is SIGKILL: no warning, no last words. We wait for a checkpoint, and kill it.

# %%
process = subprocess.Popen([*python, "runs/killed"], env=environment, stderr=subprocess.DEVNULL)
while latest_checkpoint(Path("runs/killed/checkpoints")) is None:
    time.sleep(0.05)
process.kill()
print("exit code", process.wait())

# %% [markdown]
# The same command again goes on, because of `resume=True`. A checkpoint has all that the run depends on: weights, their
# averages, the optimizer's moments, the place in the data, the random state. So the end is the same to the last bit.

# %%
run(python, "runs/killed")

end, expected = (latest_checkpoint(Path(folder, "checkpoints")) for folder in ("runs/killed", "runs/one"))
for file in sorted(expected.glob("*.safetensors")):
    print(end.name, file.name, "equal:", (end / file.name).read_bytes() == file.read_bytes())
    assert (end / file.name).read_bytes() == file.read_bytes()

# %% [markdown]
# Under `torchrun --max-restarts 3` this needs nobody: a process that dies is started again, and goes on. What happens in
# each fault, from a full disk to a damaged checkpoint, is in [Training on one process and on many](../scaling.md).

# %% [markdown]
# ## Would it fit?
#
# DiT-XL/2 has 675 million parameters. `unallocated()` builds it without memory, and `trace_update` follows one update
# without numbers: which tensors are alive at the fullest moment, how much is computed, what has to be sent.

# %%
name = "DiT-S/2" if SMALL else "DiT-XL/2"
schedule = dl.DiscreteGaussianSchedule(dl.linear_beta_schedule(1000))
predictor = dl.NoisePredictor(schedule)
with unallocated():
    network = dl.dit(**dl.DITS[name])
print(f"{name}: {sum(parameter.numel() for parameter in network.parameters()):,} parameters")

transform = nn.Sequential(dl.RandomDiffusionSteps(schedule), dl.ComputeTarget(predictor))
objective = dl.Objective(transform, network, dl.SimpleLoss(), conditions=["class"])
optimizer = torch.optim.AdamW(network.parameters(), fused=True)
experiment = dl.Experiment(objective=objective, model=network, batches=None, optimizer=optimizer, steps=1)
batch = {"x": torch.empty(32, 4, 32, 32), "class": torch.zeros(32, dtype=torch.long)}  # 32 latents on each device
traced = trace_update(experiment, batch)

# %%
print("devices             memory of each   sent by each   update on A100s, 25 GB/s")
for devices, parallelism in ((1, "ddp"), (8, "ddp"), (8, "fsdp"), (64, "fsdp")):
    plan = traced.on(devices, parallelism, bfloat16=True)
    fast, slow = plan.seconds(peak_flops=312e12, bandwidth=25e9, efficiency=0.4)
    print(
        f"{devices:4} by {parallelism:5}{plan.memory / 2**30:18.1f} GiB{plan.sent / 1e9:12.1f} GB"
        f"{fast:12.2f} to {slow:.2f} s"
    )

# %% [markdown]
# DDP takes the same memory on every device, and a little more for the exchange. FSDP2 divides what belongs to the weights;
# most of what is left are activations, which a smaller batch for each device makes less. The time lies between all exchange
# hidden behind computation, and none. These figures are computed, not measured.
#
# From the command line it is one line for any recipe, and the exit code says whether it fits:

# %%
command = f"plan {'digits' if SMALL else 'dit-mnist'} --world-size 64 --memory 80"
print("diffusion-labs", command)
done = subprocess.run([sys.executable, "-m", "diffusion_labs", *command.split()], capture_output=True, text=True)
print(done.stdout)

# %% [markdown]
# ## On a cluster
#
# ```sh
# torchrun --nproc-per-node 8 train_digits.py runs/eight                      # one machine with 8 GPUs
# torchrun --nnodes 4 --node-rank 0 --nproc-per-node 8 --master-addr HOST --master-port 29500 \
#     --max-restarts 3 train_digits.py runs/many                              # the first of four machines
# ```
#
# - Give `TrainOptions(device="cuda")`, which also computes in bfloat16 where the GPU is fast in it.
# - The recipes of the library need no script: `torchrun --nproc-per-node 8 -m diffusion_labs train dit-mnist --device cuda`.
# - Scripts for Slurm and Kubernetes, hybrid sharding (`shards=8`), tensor parallelism and activation checkpointing are in
#   [Training on one process and on many](../scaling.md).
