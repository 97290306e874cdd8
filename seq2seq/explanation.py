"""How much each word of a text speaks for the label that a classifier gave it."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from seq2seq.batches import Batch, Prediction
from seq2seq.errors import ConfigError
from seq2seq.explanation_page import END_OF_TEXT
from seq2seq.nn.pooling import AttentionPooling
from seq2seq.sequences import shift_right
from seq2seq.tasks.base import SequenceTask
from seq2seq.tasks.text_classification import TextClassifier
from seq2seq.tokenizers import FIRST_LABEL_ID, WordTokenizer
from seq2seq.truncation import keep_part

ExplanationKind = Literal["gradient", "attention"]


def require_explainable(task: SequenceTask, kind: ExplanationKind) -> TextClassifier:
    """Return the task, if its predictions can be explained.

    Raises:
        ConfigError: If it does not classify text, or does not attend to its words.
    """
    if not isinstance(task, TextClassifier):
        raise ConfigError(
            f"--explain is for classifiers of text, and this checkpoint is of the task "
            f"{type(task).__name__}. Leave it out."
        )
    is_pooled = isinstance(task.encoder.pooling, AttentionPooling)
    if kind == "attention" and task.decoder.attention is None and not is_pooled:
        raise ConfigError(
            "--explain attention: this checkpoint was trained with neither --model.attention nor "
            "--model.pooling attention. Use --explain gradient."
        )
    return task


def explain(
    task: TextClassifier,
    batch: Batch,
    predictions: Sequence[Prediction],
    kind: ExplanationKind,
    texts: Sequence[str] | None = None,
) -> list[Prediction]:
    """Return predictions with the contribution of each source token to each of their labels.

    ``gradient`` is gradient times input: the derivative of the label's log-probability (given the
    labels before it) by the embedded token, times the embedded token. It is positive where the
    token speaks for the label. ``attention`` is the share of attention that the token got from the
    decoder or, where that has none, from the pooling: it is never negative, and says where the
    model looked and not what it made of it.

    Args:
        task: A classifier in evaluation mode.
        batch: The inputs.
        predictions: The labels of each; those without a label stay as they are.
        kind: What counts as a contribution; see ``require_explainable``.
        texts: What the batch was made of: where tokens are words, they are spelled as there. As in
            the vocabulary when None.

    Source: Simonyan et al. 2014, arXiv:1312.6034, section 3 (gradients); Shrikumar et al. 2017,
    arXiv:1605.01713, section 2 (times input).
    """
    vocabulary = task.tokenizers["target"]
    nothing = [FIRST_LABEL_ID] * task.label_steps
    labels = torch.tensor(
        [vocabulary.encode(each.text) if each.tokens else nothing for each in predictions],
        device=task.device,
    )
    measure = _gradients if kind == "gradient" else _attention
    contributions = measure(task, batch, labels).cpu()
    return [
        _with_contributions(
            prediction,
            _source_words(task, batch, row, None if texts is None else texts[row]),
            contributions[row],
        )
        if prediction.tokens
        else prediction
        for row, prediction in enumerate(predictions)
    ]


def _with_contributions(
    prediction: Prediction, words: list[str], contributions: Tensor
) -> Prediction:
    return prediction._replace(
        source_tokens=words, contributions=contributions[:, : len(words)].clone()
    )


def _source_words(task: TextClassifier, batch: Batch, row: int, text: str | None) -> list[str]:
    """Return what the user reads for each token of a row, without padding."""
    tokenizer = task.tokenizers["source"]
    tokens = task.source_tokens(batch, row)[:-1]
    if text is not None and isinstance(tokenizer, WordTokenizer):
        words = tokenizer.spellings(text)
        tokens = [words[i] for i in keep_part([*range(len(words))], task.max_length, task.keep)]
    return [*tokens, END_OF_TEXT]


def _gradients(task: TextClassifier, batch: Batch, labels: Tensor) -> Tensor:
    """Return gradient times input, ``(batch, label_steps, source)``."""
    # In evaluation mode cuDNN has no backward pass for recurrent layers.
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        embedded = task.encoder.embedding(batch.inputs.tokens).detach().requires_grad_()
        memory = task.encoder.encode(embedded, batch.inputs.lengths)
        features = task.decoder(shift_right(labels), memory).features
        # In float32 a probability close to 1 would be 1, and its gradient zero.
        log_probs = task.decoder.score(features).double().log_softmax(dim=-1)
        totals = log_probs.gather(2, labels.unsqueeze(2)).sum(dim=(0, 2))  # (label_steps,)
        gradients = [torch.autograd.grad(each, embedded, retain_graph=True)[0] for each in totals]
    return torch.stack([(each * embedded).sum(dim=2) for each in gradients], dim=1).detach()


@torch.inference_mode()
def _attention(task: TextClassifier, batch: Batch, labels: Tensor) -> Tensor:
    """Return the weights of the decoder or else of the pooling, as ``_gradients``."""
    memory = task.encoder(batch.inputs)
    weights = task.decoder(shift_right(labels), memory).attention
    if weights is None:
        pooling = task.encoder.pooling
        assert isinstance(pooling, AttentionPooling)
        weights = pooling.weigh(memory.values, memory.mask).unsqueeze(1)
        weights = weights.expand(-1, labels.shape[1], -1)
    found: Tensor = weights.float()
    return found
