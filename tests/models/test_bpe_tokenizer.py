"""Merges learnt from texts: a tokenizer of transformers that loses nothing."""

import re
from collections import Counter

import pytest

import diffusion_labs as dl
from diffusion_labs.models.encoders.byte_tokenizer import END, PADDING, START, VOCABULARY

transformers = pytest.importorskip("transformers", reason="its tokenizers are built here")

CAPTIONS = ["red apple", "green apple", "a red heart", "pilot, dark skin tone", "piñata 猫", "", "red"]


def merged(texts: list[str], count: int) -> list[str]:
    """Byte-pair encoding written a second time, without ties to break: the most frequent pair, again and again."""
    words = Counter(f"Ġ{word}" for text in texts for word in text.split())
    parts = {word: list(word) for word in words}
    found = []
    for _ in range(count):
        pairs = Counter[tuple[str, str]]()
        for word, number in words.items():
            for pair in zip(parts[word], parts[word][1:], strict=False):
                pairs[pair] += number
        (best, _), (_, second) = pairs.most_common(2)
        assert pairs[best] > second, "a tie"
        found.append(" ".join(best))
        for word, split in parts.items():
            joined = re.sub(rf"(?<!\S){re.escape(' '.join(best))}(?!\S)", "".join(best), " ".join(split))
            parts[word] = joined.split()
    return found


def test_the_most_frequent_pair_is_joined_first() -> None:
    texts = ["b b b b b b", "cab cab cab", "ab cd", "ab"]
    assert dl.learn_merges(texts, 5) == merged(texts, 5)


@pytest.mark.parametrize("count", [0, 5, 1000])
def test_nothing_is_lost_but_case(count: int) -> None:
    merges = dl.learn_merges(CAPTIONS, count)
    tokenizer = dl.bpe_tokenizer(merges)
    assert len(merges) <= count
    assert len(tokenizer) == VOCABULARY + len(merges)
    for text in [*CAPTIONS, "unseen Ünseen 犬 -- 2"]:
        ids = tokenizer([text])["input_ids"][0]
        assert (ids[0], ids[-1]) == (START, END)
        assert tokenizer.decode(ids[1:-1]).lstrip() == text.lower()


def test_frequent_words_are_one_token_wherever_they_are() -> None:
    tokenizer = dl.bpe_tokenizer(dl.learn_merges(CAPTIONS, 1000))
    assert tokenizer.tokenize("red apple") == tokenizer.tokenize("apple red")[::-1] == ["Ġred", "Ġapple"]


def test_clip_reads_its_tokens() -> None:
    tokenizer = dl.bpe_tokenizer(dl.learn_merges(CAPTIONS, 20))
    clip = dl.small_clip(image_size=8, tokenizer=tokenizer, max_tokens=6)
    ids = clip.tokenize(["red", "a pilot that is far too long"])
    assert ids.shape == (2, 6)
    assert ids[0].tolist()[:1] == [START]
    assert ids[0].tolist()[-1] == PADDING
    assert ids[1, -1] == END
    assert clip.encode_text(["red"]).mask.all()


@pytest.mark.parametrize("merge", ["ab", "a b c", "Ġ re", "猫 a"])
def test_merges_that_cannot_be_are_refused(merge: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"merge {merge!r} is not two tokens")):
        dl.bpe_tokenizer(["Ġ r", merge])


def test_a_negative_count_is_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("count (-1)")):
        dl.learn_merges(CAPTIONS, -1)
