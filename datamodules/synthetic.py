"""Generated text for a first run without a download: dates as people write them."""

import datetime
import random
from collections.abc import Callable

from datamodules.generated import GeneratedFiles, replace_file, write_once
from datamodules.translation import TranslationDataModule
from seq2seq.errors import ConfigError
from seq2seq.tokenizers import Normalization, TokenizerType

_MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_FIRST_DAY = datetime.date(1900, 1, 1)
_LAST_DAY = datetime.date(2099, 12, 31)
# Part of what decides whether files are made anew: raise it when the styles change.
_GENERATION = 1
# Half of what can be written in all these styles: the search for the rest would grow long.
_MAX_PAIRS = 1_000_000


def _ordinal(day: int) -> str:
    suffix = "th" if 10 < day < 14 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
    return f"{day}{suffix}"


def _month(date: datetime.date) -> str:
    return _MONTHS[date.month - 1]


def _short_month(date: datetime.date) -> str:
    name = _month(date)
    short = "Sept" if name == "September" else name[:3]
    return name if short == name else f"{short}."


def _weekday(date: datetime.date) -> str:
    return _WEEKDAYS[date.weekday()]


# Numbers alone come day first with points, or year first: "05/03/2021" would have two meanings.
_STYLES: tuple[Callable[[datetime.date], str], ...] = (
    lambda d: f"the {_ordinal(d.day)} of {_month(d)}, {d.year}",
    lambda d: f"{_month(d)} {d.day}, {d.year}",
    lambda d: f"{_month(d)} {_ordinal(d.day)}, {d.year}",
    lambda d: f"{d.day} {_month(d)} {d.year}",
    lambda d: f"{_weekday(d)}, {d.day} {_month(d)} {d.year}",
    lambda d: f"{_weekday(d)}, {_month(d)} {d.day}, {d.year}",
    lambda d: f"{_short_month(d)} {d.day}, {d.year}",
    lambda d: f"{d.day} {_short_month(d)} {d.year}",
    lambda d: f"{d.day:02}-{_month(d)[:3]}-{d.year}",
    lambda d: f"{d.day}.{d.month}.{d.year}",
    lambda d: f"{d.day:02}.{d.month:02}.{d.year}",
    lambda d: f"{d.year}/{d.month:02}/{d.day:02}",
)
_CASES: tuple[Callable[[str], str], ...] = (str, str, str.lower, str.upper)


def generate_dates(count: int, seed: int) -> list[tuple[str, str]]:
    """Return dates as people write them, each with its ISO 8601 form.

    Args:
        count: How many; no two are written alike.
        seed: Of the choice.

    Returns:
        Pairs such as ``("the 3rd of May, 2021", "2021-05-03")``, from 1900 to 2099.
    """
    generator = random.Random(seed)  # noqa: S311  # not for secrets
    days = (_LAST_DAY - _FIRST_DAY).days
    pairs: dict[str, str] = {}
    while len(pairs) < count:
        date = _FIRST_DAY + datetime.timedelta(days=generator.randint(0, days))
        written = generator.choice(_CASES)(generator.choice(_STYLES)(date))
        pairs.setdefault(written, date.isoformat())
    return list(pairs.items())


class DatesDataModule(GeneratedFiles, TranslationDataModule):
    """Dates as people write them, to ISO 8601; generated, so that a first run needs no download.

    Args:
        root: Folder to write the files to.
        train_count: Number of training pairs.
        val_count: Number of validation pairs.
        test_count: Number of test pairs; no split shares a written date with another.
        predict: Split whose source side `seq2seq predict` translates.
        vocab_size: Number of subwords, shared by both sides.
        source_vocab_size: Number of source subwords; null for one tokenizer for both sides.
        tokenizer_type: How text is cut into tokens.
        normalization: SentencePiece's rule; the default folds upper case into lower case.
        batch_tokens: Budget of a batch: rows times tokens of its longest side, padding included.
        batch_size: Largest number of pairs in a training batch; null for no limit.
        eval_batch_size: Largest number of pairs in any other batch.
        cache_dir: Folder for tokenizers and tokenised text; null for ``.seq2seq_cache`` in
            ``root``.
        num_workers: Number of processes that prepare batches; 0 for the main one.
        seed: Of the pairs, and of the order of the batches.

    Raises:
        ConfigError: If options cannot work.
    """

    def __init__(
        self,
        root: str = "runs/data/dates",
        train_count: int = 20_000,
        val_count: int = 500,
        test_count: int = 500,
        predict: str | None = "test",
        vocab_size: int = 160,
        source_vocab_size: int | None = None,
        tokenizer_type: TokenizerType = "bpe",
        normalization: Normalization = "nmt_nfkc_cf",
        batch_tokens: int = 2048,
        batch_size: int | None = 128,
        eval_batch_size: int = 256,
        cache_dir: str | None = None,
        num_workers: int = 0,
        seed: int = 1,
    ) -> None:
        super().__init__(
            root,
            source="text",
            target="iso",
            predict=predict,
            format="lines",
            vocab_size=vocab_size,
            source_vocab_size=source_vocab_size,
            tokenizer_type=tokenizer_type,
            normalization=normalization,
            batch_tokens=batch_tokens,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            cache_dir=cache_dir,
            num_workers=num_workers,
            seed=seed,
        )
        self.counts = {"train": train_count, "val": val_count, "test": test_count}
        if min(self.counts.values()) < 1 or sum(self.counts.values()) > _MAX_PAIRS:
            raise ConfigError(
                "--data.train_count, --data.val_count and --data.test_count must be 1 or more, "
                f"and {_MAX_PAIRS:,} or less together."
            )

    def generate(self) -> None:
        """Write the files, unless they are there with these settings."""
        settings = {"generation": _GENERATION, "seed": self.seed, **self.counts}
        write_once(self.root, settings, self._files(), self._write_splits, what="dates")

    def _files(self) -> list[str]:
        return [f"{split}.{side}" for split in self.counts for side in (self.source, self.target)]

    def _write_splits(self) -> None:
        pairs = generate_dates(sum(self.counts.values()), self.seed)
        for split, count in self.counts.items():
            chosen, pairs = pairs[:count], pairs[count:]
            for column, side in enumerate((self.source, self.target)):
                lines = "".join(f"{pair[column]}\n" for pair in chosen)
                replace_file(self.root / f"{split}.{side}", lines.encode())
