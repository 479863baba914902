"""A saved place in the data is refused by other data, and by the same data nowhere."""

import json
import shutil

import pytest
import torch
from PIL import Image

from diffusion_labs.data import (
    Batches,
    DataError,
    EncodedDataset,
    ImageFolder,
    JoinedDataset,
    StreamBatches,
    TarImages,
    TarStream,
    TensorImages,
    encode_dataset,
)
from tests.data.tars import samples, write_tar


def folder(path):
    for index in range(6):
        place = path / "ab"[index % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (40 * index, 0, 0)).save(place / f"{index}.png")
    return lambda path: Batches(ImageFolder(path, 4), 2)


def tars(path):
    for index in range(3):
        write_tar(path / f"{index}.tar", samples(range(6 * index, 6 * index + 6)))
    return lambda path: StreamBatches(TarStream(path, 4), 2, buffer_size=2)


def listed_tars(path):
    tars(path)
    return lambda path: Batches(TarImages(path, 4), 2)


def encoded(path):
    encode_dataset([{"z": torch.tensor([float(i)])} for i in range(6)], dict, path, description={})
    return lambda path: Batches(JoinedDataset(EncodedDataset(path)), 2)


def one_renamed(path):
    file = min(file for file in path.rglob("*.*") if file.is_file() and not file.name.startswith("."))
    file.rename(file.with_name(f"other{file.suffix}"))


def one_larger(path):
    file = min(file for file in path.rglob("*.*") if file.suffix in (".png", ".tar"))
    file.write_bytes(file.read_bytes() + bytes(512))


def other_image(path):
    write_tar(path / "0.tar", samples(range(6)) | {"000.png": samples([1])["001.png"] + b" "})


def other_class(path):
    (path / "b").rename(path / "c")


@pytest.mark.parametrize(
    ("write", "change"),
    [
        (folder, one_renamed),
        (folder, one_larger),
        (folder, other_class),
        (tars, one_renamed),
        (tars, one_larger),
        (listed_tars, one_renamed),
        (listed_tars, other_image),
    ],
)
def test_other_data_of_as_many_samples_is_refused_and_a_copy_elsewhere_is_not(tmp_path, write, change):
    make = write(tmp_path / "here")
    batches = make(tmp_path / "here")
    next(batches)
    state = batches.state_dict()
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    make(tmp_path / "there").load_state_dict(state)
    change(tmp_path / "there")
    with pytest.raises(DataError, match="the data is not that of the saved run"):
        make(tmp_path / "there").load_state_dict(state)
    del state["data"]  # of a version before
    make(tmp_path / "there").load_state_dict(state)


def test_of_shards_the_hashes_and_of_tensors_some_values_tell(tmp_path):
    make = encoded(tmp_path / "here")
    state = make(tmp_path / "here").state_dict()
    index = json.loads((tmp_path / "here" / "index.json").read_text())
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    make(tmp_path / "there").load_state_dict(state)
    encode_dataset([{"z": torch.tensor([float(-i)])} for i in range(6)], dict, tmp_path / "other", description={})
    assert json.loads((tmp_path / "other" / "index.json").read_text())["shards"] != index["shards"]
    with pytest.raises(DataError, match="the data is not that"):
        make(tmp_path / "other").load_state_dict(state)
    images, labels = torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 0])
    state = Batches(TensorImages(images, labels, ["a", "b"]), 2).state_dict()
    for others in ((images + 1, labels), (images, 1 - labels)):
        with pytest.raises(DataError, match="the data is not that"):
            Batches(TensorImages(*others, ["a", "b"]), 2).load_state_dict(state)
