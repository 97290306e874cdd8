"""Dot, bilinear and additive attention; stateless, for one step or all steps at once."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from seq2seq.batches import Memory
from seq2seq.errors import ConfigError, raise_together

AttentionKind = Literal["none", "dot", "bilinear", "additive"]


class Attention(nn.Module, ABC):
    """Weighs the positions of a memory by how well they match a query."""

    def keys(self, values: Tensor) -> Tensor:
        """Return what queries are compared with, ``(batch, source, key_size)``."""
        return values

    @abstractmethod
    def match(self, query: Tensor, keys: Tensor) -> Tensor:
        """Return how well each key matches, ``(batch, time, source)``."""

    def forward(self, query: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Attend with all queries at once.

        Args:
            query: ``(batch, time, query_size)``.
            memory: What to attend to; each row has at least one real position.

        Returns:
            Context ``(batch, time, memory_size)`` and weights ``(batch, time, source)``, which
            are zero on padding.
        """
        keys = self.keys(memory.values) if memory.keys is None else memory.keys
        scores = self.match(query, keys).masked_fill(~memory.mask.unsqueeze(1), -torch.inf)
        weights = scores.softmax(dim=-1)
        return weights @ memory.values, weights


class DotAttention(Attention):
    """The query itself is compared with the memory.

    Raises:
        ConfigError: If query and memory differ in width.

    Source: Luong et al. 2015, arXiv:1508.04025, equation 8 (dot).
    """

    def __init__(self, query_size: int, memory_size: int) -> None:
        super().__init__()
        problems = attention_problems("dot", query_size, memory_size)
        raise_together(problems, ConfigError, "The attention cannot be built:")

    def match(self, query: Tensor, keys: Tensor) -> Tensor:
        """Return inner products."""
        return query @ keys.transpose(1, 2)


class BilinearAttention(Attention):
    """The query is compared with the memory through a matrix.

    Source: Luong et al. 2015, arXiv:1508.04025, equation 8 (general).
    """

    def __init__(self, query_size: int, memory_size: int) -> None:
        super().__init__()
        self.query = nn.Linear(query_size, memory_size, bias=False)

    def match(self, query: Tensor, keys: Tensor) -> Tensor:
        """Return inner products after mapping the query: keys need no work of their own."""
        projected: Tensor = self.query(query)
        return projected @ keys.transpose(1, 2)


class AdditiveAttention(Attention):
    """A one-layer network compares the query with the memory.

    Source: Bahdanau et al. 2015, arXiv:1409.0473, appendix A.1.2.
    """

    def __init__(self, query_size: int, memory_size: int) -> None:
        super().__init__()
        self.query = nn.Linear(query_size, query_size)
        self.key = nn.Linear(memory_size, query_size, bias=False)
        self.weight = nn.Linear(query_size, 1, bias=False)

    def keys(self, values: Tensor) -> Tensor:
        """Return the projected memory."""
        keys: Tensor = self.key(values)
        return keys

    def match(self, query: Tensor, keys: Tensor) -> Tensor:
        """Return the network's output for each pair of query and key."""
        hidden = self.query(query).unsqueeze(2) + keys.unsqueeze(1)  # (batch, time, source, key)
        scores: Tensor = self.weight(hidden.tanh())
        return scores.squeeze(-1)


ATTENTIONS: dict[str, Callable[[int, int], Attention]] = {
    "dot": DotAttention,
    "bilinear": BilinearAttention,
    "additive": AdditiveAttention,
}


def build_attention(kind: AttentionKind, query_size: int, memory_size: int) -> Attention | None:
    """Return the attention called ``kind``; None for ``"none"``.

    Raises:
        ConfigError: If there is no such attention, or the sizes do not fit it.
    """
    problems = attention_problems(kind, query_size, memory_size)
    raise_together(problems, ConfigError, "The attention cannot be built:")
    return None if kind == "none" else ATTENTIONS[kind](query_size, memory_size)


def attention_problems(kind: str, query_size: int, memory_size: int) -> list[str]:
    """Return what keeps the attention called ``kind`` from being built."""
    if kind not in get_args(AttentionKind):
        choices = ", ".join(get_args(AttentionKind))
        return [f"attention is {kind!r}; choose one of {choices}."]
    if kind == "dot" and query_size != memory_size:
        return [
            f"attention 'dot' compares the decoder state ({query_size} wide) with the memory "
            f"({memory_size} wide). Make both equal, or choose attention 'bilinear'."
        ]
    return []
