"""Workers of loaders that outlive the signals by which a cluster ends a run."""

import multiprocessing
import os
import signal
import threading

_SIGNALS = {signal.SIGTERM, signal.SIGUSR1}


def leave_signals_to_main(worker: int) -> None:  # noqa: ARG001
    """Let a worker go on until the main process ends it; give it to a loader as worker_init_fn.

    SLURM sends SIGTERM and SIGUSR1 to every process of a step. A worker that ended with them would
    take the main process with it, before that has saved where it is.
    """
    if not hasattr(signal, "sigwaitinfo"):  # as on macOS, which has no SLURM
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    threading.Thread(target=_await_end, daemon=True).start()


def _await_end() -> None:
    main = multiprocessing.parent_process()  # os.getppid() may be that of a fork server
    assert main is not None
    while True:
        received = signal.sigwaitinfo(_SIGNALS)
        # From the main process, SIGTERM means what it says: torch ends its workers by it.
        if received.si_signo == signal.SIGTERM and received.si_pid == main.pid:
            os._exit(0)
