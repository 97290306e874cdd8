"""Files that data modules generate."""

import time
from concurrent.futures import ThreadPoolExecutor

from datamodules.generated import replace_file, write_once


def test_runs_that_begin_together_write_the_files_once(tmp_path):
    written = []

    def run(number):
        def write():
            written.append(number)
            time.sleep(0.2)
            replace_file(tmp_path / "data/a.txt", b"a")

        write_once(tmp_path / "data", {"seed": 1}, ["a.txt"], write, what="texts")
        return (tmp_path / "data/a.txt").stat().st_mtime_ns

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(run, range(4)))) == 1
    assert len(written) == 1
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"a.txt", "settings.json"}
