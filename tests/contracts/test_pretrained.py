"""Every component survives ``save_pretrained`` and ``from_pretrained``: the same state, the same outputs to the bit."""

from pathlib import Path

import pytest
import torch

from diffusion_labs import from_pretrained, save_pretrained
from tests import catalogue
from tests.contracts.test_modules import COMPONENTS, AtFixedTimes, Method, assert_same, run

# What is of the tests, and not of the library
OWN = {
    function_or_class.__name__: function_or_class
    for function_or_class in (
        catalogue.TinyNetwork,
        catalogue.TinyClassifier,
        catalogue.halve,
        catalogue.no_noise,
        AtFixedTimes,
        Method,
    )
}


# What trains a model is in the checkpoints of a run, and not in a model's folder
TRAINERS = ("objective-", "discriminator-", "loss-features")


@pytest.mark.parametrize("name", [name for name in COMPONENTS if not name.startswith(TRAINERS)])
def test_a_component_that_was_saved_is_the_same(name: str, tmp_path: Path) -> None:
    module, args = COMPONENTS[name]()
    save_pretrained(module, tmp_path / "first", components=OWN)
    loaded = from_pretrained(tmp_path / "first", components=OWN)
    assert type(loaded) is type(module)
    assert loaded.state_dict().keys() == module.state_dict().keys()
    for key, value in module.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)

    save_pretrained(loaded, tmp_path / "again", components=OWN)
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()
    loaded.train(module.training)
    assert_same(run(loaded, args), run(module, args), rtol=0, atol=0)


@pytest.mark.parametrize("name", [name for name in COMPONENTS if name.startswith(TRAINERS)])
def test_what_trains_a_model_says_that_it_is_not_saved(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"does not keep its argument|is not public in diffusion_labs"):
        save_pretrained(COMPONENTS[name]()[0], tmp_path / "first")
    assert not (tmp_path / "first").exists()
