"""Data sets side by side."""

import pytest
import torch

from diffusion_labs.data import Batches, DataError, Digits, JoinedDataset


def test_samples_and_batches_have_the_fields_of_all() -> None:
    digits = Digits()
    places = [{"place": i, "class": -i} for i in range(len(digits))]
    joined = JoinedDataset(digits, places)
    assert len(joined) == len(digits)
    assert torch.equal(joined[7]["x"], digits[7]["x"])
    assert (joined[7]["place"], joined[7]["class"]) == (7, -7)
    batch = next(Batches(joined, batch_size=5, seed=3))
    assert torch.equal(batch["x"], digits.images[batch["place"]])
    assert torch.equal(batch["class"], -batch["place"])


@pytest.mark.parametrize(("lengths", "message"), [((3, 4), r"\[3, 4\]"), ((), r"\[\]")])
def test_other_samples_are_refused(lengths: tuple[int, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        JoinedDataset(*([{"x": 0}] * length for length in lengths))
