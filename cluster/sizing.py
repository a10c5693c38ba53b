"""How many workers there are and what each may use."""

from dataclasses import dataclass

from ap3d.errors import InputError

# Of a worker when nothing is said. On CPUs portraits side by side use cores better than threads do; a GPU worker's
# cores prepare condition images.
CPU_THREADS, GPU_THREADS = 1, 4


@dataclass(frozen=True)
class WorkerOptions:
    """What the user asked for; None leaves it to :func:`size_workers`."""

    workers: int | None = None
    gpus_per_worker: float | None = None
    threads_per_worker: int | None = None

    def check(self, executor: str) -> None:
        """Refuse numbers that can never work.

        Raises:
            InputError: which option, and what it may be.
        """
        if self.workers is not None and self.workers < 1:
            raise InputError(f"--workers must be at least 1, got {self.workers}")
        if executor == "inline" and (self.workers or 1) > 1:
            raise InputError("--executor inline has one worker; use --executor ray for more")
        if self.threads_per_worker is not None and self.threads_per_worker < 1:
            raise InputError(f"--threads-per-worker must be at least 1, got {self.threads_per_worker}")
        gpus = self.gpus_per_worker
        if gpus is not None and not (0 <= gpus <= 1 or (gpus > 0 and float(gpus).is_integer())):
            raise InputError(f"--gpus-per-worker must be a fraction from 0 to 1 or a whole number, got {gpus}")


@dataclass(frozen=True)
class WorkerSizes:
    """What each of how many workers gets."""

    workers: int
    gpus: float
    threads: int


def size_workers(options: WorkerOptions, cpus: float, gpus: float, jobs: int, wants_gpu: bool = False) -> WorkerSizes:
    """Fill in what was not said from what there is: one worker a GPU, else one a core; never more
    workers than jobs."""
    each = options.gpus_per_worker if options.gpus_per_worker is not None else (1.0 if gpus >= 1 or wants_gpu else 0.0)
    threads = options.threads_per_worker
    if threads is None:
        share = int(cpus) // options.workers if options.workers else int(cpus)
        threads = max(1, min(GPU_THREADS if each else CPU_THREADS, share))
    if options.workers is not None:
        workers = options.workers
    else:
        workers = max(1, int(gpus / each) if each else int(cpus) // threads)
    return WorkerSizes(min(workers, max(1, jobs)), each, threads)
