"""A page of HTML that shows which words spoke for a label, and which against it."""

from contextlib import AbstractContextManager
from html import escape
from math import exp
from types import TracebackType
from typing import TextIO

from seq2seq.batches import Prediction

END_OF_TEXT = "(end of text)"
"""What stands for the end of sequence, which the network reads like a word."""

_WORD_START = "\u2581"  # SentencePiece's mark
_FOR, _AGAINST = "40, 160, 70", "215, 60, 50"  # green and red, as CSS has them
_STRONGEST = 0.8  # opacity of the largest contribution: black letters stay readable

_HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.7 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; background: #fff; }}
h1 {{ font-size: 1.3rem; }}
section {{ border-top: 1px solid #ddd; padding: 0.6rem 0; }}
h2 {{ font-size: 1rem; margin: 0.3rem 0; }}
h2 small {{ color: #777; font-weight: normal; }}
p {{ margin: 0.3rem 0; overflow-wrap: anywhere; }}
span {{ border-radius: 3px; padding: 1px 0; }}
.mark {{ padding: 1px 6px; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p><span class="mark" style="background: rgba({positive}, {strongest})">for</span>
<span class="mark" style="background: rgba({negative}, {strongest})">against</span>
the predicted label. The darker a word, the larger its share in the label of its own text; shades
of two texts cannot be compared. Point at a word for its number.</p>
"""
_FOOT = "</body>\n</html>\n"


class ExplanationPage(AbstractContextManager["ExplanationPage"]):
    """Writes a page, a section per text, as the texts come. It needs nothing beside itself.

    Args:
        output: Where to write.
        title: What stands above, such as how the contributions were measured.
    """

    def __init__(self, output: TextIO, title: str) -> None:
        self.output = output
        self.output.write(
            _HEAD.format(
                title=escape(title), positive=_FOR, negative=_AGAINST, strongest=_STRONGEST
            )
        )

    def write(self, number: int, prediction: Prediction) -> None:
        """Add a section: the labels with their probabilities, and for each the shaded words.

        Args:
            number: Place of the text, from 1.
            prediction: Its labels, with contributions; one without labels says so.
        """
        lines = [f"<section>\n<h2><small>{number}</small> no text</h2>\n"]
        if prediction.contributions is not None:
            assert prediction.source_tokens is not None
            lines = ["<section>\n"]
            for name, log_prob, contributions in zip(
                prediction.tokens,
                prediction.token_log_probs,
                prediction.contributions.tolist(),
                strict=True,
            ):
                lines.append(
                    f"<h2><small>{number}</small> {escape(name)} "
                    f"<small>{exp(log_prob):.4f}</small></h2>\n"
                    f"<p>{_shade(prediction.source_tokens, contributions)}</p>\n"
                )
        self.output.write("".join([*lines, "</section>\n"]))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Also after an error: what was written until then can be looked at.
        self.output.write(_FOOT)


def _shade(tokens: list[str], contributions: list[float]) -> str:
    """Return words with backgrounds; subwords of a word stand together."""
    largest = max(map(abs, contributions)) or 1.0
    is_subword = any(token.startswith(_WORD_START) for token in tokens)
    shaded = []
    for token, value in zip(tokens, contributions, strict=True):
        colour = _FOR if value > 0 else _AGAINST
        opacity = _STRONGEST * abs(value) / largest
        if not is_subword or token.startswith(_WORD_START) or token == END_OF_TEXT:
            shaded.append(" ")
        shaded.append(
            f'<span style="background: rgba({colour}, {opacity:.3f})" title="{value:+.3g}">'
            f"{escape(token.removeprefix(_WORD_START))}</span>"
        )
    return "".join(shaded).strip()
