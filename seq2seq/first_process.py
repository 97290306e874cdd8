"""Work that one of several processes does for all of them."""

from collections.abc import Callable
from datetime import timedelta

from torch import distributed

_PATIENCE = timedelta(days=365)


def do_once(work: Callable[[], None]) -> None:
    """Let the first process do something, while the others wait for as long as it takes.

    A barrier of the training itself gives up sooner: that of NCCL after ten minutes. If the work
    fails, it fails in the others, too, as their connection to the first one breaks.

    Args:
        work: What is to be done; without processes that know of each other, it is done here.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        work()
        return
    group = distributed.new_group(backend="gloo", timeout=_PATIENCE)
    assert isinstance(group, distributed.ProcessGroup)  # every process is in it
    if distributed.get_rank() == 0:
        work()
    distributed.barrier(group)
    distributed.destroy_process_group(group)
