"""IDX files: every name in use is found, every fault is one clear error, and pixels and labels are exact."""

import gzip
import struct
import tracemalloc

import pytest
import torch

from diffusion_labs.data import DataError, IDXImages, read_idx
from diffusion_labs.data.idx_images import fit_square


def idx_bytes(values: torch.Tensor) -> bytes:
    code, letter = {torch.uint8: (8, "B"), torch.int32: (12, "i")}[values.dtype]
    header = bytes([0, 0, code, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    return header + struct.pack(f">{values.numel()}{letter}", *values.flatten().tolist())


def write(path, content: bytes):
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def pixels(count=6, height=4, width=4):
    return torch.randint(0, 256, (count, height, width), generator=torch.Generator().manual_seed(count)).byte()


def write_pair(folder, stem, *, kind=".idx3-ubyte", labels_kind=None, labels=(0, 1, 2, 0, 1, 2), images=None):
    folder.mkdir(exist_ok=True)
    images = pixels(len(labels)) if images is None else images
    write(folder / f"{stem}-images{kind}", idx_bytes(images))
    labels_kind = labels_kind or kind.replace("idx3", "idx1")
    write(folder / f"{stem}-labels{labels_kind}", idx_bytes(torch.tensor(labels, dtype=torch.uint8)))
    return images


@pytest.mark.parametrize("name", ["a-idx3-ubyte", "a-idx3-ubyte.gz"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_round_trip(tmp_path, name, dtype):
    values = torch.tensor([[[0, 1, 255], [7, 8, 9]]], dtype=dtype)
    values = values * -70000 if dtype == torch.int32 else values
    read = read_idx(write(tmp_path / name, idx_bytes(values)))
    assert read.dtype == dtype
    assert torch.equal(read, values)


def test_gzip_is_told_by_content(tmp_path):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(gzip.compress(idx_bytes(pixels())))
    assert torch.equal(read_idx(path), pixels())


GOOD = idx_bytes(pixels())
FAULTS = {
    "empty": (b"", "only 0 bytes"),
    "half a magic number": (GOOD[:3], "only 3 bytes"),
    "other file": (b"\x89PNG" + GOOD, "not an IDX file"),
    "no dimensions": (b"\0\0\x08\0", "not an IDX file"),
    "float values": (b"\0\0\x0d\x03" + GOOD[4:], "type 0x0d"),
    "header cut": (GOOD[:9], "header is cut short"),
    "payload cut": (GOOD[:-1], "cut short"),
    "trailing byte": (GOOD + b"\0", "more bytes follow"),
    "no images": (idx_bytes(pixels()[:0]), "holds nothing"),
}


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_one_file(tmp_path, fault, suffix):
    content, message = FAULTS[fault]
    path = write(tmp_path / f"train-images-idx3-ubyte{suffix}", content)
    with pytest.raises(DataError, match=message) as error:
        read_idx(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_idx(tmp_path / "absent")
    with pytest.raises(DataError, match="cannot be read"):
        read_idx(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "flipped", "header"])
def test_damaged_gzip(tmp_path, damage):
    packed = bytearray(gzip.compress(idx_bytes(pixels(50, 28, 28))))
    if damage == "cut":
        del packed[len(packed) // 2 :]
    else:
        packed[len(packed) // 2 if damage == "flipped" else 2] ^= 0xFF
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(packed)
    with pytest.raises(DataError, match=r"cut short|corrupt") as error:
        read_idx(path)
    assert str(path) in str(error.value)


def test_bombs_are_refused_before_they_are_unpacked(tmp_path):
    claims = {
        "over the limit": struct.pack(">4B3I", 0, 0, 8, 3, 2**31, 2**16, 2**16),
        "more than the file can hold": struct.pack(">4B3I", 0, 0, 8, 3, 2**20, 32, 32),
        "more bytes follow": idx_bytes(pixels()) + bytes(64 * 2**20),
    }
    for message, content in claims.items():
        path = write(tmp_path / "train-images-idx3-ubyte.gz", content)
        tracemalloc.start()
        with pytest.raises(DataError, match=message):
            read_idx(path)
        assert tracemalloc.get_traced_memory()[1] < 2**21
        tracemalloc.stop()
    with pytest.raises(DataError, match="limit of 10"):
        read_idx(write(tmp_path / "small", idx_bytes(pixels())), max_bytes=10)


@pytest.mark.parametrize(
    ("split", "stem", "kind"),
    [
        ("train", "train", "-idx3-ubyte"),
        ("train", "train", "-idx3-ubyte.gz"),
        ("test", "t10k", "-idx3-ubyte.gz"),
        ("train", "train", ".idx3-ubyte"),
        ("test", "test", ".idx3-ubyte"),
        ("train", "emnist-letters-train", "-idx3-ubyte.gz"),
        ("test", "emnist-byclass-test", "-idx3-ubyte"),
        ("train", "qmnist-train", "-idx3-ubyte.gz"),
    ],
)
def test_names_in_use(tmp_path, split, stem, kind):
    images = write_pair(tmp_path, stem, kind=kind)
    dataset = IDXImages(tmp_path, split)
    assert torch.equal(dataset.images, images.unsqueeze(1))
    assert dataset.labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_qmnist_extended_labels(tmp_path):
    write_pair(tmp_path, "qmnist-train", kind="-idx3-ubyte.gz")
    (tmp_path / "qmnist-train-labels-idx1-ubyte.gz").unlink()
    extended = torch.tensor([[digit, 4, 900000, 1, 2, 3, 0, 0] for digit in (5, 0, 4, 1, 9, 2)], dtype=torch.int32)
    write(tmp_path / "qmnist-train-labels-idx2-int.gz", idx_bytes(extended))
    dataset = IDXImages(tmp_path, num_classes=10)
    assert dataset.labels.tolist() == [5, 0, 4, 1, 9, 2]


def test_plain_file_is_read_where_its_gzip_lies_beside_it(tmp_path):
    write_pair(tmp_path, "train", kind="-idx3-ubyte.gz", images=pixels() // 2)
    images = write_pair(tmp_path, "train", kind="-idx3-ubyte")
    assert torch.equal(IDXImages(tmp_path).images.squeeze(1), images)


def test_labels_from_one_are_numbered_from_zero_alike_in_both_splits(tmp_path):
    write_pair(tmp_path, "emnist-letters-train", labels=(1, 2, 3, 26))
    write_pair(tmp_path, "emnist-letters-test", labels=(26, 3))
    train, test = IDXImages(tmp_path), IDXImages(tmp_path, "test")
    assert train.class_names == test.class_names == ("1", "2", "3", "26")
    assert train.labels.tolist() == [0, 1, 2, 3]
    assert test.labels.tolist() == [3, 2]
    assert IDXImages(tmp_path, "test", num_classes=26).labels.tolist() == [25, 2]


def test_label_out_of_range(tmp_path):
    write_pair(tmp_path, "train", labels=(0, 1, 10))
    with pytest.raises(DataError, match=r"train-labels.idx1-ubyte, item 2: label 10 is out of range: the 10"):
        IDXImages(tmp_path, num_classes=10)


def test_counts_differ(tmp_path):
    write_pair(tmp_path, "train", labels=(0, 1, 2), images=pixels(4))
    with pytest.raises(DataError, match=r"4 images.*3 labels"):
        IDXImages(tmp_path)


def test_wrong_ranks(tmp_path):
    write_pair(tmp_path, "train", images=pixels(6).flatten(1))
    with pytest.raises(DataError, match=r"images must be bytes \[n, height, width\], got uint8 \[6, 16\]"):
        IDXImages(tmp_path)
    write(tmp_path / "train-images.idx3-ubyte", idx_bytes(pixels()))
    write(tmp_path / "train-labels.idx1-ubyte", idx_bytes(pixels()))
    with pytest.raises(DataError, match="labels must be bytes"):
        IDXImages(tmp_path)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        IDXImages(tmp_path / "absent")
    with pytest.raises(DataError, match=r"no train images such as train-images-idx3-ubyte\[.gz\]; it holds no IDX"):
        IDXImages(tmp_path)
    write_pair(tmp_path / "raw", "train")
    with pytest.raises(DataError, match=r"but .*raw does: give that folder"):
        IDXImages(tmp_path)
    with pytest.raises(DataError, match=r"no test images.*it holds train-images"):
        IDXImages(tmp_path / "raw", "test")
    (tmp_path / "raw" / "train-labels.idx1-ubyte").unlink()
    with pytest.raises(DataError, match="not the labels that belong to it; add train-labels-idx1-ubyte"):
        IDXImages(tmp_path / "raw")
    with pytest.raises(DataError, match="is a file"):
        IDXImages(tmp_path / "raw" / "train-images.idx3-ubyte")
    with pytest.raises(DataError, match="'train' or 'test'"):
        IDXImages(tmp_path, "valid")


def test_several_data_sets_are_listed_and_one_can_be_named(tmp_path):
    write_pair(tmp_path, "emnist-letters-train")
    digits = write_pair(tmp_path, "emnist-digits-train", images=pixels(6) // 2)
    with pytest.raises(DataError, match=r"several data sets.*emnist-digits-train-images.*emnist-letters-train-images"):
        IDXImages(tmp_path)
    assert torch.equal(IDXImages(tmp_path, name="emnist-digits").images.squeeze(1), digits)


def test_padding_centres_on_black(tmp_path):
    images = write_pair(tmp_path, "train", images=pixels(6, 28, 28))
    padded = IDXImages(tmp_path, size=32).images
    assert padded.shape == (6, 1, 32, 32)
    assert padded.dtype == torch.uint8
    assert torch.equal(padded[:, 0, 2:30, 2:30], images)
    assert padded.sum() == images.sum()
    with pytest.raises(DataError, match="size is 0"):
        IDXImages(tmp_path, size=0)


def test_shrinking_averages_areas():
    images = pixels(3, 8, 8).unsqueeze(1)
    expected = images.float().view(3, 1, 4, 2, 4, 2).mean((3, 5)).round().byte()
    assert torch.equal(fit_square(images, 4), expected)
    wide = fit_square(torch.full((1, 1, 4, 8), 200).byte(), 4)
    assert wide[0, 0, :, 0].tolist() == [0, 200, 200, 0]
