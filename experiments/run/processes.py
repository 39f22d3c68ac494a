"""Several processes as one run, one for each machine or accelerator: `--distributed`."""

import os

import jax
from absl import flags

from experiments.run.watch import Watch
from sel.cli.arguments import refuse_unused
from sel.errors import UserError

_DISTRIBUTED = flags.DEFINE_bool(
    "distributed",
    False,
    "Join the processes that were started with this same command to one run: the tasks of a Slurm step or of Open MPI, "
    "the hosts of a TPU pod, the pods of an indexed Kubernetes job; or, with the next three options, any.",
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", "", "With --distributed: HOST:PORT of the first process, where it is not found out."
)
_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "With --distributed: number of processes, where it is not found out.", lower_bound=1
)
_PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "With --distributed: which of them this is, from 0, where it is not found out.", lower_bound=0
)
_LOST_AFTER = flags.DEFINE_float(
    "lost_after",
    60.0,
    "With --distributed: seconds without a sign of life after which a process counts as lost.",
    lower_bound=1.0,
)

# How the launchers tell a process how many there are.
_COUNTS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")


def is_distributed() -> bool:
    """Whether this process is to be joined to others."""
    return _DISTRIBUTED.value


def watch_processes() -> Watch:
    """While the block lasts, end this process if another one that was joined is lost."""
    return Watch(_LOST_AFTER.value)


def join_processes() -> bool:
    """With `--distributed`, wait for all processes and join them; whether this is the one that speaks and writes.

    Raises:
      UserError: if they can't be found, this is one of several and the flag is missing, or another flag is given
        without it.
    """
    companions = ("coordinator", "num_processes", "process_id", "lost_after")
    refuse_unused(companions, unless=_DISTRIBUTED.value, reason="without --distributed")
    if not _DISTRIBUTED.value:
        for name in _COUNTS:
            if int(os.environ.get(name, 1)) > 1:
                raise UserError(
                    f"{name}={os.environ[name]}: this is one of several processes, which would all write to one "
                    "folder; add --distributed to make them one run"
                )
        return True
    try:
        # JAX's own patience ends in an abort: the watch is to be faster.
        jax.distributed.initialize(
            _COORDINATOR.value or None,
            _NUM_PROCESSES.value,
            _PROCESS_ID.value,
            heartbeat_timeout_seconds=round(3 * _LOST_AFTER.value),
        )
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"--distributed: the processes can't be joined: {str(error).splitlines()[0]} Where no cluster is found, "
            "give each --coordinator=HOST:PORT, --num_processes and --process_id"
        ) from error
    return jax.process_index() == 0
