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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/diffusion_labs/blob/main/docs/tutorials/latent_diffusion.ipynb)
#
# Most of what a large image consists of is detail that one can guess. [Latent diffusion](https://arxiv.org/abs/2112.10752),
# the method of Stable Diffusion, splits the work:
#
# 1. an **autoencoder** learns to shrink images to small **latents**, and to make images of latents
# 2. a diffusion model learns to draw latents
#
# The second is the expensive part, and it now works on a sixteenth of the places. [The first tutorial](mnist_training.ipynb)
# explains diffusion itself. Here it is all put together in 100 lines, which train in some minutes.

# %%
import subprocess
import sys
from importlib.util import find_spec

if find_spec("diffusion_labs") is None:  # on Colab
    source = "diffusion-labs @ git+https://github.com/OWNER/diffusion_labs"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", source], check=True)

# %%
import os

import torch
from PIL import Image
from torch import nn

import diffusion_labs as dl
from diffusion_labs.data import download_mnist
from diffusion_labs.metrics import accuracy, train_classifier

torch.manual_seed(0)
SMALL = os.environ.get("TUTORIAL_SIZE") == "small"  # the tests run these cells in seconds, on digits of 8 x 8 pixels

if SMALL:
    dataset, held_out, widths = dl.Digits("train"), dl.Digits("test"), (16, 32)
else:
    folder = download_mnist("~/.cache/diffusion_labs/mnist")  # 12 MB, once
    dataset, held_out = dl.IDXImages(folder, "train", size=32), dl.IDXImages(folder, "test", size=32)
    widths = (16, 32, 32)


def show(images, columns, zoom=2):
    grid = Image.fromarray(dl.image_grid(images, columns).numpy())
    return grid.resize((zoom * grid.width, zoom * grid.height), Image.Resampling.NEAREST)


# %% [markdown]
# Two things will be trained by the same loop. An **objective** is a module from a batch to its loss.


# %%
def fit(objective, trained, batches, updates, learning_rate, ema_decay):
    """Train, and return the part of the objective that is kept, with averaged weights."""
    optimizer = torch.optim.AdamW(
        [p for p in trained.parameters() if p.requires_grad], learning_rate, betas=(0.9, 0.99)
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, dl.WarmupCosine(updates, warmup=updates // 50))
    ema, losses = dl.EMA(trained, ema_decay), []
    for update in range(1, updates + 1):
        loss = objective(next(batches))
        loss.backward()
        nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        ema.update(trained)
        losses.append(loss.item())
        if update % (updates // 5) == 0:
            print(f"update {update:5}: loss {sum(losses[-50:]) / len(losses[-50:]):.4g}")
    return ema.model


# %% [markdown]
# ## The autoencoder
#
# For each image it returns a normal distribution of latents, of 4 channels and a quarter of the size: 32 x 32 pixels become
# 8 x 8 places. It is trained to give the image back from a sample of them. A very small weight on the KL divergence keeps
# the latents in order, near a standard normal distribution.
#
# $$L = \lVert x - \text{decode}(z) \rVert_1 + 10^{-6} \, \text{KL}\big(q(z \mid x) \,\Vert\, \mathcal{N}(0, I)\big), \qquad z \sim q(z \mid x)$$

# %%
autoencoder = dl.autoencoder_kl(in_channels=1, channels=widths, latent_channels=4, num_res_blocks=1, num_groups=8)
objective = dl.KLObjective(autoencoder, transform=dl.NormalizeImages(), kl_weight=1e-6)
autoencoder = fit(objective, autoencoder, dl.Batches(dataset, 64), 30 if SMALL else 600, 1e-3, 0.99)

# %% [markdown]
# Held-out images in the upper row, and what comes back from their latents below. The latents themselves, one channel in each
# row, look like small, coarse images.

# %%
x = dl.NormalizeImages()({"x": held_out.images[:12]})["x"]
with torch.no_grad():
    latents = autoencoder.posterior(x).mean
    show(torch.cat([x, autoencoder.decode(latents)]), columns=12)

# %%
show(latents.transpose(0, 1).flatten(0, 1)[:, None] / latents.abs().max(), columns=12, zoom=6)

# %% [markdown]
# ## The system
#
# `LatentDiffusion` holds the autoencoder, which is frozen from here on, a sampler of latents, and the **scale** that gives
# latents the spread of noise, 1: schedules are made for that. We measure it.

# %%
with torch.no_grad():
    scale = dl.LatentScale.measured(autoencoder, dl.NormalizeImages()({"x": dataset.images[:2000]})["x"].split(250))
print(f"scale of the latents: {scale.scale.item():.3f}")

network = dl.adm_unet(
    in_channels=4,
    model_channels=64,
    channel_mult=(1, 2),
    num_res_blocks=1,
    attention_levels=(0, 1),
    head_channels=32,
    classes={"class": 10},
)
model = dl.CFGuidance(network, dropout={"class": 0.1}, guidance_scale=2.0)
schedule = dl.DiscreteGaussianSchedule(dl.cosine_beta_schedule(1000))
predictor = dl.VPredictor(schedule)
sampler = dl.DPMSolverPP2MSampler(model, schedule, predictor, eval_steps=4 if SMALL else 20, progress_bar=False)
system = dl.LatentDiffusion(autoencoder, sampler, scale=scale)

# %% [markdown]
# ## The training
#
# The transforms are those of any diffusion model, with one in front of them: `EncodeLatents` takes the images' latents in
# their place.

# %%
transform = nn.Sequential(
    dl.NormalizeImages(),
    dl.EncodeLatents(autoencoder, scale),
    dl.RandomDiffusionSteps(schedule),
    dl.ComputeTarget(predictor),
)
objective = dl.Objective(transform, system, dl.SimpleLoss(), conditions=["class"])
system = fit(objective, system, dl.Batches(dataset, 64), 30 if SMALL else 1000, 1e-3, 0.995)

# %% [markdown]
# ## Draw
#
# In eval mode the system goes from noise to latents, and decodes them. Each row is a class.

# %%
labels = torch.arange(10).repeat_interleave(12)
seeds = dl.seeded(range(len(labels)))
noise = system.sample_prior(len(labels), dataset.image_shape[1:], seeds)
images = system(noise, conditional_inputs={"class": labels}, generator=seeds)
show(images, columns=12)

# %% [markdown]
# A classifier that was trained on the real images tells how many are what we asked for.

# %%
classifier = train_classifier(dataset.images, dataset.labels, 10, steps=50 if SMALL else 600)
print(f"held-out real images: {accuracy(classifier, held_out.images, held_out.labels):.1%}")
print(f"samples:              {accuracy(classifier, images.clamp(-1, 1), labels):.1%}")

# %% [markdown]
# The path goes through latents: each of them can be decoded, and shows what the image would be if the noise stopped there.

# %%
path = [
    latent[:2] for latent in system.sampler.generator(noise[[36, 96]], conditional_inputs={"class": labels[[36, 96]]})
]
with torch.no_grad():
    steps = torch.stack([system.decode(latent) for latent in path], dim=1)
show(steps[:, :: max(1, len(path) // 10)].flatten(0, 1), columns=len(path[:: max(1, len(path) // 10)]))

# %% [markdown]
# ## Keep it
#
# The system is one folder: autoencoder, scale, network, schedule, sampler and their settings.

# %%
dl.save_pretrained(system, "latent-digits")
loaded = dl.from_pretrained("latent-digits")
few = dl.seeded([1, 2])
noise = loaded.sample_prior(2, dataset.image_shape[1:], few)
torch.testing.assert_close(
    loaded(noise, conditional_inputs={"class": labels[:2]}),
    system(noise, conditional_inputs={"class": labels[:2]}),
    atol=0,
    rtol=0,
)

# %% [markdown]
# ## Where to go on
#
# - `diffusion-labs train ldm-mnist` and `ldm-emoji` do this with more updates, latents stored on disk, and captions
#   ([how good they get](../latent-diffusion.md)).
# - `dl.vq_model` in place of `dl.autoencoder_kl`, with `dl.VQObjective`; a discriminator and a perceptual loss for photographs.
# - `dl.stable_diffusion_1`, `dl.ldm_imagenet` and others are systems of the released sizes, and load the released weights.
