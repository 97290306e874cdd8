import time
from datetime import timedelta
from pathlib import Path

import pytest
from torch import distributed
from torch.multiprocessing.spawn import ProcessRaisedException, spawn

from seq2seq.first_process import do_once

TIMEOUT_SECONDS = 3.0


def join(rank: int, folder: Path) -> None:
    (folder / f"{rank} has started").touch()
    while not (folder / f"{1 - rank} has started").exists():  # imports may take longer
        time.sleep(0.01)
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'meeting'}",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=TIMEOUT_SECONDS),
    )


def work_long(rank: int, folder: Path) -> None:
    join(rank, folder)

    def work() -> None:
        time.sleep(2 * TIMEOUT_SECONDS)
        (folder / f"made by {rank}").touch()

    do_once(work)
    assert (folder / "made by 0").exists()
    distributed.destroy_process_group()


def fail(rank: int, folder: Path) -> None:
    join(rank, folder)

    def work() -> None:
        raise ValueError("no room")

    do_once(work)
    (folder / f"went on in {rank}").touch()


def test_work_may_take_longer_than_the_others_would_wait_for_each_other(tmp_path):
    spawn(work_long, (tmp_path,), nprocs=2)
    assert [path.name for path in tmp_path.glob("made*")] == ["made by 0"]


def test_no_process_goes_on_where_the_work_failed(tmp_path):
    with pytest.raises(ProcessRaisedException, match=r"no room|closed"):
        spawn(fail, (tmp_path,), nprocs=2)
    assert not list(tmp_path.glob("went on*"))


def test_a_process_by_itself_does_it(tmp_path):
    do_once((tmp_path / "made").touch)
    assert (tmp_path / "made").exists()
