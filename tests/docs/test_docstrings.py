"""The examples of the docstrings run, and print what they say.

An example may begin in the middle: what it takes for granted, a model, data, a file, is in ``GIVEN``. Those in
``NOT_RUN`` need weights that were released, or more memory than a test may have.
"""

import doctest
import functools
import importlib
import pkgutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import diffusion_labs as dl
from tests import catalogue

PROCESS = """
schedule = dl.DiscreteGaussianSchedule(dl.cosine_beta_schedule(1000))
predictor = dl.VPredictor(schedule)
"""
NETWORK = """
network, smaller_network = c.network(), c.network()
"""
SAMPLER = f"""{PROCESS}
model = c.network()
sampler = dl.DDIMSampler(model, schedule, predictor, eval_steps=3, progress_bar=False).eval()
image = torch.zeros(1, 1, 8, 8)
labels = torch.arange(16) % 3
cat, dog = torch.tensor([0]), torch.tensor([1])
"""
TRAINING = f"""{SAMPLER}
images = torch.zeros(4, 1, 8, 8)
labels = torch.arange(4) % 3
transform = nn.Sequential(dl.RandomDiffusionSteps(schedule), dl.ComputeTarget(predictor))
sampler.train()
"""
TAR = """
import io, pathlib, tarfile
from PIL import Image
pathlib.Path("shards").mkdir(exist_ok=True)
with tarfile.open("shards/part-0.tar", "w") as tar:
    png = io.BytesIO()
    Image.new("RGB", (64, 64)).save(png, "png")
    for name, data in (("0.png", png.getvalue()), ("0.json", b'{"category": 3, "class": 3}'), ("0.cls", b"3")):
        member = tarfile.TarInfo(name)
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
"""

# What an example takes for granted, by the name of what it belongs to: statements, with ``c`` for the catalogue
GIVEN = {
    "FittedSampler": f"""{PROCESS}
model = dl.IdealDenoiser(predictor, torch.tensor([[-1.0, -1.0], [1.0, 1.0]]), 0.3)
noise = schedule.sample_prior((64, 2), dl.seeded(range(64)))
""",
    "AutoGuidance": NETWORK,
    "CFGuidance": "network = dl.adm_unet(model_channels=32, classes={'class': 3}, vectors={'text': 4, 'image': 5})",
    "CFGuidancePlusPlus": NETWORK,
    "ConcatTextEncoder": "from functools import partial\n"
    "parts = iter([{}, {'pooled_name': 'pooled_text'}])\n"
    "model = words = model_2 = words_2 = None\n"
    "CLIPTextEncoder = lambda *_, **options: c.pretrained_encoder('clip', **options)",
    "DeepCache": NETWORK,
    "DiffusionPrior": "clip = c.tiny_clip()\nsampler = c.diffusion_prior().sampler",
    "EncodeCaptions": "clip, images, captions = c.tiny_clip(), torch.zeros(2, 1, 8, 8), ['a cat', 'two dogs']",
    "EncodedDataset": "import pathlib\n"
    "numbers = lambda batch: {'x': batch['x'].float()}\n"
    "_ = dl.encode_dataset(dl.Digits('test'), numbers, pathlib.Path('runs/ldm-mnist/latents'), description={})",
    "ExpertDenoisers": "base, refiner, high, low, middle = (c.network() for _ in range(5))",
    "FeatureLoss": "from diffusion_labs.metrics import ImageClassifier\n"
    "train_classifier, images, labels = lambda *_, num_classes: ImageClassifier(1, 8, num_classes), None, None",
    "ImportanceMean": PROCESS,
    "KLObjective": "model = dl.autoencoder_kl(in_channels=3, channels=(32, 32))",
    "Objective": TRAINING,
    "PerturbedAttentionGuidance": NETWORK,
    "Sampler": SAMPLER + "model = c.TinyNetwork()",
    "BrownianNoise": SAMPLER + "x = torch.randn(3, 1, 8, 8)",
    "TarImages": TAR,
    "TarStream": TAR,
    "export_sampler": SAMPLER + "noise, labels = torch.randn(2, 1, 8, 8), labels[:2]",
    "from_diffusers_config": SAMPLER + "import json, pathlib\n"
    "pathlib.Path('stable-diffusion/scheduler').mkdir(parents=True)\n"
    "pathlib.Path('stable-diffusion/scheduler/scheduler_config.json').write_text("
    "json.dumps({'_class_name': 'DDIMScheduler'}))",
    "invert": SAMPLER,
    "lint": PROCESS + "print = lambda *_, **__: None",  # what it finds is in its own tests
    "save_pretrained": SAMPLER + "noise = torch.randn(2, 1, 8, 8)",
    "sliced": "model, latents = c.tiny_kl(), torch.randn(2, 3, 4, 4)",
    "tiled": "from types import SimpleNamespace\n"
    "model = SimpleNamespace(describe=nn.Conv2d(1, 6, 8, 8), decode=nn.ConvTranspose2d(3, 1, 8, 8))\n"
    "images = torch.randn(1, 1, 640, 640)",
}
WEIGHTS = "reads weights that were released; its tests write such files"
LARGE = "makes a network of the published size"
NOT_RUN = {
    **dict.fromkeys(
        (
            "TransformersCLIP",
            "load_compvis_autoencoder",
            "load_compvis_checkpoint",
            "load_compvis_unet",
            "load_diffusers_autoencoder",
            "load_diffusers_mmdit",
            "load_diffusers_pipeline",
            "load_diffusers_prior",
            "load_diffusers_unclip",
            "load_dit",
            "load_guided_diffusion",
            "load_lpips",
        ),
        WEIGHTS,
    ),
    **dict.fromkeys(
        (
            "DALLE2",
            "LatentDiffusion",
            "ScaledEmbedding",
            "dalle2_decoder",
            "dalle2_prior",
            "plan_update",
            "unallocated",
        ),
        LARGE,
    ),
    "StreamBatches": "reads from a network",
    "post_hoc_ema": "reads a run with snapshots; its tests make one",
}


@functools.cache
def examples() -> dict[str, doctest.DocTest]:
    """All examples of the package, by the name of the class or function."""
    finder, found = doctest.DocTestFinder(exclude_empty=True), {}
    for info in pkgutil.walk_packages(dl.__path__, "diffusion_labs."):
        if not info.name.endswith("__main__"):
            for test in finder.find(importlib.import_module(info.name), info.name):
                if test.examples:
                    found[test.name.rpartition(".")[2]] = test
    return found


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subtests: Any) -> None:
    monkeypatch.chdir(tmp_path)
    public = {name: getattr(dl, name) for name in dl.__all__}
    for name, test in examples().items():
        if name in NOT_RUN:
            continue
        with subtests.test(name):
            torch.manual_seed(0)
            test.globs.update(public, dl=dl, torch=torch, nn=nn, c=catalogue)
            exec(GIVEN.get(name, ""), test.globs)
            report: list[str] = []
            failures = doctest.DocTestRunner(verbose=False).run(test, out=report.append, clear_globs=False).failed
            assert not failures, "".join(report)


def test_what_is_listed_here_has_an_example() -> None:
    assert {*GIVEN, *NOT_RUN} <= examples().keys()
    assert not GIVEN.keys() & NOT_RUN.keys()
