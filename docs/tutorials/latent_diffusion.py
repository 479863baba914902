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
# # Latent diffusion in 100 lines
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/)
#
# An image of 32 x 32 pixels is 1,024 numbers, which say little that their neighbours do not say. **Latent diffusion**
# ([Rombach et al.](https://arxiv.org/abs/2112.10752), the method of Stable Diffusion) has two stages:
#
# 1. an **autoencoder** learns to say an image in few numbers, its **latent**, and to make the image of them again
# 2. a **diffusion model** learns to draw latents, and never sees a pixel
#
# You know [the first tutorial](mnist_training.ipynb). This one trains both stages, counts what each costs, and uses the
# result to draw digits, to go from one digit to another, and to make a digit of another one.

# %%
import subprocess
import sys
from importlib.util import find_spec

if find_spec("diffusion_labs") is None:  # on Colab
    source = "diffusion-labs"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", source, "matplotlib"], check=True)

# %%
import os

import torch
from PIL import Image
from torch import nn

import diffusion_labs as dl
from diffusion_labs.data import download_mnist
from diffusion_labs.metrics import accuracy, train_classifier
from diffusion_labs.training import trace_update

torch.manual_seed(0)
SMALL = os.environ.get("TUTORIAL_SIZE") == "small"  # the tests run these cells in seconds, on digits of 8 x 8 pixels

# %% [markdown]
# ## The data
#
# MNIST, with a black border to 32 x 32 pixels, because the autoencoder will halve the sides twice.

# %%
if SMALL:
    dataset, held_out = dl.Digits("train"), dl.Digits("test")
else:
    folder = download_mnist("~/.cache/diffusion_labs/mnist")  # 12 MB, once
    dataset, held_out = (dl.IDXImages(folder, split, size=32) for split in ("train", "test"))

real = dl.NormalizeImages()({"x": held_out.images})["x"]  # bytes to numbers in [-1, 1]


def show(images, columns, zoom=2):
    """A grid of images [n, c, h, w] in [-1, 1] as one picture."""
    grid = Image.fromarray(dl.image_grid(images, columns).numpy())
    return grid.resize((zoom * grid.width, zoom * grid.height), Image.Resampling.NEAREST)


# %% [markdown]
# ## One loop for both stages
#
# An **objective** is a module from a batch to the loss: transform, model and loss of the first tutorial in one. So one loop
# trains whatever has an objective. It returns the averaged model.


# %%
def fit(objective, model, batches, updates):
    optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-3, betas=(0.9, 0.99))
    learning_rate = torch.optim.lr_scheduler.LambdaLR(optimizer, dl.WarmupCosine(updates, warmup=updates // 30))
    ema, losses = dl.EMA(model, decay=0.995), []
    for _ in range(updates):
        loss = objective(next(batches))
        loss.backward()
        nn.utils.clip_grad_norm_(objective.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        learning_rate.step()
        ema.update(model)
        losses.append(loss.item())
    print(f"mean loss of the first 30 updates {sum(losses[:30]) / 30:.4g}, of the last 30 {sum(losses[-30:]) / 30:.4g}")
    return ema.model, losses


# %% [markdown]
# ## Stage one: the autoencoder
#
# The encoder halves the sides twice, so that a latent has 8 x 8 places, of 4 channels. It outputs a mean and a variance, and the
# latent is drawn from that normal distribution. `KLObjective` is the absolute error of the reconstruction, and a very small
# weight times the Kullback-Leibler divergence of that distribution from $\mathcal{N}(0, I)$, which keeps latents from
# growing without bound (appendix G of the paper; the paper adds a perceptual loss and a discriminator, which digits do not need).

# %%
widths = (16, 32) if SMALL else (16, 32, 32)
autoencoder = dl.autoencoder_kl(in_channels=1, channels=widths, latent_channels=4, num_res_blocks=1, num_groups=8)
reconstruction = dl.KLObjective(autoencoder, transform=dl.NormalizeImages(), kl_weight=1e-6)
first_updates = 30 if SMALL else 500
autoencoder, autoencoder_losses = fit(reconstruction, autoencoder, dl.Batches(dataset, 64), first_updates)

# %% [markdown]
# Held-out digits, and below each what comes back.

# %%
with torch.no_grad():
    latent = autoencoder.posterior(real[:200]).mean
    decoded = autoencoder.decode(latent).clamp(-1, 1)

psnr = 10 * torch.log10(4 / (decoded - real[:200]).square().mean((1, 2, 3)))
print(f"{list(real[0].shape)} to {list(latent[0].shape)}; peak signal-to-noise ratio {psnr.mean():.1f} dB")
show(torch.cat([real[:12], decoded[:12]]), columns=12)

# %% [markdown]
# ## The latents, once
#
# From here on the autoencoder stays as it is. So each image is encoded once, and training reads mean and variance from disk.
#
# A schedule is made for data of about the spread of noise, a standard deviation of 1: what is left of the data at a time depends on
# it (appendix D.1 of the paper). Latents have whatever spread the autoencoder gave them. `LatentScale` measures it, and what the
# diffusion model sees is $(z - \text{shift}) \cdot \text{scale}$. In Stable Diffusion 1 the scale is 0.18215.


# %%
@torch.no_grad()
def encode(batch):
    posterior = autoencoder.posterior(dl.NormalizeImages()(batch)["x"])
    return {"latent_mean": posterior.mean, "latent_log_variance": posterior.log_variance, "class": batch["class"]}


latents = dl.encode_dataset(dataset, encode, "latents", description={"encoder": "the one above"}, batch_size=250)
images = dl.NormalizeImages()({"x": dataset.images[:2000]})["x"]
scale = dl.LatentScale.measured(autoencoder, images.split(250))
print(f"scale {scale.scale:.3f}: the standard deviation {latent.std():.3f} becomes {scale.normalize(latent).std():.3f}")

# %% [markdown]
# ## Stage two: diffusion of latents
#
# All parts are those of the first tutorial, only that there is no clamp: latents have no bounds. `LatentDiffusion` puts
# autoencoder, sampler and scale together. In train mode it is the denoiser of latents; in eval mode it goes from noise to images.


# %%
schedule = dl.DiscreteGaussianSchedule(dl.cosine_beta_schedule(1000))


def unet(channels):
    sizes = {"model_channels": 32, "channel_mult": (1, 2), "num_res_blocks": 1, "head_channels": 16}
    return dl.ldm_unet(in_channels=channels, attention_levels=(0, 1), classes={"class": 10}, **sizes)


def denoiser(network, clamp=None):
    model = dl.CFGuidance(network, dropout={"class": 0.1}, guidance_scale=2.0)
    calls = 4 if SMALL else 25
    return dl.DDIMSampler(model, schedule, dl.VPredictor(schedule, clamp), eval_steps=calls, progress_bar=False)


def denoising(prepare, model):
    transform = nn.Sequential(prepare, dl.RandomDiffusionSteps(schedule), dl.ComputeTarget(dl.VPredictor(schedule)))
    return dl.Objective(transform, model, dl.SimpleLoss(), conditions=["class"])


system = dl.LatentDiffusion(autoencoder, denoiser(unet(channels=4)), scale=scale)

# %% [markdown]
# ## What it costs
#
# `trace_update` counts the floating point operations of an update, forward and backward, without making it. We compare the same
# U-Net on latents, on pixels, and on patches: `Patchify` folds as many pixels into channels as one place of a latent stands for.


# %%
def cost(objective, data):
    experiment = dl.Experiment(objective, objective, None, torch.optim.AdamW(objective.parameters()), steps=1)
    return trace_update(experiment, next(dl.Batches(data, 64)), device="cpu").flops / 64e6


factor = autoencoder.factor
pixels = denoiser(unet(channels=1), dl.StaticClamp())
patches = denoiser(dl.Patchify(unet(channels=factor**2), factor), dl.StaticClamp())
of_latents = denoising(dl.EncodeLatents(autoencoder, scale), system)
of_patches = denoising(dl.NormalizeImages(), patches)
costs = cost(of_latents, latents), cost(denoising(dl.NormalizeImages(), pixels), dataset), cost(of_patches, dataset)
print("million operations for an image: latents {:.0f}, pixels {:.0f}, patches {:.0f}".format(*costs))

# %% [markdown]
# On pixels each layer works on sixteen times as many places, and attention compares 256 times as many pairs of them. Patches are as
# cheap as latents.
#
# But the first stage is not free. Its updates count, and for each image that was encoded a tenth of one: an update is about three
# times a forward pass, of which the encoder is a quarter. In updates of 128 images:

# %%
first_stage = (64 * first_updates + len(dataset) / 10) / 128 * cost(reconstruction, dataset)
print(f"the first stage costs as much as {first_stage / costs[0]:.0f} updates on latents")
print(f"it is paid back after {first_stage / (costs[1] - costs[0]):.0f} updates that are on latents and not on pixels")

# %% [markdown]
# ## The training
#
# Pixels at full size are too much for two CPU cores. Patches are not, so we train them, too: at the same price, with as many more
# updates as the first stage cost.

# %%
updates = 30 if SMALL else 1500
system, losses = fit(of_latents, system, dl.Batches(latents, 128), updates)
more = round(first_stage / costs[2])
patches, patch_losses = fit(of_patches, patches, dl.Batches(dataset, 128), updates + more)

# %% [markdown]
# ## Draw digits
#
# A sample begins with noise of the shape of a latent. 25 steps of DDIM make a latent of it, and that is decoded, once. Each row
# is a class.


# %%
def draw(model, shape, labels, first_seed=0):
    seeds = dl.seeded(range(first_seed, first_seed + len(labels)))
    noise = schedule.sample_prior((len(labels), *shape), seeds)
    return model(noise, conditional_inputs={"class": labels}, generator=seeds)


labels = torch.arange(10).repeat_interleave(2 if SMALL else 12)
show(draw(system, latent[0].shape, labels), columns=12)

# %% [markdown]
# The same U-Net on patches of pixels, at the same price of training:

# %%
show(draw(patches, real[0].shape, labels[: 4 * 12]), columns=12)

# %% [markdown]
# They are grainy: here the noise of every pixel is the diffusion model's to remove. Latents go through a decoder that has learnt to
# make clean images, if a little soft ones.
#
# A classifier that was trained on the real images tells how many are the digit that was asked for.

# %%
classifier = train_classifier(dataset.images, dataset.labels, 10, steps=50 if SMALL else 600)
for name, images in {"held-out images": real[:200], "encoded and decoded": decoded}.items():
    print(f"{name}: {accuracy(classifier, images, held_out.labels[:200]):.1%}")

labels = torch.arange(10).repeat_interleave(2 if SMALL else 40)
for guidance_scale in (4.0, 1.0, 2.0):
    system.sampler.model.guidance_scale = patches.model.guidance_scale = guidance_scale
    images, others = draw(system, latent[0].shape, labels, 1000), draw(patches, real[0].shape, labels, 1000)
    shares = [accuracy(classifier, each, labels) for each in (images, others)]
    print("guidance scale {:g}: from latents {:.1%}, from patches {:.1%}".format(guidance_scale, *shares))

# %% [markdown]
# At the same price, samples from latents are recognised more often, unless there is so much guidance that all are. Guidance
# has a price of its own, as the first tutorial showed: samples become more alike.
#
# ## From one image to another
#
# There are three ways. The rows: two held-out digits mixed pixel by pixel; their latents mixed, and decoded; and the way through
# noise. For the last, `invert` runs the sampler backwards, from a latent to the noise that it would be drawn from, and `slerp`
# goes from one noise to the other on a circle, so that what is between has the length of noise, too. Then each is
# drawn, as a 2.

# %%
first, last = real[held_out.labels == 2][[3, 10]].split(1)
share = torch.linspace(0, 1, 9).reshape(9, 1, 1, 1)
with torch.no_grad():
    a, b = (system.encode(image) for image in (first, last))
    rows = [torch.lerp(first, last, share), system.decode(torch.lerp(a, b, share))]

system.sampler.model.guidance_scale = 1.0
a, b = (dl.invert(system.sampler, z, {"class": torch.tensor([2])}).expand(9, -1, -1, -1) for z in (a, b))
rows.append(system(dl.slerp(a, b, share.flatten()), conditional_inputs={"class": torch.full((9,), 2)}))
system.sampler.model.guidance_scale = 2.0
show(torch.cat(rows), columns=9)

# %% [markdown]
# ## An image as the beginning
#
# `image_to_image` encodes an image, adds the noise of a time in the middle, and samples from there, with a class of our own. The
# strength says how far in the middle. First row: held-out digits. Below, the class is 8, at a strength of 0.4, 0.6, 0.8, and
# 1. First the strokes stay, and in the end only the class does.

# %%
eight = {"class": torch.full((10,), 8)}
seeds = range(10)
rows = [system.image_to_image(real[:10], s, eight, generator=dl.seeded(seeds)) for s in (0.4, 0.6, 0.8, 1.0)]
show(torch.cat([real[:10], *rows]), columns=10)

# %% [markdown]
# ## Save and load
#
# One folder holds both stages, the scale and the sampler.

# %%
dl.save_pretrained(system, "latent-digits")
loaded = dl.from_pretrained("latent-digits")
loaded.sampler.progress_bar = False

labels = torch.tensor([2, 0, 2, 6])
assert torch.equal(draw(loaded, latent[0].shape, labels), draw(system, latent[0].shape, labels))
show(draw(loaded, latent[0].shape, labels), columns=4)

# %% [markdown]
# ## Where to go on
#
# - `diffusion-labs train ldm-mnist` is these stages as one command, and `ldm-emoji` draws 64 x 64 pixels from captions. What they
#   reach is in `docs/latent-diffusion.md`.
# - `load_diffusers_autoencoder` brings a published autoencoder, for which the first stage is done.
# - The next tutorial: [DALL-E 2 from parts](dalle2_from_parts.ipynb).
