"""MiniLM: a small BERT, taught to give sentences of one meaning vectors of one direction.

Wang et al., "MiniLM: deep self-attention distillation for task-agnostic compression of pre-trained Transformers"
(NeurIPS 2020): 6 layers, 384 wide, with 12 heads. The encoder is BERT's (Devlin et al., NAACL 2019): vectors of tokens
and of positions are added, and normalization follows each branch. Reimers and Gurevych, "Sentence-BERT: sentence
embeddings using Siamese BERT-networks" (EMNLP 2019, section 3): the mean over tokens is the sentence's vector, here of
length 1. The dense output tells classes apart by it.

BERT tells a second sentence from the first by one of two vectors more, which is added to each token. Here is one
sentence alone, so that its vector is part of those of the positions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from falconet.errors import ConfigError
from falconet.models.options import check_fraction
from falconet.models.sequences import TokenEncoder, make_attention_mask, measure_lengths, pool_mean

_WIDTH, _LAYERS, HEADS, INNER = 384, 6, 12, 1536
POSITIONS = 512
"""Most tokens of a text."""
_NORM_EPS = 1e-12


class MiniLM(nn.Module):
    """BERT encoder, mean over non-padding tokens, normalized to length 1, dense output.

    Parameters
    ----------
    num_classes, in_channels, input_size
        As in `falconet.create_model`: classes, vocabulary size, and at most 512 tokens.
    dropout
        Fraction of values that are zeroed in training, after the sums of vectors and each branch.

    A text of padding alone gets finite logits. Raises ConfigError for more tokens than there are positions.

    """

    def __init__(self, num_classes: int, in_channels: int, input_size: tuple[int], *, dropout: float = 0.1) -> None:
        super().__init__()
        check_fraction("dropout", dropout)
        if input_size[0] > POSITIONS:
            raise ConfigError(f"model.input_size: wanted at most {POSITIONS} tokens, found {input_size[0]}")
        self.encoder = TokenEncoder(in_channels, _WIDTH)
        self.positions = nn.Embedding(POSITIONS, _WIDTH)
        self.norm = nn.LayerNorm(_WIDTH, eps=_NORM_EPS)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(BertBlock(dropout) for _ in range(_LAYERS))
        self.output = nn.Linear(_WIDTH, num_classes)
        self.apply(_initialize)

    def forward(self, tokens: Int64[Tensor, "batch tokens"]) -> Float[Tensor, "batch classes"]:
        logits: Tensor = self.output(self.embed(tokens))
        return logits

    def embed(self, tokens: Int64[Tensor, "batch tokens"]) -> Float[Tensor, "batch width"]:
        """Return the vector of each text, of length 1: their products are cosines, of texts of one meaning near 1."""
        if not torch.compiler.is_compiling() and not tokens.is_meta:
            # Columns of padding alone, as in batches of short texts, change nothing but the time.
            tokens = tokens[:, : max(int(measure_lengths(tokens != 0).max()), 1)]
        vectors, lengths = self.encoder(tokens)
        states = self.dropout(self.norm(vectors + self.positions.weight[: tokens.shape[1]]))
        # A text without a non-padding token attends to its first one, since a softmax over nothing is NaN.
        attention_mask = make_attention_mask(lengths.clamp(min=1), tokens.shape[1])
        for block in self.blocks:
            states = block(states, attention_mask)
        return F.normalize(pool_mean(states, lengths))


class BertBlock(nn.Module):
    """Self-attention and two dense layers, each with a shortcut around it and normalization after the sum."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.query = nn.Linear(_WIDTH, _WIDTH)
        self.key = nn.Linear(_WIDTH, _WIDTH)
        self.value = nn.Linear(_WIDTH, _WIDTH)
        self.projection = nn.Linear(_WIDTH, _WIDTH)
        self.norm1 = nn.LayerNorm(_WIDTH, eps=_NORM_EPS)
        self.fc1 = nn.Linear(_WIDTH, INNER)
        self.fc2 = nn.Linear(INNER, _WIDTH)
        self.norm2 = nn.LayerNorm(_WIDTH, eps=_NORM_EPS)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "batch tokens width"], attention_mask: Bool[Tensor, "batch tokens"]
    ) -> Float[Tensor, "batch tokens width"]:
        x = self.norm1(x + self.dropout(self.attend(x, attention_mask)))
        inner = self.fc2(F.gelu(self.fc1(x)))
        total: Tensor = self.norm2(x + self.dropout(inner))
        return total

    def attend(
        self, x: Float[Tensor, "batch tokens width"], attention_mask: Bool[Tensor, "batch tokens"]
    ) -> Float[Tensor, "batch tokens width"]:
        """Return each token's mean of all non-padding tokens' values, weighted by softmax(q k / sqrt(d)), per head."""
        batch, tokens, width = x.shape
        # (batch, tokens, heads d) -> (batch, heads, tokens, d)
        queries, keys, values = (
            layer(x).view(batch, tokens, HEADS, width // HEADS).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=attention_mask[:, None, None, :])
        projected: Tensor = self.projection(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return projected


def _initialize(module: nn.Module) -> None:
    """Draw weights as BERT's authors did, from a normal distribution of standard deviation 0.02; biases are zero."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
    if isinstance(module, TokenEncoder):
        nn.init.zeros_(module.embedding.weight[0])
