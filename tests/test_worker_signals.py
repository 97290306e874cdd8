import os
import signal

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from datamodules.worker_signals import leave_signals_to_main

pytestmark = pytest.mark.skipif(
    not hasattr(signal, "sigwaitinfo"), reason="this system has no sigwaitinfo"
)


class Processes(Dataset):
    """Gives the number of the process that reads it."""

    def __len__(self):
        return 40

    def __getitem__(self, index):
        return os.getpid()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_worker_outlives_the_signals_that_every_process_of_a_job_gets(number):
    loader = DataLoader(Processes(), num_workers=1, worker_init_fn=leave_signals_to_main)
    batches = iter(loader)
    worker = int(next(batches))
    assert worker != os.getpid()
    # From another process than its own: what that sends, it means.
    assert os.system(f"kill -{int(number)} {worker}") == 0
    assert {int(batch) for batch in batches} == {worker}
    assert isinstance(next(iter(loader)), torch.Tensor)


def test_a_worker_ends_when_its_own_process_says_so():
    batches = iter(DataLoader(Processes(), num_workers=1, worker_init_fn=leave_signals_to_main))
    next(batches)
    [worker] = batches._workers
    worker.terminate()
    worker.join(timeout=100)
    assert worker.exitcode == 0
