"""Models through all formats: what comes back is what was sent, and what cannot be says so."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import diffusion_labs as dl
from diffusion_labs.cli import main
from diffusion_labs.interop.convert import AUTOENCODERS, PRESETS, detect_format
from diffusion_labs.interop.released_systems import SYSTEMS
from tests import catalogue
from tests.catalogue import randomise, tiny_kl, tiny_vq
from tests.interop.test_compvis_checkpoint import clip_text
from tests.interop.test_diffusers_pipeline import stable_diffusion as their_pipeline
from tests.interop.test_diffusers_pipeline import write_tokenizer
from tests.interop.test_unet_rules import assert_equal, build


def convert(*words: object) -> None:
    main(["convert", *map(str, words)])


def refuse(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    with pytest.raises(SystemExit) as stop:
        convert(*words)
    assert stop.value.code == 2
    return capsys.readouterr().err


MODELS = {
    "unet": lambda seed=0: build("stable_diffusion_1", seed),
    "kl": lambda seed=0: randomise(tiny_kl(), seed),
    "vq": lambda seed=0: randomise(tiny_vq(), seed),
}


@pytest.mark.parametrize("name", MODELS)
def test_networks_go_through_every_format_and_come_back(name: str, tmp_path: Path) -> None:
    model = MODELS[name]()
    dl.save_pretrained(model, tmp_path / "own")
    convert(tmp_path / "own", tmp_path / "diffusers", "--to", "diffusers")
    assert "_class_name" in json.loads((tmp_path / "diffusers" / "config.json").read_text())
    convert(tmp_path / "diffusers", tmp_path / "compvis.safetensors")
    dl.save_pretrained(MODELS[name](seed=3), tmp_path / "like")
    convert(tmp_path / "compvis.safetensors", tmp_path / "back", "--like", tmp_path / "like")
    assert_equal(dl.from_pretrained(tmp_path / "back").state_dict(), model.state_dict())


def test_a_transformer_goes_through_the_format_of_its_code(tmp_path: Path) -> None:
    def model(seed: int) -> dl.DiT:
        sizes = {"size": 8, "dim": 16, "depth": 2, "num_heads": 2, "classes": {"class": 5}, "learned_variance": True}
        return randomise(dl.dit(**sizes), seed)

    dl.save_pretrained(model(0), tmp_path / "own")
    convert(tmp_path / "own", tmp_path / "dit.safetensors")
    assert detect_format(load_file(tmp_path / "dit.safetensors")) == "dit"
    dl.save_pretrained(model(1), tmp_path / "like")
    convert(tmp_path / "dit.safetensors", tmp_path / "back", "--like", tmp_path / "like")
    assert_equal(dl.from_pretrained(tmp_path / "back").state_dict(), model(0).state_dict())


def test_networks_of_guided_diffusion_are_read_with_their_classes_and_without(tmp_path: Path) -> None:
    """Its table has no null class, which becomes a row of zeros; our own file of the same network has one."""
    expected = catalogue.network()
    with torch.no_grad():
        expected.embedding.classes["class_"].table.weight[-1] = 0
    dl.save_pretrained(catalogue.network(dropout=0.5), tmp_path / "like")
    for name, tensors in (("guided", dl.to_guided_diffusion(expected)), ("ours", dl.to_compvis_unet(expected))):
        save_file(tensors, tmp_path / f"{name}.safetensors")
        convert(tmp_path / f"{name}.safetensors", tmp_path / name, "--like", tmp_path / "like")
        assert_equal(dl.from_pretrained(tmp_path / name).state_dict(), expected.state_dict())
    classifier = catalogue.CLASSIFIERS["adm_classifier"]()
    dl.save_pretrained(classifier, tmp_path / "classifier")
    convert(tmp_path / "classifier", tmp_path / "classifier.safetensors")
    convert(tmp_path / "classifier.safetensors", tmp_path / "back", "--like", tmp_path / "classifier")
    assert_equal(dl.from_pretrained(tmp_path / "back").state_dict(), classifier.state_dict())


def test_networks_are_written_by_the_names_of_guided_diffusion_and_torchmultimodal(tmp_path: Path) -> None:
    """There and back; what comes back from guided-diffusion, which has no null class, has zeros for it."""
    network = catalogue.network()
    network.embedding.classes["class_"].table.weight.data[-1] = 0
    kl = tiny_kl()
    of_torchmultimodal = catalogue.network(time_shift=1, num_heads=1, classes=None, vectors={"clip_image": 5})
    for i, (model, to, expected) in enumerate(
        [
            (network, "guided-diffusion", dl.to_guided_diffusion(network)),
            (of_torchmultimodal, "torchmultimodal", dl.to_torchmultimodal_unet(of_torchmultimodal)),
            (kl, "torchmultimodal", dl.to_torchmultimodal_autoencoder(kl)),
        ]
    ):
        own, like, file, back = (tmp_path / f"{name} {i}" for name in ("own", "like", "file", "back"))
        dl.save_pretrained(model, own)
        dl.save_pretrained(randomise(dl.from_pretrained(own), seed=5), like)
        convert(own, file.with_suffix(".safetensors"), "--to", to)
        assert_equal(load_file(file.with_suffix(".safetensors")), expected)
        convert(file.with_suffix(".safetensors"), back, "--like", like)
        assert_equal(dl.from_pretrained(back).state_dict(), model.state_dict())


@pytest.mark.parametrize("name", ["kl", "vq"])
def test_the_use_of_latents_is_kept_with_an_autoencoder(name: str, tmp_path: Path) -> None:
    """No weight says it, and the network does not compute with it."""
    said = {"scaling_factor": 0.3611, "sample_size": 16, "force_upcast": False}
    said |= {"shift_factor": 0.1159, "latents_mean": [0.1, 0.2, 0.3]} if name == "kl" else {}
    dl.save_diffusers_autoencoder(MODELS[name](), tmp_path / "theirs", said)
    convert(tmp_path / "theirs", tmp_path / "own")
    convert(tmp_path / "own", tmp_path / "own again")
    convert(tmp_path / "own again", tmp_path / "back", "--to", "diffusers")
    for file in ("config.json", "diffusion_pytorch_model.safetensors"):
        assert (tmp_path / "back" / file).read_bytes() == (tmp_path / "theirs" / file).read_bytes()
    assert json.loads((tmp_path / "back" / "config.json").read_text()).items() >= said.items()
    system = dl.LatentDiffusion(dl.from_pretrained(tmp_path / "own"), catalogue.latent_diffusion().sampler)
    dl.save_pretrained(system, tmp_path / "system")
    part = dl.from_pretrained(tmp_path / "system").autoencoder
    dl.save_diffusers_autoencoder(part, tmp_path / "of the system", {"scaling_factor": 0.5})
    written = json.loads((tmp_path / "of the system" / "config.json").read_text())
    assert written.items() >= {**said, "scaling_factor": 0.5}.items()


def test_a_pipeline_goes_through_every_format_and_comes_back(tmp_path: Path) -> None:
    """All of its numbers, and what it says about their use."""
    their_pipeline(write_tokenizer(tmp_path / "words")).save_pretrained(tmp_path / "theirs")
    convert(tmp_path / "theirs", tmp_path / "own")
    convert(tmp_path / "own", tmp_path / "diffusers", "--to", "diffusers")
    model = dl.from_pretrained(tmp_path / "own")
    again = dl.load_diffusers_pipeline(tmp_path / "diffusers")
    assert_equal(again.state_dict(), model.state_dict())
    assert model.conditioner.encoders["caption"].tokenize(["a cat"]).tolist() == (
        again.conditioner.encoders["caption"].tokenize(["a cat"]).tolist()
    )

    for version in (1, 2):
        convert(tmp_path / "own", tmp_path / "compvis.safetensors", "--version", version)
        like = dl.from_pretrained(tmp_path / "own")
        like.scale.scale.fill_(7.0)
        dl.save_pretrained(randomise(like, seed=9), tmp_path / f"like {version}")
        convert(tmp_path / "compvis.safetensors", tmp_path / f"back {version}", "--like", tmp_path / f"like {version}")
        assert_equal(dl.from_pretrained(tmp_path / f"back {version}").state_dict(), model.state_dict())


def test_a_system_computes_the_same_to_the_bit_after_it_was_saved(tmp_path: Path) -> None:
    their_pipeline(write_tokenizer(tmp_path / "words")).save_pretrained(tmp_path / "theirs")
    model = dl.load_diffusers_pipeline(tmp_path / "theirs", eval_steps=3)
    dl.save_pretrained(model, tmp_path / "own")
    loaded = dl.from_pretrained(tmp_path / "own")
    noise, inputs = torch.randn(2, 4, 8, 8), {"caption": ["a cat", "two dogs"]}
    with torch.no_grad():
        assert torch.equal(loaded(noise, conditional_inputs=inputs), model(noise, conditional_inputs=inputs))


def test_averages_are_taken_if_asked_for(tmp_path: Path) -> None:
    average = dl.to_compvis_unet(build("stable_diffusion_1", seed=1))
    tensors = dl.to_compvis_checkpoint(unet=build("stable_diffusion_1"), autoencoder=tiny_kl())
    tensors |= {f"model_ema.{f'diffusion_model.{key}'.replace('.', '')}": value for key, value in average.items()}
    torch.save({"state_dict": tensors}, tmp_path / "model.ckpt")
    dl.save_pretrained(build("stable_diffusion_1", seed=5), tmp_path / "like")
    for flag, seed in (("--averaged", 1), ("--no-averaged", 0)):
        convert(tmp_path / "model.ckpt", tmp_path / "own", "--like", tmp_path / "like", flag)
        expected = build("stable_diffusion_1", seed).state_dict()
        assert_equal(dl.from_pretrained(tmp_path / "own").state_dict(), expected)


def test_formats_are_found_by_their_keys() -> None:
    unet, autoencoder = build("stable_diffusion_1"), tiny_kl()
    assert detect_format(dl.to_compvis_checkpoint(unet=unet, autoencoder=autoencoder)) == "compvis"
    assert detect_format(dl.to_compvis_unet(unet)) == "compvis_unet"
    assert detect_format(dl.to_compvis_autoencoder(autoencoder)) == "compvis_autoencoder"
    assert detect_format(dl.to_diffusers_unet(unet)) == "diffusers_unet"
    with pytest.raises(ValueError, match=r"keys like \['a', 'b'\] are of no format that is known here"):
        detect_format(["b", "a"])


def test_a_preset_gives_the_sizes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those of the smallest of the autoencoders, which is large enough for a second."""
    save_file(dl.to_compvis_autoencoder(dl.vq_f4_noattn()), tmp_path / "vq.safetensors")
    convert(tmp_path / "vq.safetensors", tmp_path / "own", "--preset", "vq_f4_noattn")
    converted = dl.to_compvis_autoencoder(dl.from_pretrained(tmp_path / "own"))
    assert_equal(converted, load_file(tmp_path / "vq.safetensors"))
    printed = refuse(capsys, tmp_path / "vq.safetensors", tmp_path / "other", "--preset", "kl_f4")
    assert "the weights are not those of this AutoencoderKL" in printed
    assert set(AUTOENCODERS) < set(PRESETS)


# As the model cards and diffusers count them
PARAMETERS = {
    "stable_diffusion_1": (859_520_964, 83_653_863, 123_060_480),
    "stable_diffusion_1_inpainting": (859_535_364, 83_653_863, 123_060_480),
    "stable_diffusion_2": (865_910_724, 83_653_863, 340_387_840),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_released_systems_have_the_sizes_of_their_checkpoints(name: str) -> None:
    with torch.device("meta"):
        system = SYSTEMS[name]()
    parts = (system.sampler.model, system.autoencoder, system.conditioner)
    assert tuple(sum(parameter.numel() for parameter in part.parameters()) for part in parts) == PARAMETERS[name]


def test_every_released_latent_network_but_xl_has_a_system() -> None:
    assert SYSTEMS.keys() == dl.LDM_UNETS.keys() - {"stable_diffusion_xl"}


def test_what_cannot_be_converted_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dl.save_pretrained(tiny_kl(), tmp_path / "own")
    save_file(dl.to_compvis_autoencoder(tiny_kl()), tmp_path / "kl.safetensors")
    save_file(dl.to_diffusers_unet(build("stable_diffusion_1")), tmp_path / "unet.safetensors")
    dl.save_pretrained(dl.CosineSchedule(), tmp_path / "schedule")
    whole = {f"{place}.weight": torch.zeros(1) for place in ("model.diffusion_model", "first_stage_model")}
    save_file(whole, tmp_path / "whole.safetensors")
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.ckpt").write_text("no weights")
    out = tmp_path / "out"
    for words, message in (
        ([tmp_path / "nowhere", out], "there is no file or folder"),
        ([tmp_path / "empty", out], "is no folder of ours, and none of a pipeline, U-Net, Transformer or autoencoder"),
        (
            [tmp_path / "kl.safetensors", out],
            "which does not hold its sizes; give either",
        ),
        ([tmp_path / "kl.safetensors", out, "--preset", "kl_f5"], "unknown preset 'kl_f5'; did you mean"),
        (
            [tmp_path / "whole.safetensors", out, "--preset", "stable_diffusion_xl"],
            "a whole checkpoint of stable_diffusion_xl is not read",
        ),
        ([tmp_path / "own", out, "--preset", "kl_f4"], "a folder holds its own; leave them out"),
        ([tmp_path / "unet.safetensors", out], "is a diffusers_unet without its config.json; give the folder"),
        ([tmp_path / "schedule", out, "--to", "diffusers"], "a CosineSchedule is nothing that diffusers has"),
        ([tmp_path / "schedule", tmp_path / "out.safetensors"], "a CosineSchedule is nothing that CompVis has"),
        ([tmp_path / "own", out, "--to", "torchmultimodal"], "writes a file that ends in .safetensors, but DST is"),
        ([tmp_path / "own", tmp_path / "out.safetensors", "--to", "diffusers"], "--to diffusers writes a folder, but"),
        (
            [tmp_path / "own", tmp_path / "out.safetensors", "--to", "guided-diffusion"],
            "AutoencoderKL is nothing that guided-diffusion has",
        ),
        ([tmp_path / "notes.ckpt", out, "--preset", "kl_f4"], "holds more than weights, or is damaged"),
        ([tmp_path / "kl.safetensors", out, "--like", tmp_path / "schedule"], "is nothing that files of CompVis has"),
    ):
        assert message in refuse(capsys, *words), words
        assert not out.exists()


def test_a_model_of_transformers_that_is_not_known_is_refused(tmp_path: Path) -> None:
    encoder = dl.CLIPTextEncoder(clip_text())
    dl.save_pretrained(encoder, tmp_path / "encoder")
    config = json.loads((tmp_path / "encoder" / "config.json").read_text())
    for change, message in (
        ({"$transformers": "AutoModel"}, "names the model 'AutoModel' of transformers, which is not known here"),
        ({"config": {"attn_implementation": "some/kernel"}}, r"names \['attn_implementation'\] for CLIPTextModel"),
        ({"config": {"auto_map": {}}}, r"names \['auto_map'\] for CLIPTextModel"),
    ):
        described = {**config["model"]["arguments"]["model"], **change}
        changed = {**config["model"], "arguments": {**config["model"]["arguments"], "model": described}}
        (tmp_path / "encoder" / "config.json").write_text(json.dumps({**config, "model": changed}))
        with pytest.raises(ValueError, match=message):
            dl.from_pretrained(tmp_path / "encoder")
    tokenizer = {**config["model"]["arguments"], "tokenizer": {"$tokenizer": "../elsewhere"}}
    changed = {**config["model"], "arguments": tokenizer}
    (tmp_path / "encoder" / "config.json").write_text(json.dumps({**config, "model": changed}))
    with pytest.raises(ValueError, match="is no folder of a tokenizer"):
        dl.from_pretrained(tmp_path / "encoder")
