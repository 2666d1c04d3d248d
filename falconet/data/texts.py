"""Texts to tokens, by byte-level BPE, and text files to texts. Needs the extra `text` for tokens.

Byte-level BPE: R. Sennrich, B. Haddow, A. Birch, "Neural machine translation of rare words with subword units", ACL
2016; over bytes: A. Radford et al., "Language models are unsupervised multitask learners", 2019, section 2.2.
"""

from __future__ import annotations

import codecs
import importlib.util
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int64

from falconet.errors import ConfigError, DataError, MissingExtraError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

RESERVED = ("[PAD]", "[MASK]")
"""Names of the tokens 0 and 1, which no text ever becomes."""
SMALLEST_VOCABULARY = 256 + len(RESERVED)
LONGEST_WORD = 1000
"""Bytes up to which a word is learned from as one: to merge two tokens of a word moves all that follow."""
CHUNK = 4096
"""Texts that are encoded at a time: enough for all cores, and little memory."""


def train_tokenizer(texts: Sequence[str], vocab_size: int) -> str:
    """Learn a byte-level BPE from texts and return it as the JSON of the `tokenizers` package.

    Equal texts give equal JSON. Any text can be encoded, since every byte is a token; texts are brought to NFC first.
    Few texts may give fewer tokens than `vocab_size`. Words longer than LONGEST_WORD are learned from in pieces.
    Raises ConfigError for fewer than 258, DataError for texts that hold lone surrogates, MissingExtraError without the
    package.
    """
    check_tokenizers()
    if vocab_size < SMALLEST_VOCABULARY:
        raise ConfigError(f"vocab_size: wanted {SMALLEST_VOCABULARY} or more, one for each byte, found {vocab_size}")
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    # Behind it each byte is a character, none of them the end of a line.
    pieces = pre_tokenizers.Split(Regex(f".{{1,{LONGEST_WORD}}}"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, pieces])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(RESERVED),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    check_unicode(texts)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.pre_tokenizer = words
    content = json.loads(tokenizer.to_str())
    # As added tokens they would be looked for in users' texts.
    content["added_tokens"] = []
    return json.dumps(content, ensure_ascii=False)


def abridge_tokenizer(tokenizer: str) -> str:
    """Return the merges of a tokenizer that `train_tokenizer` made, one a line, from which all of it follows.

    A tokenizer of another form comes back as it is.
    """
    try:
        merges = json.loads(tokenizer)["model"]["merges"]
        abridged = "\n".join(" ".join(pair) for pair in merges)
        return abridged if restore_tokenizer(abridged) == tokenizer else tokenizer
    except (ValueError, KeyError, TypeError, DataError):
        return tokenizer


def restore_tokenizer(abridged: str) -> str:
    """Return the JSON of the tokenizer with these merges: each names two tokens, whose union is a new one.

    Raises DataError for a merge of tokens that are not there yet.
    """
    if not isinstance(abridged, str):
        raise DataError(f"tokenizer: wanted text, found {type(abridged).__name__}")
    if abridged.startswith("{"):
        return abridged
    content = json.loads(train_tokenizer((), SMALLEST_VOCABULARY))
    vocabulary, merges = content["model"]["vocab"], content["model"]["merges"]
    for line in abridged.splitlines() if abridged else ():
        pair = line.split(" ")
        if len(pair) != 2 or not vocabulary.keys() >= set(pair):
            raise DataError(f"tokenizer: wanted two known tokens a line, found {line!r}")
        merges.append(pair)
        vocabulary.setdefault("".join(pair), len(vocabulary))
    return json.dumps(content, ensure_ascii=False)


def check_tokenizers() -> None:
    if importlib.util.find_spec("tokenizers") is None:
        raise MissingExtraError("text", "turning texts into tokens")


def check_unicode(texts: Sequence[str]) -> None:
    """Raise DataError for a text that UTF-8 cannot hold."""
    for index, text in enumerate(texts):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"text {index}: invalid Unicode at character {error.start}") from error


@dataclass(frozen=True)
class TextEncoder:
    """Texts to rows of tokens, as a model takes them."""

    tokenizer: str
    """JSON, as `train_tokenizer` returns it."""
    length: int
    """Tokens of a row."""

    def encode(self, texts: Sequence[str]) -> Int64[np.ndarray, "texts length"]:
        """Return the tokens of each text, cut at `length` or followed by 0.

        Raises DataError for a damaged tokenizer or a text with lone surrogates, MissingExtraError without the package.
        """
        rows = np.zeros((len(texts), self.length), dtype=np.int64)
        for row, tokens in zip(rows, self.tokenize(texts), strict=True):
            kept = tokens[: self.length]
            row[: len(kept)] = kept
        return rows

    def count_tokens(self, texts: Sequence[str]) -> Int64[np.ndarray, " texts"]:
        """Return how many tokens each text has, before it is cut. Raises as `encode` does."""
        return np.fromiter(map(len, self.tokenize(texts)), dtype=np.int64, count=len(texts))

    def locate(self, text: str) -> list[tuple[int, int]]:
        """Return where each token of a text begins and ends in it, cut at `length`. Raises as `encode` does.

        Tokens that are parts of one character all cover it.
        """
        check_unicode([text])
        spans: list[tuple[int, int]] = self.loaded.encode(text).offsets[: self.length]
        return spans

    @property
    def vocab_size(self) -> int:
        """How many different tokens there are."""
        return self.loaded.get_vocab_size()

    def tokenize(self, texts: Sequence[str]) -> Iterator[list[int]]:
        """Yield all tokens of each text."""
        for begin in range(0, len(texts), CHUNK):
            chunk = texts[begin : begin + CHUNK]
            check_unicode(chunk)
            for encoding in self.loaded.encode_batch_fast(list(chunk)):
                yield encoding.ids

    @cached_property
    def loaded(self) -> Tokenizer:
        check_tokenizers()
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_str(self.tokenizer)
        except Exception as error:  # The package raises nothing narrower.
            raise DataError(f"the tokenizer is damaged: {error}") from error
        found = tuple(tokenizer.id_to_token(index) for index in range(len(RESERVED)))
        if found != RESERVED:
            raise DataError(f"the tokenizer is damaged: wanted {RESERVED} as its first tokens, found {found}")
        return tokenizer


def read_text_file(content: bytes) -> str:
    """Return a file's text: UTF-8 with or without a byte order mark, or UTF-16 with one.

    Raises DataError for anything else, and for a blank text.
    """
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        # Positions of the former count from behind the mark.
        mark = len(codecs.BOM_UTF8) if content.startswith(codecs.BOM_UTF8) else 0
        raise DataError(f"invalid {'UTF-16' if utf16 else 'UTF-8'} at byte {error.start + mark}") from error
    if not text.strip():
        raise DataError("empty text")
    return text
