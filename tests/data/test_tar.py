"""Tars of images: the same samples as in a folder, read in place, and every fault named."""

import io
import json
import pickle

import pytest
import torch
from PIL import Image

from diffusion_labs.data import Batches, DataError, ImageFolder, TarImages
from tests.data.tars import png, write_tar

COLOURS = {"a": (255, 0, 0), "b": (0, 255, 0), "c": (0, 0, 255)}


def captioned(names, folder=""):
    return {
        file: content
        for name in names
        for file, content in {
            f"{folder}{name}.png": png(COLOURS[name]),
            f"{folder}{name}.txt": f"a {name}\n",
            f"{folder}{name}.json": json.dumps({"category": name.upper(), "caption": "not this"}),
        }.items()
    }


def test_a_tar_holds_what_the_folder_of_its_files_holds(tmp_path):
    tar = write_tar(tmp_path / "shard.tar", captioned("abc"))
    (tmp_path / "folder").mkdir()
    lines = []
    for name, colour in COLOURS.items():
        (tmp_path / "folder" / f"{name}.png").write_bytes(png(colour))
        lines.append(json.dumps({"file_name": f"{name}.png", "caption": f"a {name}", "class": name.upper()}))
    (tmp_path / "folder" / "metadata.jsonl").write_text("\n".join(lines))

    inside, beside = TarImages(tar, 4, class_key="category"), ImageFolder(tmp_path / "folder", 4)
    assert inside.class_names == beside.class_names == ("A", "B", "C")
    one, other = inside.__getitems__([2, 0]), beside.__getitems__([2, 0])
    assert torch.equal(one["x"], other["x"])
    assert torch.equal(one["class"], other["class"])
    assert one["caption"] == other["caption"] == ["a c", "a a"]


def test_a_folder_of_tars_is_one_data_set(tmp_path):
    write_tar(tmp_path / "1.tar", captioned("c"))
    write_tar(tmp_path / "0.tar", captioned("ab"))
    dataset = TarImages(tmp_path, 4)
    assert dataset.captions == ["a a", "a b", "a c"]
    batch = next(Batches(dataset, 3))
    assert sorted(batch["caption"]) == dataset.captions
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[2]["x"], dataset[2]["x"])


def test_names_up_to_the_first_dot_of_the_file_make_a_sample(tmp_path):
    files = {"v1.0/a.png": png(COLOURS["a"]), "v1.0/a.seg.png": png(COLOURS["b"]), "v1.0/a.cls": "3", "v1.0/.x.png": ""}
    files |= {"v1.0/b.png": png(COLOURS["b"]), "v1.0/b.cls": "5", "note.txt": "no image"}
    dataset = TarImages(write_tar(tmp_path / "a.tar", files), 2, num_classes=6)
    assert len(dataset) == 2
    assert dataset[0]["x"].amax((1, 2)).tolist() == [255, 0, 0]
    assert [int(sample["class"]) for sample in dataset] == [3, 5]


@pytest.mark.parametrize("palette", [False, True])
def test_what_is_transparent_is_white(tmp_path, palette):
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (0, 0, 4, 2))
    file = io.BytesIO()
    (image.quantize(4) if palette else image).save(file, "png")
    x = TarImages(write_tar(tmp_path / "a.tar", {"a.png": file.getvalue()}), 4)[0]["x"]
    assert x[:, 0, 0].tolist() == [0, 0, 255]
    assert x[:, 3, 0].tolist() == [255, 255, 255]


def test_a_bad_image_is_named_or_skipped(tmp_path):
    tar = write_tar(tmp_path / "a.tar", {"a.png": b"no image", **captioned("b") | {"b.txt": ""}, "b.json": "{}"})
    with pytest.raises(DataError, match=r"a\.tar/a\.png: cannot be decoded"):
        TarImages(write_tar(tmp_path / "b" / "a.tar", {"a.png": b"no image", "b.png": png(COLOURS["b"])}), 4)[0]
    dataset = TarImages(tmp_path / "b", 4, on_error="skip")
    with pytest.warns(UserWarning, match="skipped 1 of 1"):
        assert dataset[0]["x"].amax((1, 2)).tolist() == [0, 255, 0]
    with pytest.raises(DataError, match=r"caption is '', but in .*a\.png it is None"):
        TarImages(tar, 4)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.txt": "alone"}, "holds no images"),
        ({"a.png": b"", "a.json": "{"}, r"a\.png: its .json is not JSON"),
        ({"a.png": b"", "a.json": "[]"}, "is not an object"),
        ({"a.png": b"", "a.cls": "cat"}, "its .cls is 'cat'"),
        ({"a.png": b"", "a.txt": b"\xff\xfe"}, r"a\.png: its .txt is not UTF-8"),
        ({"a.png": b"", "a.json": '{"class": 1.5}'}, "'class' is 1.5"),
        ({"a.png": b"", "b.png": b"", "a.txt": "late"}, "not side by side"),
        ({"a.png": b"", "a.cls": "1", "b.png": b""}, "class is None, but in"),
    ],
)
def test_faults_of_samples(tmp_path, files, message):
    with pytest.raises(DataError, match=message):
        TarImages(write_tar(tmp_path / "a.tar", files), 4)


def test_images_with_dots_in_their_names_are_told_of(tmp_path):
    """The name of a sample ends at the first dot, as WebDataset has it, where ``a.mask.png`` belongs to ``a.png``."""
    files = {
        "a.png": png(COLOURS["a"]),
        "a.mask.png": b"",
        "b.v1.png": b"",
        "c.v1.jpg": b"",
        "d.png": png(COLOURS["b"]),
    }
    with pytest.warns(UserWarning, match=r"passed over 2 samples .*such as b\.v1\.png") as warned:
        assert len(TarImages(write_tar(tmp_path / "a.tar", files), 4)) == 2
    assert len(warned) == 1


def test_faults_of_files(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        TarImages(tmp_path / "absent.tar", 4)
    with pytest.raises(DataError, match="holds no images"):
        TarImages(tmp_path, 4)
    with pytest.raises(DataError, match="decompress it"):
        TarImages(write_tar(tmp_path / "a.tar", captioned("a"), "w:gz"), 4)
    whole = write_tar(tmp_path / "whole.tar", captioned("ab")).read_bytes()
    for length in (100, 600, 1024, 1100, 4100):
        (tmp_path / "cut.tar").write_bytes(whole[:length])
        with pytest.raises(DataError, match="is no whole tar"):
            TarImages(tmp_path / "cut.tar", 4)
    with pytest.raises(DataError, match="size is 0"):
        TarImages(tmp_path / "whole.tar", 0)
