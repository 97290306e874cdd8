"""Text to ids and back; every checkpoint carries its own."""

from seq2seq.tokenizers.base import Tokenizer
from seq2seq.tokenizers.labels import FIRST_LABEL_ID, LABEL_SEPARATOR, LabelVocabulary
from seq2seq.tokenizers.stored import tokenizer_from_file, tokenizer_from_tensor
from seq2seq.tokenizers.subword import Normalization, SubwordTokenizer, TokenizerType
from seq2seq.tokenizers.word import WordTokenizer

__all__ = [
    "FIRST_LABEL_ID",
    "LABEL_SEPARATOR",
    "LabelVocabulary",
    "Normalization",
    "SubwordTokenizer",
    "Tokenizer",
    "TokenizerType",
    "WordTokenizer",
    "tokenizer_from_file",
    "tokenizer_from_tensor",
]
