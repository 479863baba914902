"""CLIP of transformers as two encoders: its own embeddings, its processor's pixels, and the end of a text."""

import re

import pytest
import torch
from PIL import Image

import diffusion_labs as dl
from tests.catalogue import randomise, tiny_clip

transformers = pytest.importorskip("transformers", reason="its CLIP is adapted here")

TEXTS = ["a cat", "", "two dögs", "a cat"]


def test_embeddings_and_similarities_are_those_of_the_model() -> None:
    clip, x = tiny_clip(), torch.rand(4, 1, 8, 8) * 2 - 1
    assert isinstance(clip, dl.CLIP)
    ids = clip.tokenize(TEXTS)
    embedding, hidden, mask = clip.encode_text(TEXTS)
    assert clip.embed_dim == 5 == embedding.shape[1]
    with torch.no_grad():
        expected = clip.model(input_ids=ids, pixel_values=x)  # mean and std are 0.5, so pixels are x
    torch.testing.assert_close(clip.encode_image(x), expected.image_embeds)
    torch.testing.assert_close(embedding, expected.text_embeds)
    torch.testing.assert_close(hidden, expected.text_model_output.last_hidden_state)
    assert mask.sum(1).tolist() == [7, 2, 11, 7]  # start, bytes, end
    for name, value in zip(clip.names, (hidden, mask, embedding), strict=True):
        assert torch.equal(clip(TEXTS)[name], value)


def test_the_encoding_of_a_text_does_not_depend_on_its_batch() -> None:
    clip = tiny_clip()
    batch = clip.encode_text(TEXTS)
    for i, text in enumerate(TEXTS):
        alone = clip.encode_text([text])
        n = alone.hidden.shape[1]
        assert alone.mask.all()
        assert batch.mask[i].tolist() == [True] * n + [False] * (11 - n)
        torch.testing.assert_close(batch.embedding[i], alone.embedding[0])
        torch.testing.assert_close(batch.hidden[i, :n], alone.hidden[0])


@pytest.mark.parametrize("end", [2, 9])
def test_padding_may_be_the_end_of_a_text(end: int) -> None:
    """As in OpenAI's models, whose old configurations name another number as the end, and mean the largest."""
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    ids = {"vocab_size": 10, "eos_token_id": end, "bos_token_id": 8, "pad_token_id": 1}
    config = transformers.CLIPConfig(
        text_config={**sizes, **ids, "max_position_embeddings": 6},
        vision_config={**sizes, "image_size": 4, "patch_size": 2},
        projection_dim=3,
    )
    clip = dl.TransformersCLIP(randomise(transformers.CLIPModel(config)))
    padded = clip.encode_text(torch.tensor([[8, 3, 9, 9, 9], [8, 3, 4, 5, 9]]))
    assert padded.mask.tolist() == [[True] * 3 + [False] * 2, [True] * 5]
    torch.testing.assert_close(padded.embedding[:1], clip.encode_text(torch.tensor([[8, 3, 9]])).embedding)
    with pytest.raises(ValueError, match="has no tokenizer"):
        clip.encode_text(["a cat"])


@pytest.mark.parametrize("size", [(30, 20), (17, 40), (16, 16), (16, 21)])
def test_pixels_are_those_of_pillow(size: tuple[int, int]) -> None:
    """Resized until the shorter side is 16, cut out of the middle, and normalised.

    Pillow rounds after each of its two passes; the values are such that it clamps nothing between them.
    """
    clip = dl.small_clip(image_size=16, in_channels=3)
    clip = dl.TransformersCLIP(clip.model)  # with the mean and standard deviation of OpenAI's
    x = torch.randint(80, 176, (3, *size), dtype=torch.uint8)
    image = Image.frombytes("RGB", size[::-1], x.permute(1, 2, 0).contiguous().numpy().tobytes())

    factor = 16 / min(size)
    height, width = (int(factor * side) for side in size)
    top, left = (height - 16) // 2, (width - 16) // 2
    small = image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + 16, top + 16))
    values = torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8).view(16, 16, 3).permute(2, 0, 1) / 255
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    actual = clip.pixels(x[None] / 127.5 - 1)[0]
    assert (actual - (values - mean) / std).abs().max() < 1.5 / 255 / 0.26


def test_grey_images_get_all_channels_and_others_are_refused() -> None:
    clip = dl.small_clip(image_size=8, in_channels=3)
    x = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(clip.encode_image(x), clip.encode_image(x.expand(-1, 3, -1, -1)))
    with pytest.raises(ValueError, match=r"shape \[2, 2, 8, 8\], but this CLIP takes \[b, c, h, w\] with 3 channels"):
        clip.encode_image(torch.rand(2, 2, 8, 8))
    with pytest.raises(ValueError, match=re.escape("must have a number for each of the model's 3 channels")):
        dl.TransformersCLIP(clip.model, mean=(0.5,), std=(0.5,))


def test_frozen_models_get_no_gradients_and_stay_in_eval_mode() -> None:
    for frozen in (True, False):
        clip = tiny_clip(frozen=frozen).train()
        assert clip.model.training != frozen
        assert clip.encode_image(torch.zeros(1, 1, 8, 8)).requires_grad != frozen


def test_a_folder_of_transformers_is_read(tmp_path) -> None:
    from tests.catalogue import pretrained_encoder

    clip = dl.small_clip(image_size=8, in_channels=3)
    clip.model.save_pretrained(tmp_path)
    pretrained_encoder("clip").tokenizer.save_pretrained(tmp_path)
    loaded = dl.TransformersCLIP.from_pretrained(tmp_path)
    x = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(loaded.encode_image(x), dl.TransformersCLIP(clip.model).encode_image(x))
    assert loaded.tokenize(["a cat"]).shape == (1, 4)


@pytest.mark.parametrize("size", [3, 4, 5, 6, 9])
def test_long_texts_are_cut_between_characters(size: int) -> None:
    row = dl.ByteTokenizer()(["aö猫b"], max_length=size)["input_ids"][0].tolist()
    assert len(row) <= size
    assert (row[0], row[-1]) == (256, 257)
    assert "aö猫b".startswith(bytes(row[1:-1]).decode())
