"""Captions made of the names of classes."""

import pytest

from diffusion_labs.data import Batches, DataError, Digits, TemplateCaptions

TEMPLATES = ["the digit {word}", "{name}", "{word}, handwritten"]


def test_each_sample_has_the_caption_of_its_class_by_the_template_of_its_place() -> None:
    digits = Digits("test")
    captioned = TemplateCaptions(digits, TEMPLATES, words={"3": "three"})
    assert (len(captioned), captioned.image_shape, captioned.class_names) == (
        len(digits),
        (1, 8, 8),
        digits.class_names,
    )
    for i in (0, 1, 2, 50, -1):
        name = digits.class_names[int(digits[i]["class"])]
        word = "three" if name == "3" else name
        place = i % len(digits) % 3
        assert captioned[i]["caption"] == [f"the digit {word}", name, f"{word}, handwritten"][place]
    batch = next(Batches(captioned, 16, seed=0))
    one_by_one = [captioned[i] for i in Batches(captioned, 16, seed=0).indices()]
    assert batch["caption"] == [sample["caption"] for sample in one_by_one]
    assert batch["class"].tolist() == [int(sample["class"]) for sample in one_by_one]


def test_what_makes_no_captions_is_named() -> None:
    for templates in (["a {digit}"], ["a {}"]):
        with pytest.raises(DataError, match=r"fields of templates are \{name\} and \{word\}"):
            TemplateCaptions(Digits(), templates)
    with pytest.raises(DataError, match="cannot be filled in"):
        TemplateCaptions(Digits(), ["a {"])
    with pytest.raises(DataError, match="must be a list"):
        TemplateCaptions(Digits(), "a {name}")
    with pytest.raises(DataError, match="there are 10 and 0"):
        TemplateCaptions(Digits(), [])
