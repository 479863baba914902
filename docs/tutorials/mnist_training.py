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
# # How to train diffusion on MNIST
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/)
#
# You know PyTorch, and nothing about diffusion. In half an hour you will have trained a model that draws the digit you
# ask for, and you will have seen each of its parts at work:
#
# 1. a **schedule**, which says how images turn into noise
# 2. a **network** in an **adapter**, and a **predictor**, which says what the network should output
# 3. **transforms** and a **loss**, which make a training step
# 4. a **sampler**, which goes from noise to images
#
# The training takes less than ten minutes of two CPU cores.

# %%
import subprocess
import sys
from importlib.util import find_spec

if find_spec("diffusion_labs") is None:  # on Colab
    source = "diffusion-labs"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", source, "matplotlib"], check=True)

# %%
import os

import matplotlib.pyplot as plt
import torch
from PIL import Image
from torch import nn

import diffusion_labs as dl
from diffusion_labs.data import download_mnist
from diffusion_labs.metrics import accuracy, train_classifier

torch.manual_seed(0)
SMALL = os.environ.get("TUTORIAL_SIZE") == "small"  # the tests run these cells in seconds, on digits of 8 x 8 pixels

# %% [markdown]
# ## The data
#
# 60,000 handwritten digits of 28 x 28 pixels, and their classes. 10,000 more are for tests.

# %%
if SMALL:
    dataset, held_out = dl.Digits("train"), dl.Digits("test")
else:
    folder = download_mnist("~/.cache/diffusion_labs/mnist")  # 12 MB, once
    dataset, held_out = dl.IDXImages(folder, "train"), dl.IDXImages(folder, "test")

print(len(dataset), "images of the shape", dataset.image_shape)


# %%
def show(images, columns, zoom=2):
    """A grid of images [n, c, h, w] in [-1, 1] as one picture."""
    grid = Image.fromarray(dl.image_grid(images, columns).numpy())
    return grid.resize((zoom * grid.width, zoom * grid.height), Image.Resampling.NEAREST)


real = dl.NormalizeImages()({"x": held_out.images})["x"]  # bytes to numbers in [-1, 1]
show(real[:30], columns=10)

# %% [markdown]
# ## From an image to noise
#
# Diffusion mixes an image $x_0$ with noise $\epsilon \sim \mathcal{N}(0, I)$, more and more of it as the time $t$ goes on:
#
# $$x_t = \alpha_t \, x_0 + \sigma_t \, \epsilon$$
#
# A **schedule** is these two curves. Ours has a thousand steps and the shape of a cosine, and keeps the variance:
# $\alpha_t^2 + \sigma_t^2 = 1$.

# %%
schedule = dl.DiscreteGaussianSchedule(dl.cosine_beta_schedule(1000))

t = torch.arange(1000)
figure, axes = plt.subplots(figsize=(6, 2.5))
axes.plot(t, schedule.alpha(t), label=r"$\alpha_t$, the image")
axes.plot(t, schedule.sigma(t), label=r"$\sigma_t$, the noise")
axes.set_xlabel("time t")
axes.legend()
plt.show()

# %% [markdown]
# `q_sample` is the formula. Each row is one digit, from $t = 0$ on the left, where it is almost clean, to $t = 999$ on the
# right, where nothing of it is left.

# %%
times = torch.linspace(0, 999, 10).long()
x0 = real[:4].repeat_interleave(len(times), 0)
noise = torch.randn_like(x0)
xt = schedule.q_sample(x0, noise, times.repeat(4))
show(xt, columns=len(times))

# %% [markdown]
# A model that undoes a little of the noise, time after time, can begin with pure noise and end with an image that nobody
# has drawn. That is all there is to diffusion. What follows are the parts of such a model.

# %% [markdown]
# ## The model
#
# The **network** gets $x_t$, the time $t$ and the class, and returns something of the shape of $x_t$. Here it is a U-Net.
# `Patchify` folds patches of 2 x 2 pixels into channels, which makes it about four times as fast.
#
# `Patchify` is an **adapter**: it wraps a network and is called like one. So adapters stack. The outer one, `CFGuidance`,
# hides the class of every tenth image in training, so that the network also learns to draw without a class. We will need
# that when we sample.

# %%
patch = 1 if SMALL else 2
network = dl.adm_unet(
    in_channels=patch**2,
    out_channels=patch**2,
    model_channels=32,
    channel_mult=(1, 2),
    num_res_blocks=1,
    attention_levels=(1,),
    head_channels=32,
    classes={"class": 10},
)
model = dl.CFGuidance(dl.Patchify(network, patch), dropout={"class": 0.1})
print(f"{sum(parameter.numel() for parameter in model.parameters()):,} parameters")

# %% [markdown]
# A **predictor** says what the network is trained to output. It could be the noise, or the clean image. We take $v$, a mix
# of both that is a good choice at every time:
#
# $$v = \alpha_t \, \epsilon - \sigma_t \, x_0 \qquad \text{and back:} \qquad x_0 = \alpha_t \, x_t - \sigma_t \, v$$
#
# The clamp keeps estimates of the image in $[-1, 1]$, where pixels are.

# %%
predictor = dl.VPredictor(schedule, clamp=dl.StaticClamp())

t = times.repeat(4)
v = predictor.target(x0, noise, t)
torch.testing.assert_close(predictor.predict_x0(v, xt, t), x0, atol=1e-4, rtol=0)

# %% [markdown]
# A **sampler** holds all of them. In train mode it is one call of the network; in eval mode it goes the whole way from
# noise to an image, here in 25 steps of DDIM.

# %%
sampler = dl.DDIMSampler(model, schedule, predictor, eval_steps=4 if SMALL else 25, progress_bar=False)

# %% [markdown]
# ## The transforms
#
# Training data are dicts. A **transform** is an `nn.Module` from a dict to a dict with more in it, so transforms stack in
# `nn.Sequential`: bytes become numbers, each image gets a random time and noise, and then the target.

# %%
transform = nn.Sequential(
    dl.NormalizeImages(),
    dl.RandomDiffusionSteps(schedule),
    dl.ComputeTarget(predictor),
)

batches = dl.Batches(dataset, batch_size=32)  # endless, shuffled
data = transform(next(batches))
for name, value in data.items():
    print(f"{name:12}{value.dtype!s:15}{list(value.shape)}")

# %% [markdown]
# ## The loss
#
# The squared error of the prediction, over random images, times and noise:
#
# $$L = \mathbb{E} \, \lVert v_\theta(x_t, t, \text{class}) - v \rVert^2$$
#
# At first the network returns zeros, so that the loss is the mean square of $v$.

# %%
loss = dl.SimpleLoss()
output = sampler(data["xt"], data["t"], {"class": data["class"]})  # train mode: one call of the network
print(loss(output, data).item(), data["target"].square().mean().item())

# %% [markdown]
# ## The training
#
# An ordinary PyTorch loop. `EMA` keeps a running average of the weights, which draws better than the weights of the last
# update: these still jump from batch to batch.

# %%
updates = 30 if SMALL else 1200
optimizer = torch.optim.AdamW(sampler.parameters(), lr=2e-3, betas=(0.9, 0.99))
learning_rate = torch.optim.lr_scheduler.LambdaLR(optimizer, dl.WarmupCosine(updates, warmup=updates // 50))
ema = dl.EMA(sampler, decay=0.995)

losses = []
for update in range(1, updates + 1):
    data = transform(next(batches))
    value = loss(sampler(data["xt"], data["t"], {"class": data["class"]}), data)
    value.backward()
    nn.utils.clip_grad_norm_(sampler.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    learning_rate.step()
    ema.update(sampler)
    losses.append(value.item())
    if update % (updates // 6) == 0:
        print(f"update {update:5}: loss {sum(losses[-50:]) / len(losses[-50:]):.4f}")

# %% [markdown]
# The loss falls fast, and then slowly. It cannot reach 0, because nobody can know $x_0$ from $x_t$ alone: many digits look
# the same once there is enough noise. Pictures say more about a diffusion model than its loss.

# %%
average = torch.tensor(losses).unfold(0, min(50, updates), 1).mean(1)
figure, axes = plt.subplots(figsize=(6, 2.5))
axes.plot(losses, color="lightsteelblue", linewidth=0.5)
axes.plot(range(updates - len(average), updates), average)
axes.set(xlabel="update", ylabel="loss", yscale="log")
plt.show()

# %% [markdown]
# ## Draw digits
#
# From here on we use the averaged model. A sample begins with noise, `sample_prior`. Each image has a seed of its own, so
# that image 7 is the same in any batch.
#
# **Guidance** makes the class count for more. At each step the network is asked twice, with and without the class, and
# the difference is exaggerated:
#
# $$v = v_\text{without} + s \, (v_\text{with} - v_\text{without})$$
#
# A scale $s$ of 1 is no guidance. Each row is a class.

# %%
sampler = ema.model.eval()
model, schedule, predictor = sampler.model, sampler.schedule, sampler.predictor


def draw(sampler, labels, first_seed=0):
    seeds = dl.seeded(range(first_seed, first_seed + len(labels)))
    noise = sampler.schedule.sample_prior((len(labels), *dataset.image_shape), seeds)
    return sampler(noise, conditional_inputs={"class": labels}, generator=seeds)


labels = torch.arange(10).repeat_interleave(2 if SMALL else 12)
model.guidance_scale = 2.0
show(draw(sampler, labels), columns=12)

# %% [markdown]
# How good is that? We train a small classifier on the real images, and ask how often it sees the digit that we asked for.

# %%
classifier = train_classifier(dataset.images, dataset.labels, 10, steps=50 if SMALL else 600)
print(f"held-out real images: {accuracy(classifier, held_out.images, held_out.labels):.1%}")

labels = torch.arange(10).repeat_interleave(2 if SMALL else 20)
for scale in (1.0, 2.0, 4.0):
    model.guidance_scale = scale
    images = torch.cat([draw(sampler, part, 1000 * i) for i, part in enumerate(labels.split(100))])
    print(f"samples, guidance scale {scale:g}: {accuracy(classifier, images, labels):.1%}")
model.guidance_scale = 2.0

# %% [markdown]
# More guidance makes samples that are easier to recognise, and more alike: compare the sheet above with this one, of the
# same seeds at a scale of 8.

# %%
model.guidance_scale = 8.0
picture = show(draw(sampler, torch.arange(3).repeat_interleave(12)), columns=12)
model.guidance_scale = 2.0
picture

# %% [markdown]
# ## The path from noise to a digit
#
# `generator()` yields $x_t$ after each step. Below it is what the network takes $x_0$ to be at the same time,
# `denoise(...).x0`. At first that is the mean of what the digit could be. The outline is decided early, details come last.

# %%
classes = torch.tensor([3, 5, 8])
seeds = dl.seeded([2, 3, 4])
noise = schedule.sample_prior((3, *dataset.image_shape), seeds)
path = [noise, *sampler.generator(noise, conditional_inputs={"class": classes})]

levels = schedule.levels(sampler.times())  # the noise level before each step
estimates = [sampler.denoise(xt, level, {"class": classes}).x0 for xt, level in zip(path[:-1], levels, strict=True)]

shown = range(0, len(levels), max(1, len(levels) // 12))
rows = [torch.stack([steps[i][digit] for i in shown]) for digit in range(3) for steps in (path, estimates)]
show(torch.cat(rows), columns=len(shown))

# %% [markdown]
# ## Compare samplers
#
# With the same noise, deterministic samplers solve the same differential equation, so with many steps they all arrive at
# the same image. They differ in how many calls of the network that takes. Any sampler takes any trained model: there is
# nothing to train again.

# %%
labels = torch.arange(10)
noise = schedule.sample_prior((10, *dataset.image_shape), dl.seeded(range(10)))


def sample_with(kind, calls):
    other = kind(model, schedule, predictor, eval_steps=calls, progress_bar=False).eval()
    return other(noise, conditional_inputs={"class": labels})


exact = sample_with(dl.DPMSolverPP2MSampler, 16 if SMALL else 500)
kinds = {"DDIM": dl.DDIMSampler, "Heun": dl.HeunSampler, "DPM-Solver++ (2M)": dl.DPMSolverPP2MSampler}
calls = [4, 8] if SMALL else [4, 8, 16, 32, 64]

figure, axes = plt.subplots(figsize=(6, 3))
for name, kind in kinds.items():
    errors = [(sample_with(kind, n) - exact).square().mean().sqrt() for n in calls]
    axes.loglog(calls, errors, "o-", label=name)
axes.set(xlabel="calls of the network", ylabel="distance to the exact sample", xticks=calls, xticklabels=calls)
axes.minorticks_off()
axes.legend()
plt.show()

# %% [markdown]
# Heun fails here, and not because it is a bad solver. At the last time of this schedule $\alpha$ is almost 0, and its first step
# averages two slopes across a range that no straight line spans. With steps placed evenly in the logarithm of
# $\alpha^2 / \sigma^2$, `grid=dl.uniform_log_snr`, it is as good as the others from 32 calls on. `docs/solvers.md` compares them all.
#
# The rows: DDIM, Heun and DPM-Solver++ with 8 calls, and the exact sample, which took 500.

# %%
rows = [sample_with(kind, 8) for kind in kinds.values()]
show(torch.cat([*rows, exact]), columns=10)

# %% [markdown]
# `DDPMSampler` is stochastic: it adds fresh noise in each step. From the same beginning it draws other digits each time: two rows from the same noise.

# %%
ancestral = dl.DDPMSampler(model, schedule, predictor, eval_steps=4 if SMALL else 100, progress_bar=False).eval()
rows = [ancestral(noise, conditional_inputs={"class": labels}) for _ in range(2)]
show(torch.cat(rows), columns=10)

# %% [markdown]
# ## Paint what is missing
#
# `KnownRegion` is one more adapter: where the image is known, it tells the sampler so at each step. `RePaintSampler` goes
# back and forth, so that what is painted fits to what is known. The network was never trained for this.
#
# Each row: a held-out image; the same with the part in grey that is hidden from the model and to be painted; four ways to go on.

# %%
kept = torch.arange(0, 5)
x = real[kept].repeat_interleave(4, 0)
mask = torch.zeros_like(x)
mask[:, :, x.shape[2] // 2 :] = 1  # 1 is to be painted: the lower half

painter = dl.RePaintSampler(
    dl.KnownRegion(model, predictor),
    schedule,
    predictor,
    eval_steps=2 if SMALL else 20,
    jump_length=2 if SMALL else 5,
    resamplings=2 if SMALL else 4,
    progress_bar=False,
).eval()
seeds = dl.seeded(range(len(x)))
painted = painter(
    schedule.sample_prior(x.shape, seeds),
    conditional_inputs={
        "class": held_out.labels[kept].repeat_interleave(4),
        "mask": mask,
        "masked_image": x * (1 - mask),
    },
    generator=seeds,
)
assert torch.allclose(painted * (1 - mask), x * (1 - mask), atol=1e-5)  # what is known stays

rows = [torch.cat([x[i : i + 1], (x - mask)[i : i + 1], painted[i : i + 4]]) for i in range(0, len(x), 4)]
show(torch.cat(rows), columns=6)

# %% [markdown]
# ## Save and load
#
# A folder of JSON and safetensors, which cannot run code. What is loaded draws the same images, bit for bit.

# %%
dl.save_pretrained(sampler, "mnist-model")
loaded = dl.from_pretrained("mnist-model")
loaded.progress_bar = False

labels = torch.tensor([2, 0, 2, 6])
assert torch.equal(draw(loaded, labels), draw(sampler, labels))
show(draw(loaded, labels), columns=4)

# %% [markdown]
# ## Where to go on
#
# - Exchange a line: `NoisePredictor(schedule)` with `linear_beta_schedule(1000)`, `RectifiedFlowSchedule()` with
#   `FlowPredictor(schedule)`, `dit(...)` in place of the U-Net. Nothing else changes.
# - `diffusion-labs train mnist` is such a training as one command, with a deeper network, a log, and checkpoints from which
#   it goes on to the bit.
# - The next tutorials: [Latent diffusion in 100 lines](latent_diffusion.ipynb), [DALL-E 2 from parts](dalle2_from_parts.ipynb),
#   [From one CPU to many GPUs](many_gpus.ipynb).
