"""A real Slurm of one node for the tests: munged, slurmctld and slurmd in a temporary folder, ended together.

`python tests/cluster/one_node.py COMMAND ...` runs one command with that Slurm up, for a look by hand.
"""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

CPUS = 4
"""What the node claims to have: Slurm hands out claims, the tasks share whatever cores there are."""
CONFIG = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={daemon_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=10
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmdParameters=config_overrides
SlurmctldTimeout=300
SlurmdTimeout=300
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=5,batch_sched_delay=1
MpiDefault=none
ReturnToService=2
JobRequeue=1
KillWait=60
MinJobAge=3600
FirstJobId={first_job}
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
"""
# cred_expire is also how long a requeued job waits; the default is two minutes. FirstJobId decides the port that
# Lightning's processes meet on, so a number of its own keeps two clusters on one machine apart.
START_SECONDS = 120
FINISHED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE")


class Unavailable(Exception):
    """Why no Slurm can run here; the tests skip with it."""


def free_port() -> int:
    """A port nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Slurm:
    """A running one-node Slurm, as a context; jobs see it through `environment`."""

    def __init__(self) -> None:
        missing = [name for name in ("munged", "slurmctld", "slurmd", "sbatch", "srun") if self._find(name) is None]
        if missing:
            raise Unavailable(f"Slurm is not installed ({missing[0]}); on Debian: apt-get install slurm-wlm munge")
        if os.geteuid() != 0:
            raise Unavailable("only root can start Slurm's daemons")
        self.processes: list[subprocess.Popen[bytes]] = []

    @staticmethod
    def _find(name: str) -> str | None:
        return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")

    def __enter__(self) -> "Slurm":
        # Not pytest's folder: munged runs as a user of its own, and the paths of sockets must be short.
        self.folder = Path(tempfile.mkdtemp(prefix="slurm", dir="/tmp"))
        self.folder.chmod(0o755)
        try:
            self._start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _start(self) -> None:
        munge = self.folder / "munge"
        for folder in (munge, self.folder / "state", self.folder / "spool"):
            folder.mkdir(mode=0o755)
        (munge / "key").write_bytes(os.urandom(128))
        (munge / "key").chmod(0o400)
        try:
            for path in (munge, munge / "key"):
                shutil.chown(path, "munge", "munge")
        except LookupError as error:
            raise Unavailable("the user munge does not exist; on Debian: apt-get install munge") from error
        self.config = self.folder / "slurm.conf"
        self.config.write_text(
            CONFIG.format(
                host=socket.gethostname().split(".")[0],
                folder=self.folder,
                controller_port=free_port(),
                daemon_port=free_port(),
                first_job=random.randrange(1000, 9000),
                cpus=CPUS,
            )
        )
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))},
            "SLURM_CONF": str(self.config),
        }
        files = [f"--{word}={munge}/{word.removesuffix('-file')}" for word in ("key-file", "pid-file", "log-file")]
        self._daemon(
            "munged", "--foreground", f"--socket={munge}/socket", f"--seed-file={munge}/seed", *files, user="munge"
        )
        self._wait("munged", (munge / "socket").exists)
        self._daemon("slurmctld", "-D", "-f", str(self.config))
        self._wait("slurmctld", lambda: self._answer("scontrol", "ping").returncode == 0)
        self._daemon("slurmd", "-D", "-f", str(self.config))
        self._wait("slurmd", lambda: self._answer("sinfo", "--noheader", "--format=%T").stdout.strip() == "idle")

    def _daemon(self, name: str, *words: str, user: str | None = None) -> None:
        path = self._find(name)
        assert path is not None
        # Whatever ends the tests ends the daemons, also where there is no time to tidy up.
        setpriv = self._find("setpriv")
        leash = [setpriv, "--pdeathsig", "TERM"] if setpriv else []
        with (self.folder / f"{name}.out").open("wb") as out:
            process = subprocess.Popen(
                [*leash, path, *words], stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=self.environment,
                user=user, group=user, extra_groups=[] if user else None, cwd="/", start_new_session=True,
            )  # fmt: skip
        self.processes.append(process)

    def _wait(self, name: str, ready: Callable[[], bool]) -> None:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self.processes[-1].poll() is None:
            if ready():
                return
            time.sleep(0.2)
        logs = "\n".join(path.read_text(errors="replace")[-1500:] for path in sorted(self.folder.glob(f"{name}.[ol]*")))
        raise Unavailable(f"{name} does not start here: {logs}")

    def _answer(self, *words: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(words, env=self.environment, capture_output=True, text=True, timeout=60)
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(words, 1, "", "no answer within a minute")

    def call(self, *words: str) -> str:
        """Runs one of Slurm's commands; returns what it says, or fails with it."""
        done = self._answer(*words)
        assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def submit(self, *words: str) -> str:
        """Submits a job from the current folder; returns its number."""
        return self.call("sbatch", "--parsable", *words).partition(";")[0]

    def facts(self, job: str) -> dict[str, str]:
        """What Slurm knows of a job, by Slurm's names."""
        words = self.call("scontrol", "--oneliner", "show", "job", job).split()
        return {key: value for key, _, value in (word.partition("=") for word in words)}

    def wait_until(self, job: str, what: str, reached: Callable[[], bool], seconds: float = 600) -> None:
        """Waits for a condition; fails with the job's output if it ends or takes too long before."""
        end = time.monotonic() + seconds
        while not reached():
            facts = self.facts(job)
            state = facts["JobState"]
            if (state in FINISHED and not reached()) or time.monotonic() > end:
                raise AssertionError(f"job {job} is {state}, waited for: {what}\n{self.output(facts)}")
            time.sleep(0.3)

    def finish(self, job: str, seconds: float = 900) -> str:
        """Waits for the end of a job that must complete; returns its output."""
        self.wait_until(job, "its completion", lambda: self.facts(job)["JobState"] == "COMPLETED", seconds)
        return self.output(self.facts(job))

    def output(self, facts: dict[str, str]) -> str:
        """What a job wrote, and what the daemons said last."""
        out = Path(facts.get("StdOut", "none"))
        texts = [out.read_text(errors="replace")[-12000:] if out.is_file() else "no output"]
        if facts.get("JobState") != "COMPLETED":
            logs = (self.folder / name for name in ("slurmctld.log", "slurmd.log"))
            texts += [path.read_text(errors="replace")[-2500:] for path in logs if path.is_file()]
        return "\n-- ".join(texts)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Cancels all jobs, ends the daemons in turn, and removes the folder."""
        if len(self.processes) == 3:
            self._answer("scancel", "--signal=KILL", "--full", "--user=root")
            self._answer("scancel", "--user=root")
            end = time.monotonic() + 60
            while self._answer("squeue", "--noheader").stdout.strip() and time.monotonic() < end:
                time.sleep(0.3)
        for process in reversed(self.processes):
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def main(words: Sequence[str]) -> int:
    """Runs a command with a Slurm up; returns its exit code."""
    with Slurm() as slurm:
        return subprocess.run(words, env=slurm.environment).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["bash"]))
