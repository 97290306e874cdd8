"""Translation: a text encoder in front of the shared decoder."""

import logging
from typing import Any, ClassVar, Literal, cast, get_args

from torch import Tensor, nn

from seq2seq.batches import NOTHING, Batch, Prediction
from seq2seq.decoders.recurrent import Feed, RecurrentDecoder, option_problems
from seq2seq.encoders.text import TextEncoder
from seq2seq.errors import ConfigError, raise_together
from seq2seq.metrics import CorpusTextMetric
from seq2seq.nn.attention import AttentionKind
from seq2seq.nn.embedding import TokenEmbedding
from seq2seq.nn.recurrent import Cell
from seq2seq.search import Hypothesis, SearchOptions
from seq2seq.sequences import EOS_ID
from seq2seq.tasks.base import NOT_SAVED
from seq2seq.tasks.options import Optimization, TeacherForcing, range_problems
from seq2seq.tasks.text_source import TextSourceTask

_log = logging.getLogger(__name__)

TiedWeights = Literal["none", "output", "all"]


class Translator(TextSourceTask):
    """Recurrent encoder-decoder from text to text.

    Args:
        vocab_size: Size of the target vocabulary; taken from the data module.
        source_vocab_size: Size of the source vocabulary; None where both languages share one.
        embedding_size: Width of token embeddings.
        hidden_size: Width of the recurrent state, in the encoder per direction.
        encoder_layers: Recurrent layers of the encoder.
        decoder_layers: Recurrent layers of the decoder.
        cell: ``rnn`` (tanh), ``gru`` or ``lstm``.
        bidirectional: Read the source in both directions.
        attention: ``none``, ``dot``, ``bilinear`` or ``additive``.
        feed: How the context enters the decoder: ``output``, ``layer`` or ``input``.
        tied_weights: Matrices that are one: ``none``; ``output`` (target embedding and output
            layer); ``all`` (source embedding too, which needs a shared vocabulary).
        dropout: Dropout on embeddings, between layers, on the memory and before the output layer.
        variational_dropout: Use the same dropout mask at every time step; only where training takes
            all steps at once.
        word_dropout: Probability of reading a token as unknown, in training.
        layer_norm: Normalise the output of every recurrent layer.
        label_smoothing: Share of the target probability spread over the whole vocabulary.
        bleu_tokenize: sacrebleu's tokeniser for BLEU; ``none`` for text that is tokenised already.
        source_embeddings: Text file of pretrained vectors for the source embedding.
        target_embeddings: Text file of pretrained vectors for the target embedding.
        max_length_ratio: Longest output in tokens, as a multiple of the source's length.
        optimization: Optimiser, learning rate and its schedule.
        teacher_forcing: How often the decoder reads the target while it learns.
        decoding: Search in testing and prediction.
        validation_beam_size: Beam size in validation; 1 is greedy search.
        max_source_length: In prediction, most tokens of a line that are read, the end of the
            sentence included; null for all. Training takes it from the data module.

    Raises:
        ConfigError: If options do not fit together; all problems at once.
    """

    monitor: ClassVar[str] = "val/bleu"

    def __init__(
        self,
        vocab_size: int,
        source_vocab_size: int | None = None,
        embedding_size: int = 256,
        hidden_size: int = 256,
        encoder_layers: int = 1,
        decoder_layers: int = 2,
        cell: str = "gru",
        bidirectional: bool = True,
        attention: str = "bilinear",
        feed: str = "layer",
        tied_weights: str = "output",
        dropout: float = 0.2,
        variational_dropout: bool = False,
        word_dropout: float = 0.0,
        layer_norm: bool = False,
        label_smoothing: float = 0.1,
        bleu_tokenize: str = "13a",
        source_embeddings: str | None = None,
        target_embeddings: str | None = None,
        max_length_ratio: float = 2.0,
        optimization: Optimization = Optimization(),  # noqa: B008  # frozen
        teacher_forcing: TeacherForcing = TeacherForcing(),  # noqa: B008
        decoding: SearchOptions = SearchOptions(),  # noqa: B008
        validation_beam_size: int = 1,
        max_source_length: int | None = None,
    ) -> None:
        # Plain strings, checked here: a type would let the command line report only the first.
        problems = option_problems(
            cell,
            attention,
            feed,
            decoder_layers,
            hidden_size=hidden_size,
            memory_size=hidden_size * (2 if bidirectional else 1),
            variational_dropout=variational_dropout,
        )
        problems += range_problems(
            {
                "encoder_layers": encoder_layers,
                "embedding_size": embedding_size,
                "hidden_size": hidden_size,
                "validation_beam_size": validation_beam_size,
            },
            {"dropout": dropout, "word_dropout": word_dropout, "label_smoothing": label_smoothing},
        )
        if not max_length_ratio >= 0:
            problems.append(f"max_length_ratio={max_length_ratio} must not be negative.")
        if max_source_length is not None and max_source_length < 1:
            problems.append(f"max_source_length={max_source_length} must be at least 1.")
        if tied_weights not in get_args(TiedWeights):
            choices = ", ".join(get_args(TiedWeights))
            problems.append(f"tied_weights is {tied_weights!r}; choose one of {choices}.")
        if tied_weights == "all" and source_vocab_size is not None:
            problems.append(
                "tied_weights 'all' needs one vocabulary for both languages. Leave "
                "--data.source_vocab_size unset, or set --model.tied_weights output."
            )
        if variational_dropout and teacher_forcing.is_sampling_by_step:
            problems.append(
                "teacher_forcing.method 'step' would draw dropout masks of its own at every step "
                "despite variational_dropout. Set --model.variational_dropout false, or "
                "--model.teacher_forcing.method parallel."
            )
        try:
            metric = CorpusTextMetric(tokenize=bleu_tokenize)
        except ConfigError as error:
            problems.append(str(error))
        raise_together(problems, ConfigError, "The translator cannot be built:")
        super().__init__(
            label_smoothing=label_smoothing,
            optimization=optimization,
            teacher_forcing=teacher_forcing,
            decoding=decoding,
            validation_beam_size=validation_beam_size,
        )
        self.save_hyperparameters(ignore=[*NOT_SAVED, "source_embeddings", "target_embeddings"])
        self.vocab_sizes = {"source": source_vocab_size or vocab_size, "target": vocab_size}
        self.max_length_ratio = max_length_ratio
        self.max_source_length = max_source_length
        self.pretrained = {"source": source_embeddings, "target": target_embeddings}
        target_embedding = TokenEmbedding(vocab_size, embedding_size, word_dropout)
        source_embedding = (
            target_embedding
            if tied_weights == "all"
            else TokenEmbedding(self.vocab_sizes["source"], embedding_size, word_dropout)
        )
        output_layer = nn.Linear(embedding_size, vocab_size)
        nn.init.zeros_(output_layer.bias)
        if tied_weights != "none":
            output_layer.weight = target_embedding.weight
        self.encoder = TextEncoder(
            source_embedding,
            hidden_size,
            encoder_layers,
            cast(Cell, cell),
            bidirectional=bidirectional,
            dropout=dropout,
            variational_dropout=variational_dropout,
            layer_norm=layer_norm,
        )
        self.decoder = RecurrentDecoder(
            target_embedding,
            output_layer,
            input_size=embedding_size,
            feature_size=embedding_size,
            memory_size=self.encoder.memory_size,
            hidden_size=hidden_size,
            num_layers=decoder_layers,
            cell=cast(Cell, cell),
            attention=cast(AttentionKind, attention),
            feed=cast(Feed, feed),
            dropout=dropout,
            variational_dropout=variational_dropout,
            layer_norm=layer_norm,
        )
        self.metric = metric

    def pretrained_embeddings(self) -> dict[str, tuple[nn.Module, str | None]]:
        """Return the embeddings of both sides, and the files of their vectors."""
        layers = {"source": self.encoder.embedding, "target": self.decoder.input_layer}
        return {role: (layer, self.pretrained[role]) for role, layer in layers.items()}

    def expected_vocab_sizes(self) -> dict[str, int]:
        """Return the sizes of the source and the target vocabulary."""
        return self.vocab_sizes

    def take_limits(self, data: Any) -> None:
        """Take over how many tokens of a line are read, if the data module tells."""
        limits = getattr(data, "limits", None)
        if limits is not None:
            # Of evaluation too, whatever training does with longer lines.
            limit = limits["train"].max_source_length
            self.max_source_length = self.hparams["max_source_length"] = limit

    def encode_source(self, text: str) -> list[int]:
        """Return the ids of the part of a line that is read, without the end of sequence."""
        ids = super().encode_source(text)
        limit = self.max_source_length
        if limit is None or len(ids) < limit:
            return ids
        _log.warning(
            "Of a line of %d tokens the first %d are read: %.60s", len(ids), limit - 1, text
        )
        return ids[: limit - 1]

    def present(self, batch: Batch, row: int, hypothesis: Hypothesis) -> Prediction:
        """Turn ids into text; an empty source gives an empty one."""
        if self.is_empty(batch, row):
            return NOTHING
        target = self.tokenizers["target"]
        ids = hypothesis.tokens + [EOS_ID] * hypothesis.is_finished
        attention, source_tokens = self.attended(batch, row, hypothesis.attention)
        return Prediction(
            target.decode(hypothesis.tokens),
            hypothesis.score,
            target.pieces(ids),
            hypothesis.token_log_probs,
            attention,
            source_tokens,
        )

    def max_lengths(self, batch: Batch) -> Tensor:
        """Return a multiple of the source's length, with room for short sources."""
        lengths: Tensor = batch.inputs.lengths
        return (lengths * self.max_length_ratio).ceil().long() + 10

    def update_metrics(self, batch: Batch, predictions: list[Prediction]) -> None:
        """Add decoded texts to the corpus."""
        texts = [prediction.text for prediction in predictions]
        self.metric.update(batch.indices, texts, batch.references)

    def compute_metrics(self) -> dict[str, float]:
        """Return corpus BLEU, chrF and exact match."""
        scores = self.metric.compute()
        self.metric.reset()
        self.signatures = {"bleu": scores.bleu_signature, "chrf": scores.chrf_signature}
        return {"bleu": scores.bleu, "chrf": scores.chrf, "exact_match": scores.exact_match}
