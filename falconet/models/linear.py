"""Multinomial logistic regression on what needs no learning: `linear`, what any deeper network has to beat.

Cox: The regression analysis of binary sequences. J. Royal Statistical Society B, 1958; of several classes: McFadden:
Conditional logit analysis of qualitative choice behavior. 1974.

Of images and series it sees pixels and values, of texts TF-IDF: how often each token and n-gram of tokens occurs, times
how rare it is (Salton, Buckley: Term-weighting approaches in automatic text retrieval. Information Processing and
Management, 1988), of which a hash makes columns (Weinberger et al.: Feature hashing for large scale multitask learning.
ICML, 2009).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int64
from torch import Tensor, nn

from falconet.errors import ConfigError
from falconet.modalities import MODALITIES
from falconet.models.layers import SparseLinear
from falconet.models.ngrams import MAX_BUCKETS, hash_ngrams
from falconet.models.options import check_count
from falconet.spec import ModalityName

_BYTES = 258
"""Largest vocabulary whose tokens are bytes, besides the two reserved ones, so that n-grams are parts of words."""
_N_OF_BYTES, _N_OF_WORDS = 5, 2
"""Default length of the longest n-grams, of bytes and of words; chosen on a validation split of banking77."""
_LONGEST = 8
_MULTIPLIER = 251
"""Multiplier of the hash: the largest prime below 256, so that pairs of bytes rarely collide."""


class Linear(nn.Module):
    """One dense layer on all values of an image or a series, or on the TF-IDF of a text.

    Parameters
    ----------
    num_classes, in_channels, input_size, kind
        As in `falconet.create_model`.
    n
        Length of the longest n-grams of texts; None: 5 where tokens are bytes, else 2.
    buckets
        Hashed features for all n-grams of texts of two tokens or more; None: 65,536.

    Missing values of a series, and the steps after its end, count as the channel's mean, which is 0; steps beyond
    `input_size` are not seen. Until `fit_statistics` is called, all terms of a text are equally rare. Raises
    ConfigError for an option's value that makes no network, and for options of texts where there are none.

    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        input_size: tuple[int, ...],
        kind: ModalityName,
        *,
        n: int | None = None,
        buckets: int | None = None,
    ) -> None:
        super().__init__()
        self.steps = input_size[0] if MODALITIES[kind].missing_is_nan else None
        self.tfidf: HashedTfidf | None = None
        self.output: nn.Linear | SparseLinear
        if MODALITIES[kind].has_tokens:
            self.tfidf = HashedTfidf(in_channels, n, buckets)
            self.output = SparseLinear(len(self.tfidf.idf), num_classes)
        else:
            for name, value in (("n", n), ("buckets", buckets)):
                if value is not None:
                    raise ConfigError(f"model.options.{name}: wanted none, which is for texts, found {value}")
            self.output = nn.Linear(in_channels * math.prod(input_size), num_classes)

    def forward(self, x: Float[Tensor, "batch in_channels *size"] | Int[Tensor, "batch tokens"]) -> Tensor:
        """Return the logits, `(batch, classes)`."""
        logits: Tensor
        if self.tfidf is not None:
            logits = self.output(*self.tfidf(x))
            return logits
        if self.steps is not None:
            x = F.pad(x.masked_fill(x.isnan(), 0.0), (0, self.steps - x.shape[2]))
        logits = self.output(x.flatten(1))
        return logits

    def fit_statistics(self, batches: Iterable[Tensor]) -> None:
        """Fit the IDF of texts to training samples; other kinds need nothing."""
        if self.tfidf is not None:
            self.tfidf.fit_statistics(batches)


class HashedTfidf(nn.Module):
    """TF-IDF of the tokens of texts and of their n-grams, in rows of norm 1.

    Parameters
    ----------
    tokens
        Vocabulary size.
    n, buckets
        As in `Linear`.

    Term frequency is 1 + log(count), and IDF is log((1 + n) / (1 + df)) + 1, as in scikit-learn's TfidfVectorizer with
    `sublinear_tf`. A text without tokens has no features.

    """

    def __init__(self, tokens: int, n: int | None = None, buckets: int | None = None) -> None:
        super().__init__()
        self.n = n if n is not None else _N_OF_BYTES if tokens <= _BYTES else _N_OF_WORDS
        self.buckets = buckets if buckets is not None else MAX_BUCKETS
        check_count("n", self.n, _LONGEST)
        check_count("buckets", self.buckets, MAX_BUCKETS)
        self.tokens = tokens
        self.idf: Tensor
        self.register_buffer("idf", torch.ones(tokens + (self.buckets if self.n > 1 else 0)))

    def forward(
        self, x: Int[Tensor, "batch tokens"]
    ) -> tuple[Int[Tensor, "batch grams"], Float[Tensor, "batch grams"]]:
        """Return the column of each token and n-gram, and its part of the column's value: as large as any other's.

        Where there is padding, both are 0.
        """
        columns = self.list_columns(x)
        absent = columns == 0
        counts = self.count(columns).gather(1, columns)
        weights = (1 + counts.log()) * self.idf[columns]
        squares = (weights.square() / counts).masked_fill(absent, 0.0).sum(dim=1, keepdim=True)
        values = weights / counts / squares.clamp(min=torch.finfo(squares.dtype).tiny).sqrt()
        return columns, values.masked_fill(absent, 0.0)

    def list_columns(self, x: Int[Tensor, "batch tokens"]) -> Int64[Tensor, "batch grams"]:
        """Return the column of each token and n-gram, 0 where there is padding in it."""
        return hash_ngrams(x, self.n, self.tokens, self.buckets, _MULTIPLIER).long()

    def count(self, columns: Int64[Tensor, "batch grams"]) -> Float[Tensor, "batch columns"]:
        """Return how often each text has each column."""
        counts = torch.zeros(columns.shape[0], len(self.idf), device=columns.device)
        return counts.scatter_add(1, columns, torch.ones_like(columns, dtype=counts.dtype))

    @torch.no_grad()
    def fit_statistics(self, batches: Iterable[Tensor]) -> None:
        """Fit the IDF to texts, in batches of tokens."""
        texts, frequency = 0, torch.zeros_like(self.idf)
        for batch in batches:
            texts += len(batch)
            frequency += (self.count(self.list_columns(batch)) > 0).sum(dim=0)
        self.idf.copy_(((1 + texts) / (1 + frequency)).log() + 1)
