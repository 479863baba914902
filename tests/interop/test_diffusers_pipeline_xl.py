"""Stable Diffusion XL: the image is that of diffusers, when we read the folder, and when it reads what we wrote."""

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import diffusion_labs as dl
from tests.catalogue import randomise
from tests.interop.test_diffusers_pipeline import (
    SCALE,
    SIDE,
    STEPS,
    edit,
    our_images,
    scheduler,
    their_images,
    write_tokenizer,
)

diffusers = pytest.importorskip("diffusers", reason="is the oracle here")
transformers = pytest.importorskip("transformers", reason="has the text encoders")

NEGATIVE = ["bad", "a"]


def stable_diffusion_xl(folder: Path, zeros: bool = True, **changes: Any) -> Any:
    """A tiny pipeline with random weights everywhere; its encoders differ in width, activation and padding."""
    make = functools.partial(
        transformers.CLIPTokenizer, str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=12
    )
    tokenizers = [make(), make(pad_token="b")]
    end = tokenizers[0].eos_token_id
    configs = [
        transformers.CLIPTextConfig(
            vocab_size=len(tokenizers[0]),
            hidden_size=width,
            intermediate_size=16,
            num_hidden_layers=3,
            num_attention_heads=2,
            max_position_embeddings=12,
            bos_token_id=end - 1,
            eos_token_id=end,
            pad_token_id=tokenizer.pad_token_id,
            hidden_act=activation,
            projection_dim=6,
        )
        for tokenizer, width, activation in zip(tokenizers, (8, 12), ("quick_gelu", "gelu"), strict=True)
    ]
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=8 + 12,
        attention_head_dim=(1, 2),
        transformer_layers_per_block=(1, 2),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=6 + 6 * 4,
        sample_size=SIDE,
    )
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        scaling_factor=0.13025,
        **changes,
    )
    pipeline = diffusers.StableDiffusionXLPipeline(
        vae=randomise(vae),
        text_encoder=randomise(transformers.CLIPTextModel(configs[0]), 2),
        text_encoder_2=randomise(transformers.CLIPTextModelWithProjection(configs[1]), 3),
        tokenizer=tokenizers[0],
        tokenizer_2=tokenizers[1],
        unet=randomise(unet, 1),
        scheduler=scheduler(timestep_spacing="trailing"),
        force_zeros_for_empty_prompt=zeros,
        add_watermarker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def again(folder: Path) -> Any:
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder, add_watermarker=False)
    assert type(pipeline) is diffusers.StableDiffusionXLPipeline
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def assert_equal(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("zeros", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_images_of_stable_diffusion_xl_are_those_of_diffusers(tmp_path: Path, zeros: bool) -> None:
    theirs = stable_diffusion_xl(write_tokenizer(tmp_path / "words"), zeros)
    theirs.save_pretrained(tmp_path / "theirs")
    load = functools.partial(dl.load_diffusers_pipeline, eval_steps=STEPS, guidance_scale=SCALE)
    expected = their_images(theirs)
    negative = their_images(theirs, negative_prompt=NEGATIVE)
    empty = their_images(theirs, negative_prompt=["", ""])
    assert expected.std() > 0.1
    assert (expected - negative).abs().max() > 1e-2
    assert ((expected - empty).abs().max() > 1e-2) == zeros

    system = load(tmp_path / "theirs")
    assert_equal(our_images(system), expected)
    assert_equal(our_images(system, negative_caption=NEGATIVE), negative)
    assert_equal(our_images(system, negative_caption=["", ""]), empty)

    dl.save_diffusers_pipeline(system, tmp_path / "ours", sample_size=SIDE)
    written = again(tmp_path / "ours")
    assert written.config.force_zeros_for_empty_prompt == zeros
    assert_equal(their_images(written), expected)
    assert_equal(our_images(load(tmp_path / "ours")), expected)

    dl.save_pretrained(system, tmp_path / "own")
    assert_equal(our_images(dl.from_pretrained(tmp_path / "own")), expected)


def test_sizes_no_guidance_and_normalised_channels(tmp_path: Path) -> None:
    channels = {"latents_mean": [0.1, -0.2, 0.3, 0.0], "latents_std": [0.5, 1.0, 2.0, 1.5]}
    theirs = stable_diffusion_xl(write_tokenizer(tmp_path / "words"), **channels)
    theirs.save_pretrained(tmp_path / "theirs")
    system = dl.load_diffusers_pipeline(tmp_path / "theirs", eval_steps=STEPS, guidance_scale=SCALE)
    expected = their_images(theirs)
    sizes = {"original_size": (40, 50), "crops_coords_top_left": (3, 7), "target_size": (20, 30)}
    resized = their_images(theirs, **sizes)
    assert (expected - resized).abs().max() > 1e-2
    numbers = torch.tensor([[40.0, 50.0, 3.0, 7.0, 20.0, 30.0]] * 2)
    assert_equal(our_images(system), expected)
    assert_equal(our_images(system, sizes=numbers), resized)
    dl.save_diffusers_pipeline(system, tmp_path / "ours", sample_size=SIDE)
    assert_equal(their_images(again(tmp_path / "ours")), expected)

    system.sampler.model.guidance_scale = 1.0
    assert_equal(our_images(system), their_images(theirs, guidance_scale=1.0))


def test_half_precision_on_disk_is_read_as_float32(tmp_path: Path) -> None:
    theirs = stable_diffusion_xl(write_tokenizer(tmp_path / "words")).to(torch.float16)
    theirs.save_pretrained(tmp_path / "theirs", variant="fp16")
    system = dl.load_diffusers_pipeline(tmp_path / "theirs", variant="fp16", eval_steps=STEPS, guidance_scale=SCALE)
    assert {parameter.dtype for parameter in system.parameters()} == {torch.float32}
    assert_equal(our_images(system), their_images(theirs.to(torch.float32)))


def test_what_cannot_be_read_or_written_is_named(tmp_path: Path) -> None:
    stable_diffusion_xl(write_tokenizer(tmp_path / "words")).save_pretrained(tmp_path / "theirs")
    system = dl.load_diffusers_pipeline(tmp_path / "theirs")
    encoder = system.conditioner.encoders["caption"]

    def refused(message: str) -> None:
        with pytest.raises(ValueError, match=message):
            dl.save_diffusers_pipeline(system, tmp_path / "ours")
        assert not (tmp_path / "ours").exists()

    encoder.encoders[1].states = dl.last_states
    refused("a text encoder gives its last_states, but such a pipeline of diffusers takes penultimate_states")
    encoder.encoders[1].states = dl.penultimate_states
    system.conditioner = dl.Conditioner({"caption": dl.ConcatTextEncoder(list(encoder.encoders)[1:])})
    refused(r"encoded by \['CLIPTextEncoder'\] to \['text', 'pooled_text'\], but for diffusers it must be by two")
    system.conditioner = dl.Conditioner({"caption": encoder.encoders[0]})
    refused(r"the network takes .*, but conditions of that of a StableDiffusionPipeline are 1")
    system.conditioner = dl.Conditioner({"caption": encoder}, encoded_nulls=())
    network = system.sampler.model.model
    system.sampler.model = dl.CFGuidance(network, {"text": 0.1}, null={"text": 1.0})
    refused(r"the guidance has null values of \['text'\], but those of diffusers are zeros or texts")

    edit(tmp_path / "theirs" / "model_index.json", text_encoder_2=["transformers", "CLIPTextModel"])
    with pytest.raises(ValueError, match="text_encoder_2 is of the class 'CLIPTextModel', but must be one of"):
        dl.load_diffusers_pipeline(tmp_path / "theirs")
