"""Vocabularies of words that are larger than the text they were made of."""

from lightning.pytorch.utilities import rank_zero_info

from seq2seq.tokenizers import Tokenizer


def report_unused(tokenizer: Tokenizer, origin: str) -> None:
    """Say that a vocabulary has room for more words than there are, if that is so.

    Args:
        tokenizer: Of any kind; others than words are made for their size.
        origin: Where its words come from.
    """
    if tokenizer.unused_ids:
        used = tokenizer.unused_ids.start
        rank_zero_info(
            f"{origin}: has words for {used} ids of the vocabulary, the special ones included; the "
            f"other {len(tokenizer.unused_ids)} stay unused. --data.vocab_size={used} is enough."
        )
