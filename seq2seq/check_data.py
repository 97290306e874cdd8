"""``seq2seq-check-data``: read every file of a configuration's data before a run does."""

import sys
from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch.cli import LightningArgumentParser

from datamodules.check import read_all, write_report
from datamodules.faults import some_of
from seq2seq.errors import ConfigError
from seq2seq.recipe_command import build_data, recipe_parser, run_command

_REPORT = "data_report.csv"
_NAME = "seq2seq-check-data"


def build_parser() -> LightningArgumentParser:
    """Return the parser of ``seq2seq-check-data``."""
    parser = recipe_parser(
        _NAME,
        "Read every file of a data module from its start to its end, print what cannot be used, "
        "and write a report. The exit status is 1 if anything is bad; a video whose broken tail is "
        "cut off, as --data.broken_tail cut has it, is not.",
        "Configuration as for seq2seq; all but its data is left alone.",
        used=("run_dir",),
    )
    parser.add_argument(
        "--run_dir", type=str, default=".", help="Folder for the report, as for seq2seq."
    )
    parser.add_argument(
        "--report",
        type=str | None,
        default=None,
        help=f"File to write (CSV: file, status, problem); null for {_REPORT} in the run_dir.",
    )
    return parser


def run(arguments: Sequence[str] | None = None) -> bool:
    """Carry out ``seq2seq-check-data``.

    Args:
        arguments: As on the command line; ``sys.argv`` when None.

    Returns:
        Whether no file is bad.

    Raises:
        ArgumentError: If an option is unknown or has no such value.
        ConfigError: If options do not fit together, or the data module cannot be checked.
        DataError: If what lists the files cannot be read, or the report not be written.
    """
    parser = build_parser()
    options = parser.parse_args(arguments)
    if options.data is None:
        raise ConfigError("There is nothing to check: give a --config with data, or --data.")
    data = build_data(parser, options)
    findings = read_all(data.iter_readings())
    report = Path(options.run_dir) / _REPORT if options.report is None else Path(options.report)
    write_report(report, findings)
    bad, cut = (
        [f"{each.name}: {each.problem}" for each in findings if each.status == status]
        for status in ("bad", "cut")
    )
    counts = f"{len(bad)} bad, {len(cut)} cut" if cut else f"{len(bad)} bad"
    sys.stdout.write(f"{len(findings)} files read, {counts}; {report} lists them all.\n")
    for found in (bad, cut):
        if found:
            listed = some_of(found, "\n  - ")
            sys.stdout.write(f"  - {listed}\n")
    return not bad


def main() -> None:
    """Run ``seq2seq-check-data``: status 1 where data is bad, 2 where options are."""
    sys.exit(not run_command(_NAME, run))


if __name__ == "__main__":
    main()
