"""A SLURM of three virtual nodes on this machine, in a folder of its own."""

import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch")

INSTALL = "install SLURM and munge to run these tests: sudo apt-get install slurm-wlm munge"

NODES = ("127.0.0.1", "127.0.0.2", "127.0.0.3")

# Nodes are called by their addresses, because submitit takes the meeting point of the processes from a node's name.
# cred_expire is how long a job waits after a requeue; KillWait must be well under it.
_CONF = """
ClusterName=ci
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/run/munge.sock,cred_expire=5
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
ReturnToService=1
SlurmdTimeout=5
KillWait=2
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
GresTypes=gpu
NodeName=127.0.0.[1-3] NodeAddr=127.0.0.1 NodeHostname=localhost Port=[{first}-{last}] CPUs=4 RealMemory=4000 Gres=gpu:2
PartitionName=ci Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""

# Answers what a site with accounting would, from what the controller remembers.
_SACCT = """#!/bin/sh
for word in "$@"; do case "$word" in --jobs=*) jobs="${word#--jobs=}";; esac; done
exec squeue --noheader --states=all --array --jobs="$jobs" --format='%i|%T|0:0'
"""


class Slurm:
    """Starts on entry; on exit every process that it started has ended."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.accounting = folder / "accounting"
        self._environment = dict(os.environ)

    def __enter__(self) -> "Slurm":
        for name in ("run", "state", "spool", "log", "accounting"):
            (self.folder / name).mkdir(mode=0o700)
        (self.accounting / "sacct").write_text(_SACCT)
        (self.accounting / "sacct").chmod(0o700)
        port = _free_ports(4)
        conf = _CONF.format(folder=self.folder, user=getpass.getuser(), port=port, first=port + 1, last=port + 3)
        (self.folder / "slurm.conf").write_text(conf)
        (self.folder / "gres.conf").write_text("AutoDetect=off\nName=gpu File=/dev/null\nName=gpu File=/dev/zero\n")
        os.environ["SLURM_CONF"] = str(self.folder / "slurm.conf")
        key = self.folder / "run" / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        self.folder.chmod(0o755)
        run = self.folder / "run"
        run.chmod(0o755)
        try:
            call(
                "munged",
                f"--key-file={key}",
                f"--socket={run / 'munge.sock'}",
                f"--pid-file={run / 'munged.pid'}",
                f"--log-file={self.folder / 'log' / 'munged.log'}",
                f"--seed-file={run / 'munge.seed'}",
            )
            call("slurmctld")
            for node in NODES:
                self.start_node(node)
            until(lambda: call("sinfo", "-h", "-r", "-t", "idle", "-o", "%D").strip() == "3", 30, "three idle nodes")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(subprocess.CalledProcessError, subprocess.TimeoutExpired):
            call("scancel", "--user", getpass.getuser())
            until(lambda: not call("squeue", "-h", "-o", "%i").strip(), 15, "an empty queue")
        daemons = ["slurmctld.pid", *(f"slurmd.{node}.pid" for node in NODES), "munged.pid"]
        pids = [pid for name in daemons if (pid := self._pid(name)) is not None]
        for pid in [*pids, *self._steps()]:
            _end(pid)
        os.environ.clear()
        os.environ.update(self._environment)

    def start_node(self, node: str) -> None:
        call("slurmd", "-N", node)

    def stop_node(self, node: str) -> None:
        """End the node's daemon alone: its tasks go on."""
        pid = self._pid(f"slurmd.{node}.pid")
        assert pid is not None
        _end(pid)

    def reset(self) -> None:
        """All nodes idle and no job left."""
        call("scancel", "--user", getpass.getuser())
        for node in NODES:
            if self._pid(f"slurmd.{node}.pid") is None:
                self.start_node(node)
        for state in ("down", "resume"):
            for node in call("sinfo", "-h", "-N", "-t", "down,drain,drained", "-o", "%N").split():
                call("scontrol", "update", f"nodename={node}", f"state={state}", "reason=test")
        until(lambda: not call("squeue", "-h", "-o", "%i").strip(), 30, "an empty queue")
        until(lambda: call("sinfo", "-h", "-r", "-t", "idle", "-o", "%D").strip() == "3", 30, "three idle nodes")

    def _pid(self, name: str) -> int | None:
        """The pid in a file, if that process lives and is one of this cluster's."""
        try:
            pid = int((self.folder / "run" / name).read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError, ValueError):
            return None
        return pid if name.split(".")[0].encode() in command else None

    def _steps(self) -> list[int]:
        """Job steps' keepers, and what they started, that outlived their daemons: they carry this cluster's name."""
        mark = f"SLURM_CONF={self.folder / 'slurm.conf'}".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            if int(path.name) == os.getpid():
                continue
            with suppress(OSError):
                started_by_slurm = b"SLURM_JOB_ID=" in (environment := (path / "environ").read_bytes())
                keeper = (path / "cmdline").read_bytes().startswith(b"slurmstepd")
                if mark in environment.split(b"\0") and (started_by_slurm or keeper):
                    found.append(int(path.name))
        return found


def missing() -> str | None:
    """What to install, in one line, where SLURM is not."""
    lacking = [name for name in PROGRAMS if shutil.which(name) is None]
    return INSTALL if lacking else None


def call(*command: str, seconds: float = 30.0) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds).stdout


def until(true: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait until ``true()``; fails after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError(f"no {what} within {seconds:g} s")
        time.sleep(0.2)


def _end(pid: int) -> None:
    """SIGTERM, then SIGKILL."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        for _ in range(50):
            if not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1][:3]:
                return
            time.sleep(0.1)


def _free_ports(count: int) -> int:
    """The first of ``count`` ports in a row that nobody listens on."""
    for first in range(17000, 20000, count):
        with suppress(OSError):
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
            return first
    raise AssertionError("no free ports between 17000 and 20000")
