"""Scores of whole corpora, exact under distributed evaluation."""

from seq2seq.metrics.captions import CaptionMetric, CaptionScores
from seq2seq.metrics.cider import CiderD
from seq2seq.metrics.classification import ClassificationMetric, ClassScores
from seq2seq.metrics.loss import CorpusLoss
from seq2seq.metrics.text import CorpusTextMetric, TextScores

__all__ = [
    "CaptionMetric",
    "CaptionScores",
    "CiderD",
    "ClassScores",
    "ClassificationMetric",
    "CorpusLoss",
    "CorpusTextMetric",
    "TextScores",
]
