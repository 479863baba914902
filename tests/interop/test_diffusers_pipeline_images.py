"""Pipelines of diffusers that begin with an image, and those of pixels: the image is the image of diffusers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import diffusion_labs as dl
from tests.catalogue import randomise
from tests.interop.test_diffusers_pipeline import (
    PROMPTS,
    SCALE,
    SIDE,
    STEPS,
    noise,
    scheduler,
    stable_diffusion,
    stable_diffusion_unet,
    write_tokenizer,
)

diffusers = pytest.importorskip("diffusers", reason="is the oracle here")

PIXELS = 2 * SIDE
GIVEN = {"num_inference_steps": STEPS, "guidance_scale": SCALE, "output_type": "pt"}


def pipeline_of(kind: str, folder: Path, **parts: Any) -> Any:
    plain = stable_diffusion(write_tokenizer(folder / "words"), steps_offset=1)
    made = getattr(diffusers, kind)(**{**plain.components, **parts}, requires_safety_checker=False)
    made.set_progress_bar_config(disable=True)
    made.save_pretrained(folder / "theirs")
    return made


def opened(folder: Path, **options: Any) -> dl.LatentDiffusion:
    system = dl.load_diffusers_pipeline(folder, eval_steps=STEPS, guidance_scale=SCALE, **options)
    system.sampler.progress_bar = False
    return system


def pictures() -> Tensor:
    return torch.rand(2, 3, PIXELS, PIXELS, generator=torch.Generator().manual_seed(1)) * 2 - 1


def half() -> Tensor:
    mask = torch.zeros(2, 1, PIXELS, PIXELS)
    mask[..., SIDE:] = 1
    return mask


def shown(images: Tensor) -> Tensor:
    return (images / 2 + 0.5).clamp(0, 1)


@pytest.fixture
def of_the_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    """The latents of known parts are the posterior's mode, as ours; diffusers draws them."""
    module = "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_inpaint"
    monkeypatch.setattr(f"{module}.retrieve_latents", lambda encoded, **_: encoded.latent_dist.mode())


def painted(pipeline: Any, mask: Tensor) -> Tensor:
    size = {"height": PIXELS, "width": PIXELS}
    return pipeline(PROMPTS, image=pictures(), mask_image=mask, latents=noise(), strength=1.0, **size, **GIVEN).images


def test_image_to_image_from_a_time_of_the_grid(tmp_path: Path) -> None:
    """Theirs makes the last ``int(steps * strength)`` steps of the grid, and adds the noise of the first of them."""
    theirs = pipeline_of("StableDiffusionImg2ImgPipeline", tmp_path)
    images = pictures()
    expected = theirs(PROMPTS, image=images, strength=0.6, generator=torch.Generator().manual_seed(2), **GIVEN).images

    system = opened(tmp_path / "theirs")
    schedule, times = system.sampler.schedule, system.sampler.times()
    start = times[-int(STEPS * 0.6)].item()
    assert start == 401
    strength = (start - schedule.clean) / (schedule.terminal - schedule.clean)
    generator = torch.Generator().manual_seed(2)
    ours = system.image_to_image(images, strength, {"caption": PROMPTS}, generator=generator)
    torch.testing.assert_close(shown(ours), expected, rtol=0, atol=1e-4)


@pytest.mark.usefixtures("of_the_mode")
def test_inpainting_with_nine_channels(tmp_path: Path) -> None:
    unet = stable_diffusion_unet(of_2=False, in_channels=9)
    theirs = pipeline_of("StableDiffusionInpaintPipeline", tmp_path, unet=unet)
    mask = half()
    expected = painted(theirs, mask)
    assert (expected - painted(theirs, 1 - mask)).abs().max() > 1e-2
    system = opened(tmp_path / "theirs")
    conditions = {"caption": PROMPTS, "mask": mask, "masked_image": pictures() * (1 - mask)}
    with torch.no_grad():
        torch.testing.assert_close(shown(system(noise(), conditional_inputs=conditions)), expected, rtol=0, atol=1e-4)

    dl.save_diffusers_pipeline(system, tmp_path / "ours", sample_size=SIDE)
    again = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "ours")
    assert type(again) is diffusers.StableDiffusionInpaintPipeline
    again.set_progress_bar_config(disable=True)
    torch.testing.assert_close(painted(again, mask), expected, rtol=0, atol=1e-4)

    system.sampler.model.model.join = dl.image_then_mask
    with pytest.raises(ValueError, match="that of diffusers is mask_then_image"):
        dl.save_diffusers_pipeline(system, tmp_path / "other")


@pytest.mark.usefixtures("of_the_mode")
def test_inpainting_with_four_channels_keeps_what_is_known(tmp_path: Path) -> None:
    """And paints the rest nearly as theirs, which puts the known part back with the first noise at each level."""
    theirs = pipeline_of("StableDiffusionInpaintPipeline", tmp_path)
    system = opened(tmp_path / "theirs")
    known = system.scale.normalize(system.posterior(pictures()).mean)[..., : SIDE // 2]
    conditions = {"caption": PROMPTS, "mask": half()[..., ::2, ::2], "masked_image": pictures()}
    with torch.no_grad():
        found = system.sampler(noise(), conditional_inputs=system.condition(conditions, noise()))
        torch.testing.assert_close(found[..., : SIDE // 2], known, rtol=0, atol=1e-4)
        difference = (shown(system.decode(found)) - painted(theirs, half())).abs().max()
        assert difference < 2e-3
    with pytest.raises(ValueError, match="a KnownRegion around the U-Net is no part of"):
        dl.save_diffusers_pipeline(system, tmp_path / "ours")


@pytest.mark.parametrize("kind", ["DDPM", "DDIM"])
def test_pipelines_of_pixels(tmp_path: Path, kind: str) -> None:
    unet = diffusers.UNet2DModel(
        sample_size=SIDE,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
    )
    process = getattr(diffusers, f"{kind}Scheduler").from_config(scheduler().config)
    getattr(diffusers, f"{kind}Pipeline")(randomise(unet, 1), process).save_pretrained(tmp_path / "theirs")
    theirs = diffusers.DDIMPipeline.from_pretrained(tmp_path / "theirs")
    theirs.set_progress_bar_config(disable=True)
    drawn = theirs(2, torch.Generator().manual_seed(0), num_inference_steps=STEPS, output_type="np").images

    sampler = dl.load_diffusers_pipeline(tmp_path / "theirs", eval_steps=STEPS)
    assert type(sampler) is dl.DDIMSampler
    sampler.progress_bar = False
    with torch.no_grad():
        ours = sampler(torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(shown(ours), torch.from_numpy(drawn).permute(0, 3, 1, 2), rtol=0, atol=1e-4)
