"""vLLM's processes and ours: they leave the terminal's Ctrl-C to us, and they don't outlive us.

A terminal sends Ctrl-C to every process in the foreground. vLLM's would end at once, under the streams that ours lets
finish. And when our process is killed, vLLM 0.32's engine process would stay, with the GPU's memory: its workers watch
the engine process, but nobody in it watches us.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing import connection, resource_tracker

from vllm.config import VllmConfig
from vllm.platforms import current_platform
from vllm.v1.executor import Executor
from vllm.v1.executor.multiproc_executor import MultiprocExecutor
from vllm.v1.executor.uniproc_executor import UniProcExecutor

# How long an engine process whose parent is gone may take to end its workers in order.
LAST_SECONDS = 5.0


@contextlib.contextmanager
def sheltered_from_ctrl_c() -> Iterator[None]:
    """Processes that this thread starts meanwhile have SIGINT blocked, and so have theirs.

    vLLM's processes install handlers of their own, so an ignored signal would not stay ignored; a blocked one does.
    """
    # Its start ends with SIGINT unblocked, whatever it was; once it runs, nobody starts it again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent() -> None:
    """End this process when the one that started it is gone, however it ended."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return  # not a child of ours: vLLM runs the engine in the process itself

    def watch(sentinel: int) -> None:
        connection.wait([sentinel])
        os.kill(os.getpid(), signal.SIGTERM)  # vLLM's way to end, workers and shared memory included
        time.sleep(LAST_SECONDS)
        for worker in multiprocessing.active_children():
            worker.kill()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, args=(parent.sentinel,), name="parent-watch", daemon=True).start()


class _Attached:
    """An executor is the first thing of ours that vLLM makes in its engine process."""

    def _init_executor(self) -> None:
        end_with_parent()
        super()._init_executor()  # type: ignore[misc]  # an Executor's, see below


class AttachedMultiproc(_Attached, MultiprocExecutor):
    """Workers in processes of their own."""


class AttachedUniProc(_Attached, UniProcExecutor):
    """The worker in the engine process."""


_ATTACHED = {MultiprocExecutor: AttachedMultiproc, UniProcExecutor: AttachedUniProc}


def attached(executor: type[Executor]) -> type[Executor]:
    """The executor that ends with us. Ray's are left as they are: Ray ends what its driver started."""
    return _ATTACHED.get(executor, executor)


def executor_class(config: VllmConfig) -> type[Executor]:
    """vLLM's choice, attached; but on a CPU the one worker runs in the engine's process, as it does on one GPU.

    vLLM 0.32 gives it a process of its own there, to pin its threads. The two then wait for each other by spinning, and
    on a few cores whoever else has work starves: with one client on 2 cores, every other load went at a fifth of its
    speed. The start takes a third longer, too. `engine.args` keeps a core free instead.
    """
    chosen = Executor.get_class(config)
    alone = config.parallel_config.world_size == 1 and "VLLM_CPU_OMP_THREADS_BIND" not in os.environ
    if current_platform.is_cpu() and alone and chosen is MultiprocExecutor:
        return AttachedUniProc
    return attached(chosen)
