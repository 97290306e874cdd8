"""Options are refused with their names, all problems at once, and parsed by the CLI's parser."""

import pytest
from jsonargparse import ArgumentParser

from seq2seq.errors import ConfigError
from seq2seq.search import SearchOptions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "best"}, "method='best' is unknown; choose one of beam, sample"),
        ({"length_penalty_type": "log"}, "length_penalty_type='log' is unknown"),
        ({"beam_size": 0, "method": "sample"}, "beam_size=0 must be at least 1"),
        ({"n_best": 0}, "n_best=0 must be at least 1"),
        ({"n_best": 6}, "n_best=6 is more than beam_size=5 can find"),
        ({"max_length": 0, "min_length": 0}, "max_length=0 must be at least 1"),
        ({"min_length": -1}, "min_length=-1 must be at least 0"),
        ({"min_length": 9, "max_length": 8}, "min_length=9 is more than max_length=8"),
        ({"coverage_penalty": -0.1}, r"coverage_penalty=-0\.1 must be at least 0"),
        ({"no_repeat_ngram": -2}, "no_repeat_ngram=-2 must be at least 0"),
        ({"banned_tokens": [5, -1]}, r"banned_tokens=\[5, -1\] must not be negative"),
        ({"temperature": 0.0}, r"temperature=0\.0 must be positive.*beam_size=1"),
        ({"top_k": -1}, "top_k=-1 must be at least 0"),
        ({"top_p": 0.0}, r"top_p=0\.0 must be above 0 and at most 1"),
        ({"min_p": 1.5}, r"min_p=1\.5 must lie between 0 and 1"),
        ({"seed": -4}, "seed=-4 must be at least 0"),
        ({"temperature": float("nan")}, "temperature=nan must be positive"),
    ],
)
def test_bad_option_is_named(options, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SearchOptions(**options)


def test_all_problems_come_together() -> None:
    with pytest.raises(ConfigError, match=r"(?s)cannot be set up:.*beam_size=-1.*top_p=2"):
        SearchOptions(beam_size=-1, top_p=2)


def test_sampling_may_draw_more_than_a_beam() -> None:
    assert SearchOptions(method="sample", beam_size=2, n_best=9).n_best == 9


def test_options_are_parsed_and_explained() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(SearchOptions, "decoding")
    parsed = parser.parse_args(["--decoding.beam_size=3", "--decoding.banned_tokens=[7, 8]"])
    assert SearchOptions(**parsed.decoding.as_dict()) == SearchOptions(
        beam_size=3, banned_tokens=[7, 8]
    )
    assert "Size of the n-grams that may not occur twice" in parser.format_help()
