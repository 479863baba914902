"""Text encoders of transformers, with random weights and a vocabulary of a few words; and encodings on disk."""

import copy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import diffusion_labs as dl
from tests.catalogue import pretrained_encoder, randomise, text_encoder
from tests.models.test_encoders import Noting

TEXTS = ["a cat", "", "the dog and the cat"]
MASKED = ["t5", "sentence"]


@pytest.mark.parametrize("name", ["clip", *MASKED])
def test_the_encoding_of_a_text_does_not_depend_on_its_batch(name: str) -> None:
    encoder = pretrained_encoder(name)
    batch = encoder(TEXTS)
    for i, text in enumerate(TEXTS):
        for key, alone in encoder([text]).items():
            of_batch = batch[key][i : i + 1]
            padding = of_batch[:, alone.shape[1] :]
            torch.testing.assert_close(of_batch[:, : alone.shape[1]], alone, rtol=1e-4, atol=1e-5)
            assert not padding.any()
    first, _, last = batch[encoder.names[0]]
    assert (first - last).abs().max() > 1e-3


def test_clip_gives_the_states_that_stable_diffusion_takes() -> None:
    """Of 9 positions, no mask; compared with the layers called one by one."""
    last = pretrained_encoder("clip", pooled_name="pooled")
    model, ids = last.model, last.tokenize(TEXTS)
    assert ids.shape == (3, 9)
    positions = torch.arange(9)
    h = model.embeddings.token_embedding(ids) + model.embeddings.position_embedding(positions)
    causal = torch.full((9, 9), -torch.inf).triu(1)
    states = [h]
    for layer in model.encoder.layers:
        normed = layer.layer_norm1(h)
        q, k, v = (
            part(normed).reshape(3, 9, 2, 8).transpose(1, 2)
            for part in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj)
        )
        attended = ((q @ k.transpose(2, 3) * 8**-0.5 + causal).softmax(-1) @ v).transpose(1, 2).flatten(2)
        h = h + layer.self_attn.out_proj(attended)
        inner = layer.mlp.fc1(layer.layer_norm2(h))
        h = h + layer.mlp.fc2(inner * torch.sigmoid(1.702 * inner))
        states.append(h)
    normalised = [model.final_layer_norm(state) for state in states]

    encoded = last(TEXTS)
    ends = (ids == model.config.eos_token_id).int().argmax(1)
    torch.testing.assert_close(encoded["text"], normalised[-1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(encoded["pooled"], normalised[-1][torch.arange(3), ends], rtol=1e-4, atol=1e-5)
    for choice, expected in ((dl.penultimate_states, states[-2]), (dl.normalised_penultimate_states, normalised[-2])):
        encoder = dl.CLIPTextEncoder(model, last.tokenizer, states=choice)
        assert set(encoder(TEXTS)) == {"text"}
        torch.testing.assert_close(encoder(TEXTS)["text"], expected, rtol=1e-4, atol=1e-5)


def test_a_projected_clip_gives_its_projected_pooled_output() -> None:
    from transformers import CLIPTextModelWithProjection

    plain = pretrained_encoder("clip", pooled_name="pooled")
    model = CLIPTextModelWithProjection(plain.model.config)
    model.text_model.load_state_dict(plain.model.state_dict())
    encoder = dl.CLIPTextEncoder(model, plain.tokenizer, states=dl.penultimate_states, pooled_name="pooled")
    projected = model.text_projection(plain(TEXTS)["pooled"])
    torch.testing.assert_close(encoder(TEXTS)["pooled"], projected, rtol=1e-4, atol=1e-5)


def test_encoders_of_one_name_are_joined_on_the_feature_axis() -> None:
    first, second = (
        pretrained_encoder("clip", states=dl.penultimate_states),
        pretrained_encoder("clip", pooled_name="p"),
    )
    encoder = dl.ConcatTextEncoder([first, second])
    assert encoder.names == ("text", "p")
    encoded = encoder(TEXTS)
    torch.testing.assert_close(encoded["text"], torch.cat([first(TEXTS)["text"], second(TEXTS)["text"]], dim=2))
    torch.testing.assert_close(encoded["p"], second(TEXTS)["p"])
    torch.testing.assert_close(encoder(encoder.tokenize(TEXTS)), encoded)
    torch.testing.assert_close(encoder(encoder.null()), encoder([""]))
    with pytest.raises(ValueError, match="only tokens without a mask can be joined on the feature axis"):
        dl.ConcatTextEncoder([text_encoder(), text_encoder()])
    with pytest.raises(ValueError, match=r"have \[9, 4\] tokens for these texts, but are joined token by token"):
        dl.ConcatTextEncoder([first, dl.ByteTextEncoder(8, name="bytes")]).tokenize(["cat"])
    with pytest.raises(ValueError, match="encoders is empty"):
        dl.ConcatTextEncoder([])


def test_a_sentence_is_the_mean_of_its_tokens_of_length_1() -> None:
    encoder = pretrained_encoder("sentence")
    for text, vector in zip(TEXTS, encoder(TEXTS)["sentence"], strict=True):
        states = encoder.model(input_ids=encoder.tokenize([text])).last_hidden_state[0]
        torch.testing.assert_close(vector, states.mean(0) / states.mean(0).norm(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["clip", *MASKED])
def test_a_frozen_encoder_stays_in_eval_mode_and_a_trained_one_learns(name: str) -> None:
    for frozen in (True, False):
        encoder = pretrained_encoder(name, frozen=frozen)
        system = nn.ModuleList([encoder]).train()
        assert system[0].model.training != frozen
        encoded = encoder.eval()(TEXTS)[encoder.names[0]]
        assert encoded.requires_grad != frozen
        if not frozen:
            encoded.square().sum().backward()
            assert encoder.model.get_input_embeddings().weight.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ["clip", *MASKED])
def test_loads_from_a_folder(name: str, tmp_path: Path) -> None:
    encoder = pretrained_encoder(name)
    encoder.model.save_pretrained(tmp_path / "text_encoder")
    encoder.tokenizer.save_pretrained(tmp_path / "tokenizer")
    folders = {"model_folder": "text_encoder", "tokenizer_folder": "tokenizer"}
    loaded = type(encoder).from_pretrained(tmp_path, **folders)
    torch.testing.assert_close(loaded(TEXTS), encoder(TEXTS))


def test_without_transformers_or_a_tokenizer_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = dl.CLIPTextEncoder(pretrained_encoder("clip").model)
    assert encoder(torch.zeros(1, 9, dtype=torch.long))["text"].shape == (1, 9, 16)
    with pytest.raises(ValueError, match="has no tokenizer"):
        encoder(TEXTS)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"diffusion-labs\[text\]"):
        dl.CLIPTextEncoder.from_pretrained("anywhere")


def test_texts_of_latent_diffusion_are_padded_and_cut_and_the_padding_is_attended_to(tmp_path: Path) -> None:
    tokenizer = pretrained_encoder("clip").tokenizer
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    sizes = {"width": 8, "depth": 1, "num_heads": 2, "head_dim": 3, "num_tokens": 9, "max_length": 5}
    encoder = randomise(dl.LDMTextEncoder.with_tokenizer(tmp_path, tokenizer_folder="tokenizer", **sizes))
    ids = encoder.tokenize(TEXTS)
    assert ids.tolist() == [[1, 3, 6, 8, 0], [1, 8, 0, 0, 0], [1, 4, 7, 5, 8]]
    encoded = encoder(TEXTS)["text"]
    assert torch.equal(encoded, encoder(ids)["text"])
    assert torch.equal(encoder(encoder.null())["text"], encoder([""])["text"])
    assert (encoder(ids[:1, :4])["text"] - encoded[:1, :4]).abs().max() > 1e-3
    with pytest.raises(ValueError, match=r"texts have 6 tokens.*positions for 5.*max_length=6"):
        encoder(torch.zeros(1, 6, dtype=torch.long))
    encoder.tokenizer = None
    with pytest.raises(ValueError, match="LDMTextEncoder has no tokenizer"):
        encoder(TEXTS)


# Encodings on disk


def byte_encoder() -> dl.TextEncoder:
    return text_encoder().requires_grad_(False)


ENCODERS: dict[str, Callable[[], dl.TextEncoder]] = {
    "bytes": byte_encoder,
    "clip": lambda: pretrained_encoder("clip", pooled_name="pooled"),
    "t5": lambda: pretrained_encoder("t5"),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_cached_encodings_are_those_of_the_encoder(name: str, tmp_path: Path) -> None:
    encoder = ENCODERS[name]()
    noting = Noting(encoder)
    cached = dl.CachedTextEncoder(encoder, tmp_path / "texts")
    cached.encoder = noting
    noting.tokenize = encoder.tokenize
    for texts in (TEXTS, TEXTS[::-1], TEXTS[:1], ["a dog", "a cat"]):
        torch.testing.assert_close(cached(texts), encoder(texts), rtol=1e-4, atol=1e-5)
    assert noting.calls == [TEXTS, ["a dog"]]
    again = dl.CachedTextEncoder(copy.deepcopy(encoder), tmp_path / "texts")
    again.encoder.encode = None  # would fail
    torch.testing.assert_close(again(["a dog", ""]), encoder(["a dog", ""]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: data[:-1] + b"?", lambda data: b""])
def test_a_damaged_file_is_made_again(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    encoder = byte_encoder()
    expected = dl.CachedTextEncoder(encoder, tmp_path)(["cat"])
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    torch.testing.assert_close(dl.CachedTextEncoder(encoder, tmp_path)(["cat"]), expected)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [whole]


def test_another_encoder_never_reads_the_files_of_one(tmp_path: Path) -> None:
    clip = pretrained_encoder("clip")
    others = [
        dl.CLIPTextEncoder(clip.model, clip.tokenizer, states=dl.penultimate_states),
        dl.CLIPTextEncoder(clip.model, clip.tokenizer, name="other"),
        copy.deepcopy(clip),
    ]
    with torch.no_grad():
        others[2].model.final_layer_norm.bias[0] += 1
    for count, encoder in enumerate([clip, *others], start=1):
        torch.testing.assert_close(dl.CachedTextEncoder(encoder, tmp_path)(["a cat"]), encoder(["a cat"]))
        assert len(list(tmp_path.iterdir())) == count


def test_an_encoder_that_is_trained_is_not_cached(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="freeze it"):
        dl.CachedTextEncoder(text_encoder(), tmp_path)


def test_a_conditioner_takes_a_cached_encoder(tmp_path: Path) -> None:
    encoder = byte_encoder()
    plain, cached = (dl.Conditioner({"caption": e}) for e in (encoder, dl.CachedTextEncoder(encoder, tmp_path)))
    given, x = {"caption": ["a", "bc", "a"]}, torch.randn(3, 1, 4, 4)
    torch.testing.assert_close(cached(given, x), plain(given, x))
