"""A SLURM of one machine, in a folder of its own that is gone afterwards."""

import getpass
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

from long_run import wait_until

_SEARCHED = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"  # where daemons are
_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")
_CONFIGURATION = """\
ClusterName=test
SlurmctldHost=localhost
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# A job that was put back into the queue waits as long as a credential lives; 6 is the least.
AuthInfo=socket={folder}/munge.socket,cred_expire=6
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MailProg=/bin/true
SchedulerParameters=sched_interval=1
# Two processors, whatever the machine has.
SlurmdParameters=config_overrides
NodeName=localhost NodeHostname={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=main Nodes=localhost Default=YES MaxTime=UNLIMITED State=UP
"""


def missing_programs():
    """Return what of SLURM and MUNGE this machine lacks."""
    return [name for name in _PROGRAMS if shutil.which(name, path=_SEARCHED) is None]


def free_port():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return unused.getsockname()[1]


class Cluster:
    """Starts ``munged``, ``slurmctld`` and ``slurmd``; a context manager that ends them."""

    def __enter__(self):
        # Not below the tests' own folder: the name of a socket has 107 characters at most.
        self.folder = Path(tempfile.mkdtemp(prefix="slurm"))
        self.folder.chmod(0o755)  # else munged refuses to put a socket there
        self._daemons = []
        self._environment = {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf")}
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for daemon in reversed(self._daemons):
            daemon.terminate()
            daemon.wait()
        shutil.rmtree(self.folder)

    def run(self, *command, **options):
        """Run a command of SLURM and return what it printed."""
        done = subprocess.run(
            command, env=self._environment, capture_output=True, text=True, check=False, **options
        )
        assert done.returncode == 0, f"{command}: {done.stderr}\n{self.logs()}"
        return done.stdout.strip()

    def submit(self, folder, script, *options, **variables):
        """Submit a job that runs in a folder, and return its number."""
        environment = {**self._environment, "MASTER_PORT": str(free_port()), **variables}
        command = ["sbatch", "--parsable", "--output=log", str(script), *options]
        done = subprocess.run(
            command, env=environment, cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{done.stderr}\n{self.logs()}"
        return done.stdout.strip()

    def state(self, job):
        """Return the state of a job, such as ``RUNNING``, and how often it was started again."""
        fields = dict(
            field.partition("=")[::2]
            for field in self.run("scontrol", "--oneliner", "show", "job", job).split()
        )
        return fields["JobState"], int(fields["Restarts"])

    def logs(self):
        """Return what the daemons had to say."""
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("*.log")))

    def _start(self):
        names = {"folder": self.folder, "user": getpass.getuser(), "host": socket.gethostname()}
        ports = {"controller_port": free_port(), "node_port": free_port()}
        configuration = _CONFIGURATION.format(**names, **ports)
        (self.folder / "slurm.conf").write_text(configuration)
        (self.folder / "state").mkdir()
        (self.folder / "spool").mkdir()
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        sockets = {name: self.folder / f"munge.{name}" for name in ("socket", "pid", "seed")}
        self._start_daemon(
            *("munged", "--foreground", f"--key-file={key}", f"--socket={sockets['socket']}"),
            *(f"--pid-file={sockets['pid']}", f"--seed-file={sockets['seed']}"),
            f"--log-file={self.folder / 'munged.log'}",
        )
        wait_until(sockets["socket"].exists, 60, self.logs)
        self._start_daemon("slurmctld", "-D")
        self._start_daemon("slurmd", "-D", "-N", "localhost")
        wait_until(self._is_ready, 60, self.logs)

    def _start_daemon(self, name, *options):
        path = shutil.which(name, path=_SEARCHED)
        with (self.folder / f"{name}.output.log").open("w") as log:
            daemon = subprocess.Popen(
                [path, *options], env=self._environment, stdout=log, stderr=subprocess.STDOUT
            )
        self._daemons.append(daemon)

    def _is_ready(self):
        found = subprocess.run(
            ["sinfo", "--noheader", "--format=%T"],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return found.stdout.strip() == "idle"
