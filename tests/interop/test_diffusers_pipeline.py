"""Pipelines of diffusers: the image is its own image, when we read the folder, and when it reads what we wrote."""

import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import diffusion_labs as dl
from tests.catalogue import randomise

diffusers = pytest.importorskip("diffusers", reason="is the oracle here")
transformers = pytest.importorskip("transformers", reason="has the text encoder")

PROMPTS = ["a cat", "two dogs"]
SIDE, STEPS, SCALE = 8, 5, 3.0


def write_tokenizer(folder: Path) -> Path:
    """CLIP's tokenizer with the letters as its vocabulary, and a few merges."""
    folder.mkdir()
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    merges = ["a t</w>", "d o", "do g"]
    words = [*letters, *[f"{letter}</w>" for letter in letters], *[merge.replace(" ", "") for merge in merges]]
    words += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    return folder


def scheduler(**changes: Any) -> Any:
    config = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}
    return diffusers.DDIMScheduler(**{**config, **changes})


def stable_diffusion(folder: Path, of_2: bool = False, **changes: Any) -> Any:
    """A tiny pipeline with random weights everywhere; like Stable Diffusion 2 or 1."""
    tokenizer = transformers.CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=12)
    end = tokenizer.eos_token_id
    text = transformers.CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=12,
        bos_token_id=end - 1,
        eos_token_id=end,
        pad_token_id=end,
        hidden_act="gelu" if of_2 else "quick_gelu",
    )
    encoder = randomise(transformers.CLIPTextModel(text))
    with torch.no_grad():  # so that the text matters
        final_norm(encoder).weight.fill_(8.0)
    pipeline = diffusers.StableDiffusionPipeline(
        vae=stable_diffusion_autoencoder(),
        text_encoder=encoder,
        tokenizer=tokenizer,
        unet=stable_diffusion_unet(of_2),
        scheduler=scheduler(prediction_type="v_prediction" if of_2 else "epsilon", **changes),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def stable_diffusion_unet(of_2: bool, in_channels: int = 4) -> Any:
    unet = diffusers.UNet2DConditionModel(
        in_channels=in_channels,
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=8,
        attention_head_dim=(2, 4) if of_2 else 2,
        use_linear_projection=of_2,
        sample_size=SIDE,
    )
    return randomise(unet, 1)


def stable_diffusion_autoencoder() -> Any:
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
    )
    return randomise(vae)


def final_norm(encoder: Any) -> Any:
    return next(module for name, module in encoder.named_modules() if name.endswith("final_layer_norm"))


def noise() -> Tensor:
    return torch.randn(2, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def their_images(pipeline: Any, **options: Any) -> Tensor:
    given = {"num_inference_steps": STEPS, "guidance_scale": SCALE, **options}
    return pipeline(PROMPTS, latents=noise(), output_type="pt", **given).images


def our_images(system: dl.LatentDiffusion, **conditions: Any) -> Tensor:
    system.sampler.progress_bar = False
    with torch.no_grad():
        images = system(noise(), conditional_inputs={"caption": PROMPTS, **conditions})
    return (images / 2 + 0.5).clamp(0, 1)


# Those for which its process is exactly that of ``DDIMSampler``: five steps divide a thousand
EXACT = {
    "leading": {"steps_offset": 1},
    "trailing": {"timestep_spacing": "trailing"},
    "zero_terminal_snr": {"timestep_spacing": "trailing", "rescale_betas_zero_snr": True},
}


# Noise prediction, which version 1 has, is undefined at zero SNR
@pytest.mark.parametrize(
    ("name", "of_2"),
    [
        ("zero_terminal_snr", True),
        ("leading", False),
        *(
            pytest.param(*more, marks=pytest.mark.slow)
            for more in (("leading", True), ("trailing", True), ("trailing", False))
        ),
    ],
)
def test_images_of_stable_diffusion_are_those_of_diffusers(tmp_path: Path, name: str, of_2: bool) -> None:
    pipeline = stable_diffusion(write_tokenizer(tmp_path / "words"), of_2, **EXACT[name])
    pipeline.save_pretrained(tmp_path / "theirs")
    expected = their_images(pipeline)
    assert expected.std() > 0.1

    system = dl.load_diffusers_pipeline(tmp_path / "theirs", eval_steps=STEPS, guidance_scale=SCALE)
    torch.testing.assert_close(our_images(system), expected, rtol=0, atol=1e-4)

    dl.save_diffusers_pipeline(system, tmp_path / "ours", sample_size=SIDE)
    again = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "ours")
    assert type(again) is diffusers.StableDiffusionPipeline
    again.set_progress_bar_config(disable=True)
    torch.testing.assert_close(their_images(again), expected, rtol=0, atol=1e-4)


def test_negative_prompts_and_no_guidance(tmp_path: Path) -> None:
    pipeline = stable_diffusion(write_tokenizer(tmp_path / "words"))
    pipeline.save_pretrained(tmp_path / "theirs")
    system = dl.load_diffusers_pipeline(tmp_path / "theirs", eval_steps=STEPS, guidance_scale=SCALE)
    negative = ["bad", "a"]
    expected = their_images(pipeline, negative_prompt=negative)
    assert (expected - their_images(pipeline)).abs().max() > 1e-2
    torch.testing.assert_close(our_images(system, negative_caption=negative), expected, rtol=0, atol=1e-4)

    system.sampler.model.guidance_scale = 1.0
    torch.testing.assert_close(our_images(system), their_images(pipeline, guidance_scale=1.0), rtol=0, atol=1e-4)


def test_the_noise_that_stable_diffusion_leaves_in_its_images_is_not_ours(tmp_path: Path) -> None:
    """``set_alpha_to_one=False``: its last step goes to the first noise level. Ours goes on to clean data."""
    theirs = stable_diffusion(write_tokenizer(tmp_path / "words"), set_alpha_to_one=False, steps_offset=1)
    theirs.save_pretrained(tmp_path / "theirs")
    system = dl.load_diffusers_pipeline(tmp_path / "theirs", eval_steps=STEPS, guidance_scale=SCALE)
    difference = (our_images(system) - their_images(theirs)).abs().max()
    assert 1e-4 < difference < 0.1


def latent_diffusion_with_text(folder: Path) -> Any:
    """A tiny ``LDMTextToImagePipeline`` with random weights everywhere, and a vocabulary of a few words."""
    bert = pytest.importorskip("diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion")
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "two", "dogs"]
    (folder / "vocab.txt").write_text("\n".join(words))
    text = bert.LDMBertConfig(
        vocab_size=len(words),
        encoder_layers=2,
        encoder_ffn_dim=32,
        encoder_attention_heads=2,
        head_dim=3,
        d_model=8,
    )
    pipeline = bert.LDMTextToImagePipeline(
        vqvae=stable_diffusion_autoencoder(),
        bert=randomise(bert.LDMBertModel(text)).eval(),
        tokenizer=transformers.BertTokenizer(str(folder / "vocab.txt")),
        unet=stable_diffusion_unet(of_2=False),
        scheduler=scheduler(),
    )
    with torch.no_grad():  # so that the text matters
        pipeline.bert.model.layer_norm.weight.fill_(8.0)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_images_of_latent_diffusion_with_text_are_those_of_diffusers(tmp_path: Path) -> None:
    pipeline = latent_diffusion_with_text(tmp_path / "words")
    pipeline.save_pretrained(tmp_path / "theirs")
    size = {"height": 8 * SIDE, "width": 8 * SIDE}  # it takes the factor of the autoencoder for 8
    expected = their_images(pipeline, **size)
    assert (expected - their_images(pipeline, guidance_scale=1.0, **size)).abs().max() > 1e-2

    system = dl.load_diffusers_pipeline(tmp_path / "theirs", eval_steps=STEPS, guidance_scale=SCALE)
    torch.testing.assert_close(our_images(system), expected, rtol=0, atol=1e-4)
    dl.save_diffusers_pipeline(system, tmp_path / "ours", sample_size=SIDE)
    again = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "ours")
    assert type(again) is type(pipeline)
    again.set_progress_bar_config(disable=True)
    torch.testing.assert_close(their_images(again, **size), expected, rtol=0, atol=1e-4)

    edit(tmp_path / "theirs" / "bert" / "config.json", activation_function="relu")
    with pytest.raises(ValueError, match="activation_function='relu', but an LDMTextEncoder has 'gelu'"):
        dl.load_diffusers_pipeline(tmp_path / "theirs")
    encoder = dl.LDMTextEncoder(8, transformers.BertTokenizer(str(tmp_path / "words" / "vocab.txt")), depth=1)
    system.conditioner = dl.Conditioner({"caption": encoder})
    encoder.max_length = 7
    with pytest.raises(ValueError, match="texts of 77 tokens, but the encoder has max_length=7"):
        dl.save_diffusers_pipeline(system, tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("kind", ["vq", "kl"])
def test_images_of_latent_diffusion_without_text_are_those_of_diffusers(tmp_path: Path, kind: str) -> None:
    blocks = {"block_out_channels": (8, 8), "norm_num_groups": 4}
    sides = {
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
    }
    codes = {"num_vq_embeddings": 16, "scaling_factor": 0.5}
    autoencoder = (
        diffusers.VQModel(latent_channels=3, **blocks, **sides, **codes)
        if kind == "vq"
        else diffusers.AutoencoderKL(latent_channels=3, **blocks, **sides)
    )
    unet = diffusers.UNet2DModel(
        sample_size=SIDE,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
        **blocks,
    )
    pipeline = diffusers.LDMPipeline(randomise(autoencoder), randomise(unet, 1), scheduler())
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(tmp_path / "theirs")

    def images(pipeline: Any) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        array = pipeline(2, generator, num_inference_steps=STEPS, output_type="np").images
        return torch.from_numpy(np.asarray(array)).permute(0, 3, 1, 2)

    expected = images(pipeline)
    system = dl.load_diffusers_pipeline(tmp_path / "theirs", eval_steps=STEPS)
    system.sampler.progress_bar = False
    x = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close((system(x) / 2 + 0.5).clamp(0, 1), expected, rtol=0, atol=1e-4)
    dl.save_diffusers_pipeline(system, tmp_path / "ours", sample_size=SIDE)
    again = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "ours")
    again.set_progress_bar_config(disable=True)
    assert type(again) is diffusers.LDMPipeline
    torch.testing.assert_close(images(again), expected, rtol=0, atol=1e-4)


def test_another_sampler(tmp_path: Path) -> None:
    """Its class is written, and the pipeline of diffusers samples with it as we do."""
    pipeline = stable_diffusion(write_tokenizer(tmp_path / "words"), **EXACT["trailing"])
    pipeline.save_pretrained(tmp_path / "theirs")
    load = functools.partial(dl.load_diffusers_pipeline, eval_steps=STEPS, guidance_scale=SCALE)
    system = load(tmp_path / "theirs", sampler=dl.DPMSolverPP2MSampler)
    dl.save_diffusers_pipeline(system, tmp_path / "ours", sample_size=SIDE)
    again = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "ours")
    assert type(again.scheduler) is diffusers.DPMSolverMultistepScheduler
    again.set_progress_bar_config(disable=True)
    images = our_images(system)
    torch.testing.assert_close(their_images(again), images, rtol=0, atol=1e-4)
    loaded = load(tmp_path / "ours", sampler=dl.DPMSolverPP2MSampler)
    torch.testing.assert_close(our_images(loaded), images, rtol=0, atol=1e-4)

    system = load(tmp_path / "theirs", sampler=dl.DPMSolver3Sampler)
    with pytest.raises(ValueError, match="sampler is a DPMSolver3Sampler, which is not written for diffusers"):
        dl.save_diffusers_pipeline(system, tmp_path / "refused")
    assert not (tmp_path / "refused").exists()


def has_no_index(folder: Path) -> None:
    (folder / "model_index.json").unlink()


def is_another_pipeline(folder: Path) -> None:
    edit(folder / "model_index.json", _class_name="FluxPipeline")


def has_another_text_encoder(folder: Path) -> None:
    edit(folder / "model_index.json", text_encoder=["transformers", "T5EncoderModel"])


def has_another_part(folder: Path) -> None:
    edit(folder / "model_index.json", controlnet=["diffusers", "ControlNetModel"])


def lacks_a_part(folder: Path) -> None:
    edit(folder / "model_index.json", unet=[None, None])


def has_an_unknown_key(folder: Path) -> None:
    edit(folder / "unet" / "config.json", colour="red")


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


DAMAGE: dict[Callable[[Path], None], tuple[type[Exception], str]] = {
    has_no_index: (FileNotFoundError, "has no model_index.json; give the folder of a pipeline"),
    is_another_pipeline: (ValueError, "'FluxPipeline' is no pipeline of diffusers that is known here; give one of"),
    has_another_text_encoder: (ValueError, "text_encoder is of the class 'T5EncoderModel', but must be one of"),
    has_another_part: (ValueError, "controlnet=.* is not known; load its parts one by one"),
    lacks_a_part: (ValueError, "unet is of the class None, but must be one of"),
    has_an_unknown_key: (ValueError, "UNet2DConditionModel: colour='red' is not known"),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    stable_diffusion(write_tokenizer(folder / "words")).save_pretrained(folder / "theirs")
    return folder / "theirs"


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_what_cannot_be_read_is_named(saved: Path, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "copy"))
    damage(folder)
    kind, message = DAMAGE[damage]
    with pytest.raises(kind, match=message):
        dl.load_diffusers_pipeline(folder)


def test_what_cannot_be_written_is_named(saved: Path, tmp_path: Path) -> None:
    system = dl.load_diffusers_pipeline(saved)
    with pytest.raises(FileExistsError, match="has files, which would be lost"):
        dl.save_diffusers_pipeline(system, saved)
    with pytest.raises(ValueError, match="Sampler is no pipeline of diffusers; give a LatentDiffusion"):
        dl.save_diffusers_pipeline(system.sampler, tmp_path / "ours")
    system.sampler.grid = dl.karras
    with pytest.raises(ValueError, match=r"the grid is .*karras.*, which is not written for diffusers"):
        dl.save_diffusers_pipeline(system, tmp_path / "ours")
    system.sampler.grid = dl.leading
    with pytest.raises(ValueError, match=r"sets steps_offset to 1, but .* is 0; give partial"):
        dl.save_diffusers_pipeline(system, tmp_path / "ours")
    system.sampler.grid = dl.trailing
    system.sampler.predictor.clamp = dl.StaticClamp()
    with pytest.raises(ValueError, match=r"a StableDiffusionPipeline has no clamp, but .* StaticClamp"):
        dl.save_diffusers_pipeline(system, tmp_path / "ours")
    system.sampler.predictor.clamp = None
    system.scale = dl.LatentScale([0.0] * 4, [1.0, 2.0, 3.0, 4.0])
    with pytest.raises(ValueError, match="read no shift, and one number"):
        dl.save_diffusers_pipeline(system, tmp_path / "ours")
    system.conditioner = dl.Conditioner({"caption": dl.ByteTextEncoder(8)})
    with pytest.raises(
        ValueError, match=r"has \['ByteTextEncoder'\], but a StableDiffusionPipeline one CLIPTextEncoder"
    ):
        dl.save_diffusers_pipeline(system, tmp_path / "ours")
    assert not list(tmp_path.iterdir())
