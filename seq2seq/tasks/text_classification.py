"""Classification of text: a pooled text encoder in front of the shared decoder."""

from typing import Any, cast, get_args

from torch import nn

from seq2seq.batches import NOTHING, Batch, Prediction
from seq2seq.decoders.recurrent import Feed, option_problems
from seq2seq.encoders.text import TextEncoder
from seq2seq.errors import ConfigError, raise_together
from seq2seq.nn.attention import AttentionKind
from seq2seq.nn.embedding import TokenEmbedding
from seq2seq.nn.pooling import PoolingKind, pooling_problems
from seq2seq.nn.recurrent import Cell
from seq2seq.search import Hypothesis, SearchOptions
from seq2seq.tasks.base import NOT_SAVED
from seq2seq.tasks.labelling import ClassWeights, LabelTask, build_label_decoder, label_problems
from seq2seq.tasks.options import Optimization, TeacherForcing, range_problems
from seq2seq.tasks.text_source import TextSourceTask
from seq2seq.truncation import Keep, keep_part


class TextClassifier(TextSourceTask, LabelTask):
    """Recurrent encoder, pooled to one vector, and recurrent decoder, from a text to its labels.

    Args:
        vocab_size: Size of the vocabulary of the text; taken from the data module.
        num_classes: Number of labels; taken from the data module.
        label_steps: Labels of each text, decoded one after the other; taken from the data module.
        embedding_size: Width of token embeddings.
        hidden_size: Width of the encoder's state, per direction.
        encoder_layers: Recurrent layers of the encoder.
        cell: ``rnn`` (tanh), ``gru`` or ``lstm``.
        bidirectional: Read the text in both directions.
        pooling: What the encoder's outputs become to be one vector: the ``last`` output of each
            direction, or their ``mean``, ``max`` or ``attention``-weighted mean.
        decoder_layers: Recurrent layers of the decoder.
        decoder_size: Width of the decoder's state.
        attention: ``none`` (the decoder gets the pooled vector), ``dot``, ``bilinear`` or
            ``additive`` (it also chooses between the words, anew for each label).
        feed: How the context enters the decoder: ``output``, ``layer`` or ``input``.
        dropout: Dropout on embeddings, between layers, on the memory, on the pooled vector and
            before the output layer.
        variational_dropout: Use the same dropout mask at every word.
        recurrent_dropout: Dropout on the recurrent matrices of the encoder, with one mask for a
            whole batch.
        word_dropout: Probability of reading a word as unknown, in training.
        layer_norm: Normalise the output of every recurrent layer of the encoder.
        source_embeddings: Text file of pretrained vectors for the embedding.
        class_weights: ``balanced`` lets rare classes weigh as much as frequent ones.
        label_smoothing: Share of the target probability spread over all classes.
        optimization: Optimiser, learning rate and its schedule.
        teacher_forcing: How often the decoder reads the right label while it learns.
        decoding: Search in testing and prediction.
        validation_beam_size: Beam size in validation; 1 is greedy search.
        init_from: Checkpoint whose weights a new training starts from.
        max_length: In prediction, most tokens of a text that are read; null for all. Training
            takes it and ``keep`` from the data module.
        keep: Which part of a longer text is read: its ``start``, its ``end`` or ``both``.

    Raises:
        ConfigError: If options do not fit together; all problems at once.
    """

    def __init__(
        self,
        vocab_size: int,
        num_classes: int,
        label_steps: int = 1,
        embedding_size: int = 128,
        hidden_size: int = 128,
        encoder_layers: int = 1,
        cell: str = "gru",
        bidirectional: bool = True,
        pooling: str = "attention",
        decoder_layers: int = 1,
        decoder_size: int = 128,
        attention: str = "none",
        feed: str = "output",
        dropout: float = 0.2,
        variational_dropout: bool = False,
        recurrent_dropout: float = 0.0,
        word_dropout: float = 0.0,
        layer_norm: bool = False,
        source_embeddings: str | None = None,
        class_weights: str = "none",
        label_smoothing: float = 0.0,
        optimization: Optimization = Optimization(),  # noqa: B008  # frozen
        teacher_forcing: TeacherForcing = TeacherForcing(),  # noqa: B008
        decoding: SearchOptions = SearchOptions(),  # noqa: B008
        validation_beam_size: int = 1,
        init_from: str | None = None,
        max_length: int | None = None,
        keep: str = "start",
    ) -> None:
        memory_size = hidden_size * (2 if bidirectional else 1)
        problems = option_problems(
            cell,
            attention,
            feed,
            decoder_layers,
            hidden_size=decoder_size,
            memory_size=memory_size,
            variational_dropout=False,  # the decoder has none
        )
        problems += range_problems(
            {
                "embedding_size": embedding_size,
                "hidden_size": hidden_size,
                "encoder_layers": encoder_layers,
                "decoder_size": decoder_size,
                "validation_beam_size": validation_beam_size,
            },
            {
                "dropout": dropout,
                "recurrent_dropout": recurrent_dropout,
                "word_dropout": word_dropout,
                "label_smoothing": label_smoothing,
            },
        )
        problems += pooling_problems(pooling)
        problems += label_problems(num_classes, label_steps, class_weights)
        if max_length is not None and max_length < 1:
            problems.append(f"max_length={max_length} must be at least 1.")
        if keep not in get_args(Keep):
            problems.append(f"keep is {keep!r}; choose one of {', '.join(get_args(Keep))}.")
        raise_together(problems, ConfigError, "The text classifier cannot be built:")
        super().__init__(
            num_classes=num_classes,
            label_steps=label_steps,
            class_weights=cast(ClassWeights, class_weights),
            label_smoothing=label_smoothing,
            optimization=optimization,
            teacher_forcing=teacher_forcing,
            decoding=decoding,
            validation_beam_size=validation_beam_size,
            init_from=init_from,
        )
        self.save_hyperparameters(ignore=[*NOT_SAVED, "source_embeddings", "class_weights"])
        self.vocab_size = vocab_size
        self.source_embeddings = source_embeddings
        self.max_length = max_length
        self.keep = cast(Keep, keep)
        self.encoder = TextEncoder(
            TokenEmbedding(vocab_size, embedding_size, word_dropout),
            hidden_size,
            encoder_layers,
            cast(Cell, cell),
            bidirectional=bidirectional,
            dropout=dropout,
            variational_dropout=variational_dropout,
            recurrent_dropout=recurrent_dropout,
            layer_norm=layer_norm,
            pooling=cast(PoolingKind, pooling),
            summary_dropout=dropout,
        )
        self.decoder = build_label_decoder(
            num_classes,
            decoder_size,
            memory_size=memory_size,
            num_layers=decoder_layers,
            cell=cast(Cell, cell),
            attention=cast(AttentionKind, attention),
            feed=cast(Feed, feed),
            dropout=dropout,
        )

    # Data.

    def expected_vocab_sizes(self) -> dict[str, int]:
        """Return the sizes of the vocabularies of the text and of the labels."""
        return {"source": self.vocab_size, **super().expected_vocab_sizes()}

    def pretrained_embeddings(self) -> dict[str, tuple[nn.Module, str | None]]:
        """Return the embedding of the text, and the file of its vectors."""
        return {"source": (self.encoder.embedding, self.source_embeddings)}

    def take_limits(self, data: Any) -> None:
        """Take over how many words of a text are read, and which."""
        self.max_length = self.hparams["max_length"] = data.max_length
        self.keep = self.hparams["keep"] = data.keep

    def encode_source(self, text: str) -> list[int]:
        """Return the ids of the part of a text that is read, without the end of sequence."""
        return keep_part(super().encode_source(text), self.max_length, self.keep)

    # Prediction.

    def predict_batch(self, batch: Batch, options: SearchOptions) -> list[list[Prediction]]:
        """Decode a batch into what the user reads; a text without a word has no label.

        Raises:
            ConfigError: If the options leave a row no label.
        """
        found = super().predict_batch(batch, options)
        return [
            [NOTHING] if self.is_empty(batch, row) else predictions
            for row, predictions in enumerate(found)
        ]

    def present(self, batch: Batch, row: int, hypothesis: Hypothesis) -> Prediction:
        """Turn ids into labels, with the words that each of them attended to."""
        attention, source_tokens = self.attended(batch, row, hypothesis.attention)
        return self.label(hypothesis)._replace(attention=attention, source_tokens=source_tokens)
