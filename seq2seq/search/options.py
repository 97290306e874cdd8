"""The options of a search, as they stand in a configuration file."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from seq2seq.errors import ConfigError, raise_together

Method = Literal["beam", "sample"]
LengthPenalty = Literal["power", "gnmt"]


@dataclass(frozen=True)
class SearchOptions:
    """How outputs are searched for.

    Args:
        method: ``beam`` looks for the most probable output, ``sample`` draws outputs at random.
        beam_size: Partial outputs that a beam search follows at a time; 1 is greedy search.
        n_best: Outputs per input: the best of the beam, at most ``beam_size``; or how many to draw.
        max_length: Most tokens of an output, end of sequence not counted. What has as many is cut
            there, unfinished.
        min_length: Fewest tokens of an output, end of sequence not counted. A task's own limit
            gives way to it, ``max_length`` does not.
        length_penalty: Exponent ``a`` of the length penalty: 0 ranks by the sum of the token
            log-probabilities, which favours short outputs; more favours longer ones.
        length_penalty_type: What the sum is divided by, for a length ``L`` with the end of
            sequence: ``power`` is ``L^a``; ``gnmt`` is ``((5 + L) / 6)^a`` (arXiv:1609.08144,
            equation 14).
        coverage_penalty: Weight of the penalty on parts of the input that got little attention
            (beta of arXiv:1609.08144, equation 14); 0 is none. Changes the score of whole outputs,
            not which partial ones are followed.
        early_stopping: End a sentence as soon as no partial output, were it to end now at no cost,
            would beat the worst of its ``n_best``. Without, only when none can ever beat it, which
            costs more steps and seldom finds a better output. Matters with a length penalty.
        no_repeat_ngram: Size of the n-grams that may not occur twice in an output; 0 allows all.
        banned_tokens: Ids that no output may contain.
        temperature: Divides the scores that ``sample`` draws from; less than 1 sharpens.
        top_k: Draw from this many most probable tokens only; 0 is all.
        top_p: Draw from the fewest most probable tokens that hold this probability together
            (arXiv:1904.09751), after ``top_k``; 1 is all.
        min_p: Draw only from tokens that have this share of the most probable one's probability
            (arXiv:2407.01082); 0 is all.
        seed: Seed of ``sample``; what an input gets also depends on its index, on nothing else.
        return_attention: Return the attention weights of each output.

    Raises:
        ConfigError: If an option is out of range; all problems together.
    """

    method: Method = "beam"
    beam_size: int = 5
    n_best: int = 1
    max_length: int = 200
    min_length: int = 0
    length_penalty: float = 1.0
    length_penalty_type: LengthPenalty = "power"
    coverage_penalty: float = 0.0
    early_stopping: bool = False
    no_repeat_ngram: int = 0
    banned_tokens: list[int] = field(default_factory=list)
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 1
    return_attention: bool = False

    def __post_init__(self) -> None:
        problems = [
            *_unknown_choices(self),
            *_too_small(self),
            *_bad_combinations(self),
            *_bad_sampling(self),
        ]
        raise_together(problems, ConfigError, "The search cannot be set up:")


def _unknown_choices(options: SearchOptions) -> list[str]:
    choices = {"method": Method, "length_penalty_type": LengthPenalty}
    return [
        f"{name}={getattr(options, name)!r} is unknown; choose one of {', '.join(get_args(kind))}."
        for name, kind in choices.items()
        if getattr(options, name) not in get_args(kind)
    ]


def _too_small(options: SearchOptions) -> list[str]:
    smallest = {
        "beam_size": 1,
        "n_best": 1,
        "max_length": 1,
        "min_length": 0,
        "coverage_penalty": 0,
        "no_repeat_ngram": 0,
        "top_k": 0,
        "seed": 0,
    }
    return [
        f"{name}={getattr(options, name)} must be at least {limit}."
        for name, limit in smallest.items()
        if not getattr(options, name) >= limit
    ]


def _bad_combinations(options: SearchOptions) -> list[str]:
    problems = []
    if options.method == "beam" and options.n_best > options.beam_size:
        problems.append(
            f"n_best={options.n_best} is more than beam_size={options.beam_size} can find; "
            "raise beam_size."
        )
    if options.min_length > options.max_length:
        problems.append(
            f"min_length={options.min_length} is more than max_length={options.max_length}."
        )
    if any(token < 0 for token in options.banned_tokens):
        problems.append(f"banned_tokens={options.banned_tokens} must not be negative.")
    return problems


def _bad_sampling(options: SearchOptions) -> list[str]:
    problems = []
    if not options.temperature > 0:
        problems.append(
            f"temperature={options.temperature} must be positive; for the most probable output "
            "choose beam_size=1."
        )
    if not 0 < options.top_p <= 1:
        problems.append(f"top_p={options.top_p} must be above 0 and at most 1.")
    if not 0 <= options.min_p <= 1:
        problems.append(f"min_p={options.min_p} must lie between 0 and 1.")
    return problems
