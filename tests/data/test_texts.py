"""Byte-level BPE, its rows of tokens, and text files."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import random
import subprocess
import sys
import unicodedata
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from falconet.data.texts import (
    _CHUNK,
    _RESERVED,
    FORM,
    TextEncoder,
    _flatten,
    _read_vocabulary,
    abridge_tokenizer,
    check_tokenizer,
    make_wordpiece,
    read_text_file,
    restore_tokenizer,
    train_tokenizer,
)
from falconet.errors import ConfigError, DataError, MissingExtraError

TEXTS = [
    *(f"please transfer {amount} euros to my account" for amount in range(200)),
    *(f"why was my card payment {amount} declined" for amount in range(200)),
    "[PAD][PAD] [MASK] " * 50,
    "Où est ma carte ? 我的卡在哪里 кде моя карта 😀",
]
TOKENIZER = train_tokenizer(TEXTS, 500)
ANY_TEXT = st.text(st.characters(codec="utf-8"), max_size=30)


def decode(tokens: Sequence[int]) -> str:
    """Return the text of a row of tokens, by way of the bytes that the vocabulary spells."""
    return str(TextEncoder(TOKENIZER, 1).loaded.decode(list(tokens), skip_special_tokens=False))


@settings(deadline=None)
@given(text=ANY_TEXT)
def test_tokens_hold_all_of_any_text(text: str) -> None:
    encoder = TextEncoder(TOKENIZER, 200)
    row = encoder.encode([text])[0]
    count = int(encoder.count_tokens([text])[0])
    assert (row[:count] > 1).all()
    assert not row[count:].any()
    assert decode(row[:count]) == unicodedata.normalize("NFC", text)


def test_every_byte_is_a_token() -> None:
    vocabulary = json.loads(train_tokenizer([], 258))["model"]["vocab"]
    assert len(vocabulary) == 258
    assert [name for name, index in vocabulary.items() if index < 2] == list(_RESERVED)


def test_names_of_reserved_tokens_in_texts_are_text() -> None:
    encoder = TextEncoder(TOKENIZER, 12)
    rows = encoder.encode(["[PAD]", "a[MASK]b", "[PAD] [MASK]"])
    counts = encoder.count_tokens(["[PAD]", "a[MASK]b", "[PAD] [MASK]"])
    for row, count in zip(rows, counts, strict=True):
        assert count > 1
        assert (row[:count] > 1).all()


def test_composed_and_decomposed_letters_are_the_same() -> None:
    rows = TextEncoder(TOKENIZER, 8).encode(["caf\u00e9", "cafe\u0301"])
    assert np.array_equal(rows[0], rows[1])


def test_rows_are_cut_and_padded() -> None:
    texts = ["please transfer 7 euros to my account", "why", ""]
    long, short = TextEncoder(TOKENIZER, 64).encode(texts), TextEncoder(TOKENIZER, 3).encode(texts)
    assert long.shape == (3, 64)
    assert np.array_equal(short, long[:, :3])
    assert TextEncoder(TOKENIZER, 3).count_tokens(texts).tolist() == np.count_nonzero(long, axis=1).tolist()
    assert not long[2].any()
    assert TextEncoder(TOKENIZER, 5).encode([]).shape == (0, 5)


def test_merges_shorten_what_is_frequent() -> None:
    encoder = TextEncoder(TOKENIZER, 8)
    assert encoder.count_tokens(["please transfer", "zqxj vvkkzw"]).tolist()[0] == 2
    assert encoder.vocab_size == 500


CLAUSES = [
    f"{who}\u559c\u6b22{what}\uff0c\u771f\u7684\u5f88\u597d\u3002"
    for who in ("\u6211", "\u4ed6\u4eec")
    for what in ("\u8fd9\u90e8\u7535\u5f71", "\u82f9\u679c")
]
"""Somebody likes something, it is really good: two clauses without a blank."""


@pytest.mark.parametrize(
    "text",
    [
        *CLAUSES,
        "\u5f88\u597d\u5f88\u597d\u5f88\u597d",
        "\u79c1\u306f\u6620\u753b\u304c\u597d\u304d\u3067\u3059",  # Japanese: kanji and hiragana.
        "\u30a2\u30a4\u30b9\u30af\u30ea\u30e0",  # Katakana.
    ],
)
def test_a_token_of_a_script_without_blanks_has_two_characters_at_most(text: str) -> None:
    # Far more tokens than the texts need: all that may be merged is.
    encoder = TextEncoder(train_tokenizer([*CLAUSES * 5, text] * 5, 4000), 200)
    parts = [text[begin:end] for begin, end in encoder.locate(text)]
    assert max(map(len, parts)) == 2
    assert "".join(parts) == text


def test_words_between_blanks_stay_whole() -> None:
    words = [" falconets", " \u0434\u043e\u043b\u0433\u043e\u0435"]
    encoder = TextEncoder(train_tokenizer(["\u6211\u559c\u6b22" + "".join(words)] * 9, 4000), 20)
    for word in words:
        assert [word[begin:end] for begin, end in encoder.locate(word)] == [word]


def test_batches_give_what_single_texts_give() -> None:
    texts = [f"please transfer {index}" for index in range(_CHUNK + 3)]
    encoder = TextEncoder(TOKENIZER, 6)
    rows = encoder.encode(texts)
    for index in (0, _CHUNK - 1, _CHUNK, _CHUNK + 2):
        assert np.array_equal(rows[index], encoder.encode([texts[index]])[0])


def test_equal_texts_give_equal_json_in_another_process() -> None:
    script = """if True:
        import hashlib, json, sys
        from falconet.data.texts import train_tokenizer
        print(hashlib.sha256(train_tokenizer(json.load(sys.stdin), 500).encode()).hexdigest())
    """
    # Another seed of Python's own hashes, and one thread instead of as many as there are cores.
    environment = {**os.environ, "PYTHONHASHSEED": "7", "TOKENIZERS_PARALLELISM": "false"}
    found = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps(TEXTS),
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    assert found.stdout.strip() == hashlib.sha256(TOKENIZER.encode()).hexdigest()
    assert train_tokenizer(TEXTS, 500) == TOKENIZER


def test_small_vocabulary_is_refused() -> None:
    with pytest.raises(ConfigError, match="vocab_size: wanted 258 or more, one for each byte, found 257"):
        train_tokenizer(TEXTS, 257)


@pytest.mark.parametrize("damage", ["", "{}", "null", TOKENIZER[:-20], TOKENIZER.replace('"BPE"', '"XYZ"')])
def test_damaged_tokenizer(damage: str) -> None:
    with pytest.raises(DataError, match="the tokenizer is damaged"):
        TextEncoder(damage, 4).encode(["text"])


def change(**parts: object) -> str:
    """Return the tokenizer with other parts."""
    return json.dumps({**json.loads(TOKENIZER), **parts})


def change_model(**parts: object) -> str:
    return change(model={**json.loads(TOKENIZER)["model"], **parts})


VOCABULARY = json.loads(TOKENIZER)["model"]["vocab"]
MERGES = json.loads(TOKENIZER)["model"]["merges"]
EMPTY_LOOP = {"type": "Replace", "pattern": {"String": ""}, "content": "ab"}


@pytest.mark.parametrize(
    "tokenizer",
    [
        change(padding={"strategy": {"Fixed": 10**9}, "direction": "Right", "pad_id": 0, "pad_token": "[PAD]"}),
        change(truncation={"max_length": 1, "strategy": "LongestFirst", "stride": 9}),
        change(normalizer={"type": "Sequence", "normalizers": [EMPTY_LOOP] * 40}),
        change(pre_tokenizer={"type": "Split", "pattern": {"Regex": "(a*)*b"}, "behavior": "Removed"}),
        change(post_processor={"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}),
        change(added_tokens=[{"id": 999, "content": "a", "special": False}]),
        change(something="else"),
        change_model(dropout=0.5),
        change_model(unk_token="[UNK]"),
        change_model(vocab={**VOCABULARY, "[CLS]": 0}),
        change_model(vocab={**VOCABULARY, "a": 10**9}),
        change_model(vocab={**VOCABULARY, "a": -1}),
        change_model(vocab=None),
        change_model(merges=MERGES[:-1]),
        change_model(merges=[*MERGES, ["qqq", "a"]]),
        change_model(merges=[*MERGES, ["[PAD]", "a"]]),
        change_model(merges=[*MERGES, [1, 2]]),
        change_model(merges={"a": "b"}),
        change_model(merges=5),
        "{" * 100_000,
        '{"model":' + "[" * 100_000,
        '{"model": ' + "9" * 5000 + "}",
    ],
)
def test_a_tokenizer_that_falconet_does_not_write_never_reaches_the_package(
    tokenizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokenizers.Tokenizer.from_str", lambda _: pytest.fail("it did"))
    for read in (abridge_tokenizer, restore_tokenizer, lambda text: TextEncoder(text, 4).encode(["text"])):
        with pytest.raises(DataError, match="tokenizer") as caught:
            read(tokenizer)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 300


def test_merges_that_double_are_refused_before_their_tokens_fill_memory() -> None:
    token, lines = "a", []
    for _ in range(24):
        lines.append(f"{token} {token}")
        token += token
        if len(token) > 1 << 12:
            break
    longer = [*lines, *[f"{token} {'a'}"] * 5000]
    with pytest.raises(DataError, match="at most 16777216 characters in all"):
        restore_tokenizer("\n".join(longer))
    assert len(json.loads(restore_tokenizer("\n".join(lines)))["model"]["merges"]) == len(lines)


def test_more_tokens_than_the_model_knows_are_refused() -> None:
    check_tokenizer(TOKENIZER, len(VOCABULARY))
    with pytest.raises(DataError, match=f"wanted at most the model's {len(VOCABULARY) - 1} tokens, found"):
        check_tokenizer(TOKENIZER, len(VOCABULARY) - 1)


def test_merges_as_earlier_versions_of_the_package_wrote_them_are_read() -> None:
    assert restore_tokenizer(change_model(merges=[" ".join(pair) for pair in MERGES])) == TOKENIZER


def test_what_a_tokenizer_is_compared_with_is_what_is_written() -> None:
    content = json.loads(TOKENIZER)
    content["model"] |= {"vocab": None, "merges": None}
    assert _flatten(content) == dict(FORM)


# WordPiece, which comes with published weights.

WORDS = [*_RESERVED, "[UNK]", "[CLS]", "[SEP]", *"abcd", "##b", "##cd", "##d", "ab", "e", "é", "!", "7", "##7"]
WORDPIECE = make_wordpiece(WORDS)


def spell(text: str, length: int = 16) -> list[str]:
    """Return the tokens of a text, by name."""
    row = TextEncoder(WORDPIECE, length).encode([text])[0]
    return [WORDS[number] for number in row if number]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("abcd", ["ab", "##cd"]),
        ("A  b\tCd", ["a", "b", "c", "##d"]),
        ("É!7!", ["e", "!", "7", "!"]),
        ("a77", ["a", "##7", "##7"]),
        ("abx ab", ["[UNK]", "ab"]),
        ("[SEP]", ["[UNK]", "[UNK]", "[UNK]"]),
        ("a" * 101 + " a", ["[UNK]", "a"]),
        ("", []),
    ],
)
def test_words_become_their_longest_parts(text: str, tokens: list[str]) -> None:
    assert spell(text) == ["[CLS]", *tokens, "[SEP]"]


def test_a_text_that_is_cut_keeps_its_end() -> None:
    assert spell("a b c d", 4) == ["[CLS]", "a", "b", "[SEP]"]
    assert spell("a b", 4) == ["[CLS]", "a", "b", "[SEP]"]
    encoder = TextEncoder(WORDPIECE, 4)
    assert encoder.count_tokens(["a b c d", ""]).tolist() == [6, 2]
    assert encoder.locate("a b c d") == [(0, 0), (0, 1), (2, 3), (0, 0)]
    assert encoder.locate("a") == [(0, 0), (0, 1), (0, 0)]


def test_tokens_suffice_to_make_a_wordpiece_anew() -> None:
    assert _read_vocabulary(WORDPIECE) == _read_vocabulary(abridge_tokenizer(WORDPIECE)) == WORDS
    assert restore_tokenizer(abridge_tokenizer(WORDPIECE)) == restore_tokenizer(WORDPIECE) == WORDPIECE
    assert _read_vocabulary(TOKENIZER) is None
    assert _read_vocabulary(abridge_tokenizer(TOKENIZER)) is None


def test_a_wordpiece_is_written_as_the_package_writes_it() -> None:
    written = json.loads(TextEncoder(WORDPIECE, 1).loaded.to_str())
    assert written == json.loads(WORDPIECE)


def change_wordpiece(**parts: object) -> str:
    return json.dumps({**json.loads(WORDPIECE), **parts})


def change_words(**parts: object) -> str:
    return change_wordpiece(model={**json.loads(WORDPIECE)["model"], **parts})


NUMBERED = json.loads(WORDPIECE)["model"]["vocab"]


@pytest.mark.parametrize(
    "tokenizer",
    [
        change_wordpiece(
            padding={"strategy": {"Fixed": 10**9}, "direction": "Right", "pad_id": 0, "pad_token": "[PAD]"}
        ),
        change_wordpiece(normalizer={"type": "Sequence", "normalizers": [EMPTY_LOOP] * 40}),
        change_wordpiece(normalizer=None),
        change_wordpiece(post_processor=None),
        change_wordpiece(added_tokens=[{"id": 9, "content": "a", "special": False}]),
        change_wordpiece(something="else"),
        change_words(max_input_chars_per_word=10**9),
        change_words(continuing_subword_prefix=""),
        change_words(vocab={**NUMBERED, "a": 10**9}),
        change_words(vocab={**NUMBERED, "a": 6}),
        change_words(vocab={name: number for name, number in NUMBERED.items() if name != "[SEP]"}),
        change_words(vocab={"a": 0, "b": 1}),
        change_words(vocab={**NUMBERED, "\ud800": len(WORDS)}),
        change_words(vocab={**NUMBERED, "a\nb": len(WORDS)}),
        change_words(vocab={**NUMBERED, "": len(WORDS)}),
        change_words(vocab=[]),
        change_words(vocab=7),
        change_words(vocab=None),
        "[PAD]\n",
        "[PAD]\n[MASK]\n[UNK]\n[CLS]\n",
        "\n".join([*WORDS, "a"]),
        "\n".join([*WORDS, "x" * (1 << 24)]),
        "\n".join([*WORDS[1:], "[PAD]"]),
    ],
)
def test_another_wordpiece_never_reaches_the_package(tokenizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenizers.Tokenizer.from_str", lambda _: pytest.fail("it did"))
    for read in (abridge_tokenizer, restore_tokenizer, lambda text: TextEncoder(text, 4).encode(["text"])):
        with pytest.raises(DataError, match="tokenizer") as caught:
            read(tokenizer)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 300


def test_a_wordpiece_of_more_tokens_than_the_model_knows_is_refused() -> None:
    check_tokenizer(WORDPIECE, len(WORDS))
    with pytest.raises(DataError, match=f"wanted at most the model's {len(WORDS) - 1} tokens, found {len(WORDS)}"):
        check_tokenizer(WORDPIECE, len(WORDS) - 1)


def test_lone_surrogates_are_refused() -> None:
    with pytest.raises(DataError, match="text 1: invalid Unicode at character 2"):
        TextEncoder(TOKENIZER, 4).encode(["fine", "ab\ud800"])
    with pytest.raises(DataError, match="text 0: invalid Unicode at character 0"):
        train_tokenizer(["\udfff"], 300)


def test_without_the_package_the_install_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'falconet\[text\]'"):
        train_tokenizer(TEXTS, 300)
    with pytest.raises(MissingExtraError, match=r"pip install 'falconet\[text\]'"):
        TextEncoder(TOKENIZER, 4).encode(["text"])


@settings(deadline=None)
@given(text=ANY_TEXT.filter(str.strip), encoding=st.sampled_from(["utf-8-sig", "utf-16"]))
def test_text_file_is_read_as_it_was_written(text: str, encoding: str) -> None:
    assert read_text_file(text.encode(encoding)) == text


def test_text_files_without_mark_and_in_big_endian() -> None:
    assert read_text_file("naïve 😀\r\n".encode()) == "naïve 😀\r\n"
    assert read_text_file(b"\xfe\xff" + "naïve".encode("utf-16-be")) == "naïve"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"na\xefve", "invalid UTF-8 at byte 2"),
        (b"\xef\xbb\xbfna\xefve", "invalid UTF-8 at byte 5"),
        (b"\xff\xfea\0\0\xd8b\0", "invalid UTF-16 at byte 4"),
        (b"\xff\xfea\0b", "invalid UTF-16 at byte 4"),
        (b"", "empty text"),
        (b" \r\n\t", "empty text"),
        (b"\xef\xbb\xbf", "empty text"),
    ],
)
def test_files_that_hold_no_text(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=f"^{message}$"):
        read_text_file(content)


@settings(deadline=None)
@example(["{:"], 259)  # Its only merge looks like the beginning of JSON.
@example(['{"a": 1}'] * 9, 300)
@given(st.lists(ANY_TEXT, max_size=8), st.integers(258, 400))
def test_merges_suffice_to_make_the_tokenizer_anew(texts: list[str], vocab_size: int) -> None:
    tokenizer = train_tokenizer(texts, vocab_size)
    abridged = abridge_tokenizer(tokenizer)
    assert restore_tokenizer(abridged) == tokenizer
    assert len(abridged) < len(tokenizer) / 2


@pytest.mark.parametrize("merges", ["a", "a b c", "a zz", "qq b", " ", "[1]", "a b\n", "[PAD] a"])
def test_merges_of_unknown_tokens_are_refused(merges: str) -> None:
    with pytest.raises(DataError, match="wanted two known tokens a line"):
        restore_tokenizer(merges)


def test_long_words_are_learned_from_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["abcd" * 250, "é" * 500, "7" * 1000, " " * 999, "short words too, isn't it?", "一二三四" * 80]
    whole = train_tokenizer(words * 3, 600)
    monkeypatch.setattr("falconet.data.texts.MAX_WORD", 50_000)
    assert train_tokenizer(words * 3, 600) == whole
    assert max(map(len, json.loads(whole)["model"]["vocab"])) == 1000
    monkeypatch.setattr("falconet.data.texts.MAX_WORD", 8)
    pieces = json.loads(train_tokenizer(words * 3, 600))
    assert max(len(token) for token in pieces["model"]["vocab"] if token not in _RESERVED) == 8
    assert pieces["pre_tokenizer"]["type"] == "ByteLevel"


@pytest.mark.parametrize(
    "word", ["ab" * 200_000, "".join(random.Random(0).choices("abcdef", k=200_000)), "漢" * 100_000]
)
def test_one_long_word_is_no_obstacle(word: str) -> None:
    encoder = TextEncoder(train_tokenizer([word, "some words", "more words"], 400), 8)
    assert encoder.loaded.decode(next(encoder.tokenize([word]))) == word
