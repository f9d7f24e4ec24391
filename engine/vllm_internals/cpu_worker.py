"""vLLM's CPU worker on machines with AMX."""

import torch
from vllm.v1.worker.cpu_worker import CPUWorker


class AMXWorker(CPUWorker):
    """Asks Linux for the AMX tiles before the first kernel uses them.

    A process must ask (`arch_prctl(ARCH_REQ_XCOMP_PERM)`) or is killed at the first tile instruction. oneDNN asks, but
    vLLM 0.32 takes small weights past oneDNN, so that a model whose weights are all under 1 MiB (the demo model) dies
    in the attention kernel with exit code -4 (SIGILL).
    """

    def init_device(self) -> None:
        torch.cpu._init_amx()
        super().init_device()
