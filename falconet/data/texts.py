"""Texts to tokens, by byte-level BPE or WordPiece, and text files to texts. Needs the extra `text` for tokens.

Byte-level BPE, which is learned from a data set: R. Sennrich, B. Haddow, A. Birch, "Neural machine translation of rare
words with subword units", ACL 2016; over bytes: A. Radford et al., "Language models are unsupervised multitask
learners", 2019, section 2.2. WordPiece, which comes with published weights: Y. Wu et al., "Google's neural machine
translation system", 2016, section 4.1; uncased and with the tokens [CLS] and [SEP] around a text: J. Devlin et al.,
"BERT: pre-training of deep bidirectional transformers for language understanding", NAACL 2019.
"""

from __future__ import annotations

import codecs
import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int64

from falconet.errors import ConfigError, DataError, MissingExtraError, abridge

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_RESERVED = ("[PAD]", "[MASK]")
"""Names of the tokens 0 and 1, which no text contains."""
_MIN_VOCABULARY = 256 + len(_RESERVED)
MAX_WORD = 1000
"""Most bytes of a word that is learned from as a whole: merging two tokens of a word moves all that follow."""
_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}]{1,2}"
"""Pattern of a word for training in scripts without blanks, where most words have one or two characters.

A clause would be one word otherwise, and in a small data set one token, of which no other text has any part.
"""
_CHUNK = 4096
"""Texts that are encoded at a time: enough for all cores, in little memory."""


def train_tokenizer(texts: Sequence[str], vocab_size: int) -> str:
    """Learn a byte-level BPE from texts and return it as the JSON of the `tokenizers` package.

    Equal texts give equal JSON. Any text can be encoded, since every byte is a token; texts are brought to NFC first.
    Few texts may give fewer tokens than `vocab_size`. Words longer than MAX_WORD are learned from in pieces, so are
    clauses in scripts without blanks: a token has two characters of these at most.
    Raises ConfigError for fewer than 258, DataError for texts that hold lone surrogates, MissingExtraError without the
    package.
    """
    _check_tokenizers()
    if vocab_size < _MIN_VOCABULARY:
        raise ConfigError(f"vocab_size: wanted {_MIN_VOCABULARY} or more, one for each byte, found {vocab_size}")
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    # After it each byte is a character, none of them the end of a line.
    pieces = pre_tokenizers.Split(Regex(f".{{1,{MAX_WORD}}}"), "isolated")
    # No merge learned from whole characters joins the end of one with the beginning of another, so that texts that are
    # encoded need not be cut.
    characters = pre_tokenizers.Split(Regex(_UNSPACED), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([characters, words, pieces])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(_RESERVED),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    _check_unicode(texts)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.pre_tokenizer = words
    content = json.loads(tokenizer.to_str())
    # As added tokens they would be looked for in users' texts.
    content["added_tokens"] = []
    return json.dumps(content, ensure_ascii=False)


_WORDPIECE, _UNKNOWN, _BEGINNING, _END = "WordPiece", "[UNK]", "[CLS]", "[SEP]"


def make_wordpiece(vocabulary: Sequence[str]) -> str:
    """Return the WordPiece tokenizer with these tokens, in the order of their numbers, as `train_tokenizer` does a BPE.

    A text is brought to lower case, freed of accents, cut into words and signs, and each of these into the longest
    tokens from its beginning on, or else [UNK]; those that go on within a word begin with ##. [CLS] comes before, [SEP]
    after it all.
    Raises DataError unless the first two tokens are the reserved ones, those named here are there, and none is twice.
    """
    _check_vocabulary(vocabulary)
    sides = {name: {"SpecialToken": {"id": name, "type_id": 0}} for name in (_BEGINNING, _END)}
    numbers = {name: {"id": name, "ids": [vocabulary.index(name)], "tokens": [name]} for name in sides}
    sequence = [sides[_BEGINNING], {"Sequence": {"id": "A", "type_id": 0}}, sides[_END]]
    content: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": sequence,
            "pair": [*sequence, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": numbers,
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": _WORDPIECE,
            "unk_token": _UNKNOWN,
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {token: number for number, token in enumerate(vocabulary)},
        },
    }
    return json.dumps(content, ensure_ascii=False)


_MAX_TOKENS = 1 << 24


def _check_vocabulary(vocabulary: Sequence[Any]) -> None:
    """Raise DataError unless tokens make a WordPiece tokenizer, in few characters, one a line."""
    if tuple(vocabulary[: len(_RESERVED)]) != _RESERVED:
        raise DataError(f"tokenizer: wanted {' and '.join(_RESERVED)} as its first tokens, found others")
    for token in vocabulary:
        if not isinstance(token, str) or not token or "\n" in token or not token.isprintable():
            raise DataError(f"tokenizer: wanted tokens of visible characters, found {abridge(token)}")
    if len(set(vocabulary)) != len(vocabulary) or sum(map(len, vocabulary)) > _MAX_TOKENS:
        raise DataError(f"tokenizer: wanted a vocabulary of at most {_MAX_TOKENS} characters in all, found others")
    for token in (_UNKNOWN, _BEGINNING, _END):
        if token not in vocabulary:
            raise DataError(f"tokenizer: wanted the token {token}, found none")


def _read_vocabulary(tokenizer: object) -> list[str] | None:
    """Return the tokens of a WordPiece tokenizer, as JSON or one a line; None for any other text.

    As of a BPE, nothing else of it is ever used. Raises DataError for a WordPiece that `make_wordpiece` does not make.
    """
    if not isinstance(tokenizer, str):
        return None
    if tokenizer.startswith(f"{_RESERVED[0]}\n"):
        vocabulary = tokenizer.split("\n")
        _check_vocabulary(vocabulary)
        return vocabulary
    try:
        content = json.loads(tokenizer) if _is_json(tokenizer) else {}
        if content["model"]["type"] != _WORDPIECE:
            return None
        vocabulary = list(content["model"]["vocab"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None  # Whoever reads merges says what is wrong.
    if content != json.loads(make_wordpiece(vocabulary)):
        raise DataError("the tokenizer is damaged: wanted the uncased WordPiece of BERT, found another")
    return vocabulary


def abridge_tokenizer(tokenizer: str) -> str:
    """Return the merges of a BPE that `train_tokenizer` made, or the tokens of a WordPiece, one a line.

    All of a tokenizer follows from them. Raises DataError for one of another form.
    """
    vocabulary = _read_vocabulary(tokenizer)
    if vocabulary is not None:
        return "\n".join(vocabulary)
    return "\n".join(" ".join(pair) for pair in _read_merges(tokenizer))


def restore_tokenizer(abridged: str) -> str:
    """Return the JSON of the tokenizer with these tokens, or merges: each names two tokens, whose union is a new one.

    The first line of tokens is [PAD], which is in no merge. Raises DataError for a merge of tokens that are not there
    yet, and for a tokenizer of another form than `train_tokenizer` and `make_wordpiece` make.
    """
    vocabulary = _read_vocabulary(abridged)
    if vocabulary is not None:
        return make_wordpiece(vocabulary)
    merges = _read_merges(abridged)
    content = json.loads(train_tokenizer((), _MIN_VOCABULARY))
    content["model"]["vocab"] = _unite(merges)
    content["model"]["merges"] = [list(pair) for pair in merges]
    return json.dumps(content, ensure_ascii=False)


def check_tokenizer(tokenizer: str, vocab_size: int) -> None:
    """Raise DataError unless a tokenizer is one that is made here, with at most so many tokens."""
    _check_json(tokenizer)
    vocabulary = _read_vocabulary(tokenizer)
    found = len(_unite(_read_merges(tokenizer)) if vocabulary is None else vocabulary)
    if found > vocab_size:
        raise DataError(f"tokenizer: wanted at most the model's {vocab_size} tokens, found {found}")


def _check_json(tokenizer: str) -> None:
    """Raise DataError for text that is no JSON object."""
    if not _is_json(tokenizer):
        raise DataError("the tokenizer is damaged: wanted a JSON object")


def _is_json(tokenizer: str) -> bool:
    """Whether a tokenizer is written as JSON: merges begin with one of two bytes, of which the first may be a brace."""
    return tokenizer.startswith("{") and not tokenizer.startswith("{ ")


FORM: Mapping[str, Any] = MappingProxyType(
    {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer.type": "NFC",
        "pre_tokenizer.type": "ByteLevel",
        "pre_tokenizer.add_prefix_space": False,
        "pre_tokenizer.trim_offsets": True,
        "pre_tokenizer.use_regex": True,
        "post_processor": None,
        "decoder.type": "ByteLevel",
        "decoder.add_prefix_space": True,
        "decoder.trim_offsets": True,
        "decoder.use_regex": True,
        "model.type": "BPE",
        "model.dropout": None,
        "model.unk_token": None,
        "model.continuing_subword_prefix": None,
        "model.end_of_word_suffix": None,
        "model.fuse_unk": False,
        "model.byte_fallback": False,
        "model.ignore_merges": False,
        "model.vocab": None,
        "model.merges": None,
    }
)
"""Settings that `train_tokenizer` writes besides tokens and merges; a file may lack some, but not have other values."""


def _read_merges(tokenizer: str) -> list[tuple[str, str]]:
    """Return the merges of a tokenizer, as JSON or one a line, by which everything else of it is settled.

    What is no merge is compared with what `train_tokenizer` writes and never used: the `tokenizers` package trusts its
    files, which may ask it for any memory and time. Raises DataError.
    """
    if not isinstance(tokenizer, str):
        raise DataError(f"tokenizer: wanted text, found {type(tokenizer).__name__}")
    if not _is_json(tokenizer):
        lines = [tuple(line.split(" ")) for line in tokenizer.split("\n")] if tokenizer else []
        return _check_merges(lines)
    try:
        content = json.loads(tokenizer)
        found = dict(content, model={**content["model"], "vocab": None, "merges": None})
        vocabulary, lines = content["model"]["vocab"], content["model"]["merges"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"the tokenizer is damaged: {_shorten(error)}") from error
    # Earlier versions of the package wrote "a b" for ["a", "b"].
    pairs = [tuple(line.split(" ") if isinstance(line, str) else line) for line in _check_list(lines)]
    merges = _check_merges(pairs)
    if vocabulary != _unite(merges):
        raise DataError("the tokenizer is damaged: its tokens are not those that its merges make")
    strange = [key for key, value in _flatten(found).items() if value != FORM.get(key)]
    if strange:
        raise DataError(f"the tokenizer is damaged: wanted the byte-level BPE that falconet learns, found {strange[0]}")
    return merges


def _check_list(lines: Any) -> list[Any]:
    """Return a list of texts and lists. Raises DataError for anything else."""
    if not isinstance(lines, list) or not all(isinstance(line, str | list) for line in lines):
        raise DataError("the tokenizer is damaged: wanted a list of merges")
    return lines


def _check_merges(pairs: Sequence[tuple[Any, ...]]) -> list[tuple[str, str]]:
    """Return pairs of texts. Raises DataError for anything else."""
    for pair in pairs:
        if len(pair) != 2 or not all(isinstance(token, str) for token in pair):
            raise DataError(f"tokenizer: wanted two known tokens a line, found {' '.join(map(str, pair))[:60]!r}")
    return [(first, second) for first, second in pairs]


def _unite(merges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Return all tokens with their numbers: reserved ones, bytes, and what each merge makes of two that are there.

    Raises DataError for a merge of others, and for tokens that are too long together, as those of forty doublings are.
    """
    vocabulary = {token: number for number, token in enumerate((*_RESERVED, *_byte_tokens()))}
    known, length = vocabulary.keys() - set(_RESERVED), 0
    for first, second in merges:
        if first not in known or second not in known:
            raise DataError(f"tokenizer: wanted two known tokens a line, found {f'{first} {second}'[:60]!r}")
        length += len(first) + len(second)
        if length > _MAX_TOKENS:
            raise DataError(f"tokenizer: wanted tokens of at most {_MAX_TOKENS} characters in all, found more")
        vocabulary.setdefault(first + second, len(vocabulary))
        known.add(first + second)
    return vocabulary


@cache
def _byte_tokens() -> tuple[str, ...]:
    """Return the characters that stand for the 256 bytes, in order: visible ones themselves, others from 256 on."""
    visible = {*range(33, 127), *range(161, 173), *range(174, 256)}
    return tuple(map(chr, (*sorted(visible), *range(256, 256 + 256 - len(visible)))))


def _flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one, with keys such as `model.type`; at most two deep."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        deeper = isinstance(value, dict) and not prefix
        flat |= _flatten(value, f"{key}.") if deeper else {f"{prefix}{key}": value}
    return flat


def _shorten(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def _check_tokenizers() -> None:
    if importlib.util.find_spec("tokenizers") is None:
        raise MissingExtraError("text", "turning texts into tokens")


def _check_unicode(texts: Sequence[str]) -> None:
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
    """JSON of the tokenizer, as `train_tokenizer` and `make_wordpiece` return it."""
    length: int
    """Tokens of a row, after cutting or padding."""

    def encode(self, texts: Sequence[str]) -> Int64[np.ndarray, "texts length"]:
        """Return the tokens of each text, cut at `length` or followed by 0; a cut one keeps the token of a text's end.

        Raises DataError for a damaged tokenizer or a text with lone surrogates, MissingExtraError without the package.
        """
        rows = np.zeros((len(texts), self.length), dtype=np.int64)
        for row, tokens in zip(rows, self.tokenize(texts), strict=True):
            kept = tokens[: self.length]
            row[: len(kept)] = kept
            if self.end is not None:
                row[len(kept) - 1] = self.end
        return rows

    def count_tokens(self, texts: Sequence[str]) -> Int64[np.ndarray, " texts"]:
        """Return how many tokens each text has, before it is cut. Raises as `encode` does."""
        return np.fromiter(map(len, self.tokenize(texts)), dtype=np.int64, count=len(texts))

    def locate(self, text: str) -> list[tuple[int, int]]:
        """Return where each token of a text begins and ends in it, cut at `length`. Raises as `encode` does.

        Tokens that are parts of one character all cover it; those around a text are of no length.
        """
        _check_unicode([text])
        spans: list[tuple[int, int]] = self.loaded.encode(text).offsets
        cut = spans[: self.length]
        return cut if self.end is None else [*cut[:-1], spans[-1]]

    @cached_property
    def end(self) -> int | None:
        """The token that every text ends with; None: there is none."""
        vocabulary = _read_vocabulary(self.tokenizer)
        return None if vocabulary is None else vocabulary.index(_END)

    @property
    def vocab_size(self) -> int:
        """The vocabulary size."""
        return self.loaded.get_vocab_size()

    def tokenize(self, texts: Sequence[str]) -> Iterator[list[int]]:
        """Yield all tokens of each text."""
        for begin in range(0, len(texts), _CHUNK):
            chunk = texts[begin : begin + _CHUNK]
            _check_unicode(chunk)
            for encoding in self.loaded.encode_batch_fast(list(chunk)):
                yield encoding.ids

    @cached_property
    def loaded(self) -> Tokenizer:
        _check_tokenizers()
        from tokenizers import Tokenizer

        _check_json(self.tokenizer)
        # Made anew from merges or tokens: nothing else that a file says reaches the package.
        return Tokenizer.from_str(restore_tokenizer(self.tokenizer))


def read_text_file(content: bytes) -> str:
    """Return a file's text: UTF-8 with or without a byte order mark, or UTF-16 with one.

    Raises DataError for anything else, and for a blank text.
    """
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        # Positions of the former count from after the mark.
        mark = len(codecs.BOM_UTF8) if content.startswith(codecs.BOM_UTF8) else 0
        raise DataError(f"invalid {'UTF-16' if utf16 else 'UTF-8'} at byte {error.start + mark}") from error
    if not text.strip():
        raise DataError("empty text")
    return text


MAX_CHARACTERS = 10_000_000
"""Most characters of one text."""


def describe_text(text: str) -> str:
    """Return why a text cannot be used, or nothing."""
    if len(text) > MAX_CHARACTERS:
        return f"{len(text):,} characters; wanted at most {MAX_CHARACTERS:,}"
    return "" if text and not text.isspace() else "empty text"
