"""Other libraries' training steps, each in a child process of a Python that has them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from types import TracebackType
from typing import IO

from mtt_lava.run import RunError
from mtt_lava.studies import peer_steps
from mtt_lava.studies.peer_steps import PEERS, Job

_KEPT = {"MALLOC_TRIM_THRESHOLD_": str(1 << 30), "MALLOC_MMAP_THRESHOLD_": str(1 << 30)}
"""As `mtt_lava.training.memory_kept` has it, so that no step waits for memory longer than another."""


def _command(python: str) -> list[str]:
    # Isolated: what lies beside the program is ours, and no package of theirs.
    return [python, "-I", peer_steps.__file__]


def found(python: str) -> dict[str, str]:
    """Which peers an interpreter has.

    Parameters
    ----------
    python : str
        Its path, or a name on the path of programs.

    Returns
    -------
    dict of str to str
        Versions of ``python``, ``torch`` and of each of `PEERS` that is there.

    Raises
    ------
    RunError
        It is no Python, or has no PyTorch or no peer.
    """
    program = shutil.which(python)
    if program is None:
        raise RunError(f"--peers {python}: no such program: name the Python of an environment with {_wanted()}")
    try:
        done = subprocess.run(_command(program), stdin=subprocess.DEVNULL, capture_output=True, text=True)
        versions: dict[str, str] = json.loads(done.stdout.splitlines()[-1]) if not done.returncode else {}
    except (OSError, ValueError, IndexError):
        versions = {}
    if not any(peer in versions for peer in PEERS):
        raise RunError(f"--peers {python}: there are no peers: install {_wanted()} for it")
    return versions


def _wanted() -> str:
    return f"torch and any of {', '.join(PEERS)}"


class Peer:
    """A child process that takes training steps with a peer's neurons; a context, behind which it is gone.

    Parameters
    ----------
    python : str
        An interpreter that has it.
    name : str
        Of `PEERS`.
    """

    def __init__(self, python: str, name: str) -> None:
        self.python, self.name = python, name

    def __enter__(self) -> Peer:
        self._errors: IO[str] = tempfile.TemporaryFile("w+")  # a pipe that nobody reads would stop the child
        program = shutil.which(self.python) or self.python
        self._child = subprocess.Popen(
            [*_command(program), self.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=os.environ | _KEPT,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.kill()
        self._child.communicate()  # waits for it, and closes the pipes
        self._errors.close()

    def step(self, job: Job, peak: bool = False) -> tuple[float, float | None]:
        """Take a step: its milliseconds and, with `peak`, its megabytes (see `peer_steps.measured`).

        Raises
        ------
        RunError
            The child has died, of what its last line says.
        """
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        try:
            print(json.dumps(job._asdict() | {"peak": peak}), file=self._child.stdin, flush=True)
            milliseconds, megabytes = json.loads(self._child.stdout.readline())
        except (BrokenPipeError, ValueError):
            self._child.kill()
            code = self._child.wait()
            self._errors.seek(0)
            last = (self._errors.read().strip().splitlines() or [f"exit code {code}"])[-1]
            raise RunError(f"{self.name} in {self.python} stopped: {last}") from None
        return milliseconds, megabytes
