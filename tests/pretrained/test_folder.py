"""The own format: what a folder says, and what is refused."""

import functools
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import diffusion_labs as dl
from diffusion_labs import files, from_pretrained, save_pretrained
from diffusion_labs.files import sha256, whole_folder
from tests.catalogue import TinyNetwork, network, tiny_kl


def sampler(**options: Any) -> dl.DDIMSampler:
    schedule = dl.DiscreteGaussianSchedule(dl.linear_beta_schedule(100))
    model = dl.CFGuidance(network(), {"class": 0.1}, guidance_scale=2.0)
    given = {"eval_steps": 3, "progress_bar": False, **options}
    return dl.DDIMSampler(model, schedule, dl.VPredictor(schedule, clamp=dl.StaticClamp()), **given).eval()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_pretrained(sampler(), tmp_path / "saved")
    return tmp_path / "saved"


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def test_a_sample_is_the_same_to_the_bit_and_settings_are_those_of_now(tmp_path: Path) -> None:
    model = sampler()
    model.model.guidance_scale, model.eval_steps, model.grid = 3.5, 4, functools.partial(dl.karras, rho=5.0)
    save_pretrained(model.train(), tmp_path / "model")
    loaded = from_pretrained(tmp_path / "model")
    assert (loaded.training, loaded.model.guidance_scale, loaded.eval_steps) == (False, 3.5, 4)
    noise, inputs = torch.randn(2, 1, 8, 8), {"class": torch.tensor([0, 2])}
    expected = model.eval()(noise, conditional_inputs=inputs)
    assert torch.equal(loaded(noise, conditional_inputs=inputs), expected)


def test_what_parts_share_they_share_again(saved: Path) -> None:
    loaded = from_pretrained(saved)
    assert loaded.predictor.schedule is loaded.schedule
    config = json.loads((saved / "config.json").read_text())
    assert config["model"]["arguments"]["predictor"]["arguments"]["schedule"] == {"$same_as": "schedule"}


def test_a_learned_null_value_is_a_parameter_again(tmp_path: Path) -> None:
    null = nn.Parameter(torch.randn(1, 6))
    adapter = dl.CFGuidance(dl.ldm_unet(**SMALL), {"text": 0.1}, null={"text": null})
    save_pretrained(adapter, tmp_path / "model")
    loaded = from_pretrained(tmp_path / "model")
    assert isinstance(loaded.null_text, nn.Parameter)
    assert torch.equal(loaded.null_text, null)


class Doubled(dl.DDIMSampler):
    """A sampler of the caller's own."""

    def __init__(self, model, schedule, predictor, *, factor=2.0, **options) -> None:
        super().__init__(model, schedule, predictor, **options)
        self.factor = factor


def test_the_options_that_an_own_sampler_passes_on_are_those_of_its_base(tmp_path: Path) -> None:
    of = sampler()
    parts = of.model, of.schedule, of.predictor
    own = {"Doubled": Doubled}
    doubled = Doubled(*parts, factor=3.0, eval_steps=3, grid=dl.karras, progress_bar=False)
    save_pretrained(doubled, tmp_path / "saved", components=own)
    loaded = from_pretrained(tmp_path / "saved", components=own)
    assert isinstance(loaded, Doubled)
    assert (loaded.factor, loaded.eval_steps, loaded.grid, loaded.progress_bar) == (3.0, 3, dl.karras, False)


class Unnamed(nn.Module):
    """Arguments that nothing names."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options


def test_arguments_without_names_are_refused_when_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"takes \*\*options, which no base class names; name the arguments"):
        save_pretrained(Unnamed(width=3), tmp_path / "saved", components={"Unnamed": Unnamed})


SMALL = {
    "model_channels": 8,
    "channel_mult": (1,),
    "num_res_blocks": 1,
    "attention_levels": (0,),
    "num_heads": 2,
    "num_groups": 4,
    "tokens": {"text": 6},
}


def test_groups_of_conditions_and_their_scales(tmp_path: Path) -> None:
    """Dicts whose keys are tuples."""
    model = dl.adm_unet(model_channels=8, channel_mult=(1,), num_groups=4, vectors={"a": 2, "b": 3})
    groups = {("a", "b"): 0.1}
    save_pretrained(dl.CFGuidance(model, groups, guidance_scale={("a", "b"): 2.0, "b": 1.5}), tmp_path / "model")
    loaded = from_pretrained(tmp_path / "model")
    assert loaded.groups == ((("a", "b"), 0.1),)
    assert loaded.guidance_scale == {("a", "b"): 2.0, "b": 1.5}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_dtypes_are_kept(tmp_path: Path, dtype: torch.dtype) -> None:
    model = sampler().to(dtype)
    save_pretrained(model, tmp_path / "model")
    loaded = from_pretrained(tmp_path / "model")
    assert [p.dtype for p in loaded.parameters()] == [p.dtype for p in model.parameters()]
    assert loaded.schedule.betas.dtype == torch.float64
    noise = torch.randn(2, 1, 8, 8, dtype=dtype)
    assert torch.equal(loaded(noise), model(noise))


def test_mixed_dtypes_and_infinities_are_plain_data(tmp_path: Path) -> None:
    model = dl.adm_unet(model_channels=8, channel_mult=(1,), num_groups=4, dtype=torch.float16)
    save_pretrained(model, tmp_path / "model")
    loaded = from_pretrained(tmp_path / "model")
    assert loaded.construction == model.construction
    assert loaded.construction.arguments["dtype"] == torch.float16
    save_pretrained(dl.UniformLogSNR(), tmp_path / "density")
    assert from_pretrained(tmp_path / "density").log_snr_max == math.inf
    assert "Infinity" not in (tmp_path / "density" / "config.json").read_text()


def test_a_preset_and_grids_of_diffusers(tmp_path: Path) -> None:
    config = {"_class_name": "DPMSolverMultistepScheduler", "use_karras_sigmas": True}
    schedule, predictor, spacing = dl.from_diffusers_config(config)
    model = dl.DPMSolverPP2MSampler(TinyNetwork(), schedule, predictor, grid=spacing, eval_steps=5)
    own = {"TinyNetwork": TinyNetwork}
    save_pretrained(model, tmp_path / "model", components=own)
    assert torch.equal(from_pretrained(tmp_path / "model", components=own).times(), model.times())

    model.grid, model.eval_steps = dl.at_times([999, 500, 10]), 3
    save_pretrained(model, tmp_path / "model", components=own)
    assert from_pretrained(tmp_path / "model", components=own).times().tolist() == [999, 500, 10]


def test_several_files(tmp_path: Path) -> None:
    model = tiny_kl()
    save_pretrained(model, tmp_path / "model", max_file_size=4000)
    names = sorted(path.name for path in (tmp_path / "model").glob("*.safetensors"))
    assert len(names) > 2
    assert names[0] == f"model-00001-of-{len(names):05}.safetensors"
    loaded = from_pretrained(tmp_path / "model")
    x = torch.randn(1, 1, 8, 8)
    assert torch.equal(loaded.encode(x).mean, model.encode(x).mean)
    (tmp_path / "model" / names[1]).unlink()
    with pytest.raises(FileNotFoundError, match=names[1]):
        from_pretrained(tmp_path / "model")


def test_loading_leaves_the_random_numbers_alone(saved: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    from_pretrained(saved)
    assert torch.equal(torch.rand(2), expected)


def test_a_folder_is_whole_or_as_it_was(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in saved.iterdir()}

    def fail(*args: object, **options: object) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("diffusion_labs.pretrained.folder.save_file", fail)
        with pytest.raises(OSError, match="the disk is full"):
            save_pretrained(tiny_kl(), saved)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    assert [path.name for path in saved.parent.iterdir()] == ["saved"]
    save_pretrained(tiny_kl(), saved)
    assert isinstance(from_pretrained(saved), dl.AutoencoderKL)


def test_a_rename_that_fails_gives_the_old_folder_back(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename
    before = {path.name: path.read_bytes() for path in saved.iterdir()}

    def fail(self: Path, target: Path) -> Path:
        if ".tmp-" in self.name:
            raise OSError("no")
        return rename(self, target)

    monkeypatch.setattr(files, "_exchange", lambda left, right: False)
    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="no"), whole_folder(saved) as temporary:
        (temporary / "a").touch()
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_kill_at_any_moment_leaves_the_old_model_or_the_new(
    saved: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, exchanges: bool
) -> None:
    """Where a disk cannot exchange folders, the old one has another name for a moment, by which it is found."""
    (saved / "README.md").write_text("mine")
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    if not exchanges:
        monkeypatch.setattr(files, "_exchange", lambda left, right: False)
    moments = 0

    def kept(*_: object, **__: object) -> None:
        nonlocal moments
        moments += 1
        killed = tmp_path_factory.mktemp("killed") / "parent"
        shutil.copytree(saved.parent, killed)
        found = files.surviving_folder(killed / "saved")
        assert {path.name: path.read_bytes() for path in found.iterdir()} in (before, {"a": b""})
        if found.name != "saved":
            assert isinstance(from_pretrained(killed / "saved"), torch.nn.Module)
            with monkeypatch.context() as patch:
                patch.setattr(Path, "rename", rename)
                patch.setattr(files, "flush", lambda path: None)
                save_pretrained(tiny_kl(), killed / "saved")
            assert (killed / "saved" / "README.md").read_text() == "mine"
            assert not [path.name for path in killed.iterdir() if ".old-" in path.name]

    rename = Path.rename

    def watched(self: Path, target: Path) -> Path:
        kept()
        renamed = rename(self, target)
        kept()
        return renamed

    monkeypatch.setattr(Path, "rename", watched)
    with whole_folder(saved) as temporary:
        (temporary / "a").touch()
        monkeypatch.setattr(files, "flush", kept)
    assert moments >= (2 if exchanges else 6)
    assert [path.name for path in saved.parent.iterdir()] == ["saved"]


def test_other_files_are_not_lost(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"has \['notes.txt'\], which would be lost"):
        save_pretrained(tiny_kl(), tmp_path)
    (tmp_path / "notes.txt").rename(tmp_path / "config.json")
    with pytest.raises(FileExistsError, match=r"has \['config.json'\], which would be lost"):
        save_pretrained(tiny_kl(), tmp_path)
    with pytest.raises(FileExistsError, match="is a file"):
        save_pretrained(tiny_kl(), tmp_path / "config.json")


BIAS = "model.model.conv_in.bias"


def lacks_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def lacks_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def cut_config(folder: Path) -> None:
    (folder / "config.json").write_text((folder / "config.json").read_text()[:-20])


def of_diffusers(folder: Path) -> None:
    (folder / "config.json").write_text('{"_class_name": "UNet2DModel"}')


def newer(folder: Path) -> None:
    edit(folder, lambda config: config.update(format_version=2, written_by="diffusion-labs 9.0"))


def flipped_byte(folder: Path) -> None:
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-5] ^= 1
    (folder / "model.safetensors").write_bytes(content)


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    digest = sha256(folder / "model.safetensors")
    edit(folder, lambda config: config["files"].update({"model.safetensors": digest}))


def lacks_a_key(folder: Path) -> None:
    change_weights(folder, lambda tensors: tensors.pop("model.model.conv_in.weight"))


def has_another_key(folder: Path) -> None:
    change_weights(folder, lambda tensors: tensors.update(other=torch.zeros(1)))


def has_another_shape(folder: Path) -> None:
    change_weights(folder, lambda tensors: tensors.update({"model.model.conv_in.bias": torch.zeros(1)}))


def has_integers(folder: Path) -> None:
    change_weights(folder, lambda tensors: tensors.update({BIAS: tensors[BIAS].to(torch.int64)}))


def has_complex_numbers(folder: Path) -> None:
    change_weights(folder, lambda tensors: tensors.update({BIAS: tensors[BIAS].to(torch.complex64)}))


def has_8_bits(folder: Path) -> None:
    change_weights(folder, lambda tensors: tensors.update({BIAS: tensors[BIAS].to(torch.float8_e4m3fn)}))


def has_half_a_layer_in_half_precision(folder: Path) -> None:
    change_weights(folder, lambda tensors: tensors.update({BIAS: tensors[BIAS].half()}))


def is_nested_too_deep(folder: Path) -> None:
    def nest(config: dict[str, Any]) -> None:
        for _ in range(900):
            config["model"] = [config["model"]]

    edit(folder, nest)


def lacks_betas(folder: Path) -> None:
    change_weights(folder, lambda tensors: tensors.pop("argument:schedule.betas"))


def names_a_file_elsewhere(folder: Path) -> None:
    edit(folder, lambda config: config["files"].update({"../model.safetensors": "0"}))


def has_an_unknown_argument(folder: Path) -> None:
    edit(folder, lambda config: config["model"]["arguments"].update(speed=2))


def has_an_unknown_tag(folder: Path) -> None:
    edit(folder, lambda config: config["model"]["arguments"].update(grid={"$code": "1"}))


DAMAGE = {
    has_integers: (ValueError, rf"1 of another kind of number: \['{BIAS}'\]"),
    has_complex_numbers: (ValueError, rf"describes: 1 of another kind of number: \['{BIAS}'\]\. Parts"),
    has_8_bits: (ValueError, rf"describes: 1 of another kind of number: \['{BIAS}'\]\. Parts"),
    has_half_a_layer_in_half_precision: (ValueError, rf"of another type than .* of their layer: \['{BIAS}'\]"),
    is_nested_too_deep: (ValueError, "config.json is nested too deep"),
    lacks_config: (FileNotFoundError, "saved has no config.json; give a folder that save_pretrained wrote"),
    lacks_weights: (FileNotFoundError, "saved has no model.safetensors, which its config.json lists"),
    cut_config: (ValueError, "config.json is damaged"),
    of_diffusers: (ValueError, "config.json was not written by save_pretrained; for folders of diffusers"),
    newer: (ValueError, "has format_version 2, written by diffusion-labs 9.0.*update diffusion-labs"),
    flipped_byte: (ValueError, "model.safetensors is damaged, or of another model: its sha256"),
    lacks_a_key: (ValueError, r"not those of the DDIMSampler .* 1 missing: \['model.model.conv_in.weight'\]"),
    has_another_key: (ValueError, r"1 unexpected: \['other'\]"),
    has_another_shape: (ValueError, r"1 of another shape: \['model.model.conv_in.bias'\]"),
    lacks_betas: (ValueError, r"schedule.betas.* cannot be built: KeyError"),
    names_a_file_elsewhere: (ValueError, "config.json is damaged: it must have 'model', and 'files' named like"),
    has_an_unknown_argument: (ValueError, "'DDIMSampler' cannot be built: TypeError: .*speed"),
    has_an_unknown_tag: (ValueError, r"grid has \['\$code'\], which this version does not know"),
}


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_what_is_wrong_with_a_folder_is_said(saved: Path, damage: Callable[[Path], None]) -> None:
    kind, message = DAMAGE[damage]
    damage(saved)
    with pytest.raises(kind, match=message):
        from_pretrained(saved)


HOSTILE = [
    {"$type": "os.system", "arguments": {"command": "touch ran"}},
    {"$type": "builtins.eval", "arguments": {"source": "1"}},
    {"$type": "ImageFolder", "arguments": {"root": "/", "size": 8}},
    {"$type": "Objective", "arguments": {}},
    {"$type": "load_compvis_unet", "arguments": {"model": None, "weights": "x"}},
    {"$builder": "save_pretrained", "arguments": {"model": None, "folder": "x"}},
    {"$builder": "trailing", "arguments": {}},
    {"$type": ["DDIMSampler"], "arguments": {}},
    {"$function": "os.system"},
    {"$function": "builtins.exec"},
    {"$function": "save_image"},
    {"$function": "push_to_hub"},
    {"$function": "training.checkpoint.save_checkpoint"},
    {"$function": "interop.weight_files.read_weights"},
    {"$function": "samplers.sampler.torch.hub.load"},
    {"$function": "samplers.grids.partial"},
    {"$function": "samplers.sampler.pairwise"},
    {"$function": "samplers..grids.trailing"},
    {"$partial": {"$function": "os.system"}, "positional": ["touch ran"], "arguments": {}},
    {"$dtype": "load"},
]


@pytest.mark.parametrize("content", HOSTILE, ids=str)
def test_only_components_are_built(saved: Path, content: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(saved.parent)
    edit(saved, lambda config: config["model"]["arguments"].update(grid=content))
    with pytest.raises(ValueError, match=r"names .*, which is no (component|function)|is no dtype"):
        from_pretrained(saved)
    assert sorted(path.name for path in saved.parent.iterdir()) == ["saved"]


def test_own_components_are_given_by_name(tmp_path: Path) -> None:
    model = dl.EDMPreconditioning(TinyNetwork(), dl.EDMSchedule())
    with pytest.raises(ValueError, match=r"model is 'TinyNetwork' of tests.catalogue.*components=\{'TinyNetwork'"):
        save_pretrained(model, tmp_path / "model")
    assert not list(tmp_path.iterdir())
    save_pretrained(model, tmp_path / "model", components={"my network": TinyNetwork})
    with pytest.raises(ValueError, match=r"names 'my network', which is no component.*components=\{'my network'"):
        from_pretrained(tmp_path / "model")
    loaded = from_pretrained(tmp_path / "model", components={"my network": TinyNetwork})
    assert torch.equal(loaded.model.conv.weight, model.model.conv.weight)


class Forgetful(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()


def test_an_argument_that_is_not_kept_is_named(tmp_path: Path) -> None:
    message = "Forgetful does not keep its argument 'size'; store it as the attribute 'size', or write the method"
    with pytest.raises(ValueError, match=message):
        save_pretrained(Forgetful(3), tmp_path / "model", components={"Forgetful": Forgetful})


@pytest.mark.parametrize("wrap", [functools.partial(torch.compile, backend="eager"), nn.Sequential])
def test_wrappers_and_functions_without_names_are_refused(tmp_path: Path, wrap: Callable[..., nn.Module]) -> None:
    with pytest.raises(ValueError, match=r"take off wrappers such as DDP or torch\.compile"):
        save_pretrained(wrap(tiny_kl()), tmp_path / "model")
    with pytest.raises(ValueError, match="grid is '<lambda>'"):
        save_pretrained(sampler(grid=lambda schedule, steps: dl.trailing(schedule, steps)), tmp_path / "model")


def test_a_component_without_a_constructor_is_saved_where_another_package_has_wrapped_that_of_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nn.Module, "__init__", functools.wraps(nn.Module.__init__)(lambda *args: original(*args)))
    save_pretrained(dl.RandomDiffusionSteps(dl.CosineSchedule(), dl.UniformTime()), tmp_path / "saved")
    assert isinstance(from_pretrained(tmp_path / "saved").density, dl.UniformTime)


original = nn.Module.__init__
