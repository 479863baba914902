"""The embedded digits are scikit-learn's, and their split is fixed and balanced."""

import hashlib
from importlib.resources import files

import pytest
import torch

from diffusion_labs.data import DataError, Digits
from diffusion_labs.data.digits import read_digits


def test_arrays_equal_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets")
    images, labels = read_digits()
    reference = datasets.load_digits()
    assert torch.equal((images.squeeze(1).double() * 16 / 255).round(), torch.from_numpy(reference.images))
    assert torch.equal(labels, torch.from_numpy(reference.target).long())


def test_file_is_the_one_that_the_attribution_names():
    folder = files("diffusion_labs.data")
    digest = hashlib.sha256(folder.joinpath("digits.csv.gz").read_bytes()).hexdigest()
    text = folder.joinpath("digits.LICENSE.txt").read_text()
    for part in (digest, "Alpaydin", "Kaynak", "10.24432/C50P49", "CC BY 4.0"):
        assert part in text


def test_values_are_the_rounded_scale():
    expected = [round(value * 255 / 16) for value in range(17)]
    assert read_digits()[0].unique().tolist() == expected


def test_splits_are_balanced_disjoint_and_complete():
    train, test = Digits("train"), Digits("test")
    images, labels = read_digits()
    assert train.labels.bincount().tolist() == [150] * 10
    assert (len(train), len(test)) == (1500, 297)
    together = torch.cat([train.images, test.images]).flatten(1)
    assert sorted(together.tolist()) == sorted(images.flatten(1).tolist())
    assert (train.labels.bincount() + test.labels.bincount()).tolist() == labels.bincount().tolist()


def test_split_is_the_same_always():
    before = torch.get_rng_state()
    digest = hashlib.sha256(bytes(Digits("test").images.flatten().tolist())).hexdigest()
    assert digest == "d41202807451670608004299932f8d7da6d714363c802191d9a6d379021c4850"
    assert torch.equal(before, torch.get_rng_state())


def test_items_and_batches_agree():
    digits = Digits()
    batch = digits.__getitems__([3, 1, 3])
    assert batch["x"].dtype == torch.uint8
    assert batch["class"].dtype == torch.int64
    for position, index in enumerate([3, 1, 3]):
        assert torch.equal(batch["x"][position], digits[index]["x"])
        assert torch.equal(batch["class"][position], digits[index]["class"])
    assert digits.image_shape == (1, 8, 8)
    assert digits.num_classes == 10


def test_torch_data_loader():
    loader = torch.utils.data.DataLoader(Digits(), batch_size=500, collate_fn=dict)
    assert torch.equal(torch.cat([batch["x"] for batch in loader]), Digits().images)


def test_unknown_split():
    with pytest.raises(DataError, match=r"'validation'.*'train' and 'test'"):
        Digits("validation")
