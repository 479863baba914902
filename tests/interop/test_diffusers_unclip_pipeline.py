"""The whole unCLIP pipeline of diffusers: its images, from text, when we read its folder and when it reads ours."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import diffusion_labs as dl
from diffusion_labs.cli import main
from tests.catalogue import randomise
from tests.interop.test_diffusers_pipeline import final_norm, write_tokenizer
from tests.interop.test_diffusers_unclip import DOWN, KARLO, UP, theirs

diffusers = pytest.importorskip("diffusers", reason="is the oracle here")
transformers = pytest.importorskip("transformers", reason="has the text encoder")

PROMPTS = ["a cat", "dog eats a dog"]
STEPS, SCALES, WIDTH, LENGTH = (3, 4, 3), (2.0, 3.0), 16, 24
SCHEDULERS = {
    "prior_scheduler": {"prediction_type": "sample", "clip_sample_range": 5.0},
    "decoder_scheduler": {"variance_type": "learned_range"},
    "super_res_scheduler": {},
}


def text_model(folder: Path) -> tuple[Any, Any]:
    words = write_tokenizer(folder)
    tokenizer = transformers.CLIPTokenizer(
        str(words / "vocab.json"), str(words / "merges.txt"), model_max_length=LENGTH
    )
    end = tokenizer.eos_token_id
    config = transformers.CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        projection_dim=WIDTH,
        bos_token_id=end - 1,
        eos_token_id=end,
        pad_token_id=end,
    )
    model = randomise(transformers.CLIPTextModelWithProjection(config), 4)
    with torch.no_grad():  # so that the text matters
        final_norm(model).weight.fill_(4.0)
    return model, tokenizer


def their_pipeline(folder: Path) -> Any:
    """A tiny one with random weights everywhere."""
    from diffusers.pipelines.deprecated.unclip import UnCLIPPipeline

    encoder, tokenizer = text_model(folder)
    sizes = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 1}
    prior = randomise(diffusers.PriorTransformer(**sizes, embedding_dim=WIDTH, num_embeddings=LENGTH), 3)
    with torch.no_grad():
        prior.clip_std.abs_().add_(0.1)
    upsampler = {
        **{key: KARLO[key] for key in ("block_out_channels", "layers_per_block", "norm_num_groups")},
        "in_channels": 6,
        "out_channels": 3,
        "down_block_types": [DOWN, DOWN],
        "up_block_types": [UP, UP],
        "resnet_time_scale_shift": "scale_shift",
        "add_attention": False,
        "sample_size": 16,
    }
    decoder, text_proj = theirs("karlo")
    decoder.register_to_config(sample_size=8)
    pipeline = UnCLIPPipeline(
        prior=prior,
        decoder=decoder,
        text_encoder=encoder,
        tokenizer=tokenizer,
        text_proj=text_proj,
        super_res_first=randomise(diffusers.UNet2DModel(**upsampler), 2),
        super_res_last=randomise(diffusers.UNet2DModel(**upsampler), 5),
        **{name: diffusers.UnCLIPScheduler(**config) for name, config in SCHEDULERS.items()},
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def in_the_older_place(index: Path) -> None:
    """Name the module of the text projection as released folders do, and as diffusers does not since it moved it."""
    content = json.loads(index.read_text())
    index.write_text(json.dumps(content | {"text_proj": ["unclip", "UnCLIPTextProjModel"]}))


def their_images(pipeline: Any) -> Tensor:
    """In float64, and with tables in it: in float32, 1 - alpha^2 of the first time is wrong by 5e-4."""
    for name in SCHEDULERS:
        part = getattr(pipeline, name)
        part.betas = part.betas.double()
        part.alphas = 1 - part.betas
        part.alphas_cumprod = part.alphas.cumprod(0)
    names = ("prior", "decoder", "super_res")
    images = pipeline.to(torch.float64)(
        PROMPTS,
        **{f"{name}_num_inference_steps": steps for name, steps in zip(names, STEPS, strict=True)},
        **{f"{name}_guidance_scale": scale for name, scale in zip(names, SCALES, strict=False)},
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).images
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def load(folder: Path) -> dl.DALLE2:
    return dl.load_diffusers_unclip(folder, eval_steps=STEPS, guidance_scales=SCALES)


def our_images(model: dl.DALLE2) -> Tensor:
    for sampler in (model.prior.sampler, model.decoder, *model.upsamplers):
        sampler.progress_bar = False
    images = model.double()(PROMPTS, candidates=1, generator=torch.Generator().manual_seed(0))
    return ((images + 1) / 2).clamp(0, 1).float()


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tensor]:
    """The folder of a pipeline, and its images."""
    folder = tmp_path_factory.mktemp("unclip")
    pipeline = their_pipeline(folder / "words")
    pipeline.save_pretrained(folder / "theirs")
    in_the_older_place(folder / "theirs" / "model_index.json")
    return folder / "theirs", their_images(pipeline)


def test_images_are_those_of_diffusers_and_come_back(released: tuple[Path, Tensor], tmp_path: Path) -> None:
    """Read, converted to our format and back: theirs to 1e-4, with another network in the last step."""
    from diffusers.pipelines.deprecated.unclip import UnCLIPPipeline

    folder, expected = released
    assert expected.std() > 0.1
    model = load(folder)
    torch.testing.assert_close(our_images(model), expected, rtol=0, atol=1e-4)
    first, last = model.upsamplers[0].model.model.model, model.upsamplers[0].model.model.experts[0]
    assert not torch.equal(first.head.state_dict()["conv.weight"], last.head.state_dict()["conv.weight"])

    main(["convert", str(folder), str(tmp_path / "own")])
    main(["convert", str(tmp_path / "own"), str(tmp_path / "ours"), "--to", "diffusers"])
    again = UnCLIPPipeline.from_pretrained(tmp_path / "ours")
    again.set_progress_bar_config(disable=True)
    torch.testing.assert_close(their_images(again), expected, rtol=0, atol=1e-4)
    for name, config in SCHEDULERS.items():
        wanted, written = diffusers.UnCLIPScheduler(**config).config, getattr(again, name).config
        assert {key: written[key] for key in wanted if not key.startswith("_")}.items() <= wanted.items()


@pytest.mark.slow
@torch.no_grad()
def test_no_text_is_the_encoding_of_the_empty_one(released: tuple[Path, Tensor]) -> None:
    """Where a caption is absent, and where guidance leads away from it."""
    model = load(released[0]).double()
    embedding, noise = torch.randn(2, WIDTH).double(), torch.randn(2, 3, 8, 8).double()

    def decoded(**options: Any) -> Tensor:
        return model.decode(embedding, noise=noise, generator=torch.Generator().manual_seed(1), **options)

    empty = {name: value.expand(2, *value.shape[1:]) for name, value in model.encode_text("").items()}
    text = {name: value.expand(2, *value.shape[1:]) for name, value in model.encode_text("a cat").items()}
    negative = {f"negative_{name}": value for name, value in empty.items()}
    torch.testing.assert_close(decoded(), decoded(conditions=empty), rtol=0, atol=1e-5)
    torch.testing.assert_close(decoded(conditions=text), decoded(conditions=text | negative), rtol=0, atol=1e-5)
    assert (decoded(conditions=text) - decoded()).abs().max() > 1e-2
    with pytest.raises(ValueError, match="encodes no images, which edits begin with"):
        model.variations(torch.zeros(1, 3, 8, 8))


def test_the_prior_and_the_decoder_go_through_our_format_alone(released: tuple[Path, Tensor], tmp_path: Path) -> None:
    """The numbers of every file come back, the mean and deviation of the embeddings included."""
    from safetensors.torch import load_file

    folder, _ = released
    decoder = tmp_path / "decoder only"
    for part in ("decoder", "text_proj"):
        shutil.copytree(folder / part, decoder / part)
    for source, parts in ((folder / "prior", [""]), (decoder, ["decoder", "text_proj"])):
        own, back = tmp_path / f"{source.name} own", tmp_path / f"{source.name} back"
        main(["convert", str(source), str(own)])
        main(["convert", str(own), str(back), "--to", "diffusers"])
        for part in parts:
            name = "diffusion_pytorch_model.safetensors"
            before, after = load_file(source / part / name), load_file(back / part / name)
            assert before.keys() == after.keys()
            assert all(torch.equal(after[key], value) for key, value in before.items())


def changed(file: str, **keys: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text()) | keys))

    return change


DAMAGED: list[tuple[Callable[[Path], None], type[Exception], str]] = [
    (lambda folder: shutil.rmtree(folder / "super_res_last"), FileNotFoundError, r"has no \['super_res_last'\]"),
    (changed("model_index.json", prior=None), ValueError, "UnCLIPPipeline: prior is of the class None"),
    (changed("model_index.json", _class_name="LDMPipeline"), ValueError, "see load_diffusers_pipeline"),
    (
        changed("decoder_scheduler/scheduler_config.json", variance_type="fixed_small_log"),
        ValueError,
        "decoder_scheduler: variance_type='fixed_small_log' must be 'learned_range', as its network predicts",
    ),
    (changed("decoder_scheduler/scheduler_config.json", clip_sample=False), ValueError, "bounded by None"),
    (changed("super_res_first/config.json", sample_size=None), ValueError, "super_res_first: sample_size=None"),
]


@pytest.mark.parametrize(("damage", "kind", "message"), DAMAGED)
def test_what_is_missing_or_cannot_be_represented_is_named(
    released: tuple[Path, Tensor], tmp_path: Path, damage: Callable[[Path], None], kind: type[Exception], message: str
) -> None:
    shutil.copytree(released[0], tmp_path / "damaged")
    damage(tmp_path / "damaged")
    with pytest.raises(kind, match=message):
        load(tmp_path / "damaged")


def test_the_loader_of_other_pipelines_names_this_one(released: tuple[Path, Tensor]) -> None:
    with pytest.raises(ValueError, match="read an UnCLIPPipeline by load_diffusers_unclip"):
        dl.load_diffusers_pipeline(released[0])


def test_what_diffusers_has_not_is_named(released: tuple[Path, Tensor], tmp_path: Path) -> None:
    model = load(released[0])

    def refused(message: str) -> None:
        with pytest.raises(ValueError, match=message):
            dl.save_diffusers_unclip(model, tmp_path / "refused")
        assert not (tmp_path / "refused").exists()

    model.prior.sampler.grid = dl.trailing
    refused("'timestep_spacing': 'trailing'")
    model.prior.sampler.grid = dl.linspace
    model.decoder.model.null_text = model.decoder.model.null_text + 1
    refused("the decoder has not the encoding of '' as its null 'text'")
    model.decoder.model.null_text = model.decoder.model.null_text - 1
    adapter = model.upsamplers[0].model
    adapter.model.highest_times = (300,)
    refused(r"times up to \[300\], but in diffusers there is one for the last step, 0")
    adapter.mode = "bilinear"
    refused("resizes with mode='bilinear'")
    model.prior.finish = dl.unit_norm
    refused("finish=unchanged")
    model.clip = torch.nn.Identity()
    refused("the clip is a Identity, but that of an UnCLIPPipeline is a UnCLIPTextEncoder")
