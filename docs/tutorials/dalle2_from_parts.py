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
# # DALL-E 2 from parts
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/)
#
# DALL-E 2 ([Ramesh et al.](https://arxiv.org/abs/2204.06125)) draws images from texts in two steps, with an embedding $z$ of the
# image between them (section 2 of the paper):
#
# $$P(x \mid y) = P(x \mid z, y) \, P(z \mid y)$$
#
# In this notebook you train all of its parts on two CPU cores, on handwritten digits with captions, and see each of them work by
# itself:
#
# 1. **CLIP** gives images and captions embeddings that can be compared
# 2. the **prior**, $P(z \mid y)$, draws the embedding of an image, given a caption
# 3. the **decoder**, $P(x \mid z)$, draws a small image of the embedding
# 4. the **upsampler** draws the large image of the small one
#
# Then they are chained as `DALLE2`, which draws digits from captions, variations of a digit, and digits between two others. You know
# schedule, predictor, sampler and guidance from [the first tutorial](mnist_training.ipynb).

# %%
import subprocess
import sys
from importlib.util import find_spec

if find_spec("diffusion_labs") is None:  # on Colab
    source = "diffusion-labs[text]"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", source, "matplotlib"], check=True)

# %%
import os

import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

import diffusion_labs as dl
from diffusion_labs.data import download_mnist
from diffusion_labs.metrics import accuracy, train_classifier

torch.manual_seed(0)
SMALL = os.environ.get("TUTORIAL_SIZE") == "small"  # the tests run these cells in seconds, on digits of 8 x 8 pixels

# %% [markdown]
# ## Images with captions
#
# MNIST has classes, and `TemplateCaptions` makes captions of them: image i gets template number i mod 6. The images get a black
# border to 32 x 32 pixels. The decoder will draw half of that, 16 x 16, and the upsampler the rest.

# %%
if SMALL:
    digits, held_out_digits = dl.Digits("train"), dl.Digits("test")
else:
    folder = download_mnist("~/.cache/diffusion_labs/mnist")  # 12 MB, once
    digits, held_out_digits = (dl.IDXImages(folder, split, size=32) for split in ("train", "test"))

words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
templates = [
    "a photo of the digit {word}",
    "{name}",
    "{word}, handwritten",
    "the number {name}",
    "a handwritten {word}",
    "{word}",
]
by_name = dict(zip("0123456789", words, strict=True))
dataset, held_out = (dl.TemplateCaptions(data, templates, words=by_name) for data in (digits, held_out_digits))

SIZE = dataset.image_shape[1]
SMALLER = SIZE // 2
count = 64 if SMALL else 256
test = dl.NormalizeImages()(next(dl.Batches(held_out, count)))  # bytes to numbers in [-1, 1]


def show(images, columns, zoom=2):
    """A grid of images [n, c, h, w] in [-1, 1] as one picture."""
    grid = Image.fromarray(dl.image_grid(images, columns).numpy())
    return grid.resize((zoom * grid.width, zoom * grid.height), Image.Resampling.NEAREST)


for caption in test["caption"][:6]:
    print(caption)
show(test["x"][:6], columns=6)

# %% [markdown]
# ## One loop for all parts
#
# An **objective** is a module from a batch to the loss: transform, model and loss of the first tutorial in one. So one loop trains
# whatever has an objective, and returns the averaged model.


# %%
def fit(objective, model, data, batch_size, updates):
    if SMALL:
        batch_size, updates = batch_size // 4, 18
    batches = dl.Batches(data, batch_size)
    trained = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, betas=(0.9, 0.99))
    learning_rate = torch.optim.lr_scheduler.LambdaLR(optimizer, dl.WarmupCosine(updates, warmup=updates // 20))
    ema, losses = dl.EMA(model, decay=0.995), []
    for update in range(1, updates + 1):
        loss = objective(next(batches))
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        learning_rate.step()
        objective.after_update(update)
        ema.update(model)
        losses.append(loss.item())
        if update % (updates // 3) == 0:
            print(f"update {update:5}: loss {sum(losses[-50:]) / len(losses[-50:]):.4f}")
    return ema.model, losses


# %% [markdown]
# ## CLIP
#
# Two Transformers, one for images and one for texts, each with one embedding of length 1 as its output. In a batch, each image
# shall be nearest to its own caption, and each caption to its own image ([CLIP](https://arxiv.org/abs/2103.00020), section 2.3):
#
# $$L = -\frac{1}{2b} \sum_i \left( \log \frac{e^{s \langle x_i, y_i \rangle}}{\sum_j e^{s \langle x_i, y_j \rangle}} +
# \log \frac{e^{s \langle x_i, y_i \rangle}}{\sum_j e^{s \langle x_j, y_i \rangle}} \right)$$
#
# Here other images of a batch show the same digit, and their captions are right as well: `group_field` says so. Captions are
# read byte by byte, so there is nothing to download.

# %%
clip = dl.small_clip(image_size=SIZE, patch_size=4, embed_dim=64, max_tokens=32)
objective = dl.ContrastiveObjective(clip, transform=dl.NormalizeImages(), group_field="class")
clip, clip_losses = fit(objective, clip, dataset, batch_size=128, updates=400)
clip = clip.eval().requires_grad_(False)

# %% [markdown]
# Does it work? For each held-out image, the nearest of ten captions should be that of its class, whatever the template. By chance it
# is for 10 %.

# %%
with torch.no_grad():
    images = clip.encode_image(test["x"])
for template in templates:
    texts = clip.encode_text([template.format(name=i, word=word) for i, word in enumerate(words)]).embedding
    nearest = (images @ texts.T).argmax(1)
    print(f"{(nearest == test['class']).float().mean():6.1%}  {template}")

# %% [markdown]
# ## The gap
#
# Each image is encoded once, and training reads from disk what the next parts need: the embedding, the caption, and the small image.

# %%
shrink = dl.SuperResolutionTransform(SMALLER, image_field="x")


@torch.no_grad()
def encode(batch):
    data = dl.NormalizeImages()(batch)
    embedding = clip.encode_image(data["x"])
    return {"x": shrink(data)["x"], "image_embedding": embedding, "caption": batch["caption"]}


encoded = dl.encode_dataset(dataset, encode, "embeddings", description={"clip": "the one above"}, batch_size=250)
embeddings = torch.stack([sample["image_embedding"] for sample in encoded])
of_classes = F.normalize(torch.stack([embeddings[digits.labels == label].mean(0) for label in range(10)]), dim=1)

# %% [markdown]
# Why not decode the embedding of the caption itself? CLIP only sees to it that the right caption is nearer than wrong ones, and not
# that it is near. Captions have a place of their own. The mean cosines of held-out images:

# %%
with torch.no_grad():
    texts = clip.encode_text(test["caption"]).embedding


def cosine(a, b):
    return (a * b).sum(1).mean().item()


print(f"with the mean image of their class {cosine(images, of_classes[test['class']]):.3f}")
print(f"with their caption                 {cosine(images, texts):.3f}")

# %% [markdown]
# ## The prior
#
# So a network learns to draw image embeddings of captions (section 2.2). It is a causal Transformer on the tokens of the caption,
# the caption's embedding, the time, and the noisy embedding, and predicts the clean one (Eq. 2):
#
# $$L_\text{prior} = \mathbb{E} \, \lVert f_\theta(z^{(t)}, t, y) - z \rVert^2$$
#
# The values of an embedding are small, and have much in common. `LatentScale` gives each dimension mean 0 and standard deviation
# 1, which is what a schedule is made for. The paper samples two embeddings and keeps that which is nearer to the
# caption's; `sample` does.

# %%
schedule = dl.DiscreteGaussianSchedule(dl.cosine_beta_schedule(1000))
scale = dl.LatentScale.of([embeddings], per_channel=True)

network = dl.prior_transformer(embed_dim=64, text_dim=64, max_tokens=32, dim=128, depth=3, num_heads=4)
guided = dl.CFGuidance(network, dropout={("text", "text_embedding"): 0.1})
predictor = dl.TargetPredictor(schedule)
sampler = dl.DDPMSampler(guided, schedule, predictor, eval_steps=2 if SMALL else 32, progress_bar=False)
prior = dl.DiffusionPrior(sampler, scale, dl.Conditioner({"caption": clip}))

transform = nn.Sequential(
    dl.EncodeEmbeddings(clip, scale), dl.RandomDiffusionSteps(schedule), dl.ComputeTarget(predictor)
)
objective = dl.Objective(transform, prior, dl.SimpleLoss(), conditions=["caption"])
prior, prior_losses = fit(objective, prior, encoded, batch_size=128, updates=800)

# %% [markdown]
# Does it work? Its samples should be much nearer to images than captions are. They cannot be the very image that is meant, as the
# caption only tells its class; so the measure is the cosine of two images of a class.

# %%
drawn = prior.sample({"caption": test["caption"]}, generator=dl.seeded(range(count)))
fellow = torch.stack([embeddings[digits.labels == label][i] for i, label in enumerate(test["class"])])

print("cosine with the embedding of the true image")
print(f"  of its caption's             {cosine(images, texts):.3f}")
print(f"  of the prior's sample        {cosine(images, drawn):.3f}")
print(f"  of an image of the class     {cosine(images, fellow):.3f}")
print(f"  of an image of any class     {cosine(images, embeddings[:count]):.3f}")
right = (drawn @ of_classes.T).argmax(1) == test["class"]
print(f"the nearest mean of a class is that of the caption for {right.float().mean():.1%} of the samples")

# %% [markdown]
# They are even nearer, towards the middle of their class. One reason is that of two samples the one is kept that is nearer to the
# caption. Still they are not all one: here are the training images nearest to what the prior draws, in a row for each of five captions.

# %%
captions = ["a photo of the digit two", "4", "seven, handwritten", "the number 8", "a handwritten five"]
drawn = prior.sample({"caption": [caption for caption in captions for _ in range(12)]}, generator=dl.seeded(range(60)))
nearest = (drawn @ embeddings.T).argmax(1)
show(dl.NormalizeImages()({"x": digits.images[nearest]})["x"], columns=12)

# %% [markdown]
# ## The decoder
#
# A U-Net that draws an image of an embedding (section 2.1). The embedding enters twice: added to the time, and as four tokens that
# the U-Net attends to. In training it is dropped for one image in ten, so that it can be guided. The paper's decoder gets the caption
# as well, and the authors found that this helps little. We leave it out: what the images show of a caption has gone
# through 64 numbers. `ScaledEmbedding` gives them to the network in the scale of the prior.

# %%
patch = 1 if SMALL else 2
sizes = {"model_channels": 32, "channel_mult": (1, 2), "out_channels": patch**2}
network = dl.adm_unet(
    in_channels=patch**2,
    num_res_blocks=1 if SMALL else 2,
    attention_levels=(0, 1),
    head_channels=16,
    vectors={"image_embedding": 64},
    vector_tokens={"image_embedding": 4},
    **sizes,
)
scaled = dl.ScaledEmbedding(dl.Patchify(network, patch), scale)
guided = dl.CFGuidance(scaled, dropout={"image_embedding": 0.1}, guidance_scale=2.0)
predictor = dl.VPredictor(schedule, clamp=dl.StaticClamp())
decoder = dl.DDIMSampler(guided, schedule, predictor, eval_steps=2 if SMALL else 25, progress_bar=False)

transform = nn.Sequential(dl.RandomDiffusionSteps(schedule), dl.ComputeTarget(predictor))
objective = dl.Objective(transform, decoder, dl.SimpleLoss(), conditions=["image_embedding"])
decoder, decoder_losses = fit(objective, decoder, encoded, batch_size=64, updates=1500)

# %% [markdown]
# Does it work? In the first row are held-out images; below, what the decoder makes of their embeddings, each row from another noise. CLIP
# can say how near the embedding of what was drawn is to the one that was asked for. What the rows have in common is what CLIP
# keeps of an image; where they differ, it forgets.

# %%
z = images[:12].repeat(4, 1)
noise = schedule.sample_prior((len(z), 1, SMALLER, SMALLER), dl.seeded(range(len(z))))
decoded = decoder(noise, conditional_inputs={"image_embedding": z})
with torch.no_grad():
    again = clip.encode_image(decoded)
print(f"cosine of an embedding and that of the image drawn of it {cosine(z, again):.3f}")
print(f"and that of the image drawn of another {cosine(z.roll(1, 0), again):.3f}")
small = shrink(test)["x"]
show(torch.cat([small[:12], decoded]), columns=12, zoom=4)

# %% [markdown]
# ## The upsampler
#
# Diffusion of the large image, with the small one beside it (section 2.1). It is trained on crops, of which half are blurred, so that it
# forgives the decoder's faults; and it has no attention, so that it can be used on whole images.

# %%
network = dl.adm_unet(in_channels=2 * patch**2, num_res_blocks=1, middle_attention=False, **sizes)
upscaling = dl.SuperResolution(dl.Patchify(network, patch))
upsampler = dl.DDIMSampler(upscaling, schedule, predictor, eval_steps=2 if SMALL else 15, progress_bar=False)

transform = nn.Sequential(
    dl.NormalizeImages(),
    dl.RandomCrop(SIZE // 2, multiple=2),
    dl.SuperResolutionTransform(SIZE // 4, blur_sigma=(0.6, 0.6), blur_probability=0.5),
    dl.RandomDiffusionSteps(schedule),
    dl.ComputeTarget(predictor),
)
objective = dl.Objective(transform, upsampler, dl.SimpleLoss(), conditions=["low_resolution"])
upsampler, upsampler_losses = fit(objective, upsampler, dataset, batch_size=64, updates=600)

# %% [markdown]
# Does it work? Small images of held-out ones, the large images made of them, and the true ones. Bilinear interpolation is what
# to beat.

# %%
noise = schedule.sample_prior((64, 1, SIZE, SIZE), dl.seeded(range(64)))
large = upsampler(noise, conditional_inputs={"low_resolution": small[:64]})
blurry = F.interpolate(small[:64], size=(SIZE, SIZE), mode="bilinear").clamp(-1, 1)


def psnr(a, b):
    return (10 * torch.log10(4 / (a.clamp(-1, 1) - b).square().mean((1, 2, 3)))).mean().item()


print(f"upsampler {psnr(large, test['x'][:64]):.1f} dB, interpolation {psnr(blurry, test['x'][:64]):.1f} dB")
shown = F.interpolate(small[:12], size=(SIZE, SIZE))
show(torch.cat([shown, large[:12], test["x"][:12]]), columns=12)

# %% [markdown]
# ## DALL-E 2
#
# The four parts, chained: from the caption to the embedding of an image, to the small image, to the large one. Each row has another
# template, and each column another digit. The grain in the black is what decoder and upsampler have not learnt yet in as
# few updates.

# %%
model = dl.DALLE2(clip, prior, decoder, [upsampler], sizes=(SMALLER, SIZE), channels=1)
prompts = [template.format(name=i, word=word) for template in templates for i, word in enumerate(words)]
show(model(prompts, generator=dl.seeded(range(60))), columns=10)

# %% [markdown]
# How often is it the digit that was asked for? A classifier that was trained on the real images judges. The last three of the
# wordings are not among the templates.

# %%
classifier = train_classifier(digits.images, digits.labels, 10, steps=50 if SMALL else 600)
print(f"{accuracy(classifier, test['x'], test['class']):6.1%}  real held-out images")
labels = torch.arange(10).repeat(1 if SMALL else 10)
for wording in ["{word}", "the number {name}", "the digit {name}", "draw me a {word}, please", "{word} {word} {word}"]:
    prompts = [wording.format(name=i, word=words[i]) for i in labels.tolist()]
    pictures = model(prompts, generator=dl.seeded(range(len(labels))))
    print(f"{accuracy(classifier, pictures, labels):6.1%}  {wording}")

anyone = embeddings[torch.randperm(len(embeddings))[: len(labels)]]
pictures = model.upsample(model.decode(anyone))
print(f"{accuracy(classifier, pictures, labels):6.1%}  embeddings of any training images, for comparison")

# %% [markdown]
# A caption that repeats its word is understood. But this CLIP has read six templates, and nothing else: to "the digit 3", two of them
# mixed, it gives the embedding of something else. DALL-E 2 read captions of hundreds of millions of images.
#
# ## Variations
#
# `encode` finds the embedding of an image, and the noise from which the decoder draws it, by the sampler run backwards (section 3).
# With both the image comes back; the more of the noise is fresh, the more of it varies, and its embedding stays (section 3.1:
# `eta`). In each column: a held-out image; encoded and decoded; four variations.

# %%
steps = 2 if SMALL else 50
chosen = test["x"][:10]
back = model.variations(chosen, eta=0.0, steps=steps)
others = model.variations(chosen, count=4, eta=1.0, generator=dl.seeded(range(40)))
print(f"encoded and decoded: {psnr(back, chosen):.1f} dB")
others = others.unflatten(0, (10, 4)).transpose(0, 1).flatten(0, 1)
show(torch.cat([chosen, back, others]), columns=10)

# %% [markdown]
# ## Between two images
#
# `interpolate` goes from one embedding to the other on a circle, and likewise from one noise to the other (section 3.2). The rows: 3
# to 8, 4 to 9, 1 to 7.

# %%
pairs = [(3, 8), (4, 9), (1, 7)]
theta = torch.linspace(0, 1, 9)
rows = []
for pair in pairs:
    first, second = (test["x"][test["class"] == label][:1].expand(9, -1, -1, -1) for label in pair)
    rows.append(model.interpolate(first, second, theta, steps=steps))
show(torch.cat(rows), columns=9)

# %% [markdown]
# ## Directions from captions
#
# `text_diff` turns the embedding of an image towards the difference of two captions, and keeps the noise of the image (section 3.3).
# The same images and goals as above, with `theta` from 0 to 0.8; the paper goes to between 0.25 and 0.5.

# %%
theta = torch.linspace(0, 0.8, 9)
rows = []
for pair in pairs:
    first = test["x"][test["class"] == pair[0]][:1].expand(9, -1, -1, -1)
    before, after = (f"a handwritten {words[label]}" for label in pair)
    rows.append(model.text_diff(first, before, after, theta, steps=steps))
show(torch.cat(rows), columns=9)

# %% [markdown]
# The 1 becomes a 7. The 4 passes a 9 and goes on to something like a 3, and the 3 becomes a 2 and never an 8. It may be that the
# difference of two captions points to where no image is, and the decoder has seen embeddings of images alone. From image to
# image, as above, each step is one.
#
# ## Save and load

# %%
dl.save_pretrained(model, "dalle2-digits")
loaded = dl.from_pretrained("dalle2-digits")
loaded.prior.sampler.progress_bar = loaded.decoder.progress_bar = loaded.upsamplers[0].progress_bar = False

prompts = ["two", "zero", "2", "the number 6"]
assert torch.equal(loaded(prompts, generator=dl.seeded(range(4))), model(prompts, generator=dl.seeded(range(4))))
show(loaded(prompts, generator=dl.seeded(range(4))), columns=4)

# %% [markdown]
# ## Where to go on
#
# - `diffusion-labs train dalle2-mnist` is these stages as one command, and `dalle2-emoji` draws colours and 64 x 64 pixels. What
#   they reach is in `docs/dalle2.md`.
# - `dalle2_prior`, `dalle2_decoder`, `dalle2_upsampler_256` and `dalle2_upsampler_1024` are the parts in the paper's sizes.
# - `load_diffusers_unclip` makes a `DALLE2` of a published model, Karlo.
