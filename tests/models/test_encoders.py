"""Encoders of conditions, and the conditioner that names them."""

import pytest
import torch
from torch import Tensor, nn

import diffusion_labs as dl
from diffusion_labs.models.encoders import byte_text_encoder
from tests.catalogue import randomise, text_encoder

X = torch.randn(3, 4, 8, 8)


class Noting(nn.Module):
    """Notes what an encoder is called with."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.null, self.names = encoder.null, encoder.names
        self.calls: list[object] = []

    def forward(self, value: object) -> dict[str, Tensor]:
        self.calls.append(value)
        return self.encoder(value)


def test_a_class_is_a_row_of_the_table_and_no_class_its_last() -> None:
    encoder = dl.ClassEmbedding(10, 4, name="digit")
    classes = torch.tensor([3, 0, 10])
    assert torch.equal(encoder(classes)["digit"], encoder.table.weight[classes][:, None])
    assert torch.equal(encoder(encoder.null())["digit"][0, 0], encoder.table.weight[10])


@pytest.mark.parametrize("text", ["", "a", "zwölf", "a much longer text", "猫と犬"])
def test_the_encoding_of_a_text_does_not_depend_on_its_batch(text: str) -> None:
    """So no token sees the padding, and the padding is zeros."""
    encoder = randomise(dl.ByteTextEncoder(16, depth=3, max_bytes=40)).eval()
    alone, batch = encoder([text]), encoder(["a text that is longer than the other", text])
    length = alone["text"].shape[1]
    torch.testing.assert_close(batch["text"][1, :length], alone["text"][0], rtol=1e-5, atol=1e-6)
    assert alone["text_mask"].all()
    assert batch["text_mask"][1].sum() == length == 1 + len(text.encode())
    assert not batch["text"][1, length:].any()


def test_every_byte_and_its_place_count() -> None:
    encoder = randomise(dl.ByteTextEncoder(16)).eval()
    encoded = encoder(["ab", "ba", "aa", "ab"])["text"]
    distances = torch.cdist(encoded.flatten(1), encoded.flatten(1))
    assert distances[0, 3] < 1e-4
    assert distances[:3, :3][~torch.eye(3, dtype=torch.bool)].min() > 0.1


def test_what_ends_at_a_byte_has_one_vector_wherever_it_stands() -> None:
    """Bytes and places do not count here: of equal endings of n bytes the vectors are equal, of others not."""
    endings = randomise(byte_text_encoder.NGramEmbedding(8, (2, 3), 4096))
    encoder = dl.ByteTextEncoder(8)
    cat, hat = (endings(encoder.tokenize([text]))[0] for text in ("a cat", "the hat"))
    both = endings(encoder.tokenize(["a cat", "the hat"]))
    torch.testing.assert_close(both[1], hat)
    torch.testing.assert_close(both[0, :6], cat)
    assert not cat[0].any()
    two = endings.tables["2"].weight[byte_text_encoder.hash_of(torch.tensor([[[ord("a"), ord("t")]]])) % 4096][0, 0]
    three = [row - two for row in (cat[-1], hat[-1])]
    rows = endings.tables["3"].weight
    for row, text in zip(three, ("cat", "hat"), strict=True):
        value = sum(ord(letter) * byte_text_encoder.BASE**j for j, letter in enumerate(reversed(text)))
        torch.testing.assert_close(row, rows[value % byte_text_encoder.PRIME % 4096])


def test_with_endings_the_encoding_does_not_depend_on_the_batch_either() -> None:
    encoder = randomise(dl.ByteTextEncoder(16, ngrams=(1, 2, 5), num_hashes=64)).eval()
    for text in ("", "a", "a cat"):
        alone, batch = encoder([text])["text"][0], encoder(["a longer text", text])["text"][1]
        torch.testing.assert_close(batch[: len(alone)], alone, rtol=1e-5, atol=1e-6)


def test_the_pooled_encoding_is_the_mean_over_the_bytes_of_a_text_alone() -> None:
    encoder = randomise(dl.ByteTextEncoder(16, ngrams=(2,), pooled_name="pooled_text")).eval()
    assert encoder.names == ("text", "text_mask", "pooled_text")
    texts = ["", "a cat", "a longer text"]
    pooled = encoder(texts)["pooled_text"]
    for text, row in zip(texts, pooled, strict=True):
        torch.testing.assert_close(row, encoder([text])["text"][0].mean(0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("ngrams", [(), (2,)])
def test_endings_tell_the_order_of_bytes_without_positions(ngrams: tuple[int, ...]) -> None:
    encoder = randomise(dl.ByteTextEncoder(16, ngrams=ngrams)).eval()
    nn.init.zeros_(encoder.positions)
    one, other = (encoder([text])["text"].mean(1) for text in ("abc", "cba"))
    assert (one - other).abs().max() < 1e-5 or ngrams
    assert (one - other).abs().max() > 1e-3 or not ngrams


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7])
def test_long_texts_are_cut_between_characters(size: int) -> None:
    text = "aö猫b"  # 1, 2, 3 and 1 bytes
    ids = dl.ByteTextEncoder(4, num_heads=1, max_bytes=size).tokenize([text])[0, 1:]
    kept = bytes(ids.tolist()).decode()
    assert text.startswith(kept)
    assert len(kept.encode()) <= size < len(text[: len(kept) + 1].encode()) or kept == text


def test_tokens_are_what_texts_are() -> None:
    encoder = text_encoder()
    texts = ["a", "cat"]
    from_ids, from_texts = encoder(encoder.tokenize(texts)), encoder(texts)
    assert torch.equal(from_ids["text"], from_texts["text"])
    assert torch.equal(encoder(encoder.null())["text"], encoder([""])["text"])


def test_a_single_text_and_too_many_tokens_are_named() -> None:
    with pytest.raises(ValueError, match=r"give \['cat'\]"):
        text_encoder()("cat")
    for texts in ("cat", []):
        with pytest.raises(ValueError, match="a batch of texts is needed"):
            dl.Conditioner({"caption": text_encoder()})({"caption": texts}, torch.zeros(3, 1))
    with pytest.raises(ValueError, match=r"14 tokens.*positions for 13.*max_bytes=13"):
        text_encoder()(torch.zeros(1, 14, dtype=torch.long))
    with pytest.raises(ValueError, match="max_bytes"):
        dl.ByteTextEncoder(4, max_bytes=0)


def test_each_distinct_text_is_encoded_once() -> None:
    encoder = Noting(text_encoder())
    texts = ["b", "a", "b", "", "a"]
    encoded = dl.encode_distinct(encoder, texts)
    assert encoder.calls == [["b", "a", ""]]
    expected = text_encoder()(texts)
    torch.testing.assert_close(encoded["text"], expected["text"])
    assert torch.equal(encoded["text_mask"], expected["text_mask"])


def test_a_byte_text_encoder_learns_what_a_text_says() -> None:
    """Whether a text has an x in it: nothing that the mean of its bytes, or its length, could tell alone."""
    generator = torch.Generator().manual_seed(0)
    letters = torch.randint(97, 119, (256, 12), generator=generator)
    wanted = torch.arange(256) % 2
    place = torch.randint(0, 12, (256,), generator=generator)
    letters[wanted == 1, place[wanted == 1]] = ord("x")
    texts = [bytes(row.tolist()).decode() for row in letters]

    encoder = dl.ByteTextEncoder(16, depth=1, max_bytes=12)
    head = nn.Linear(16, 2)
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], 1e-2)
    for _ in range(60):
        logits = head(encoder(texts[:192])["text"][:, 0])
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits, wanted[:192]).backward()
        optimizer.step()
    right = head(encoder(texts[192:])["text"][:, 0]).argmax(1) == wanted[192:]
    assert right.float().mean() > 0.9


def conditioner() -> dl.Conditioner:
    return dl.Conditioner({"class": dl.ClassEmbedding(10, 8), "caption": text_encoder()})


def test_conditions_are_encoded_under_the_names_of_the_network_and_others_pass() -> None:
    model, other = conditioner(), torch.randn(3, 2)
    given = {
        "caption": ["a", "b", "a"],
        "class": torch.tensor([1, 2, 3]),
        "negative_caption": ["c"] * 3,
        "other": other,
    }
    inputs = model(given, X)
    assert torch.equal(inputs["other"], other)
    for name, texts in (("text", ["a", "b", "a"]), ("negative_text", ["c"] * 3)):
        torch.testing.assert_close(inputs[name], model.encoders["caption"](texts)["text"])
        assert f"{name}_mask" in inputs
    assert torch.equal(inputs["class_token"][:, 0], model.encoders["class"].table.weight[1:4])
    assert set(given) == {"caption", "class", "negative_caption", "other"}


def test_what_is_absent_is_the_encoding_of_nothing() -> None:
    model = conditioner()
    inputs = model({"caption": ["a"] * 3}, X)
    nothing = model.encoders["caption"](["", "", ""])["text"]
    torch.testing.assert_close(inputs["negative_text"], nothing)
    for name in ("class_token", "negative_class_token"):
        assert torch.equal(inputs[name], model.encoders["class"].table.weight[10].expand(3, 1, 8))
    torch.testing.assert_close(model(None, X)["text"], nothing)


def test_only_the_absence_that_is_asked_for_is_encoded() -> None:
    encoders = dict(conditioner().encoders.items())
    model = dl.Conditioner(encoders, encoded_nulls=["class"])
    assert set(model({"caption": ["a"] * 3}, X)) == {"class_token", "negative_class_token", "text", "text_mask"}
    assert set(model({"negative_caption": [""] * 3}, X, ["negative_text"])) == {"negative_text", "negative_text_mask"}
    with pytest.raises(ValueError, match=r"encoded_nulls names \['size'\], but there are encoders for"):
        dl.Conditioner(encoders, encoded_nulls=["size"])


def test_nothing_is_added_that_the_network_does_not_take_or_that_is_there() -> None:
    model = conditioner()
    assert set(model({"caption": ["a"] * 3}, X, {"text", "text_mask"})) == {"text", "text_mask"}
    tokens = torch.randn(3, 2, 8)
    assert set(model({"text": tokens}, X, {"text", "text_mask"})) == {"text"}
    assert torch.equal(model({"text": tokens}, X)["text"], tokens)


def test_a_condition_that_is_given_twice_is_named() -> None:
    with pytest.raises(ValueError, match=r"\['text'\], but also what is encoded"):
        conditioner()({"caption": ["a"] * 3, "text": torch.randn(3, 2, 8)}, X)
