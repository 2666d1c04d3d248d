"""Bags of n-grams of tokens, as fastText has them: `ngrams`, a text classifier that trains in seconds.

Joulin, Grave, Bojanowski, Mikolov: Bag of tricks for efficient text classification. EACL 2017. A text is the mean of
the vectors of its tokens and of its n-grams, of which a hash decides which vector each gets (Weinberger et al.: Feature
hashing for large scale multitask learning. ICML 2009), and one dense layer answers about it.

It differs from the paper in two ways: tokens are those of the text's tokenizer instead of words, and the hash fits into
32 bits, signed, so that runtimes whose integers have no more than that find the same vectors.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor, nn

from falconet.models.options import check_count, check_fraction

_MULTIPLIER = 16_381
"""Multiplier of the hash: a prime, which has no factor in common with a number of buckets except its multiples."""
_PART = 128
"""Approximate square root of the multiplier, which is split by it."""
MAX_BUCKETS = 1 << 16
"""Most buckets: times the multiplier, plus a token ID, they stay below 2^31."""
_LONGEST = 5
"""Longest n-gram in tokens; hardly any longer one occurs twice."""


class NGrams(nn.Module):
    """The mean of the vectors of a text's tokens and n-grams, and a dense output layer.

    Parameters
    ----------
    num_classes, in_channels, input_size
        As in `falconet.create_model`; any number of tokens is taken, whatever `input_size` says.
    dimension
        Length of a vector.
    buckets
        Vectors that all n-grams of two tokens or more share.
    n
        Length of the longest n-grams in tokens; 1: no word order is seen.
    dropout
        Fraction of the mean's values that are zeroed in training.

    An n-gram lies within the text: none has padding, token 0, in it. A text without tokens has the mean 0. Raises
    ConfigError for an option's value that makes no network.

    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        input_size: tuple[int, ...],
        *,
        dimension: int = 64,
        buckets: int = 16_384,
        n: int = 2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_count("dimension", dimension)
        check_count("buckets", buckets, MAX_BUCKETS)
        check_count("n", n, _LONGEST)
        check_fraction("dropout", dropout)
        self.tokens, self.buckets, self.n = in_channels, buckets, n
        # One table, as in fastText: first the tokens, of which 0 is padding, then the buckets.
        self.embedding = nn.Embedding(in_channels + (buckets if n > 1 else 0), dimension, padding_idx=0)
        # So small, as fastText has it, that an n-gram which training never showed says next to nothing.
        nn.init.uniform_(self.embedding.weight, -1 / dimension, 1 / dimension)
        with torch.no_grad():
            self.embedding.weight[0] = 0.0
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(dimension, num_classes)

    def forward(self, x: Int64[Tensor, "batch tokens"]) -> Float[Tensor, "batch classes"]:
        logits: Tensor = self.output(self.dropout(self.features(x)))
        return logits

    def features(self, x: Int64[Tensor, "batch tokens"]) -> Float[Tensor, "batch dimension"]:
        """Return the mean of the vectors of each text's tokens and n-grams."""
        rows = self.list_rows(x)
        counts = (rows != 0).sum(dim=1, keepdim=True).clamp(min=1)
        vectors: Tensor = self.embedding(rows)
        return vectors.sum(dim=1) / counts

    def list_rows(self, x: Int[Tensor, "batch tokens"]) -> Int[Tensor, "batch grams"]:
        """Return the table's row of each token and n-gram, 0 where it has padding in it."""
        return hash_ngrams(x, self.n, self.tokens, self.buckets)


def hash_ngrams(
    x: Int[Tensor, "batch tokens"], n: int, tokens: int, buckets: int, multiplier: int = _MULTIPLIER
) -> Int[Tensor, "batch grams"]:
    """Return each token, and of its n-grams of up to `n` the number of `tokens` plus their hash; 0 with padding in it.

    The hash of an n-gram is that of the one without its last token, times the multiplier, plus the last token, modulo
    the number of buckets: a polynomial (Karp, Rabin, 1987).
    """
    rows, hashes, present = [x], x, x != 0
    # In two parts, all below 2^24: OpenVINO computes with integers in single precision, which is exact up to there.
    high, low = divmod(multiplier, _PART)
    for length in range(2, n + 1):
        before = hashes[:, :-1] % buckets
        hashes = (before * high % buckets * _PART + before * low + x[:, length - 1 :]) % buckets
        present = present[:, :-1] & (x[:, length - 1 :] != 0)
        rows.append((hashes + tokens).masked_fill(~present, 0))
    return torch.cat(rows, dim=1)
