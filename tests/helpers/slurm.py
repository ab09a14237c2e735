"""A SLURM of one node for tests, on free ports of loopback: Debian's slurm-wlm and munge, without systemd.

On Debian: apt-get install --no-install-recommends slurm-wlm munge.
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

PARTITION = "main"
# More cores and memory than a small machine has: jobs of tests wait for each other, not for a core.
_CORES, _MEMORY_MB = 8, 64_000

_CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
CredType=cred/munge
SlurmctldPort={controller}
SlurmdPort={node}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdSpoolDir={folder}/spool
StateSaveLocation={folder}/state
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0,bf_interval=5
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MinJobAge=300
KillWait=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory={memory} State=UNKNOWN
PartitionName={partition} Nodes={host} Default=NO MaxTime=INFINITE State=UP
"""


@dataclass(frozen=True)
class Slurm:
    """A running SLURM.

    Parameters
    ----------
    folder
        Where it keeps everything; removed by whoever made it.
    """

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """What SLURM's commands need to find it."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def ask(self, *command: object, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
        """Run one of SLURM's commands; its output."""
        done = subprocess.run(
            [*map(str, command)],
            env={**(env or os.environ), **self.environment},
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout.strip()

    def jobs(self) -> dict[str, str]:
        """State of each job that has not ended, by its id, as 7 or 7_0."""
        return dict(line.split() for line in self.ask("squeue", "-h", "-r", "-o", "%i %T").splitlines())

    def states(self, job: str) -> list[str]:
        """How the jobs of an array, or a job, ended or stand."""
        told = self.ask("scontrol", "-o", "show", "job", job)
        return [part.removeprefix("JobState=") for part in told.split() if part.startswith("JobState=")]

    def until_ended(self, patience_s: float = 240) -> None:
        """Wait until no job is left."""
        patience = time.monotonic() + patience_s
        while left := self.jobs():
            assert time.monotonic() < patience, f"not ended in {patience_s:.0f} s: {left}"
            time.sleep(0.3)


def _missing() -> str | None:
    lacking = [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if _where(name) is None]
    return f"no SLURM: {', '.join(lacking)} not found (Debian: slurm-wlm, munge)" if lacking else None


def _where(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


@contextmanager
def running() -> Iterator[Slurm]:
    """Start one, and end it with its jobs; skip the test if it is not installed and not required."""
    if reason := _missing():
        if "slurm" in os.environ.get("LIGHTLAKE_TEST_REQUIRE", ""):
            pytest.fail(reason)
        pytest.skip(reason)
    daemons: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="slurm-") as name:
        slurm = Slurm(Path(name))
        try:
            _start(slurm, daemons)
            yield slurm
        finally:
            try:
                if len(daemons) == 3 and all(daemon.poll() is None for daemon in daemons):
                    slurm.ask("scancel", "-u", getpass.getuser())
                    slurm.until_ended(60)
            finally:
                for daemon in reversed(daemons):
                    daemon.terminate()
                for daemon in reversed(daemons):
                    _end(daemon)


def _start(slurm: Slurm, daemons: list[subprocess.Popen[bytes]]) -> None:
    folder = slurm.folder
    folder.chmod(0o755)
    for name in ("spool", "state"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    controller, node = _free_ports(2)
    (folder / "slurm.conf").write_text(
        _CONFIGURATION.format(
            host=socket.gethostname().partition(".")[0],
            user=getpass.getuser(),
            folder=folder,
            controller=controller,
            node=node,
            cores=_CORES,
            memory=_MEMORY_MB,
            partition=PARTITION,
        )
    )
    munge = [
        f"--{name}={folder / file}"
        for name, file in (
            ("key-file", "munge.key"),
            ("socket", "munge.sock"),
            ("pid-file", "munged.pid"),
            ("log-file", "munged.log"),
            ("seed-file", "munge.seed"),
        )
    ]
    commands = (
        ["munged", "--foreground", "--force", *munge],
        ["slurmctld", "-D", "-f", str(folder / "slurm.conf")],
        ["slurmd", "-D", "-f", str(folder / "slurm.conf")],
    )
    for program, *options in commands:
        with (folder / f"{program}.out").open("wb") as out:
            daemons.append(
                subprocess.Popen(
                    [str(_where(program)), *options],
                    stdout=out,
                    stderr=out,
                    stdin=subprocess.DEVNULL,
                    env={**os.environ, **slurm.environment},
                )
            )
        if program == "munged":
            _until(slurm, daemons, lambda: (folder / "munge.sock").exists())
    ready = ["sinfo", "-h", "-o", "%t"]
    _until(slurm, daemons, lambda: _told(slurm, ready) == "idle")


def _told(slurm: Slurm, command: list[str]) -> str:
    environment = {**os.environ, **slurm.environment}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout.strip()


def _until(slurm: Slurm, daemons: list[subprocess.Popen[bytes]], true: Callable[[], bool]) -> None:
    patience = time.monotonic() + 60
    while not true():
        if any(daemon.poll() is not None for daemon in daemons) or time.monotonic() > patience:
            logs = "".join(f"{path.name}: {path.read_text()[-1500:]}\n" for path in slurm.folder.glob("*.out"))
            pytest.fail(f"SLURM does not start:\n{logs}")
        time.sleep(0.1)


def _end(daemon: subprocess.Popen[bytes]) -> None:
    try:
        daemon.wait(20)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def _free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
