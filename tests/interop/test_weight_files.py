"""Files of weights: every kind is read, and none can run code."""

import json
import pickle
import sys
import types
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from diffusion_labs.interop.weight_files import read_diffusers_weights, read_weights

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b.bias": torch.tensor([1.0, -1.0])}


def assert_weights(tensors: dict[str, torch.Tensor]) -> None:
    assert tensors.keys() == WEIGHTS.keys()
    assert all(torch.equal(tensors[key], WEIGHTS[key]) for key in WEIGHTS)


class Hostile:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_does_not(tmp_path: Path, zipped: bool) -> None:
    target, file = tmp_path / "ran", tmp_path / "model.ckpt"
    torch.save({"state_dict": WEIGHTS, "x": Hostile(target)}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"model\.ckpt holds more than weights.*convert it to safetensors"):
        read_weights(file)
    assert not target.exists()
    torch.load(file, weights_only=False)
    assert target.exists()  # so the file was dangerous


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("nested", [True, False])
def test_checkpoints(tmp_path: Path, zipped: bool, nested: bool) -> None:
    file = tmp_path / "model.ckpt"
    content = {"state_dict": WEIGHTS, "global_step": 5} if nested else WEIGHTS
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    assert_weights(read_weights(file))


def test_classes_of_lightning_are_not_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its checkpoints have the classes of callbacks as keys."""
    module = types.ModuleType("pytorch_lightning.callbacks")
    callback = type("ModelCheckpoint", (), {"__module__": module.__name__})
    module.ModelCheckpoint = callback
    file = tmp_path / "model.ckpt"
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pytorch_lightning", types.ModuleType("pytorch_lightning"))
        patch.setitem(sys.modules, module.__name__, module)
        torch.save({"state_dict": WEIGHTS, "callbacks": {callback: {"best": 0.5}}}, file)
    assert_weights(read_weights(file))


@pytest.mark.parametrize("name", ["model.safetensors", "model.bin"])
def test_damaged_files_are_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(pickle.dumps([1, 2, 3], protocol=2)[:-3])
    with pytest.raises(ValueError, match=name):
        read_weights(tmp_path / name)


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, {"state_dict": {"a": "b"}}])
def test_files_without_weights_are_named(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "model.bin")
    with pytest.raises(ValueError, match=r"model\.bin has no dict of tensors"):
        read_weights(tmp_path / "model.bin")


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_weights(tmp_path / "model.bin")
    with pytest.raises(FileNotFoundError, match=r"has none of .*diffusion_pytorch_model\.fp16\.safetensors.*'fp16'"):
        read_diffusers_weights(tmp_path, "fp16")


def write_shards(folder: Path, kind: str, variant: str = "") -> Path:
    weight_map = {}
    for i, (key, value) in enumerate(WEIGHTS.items()):
        name = f"diffusion_pytorch_model{variant}-0000{i + 1}-of-00002.{kind}"
        weight_map[key] = name
        save_file({key: value}, folder / name) if kind == "safetensors" else torch.save({key: value}, folder / name)
    index = folder / f"diffusion_pytorch_model.{kind}.index{variant}.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return index


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
@pytest.mark.parametrize("variant", [None, "fp16"])
def test_folders_with_one_file_or_several(tmp_path: Path, kind: str, variant: str | None) -> None:
    between = f".{variant}" if variant else ""
    write_shards(tmp_path, kind, between)
    assert_weights(read_diffusers_weights(tmp_path, variant))
    for file in tmp_path.iterdir():
        file.unlink()
    whole = tmp_path / f"diffusion_pytorch_model{between}.{kind}"
    save_file(WEIGHTS, whole) if kind == "safetensors" else torch.save(WEIGHTS, whole)
    assert_weights(read_diffusers_weights(tmp_path, variant))


def test_an_index_leads_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    index = write_shards(tmp_path / "model", "safetensors")
    save_file(WEIGHTS, tmp_path / "outside.safetensors")
    content = json.loads(index.read_text())
    index.write_text(json.dumps({"weight_map": {**content["weight_map"], "a.weight": "../outside.safetensors"}}))
    with pytest.raises(ValueError, match=r"names '\.\./outside\.safetensors', which is no file beside it"):
        read_diffusers_weights(tmp_path / "model")
    index.write_text(json.dumps({"weight_map": {**content["weight_map"], "c": content["weight_map"]["b.bias"]}}))
    with pytest.raises(ValueError, match=r"lists \['c'\], which its files do not hold"):
        read_diffusers_weights(tmp_path / "model")
