"""Search for the outputs of any step function: greedy, beam and sampling."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from seq2seq.errors import SearchError
from seq2seq.search.beam import beam_search
from seq2seq.search.contract import (
    Hypothesis,
    Request,
    SearchState,
    StateT,
    Step,
    StepResult,
)
from seq2seq.search.greedy import greedy_search
from seq2seq.search.options import SearchOptions
from seq2seq.search.sampling import sample_search
from seq2seq.sequences import BOS_ID, EOS_ID

__all__ = [
    "Hypothesis",
    "SearchError",
    "SearchOptions",
    "SearchState",
    "Step",
    "StepResult",
    "search",
]

_METHODS: dict[str, Callable[[Request[Any]], list[list[Hypothesis]]]] = {
    "greedy": greedy_search,
    "beam": beam_search,
    "sample": sample_search,
}


@torch.inference_mode()
def search(
    step: Step[StateT],
    state: StateT,
    sentences: int,
    options: SearchOptions,
    *,
    bos_id: int = BOS_ID,
    eos_id: int = EOS_ID,
    max_lengths: Tensor | None = None,
    prefixes: list[list[int]] | None = None,
    indices: Tensor | None = None,
    device: torch.device | str | None = None,
) -> list[list[Hypothesis]]:
    """Return hypotheses for every sentence, best first: at least one, at most ``n_best``.

    What a sentence gets does not depend on the others in the batch. Sentences that are done leave
    the batch, so that later steps cost less.

    Args:
        step: The step function.
        state: The state before the first step, one row per sentence.
        sentences: Number of sentences.
        options: How to search.
        bos_id: Id that the first step reads.
        eos_id: Id that ends an output.
        max_lengths: Most tokens of each output, int64 ``(sentences,)``; raised to where an output
            of ``options.min_length`` can end, and ``options.max_length`` holds besides.
        prefixes: Tokens that each output must begin with, whatever is banned; they count as its
            tokens, and a length limit cuts them too.
        indices: What tells the random numbers of sentences apart in sampling, at least 0, int64
            ``(sentences,)``, such as their place in the corpus; their place in the batch when None.
        device: Where the step function computes; when None that of ``max_lengths``, else the CPU.

    Raises:
        ConfigError: If a token to ban or to force is not in the vocabulary, or a coverage penalty
            is asked of a model without attention.
        SearchError: If the step function gives scores that are not numbers.
    """
    if not sentences:
        return []
    if device is None:
        device = "cpu" if max_lengths is None else max_lengths.device
    if max_lengths is None:
        limits = torch.full((sentences,), options.max_length, device=device)
    else:
        # The step after ``min_length`` tokens is the first that may end an output.
        limits = max_lengths.to(device).clamp(options.min_length + 1, options.max_length)
    request = Request(
        step,
        state,
        options,
        bos_id,
        eos_id,
        limits,
        [[] for _ in range(sentences)] if prefixes is None else prefixes,
        torch.arange(sentences) if indices is None else indices,
    )
    is_greedy = options.method == "beam" and options.beam_size == 1
    return _METHODS["greedy" if is_greedy else options.method](request)
