"""The loop that gives jobs to workers, tries again what was lost, and writes down how each portrait ended.

At least once, idempotent, committed last: a portrait may be worked on twice after a loss, its outputs lie in folders
of their attempt, and its row is flushed only after its bundle and its record are whole.
"""

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from ap3d.config import Config
from ap3d.errors import RunError
from ap3d.portrait_job import PortraitJob
from ap3d.storage import Store
from cluster import gallery, records
from cluster.executor import Executor, Outcome, Task
from cluster.lease import Lease
from cluster.manifest import ManifestWriter, has_parts
from cluster.plan import Plan
from cluster.progress import Progress, Reporter, error_line
from cluster.prompts import Rejected
from cluster.retry import RetryPolicy, Tries, failure_kind
from cluster.schema import attempt_name, now, row_from_report
from cluster.signals import Signals

LEASE_CHECK_SECONDS = 5.0
_LOSS_CLASSES = {"worker": "WorkerLost", "memory": "OutOfMemory", "timeout": "Timeout"}


class Driver:
    """One run over a plan; holds the lease and is the only writer of the manifest.

    Args:
        store: the dataset's root.
        config: configuration of all portraits.
        plan: what to do.
        lease: held by this process.
        progress: counts, shared with the reporter and the lease's heartbeat.
        reporter: shows what happens.
        signals: tells of interrupts.
        policy: how often to try again.
        timeout_s: longest time of one try.
        drain_s: time that running portraits get to stop after the first interrupt.
    """

    def __init__(
        self,
        store: Store,
        config: Config,
        plan: Plan,
        lease: Lease,
        progress: Progress,
        reporter: Reporter,
        signals: Signals,
        *,
        policy: RetryPolicy | None = None,
        timeout_s: float = 6 * 3600.0,
        drain_s: float = 20.0,
    ) -> None:
        self.store, self.config, self.plan, self.lease = store, config, plan, lease
        self.progress, self.reporter, self.signals = progress, reporter, signals
        self.policy, self.timeout_s, self.drain_s = policy or RetryPolicy(), timeout_s, drain_s
        self.manifest = ManifestWriter(store, lease.epoch)
        self._queue: deque[PortraitJob] = deque(plan.todo)
        self._in_flight: dict[str, Task] = {}
        self._tries: dict[str, Tries] = {}
        self._drain_until: float | None = None
        self._lease_checked = time.monotonic()

    def record_known(self) -> None:
        """Rows that need no worker: rejected entries, and finished portraits whose row was never flushed."""
        self.manifest.add(self.plan.recovered)
        for rejected in self.plan.rejected:
            self._end(self._rejected_row(rejected))

    def run(self, executor: Executor) -> None:
        """Run all jobs; whatever ends the loop, what is known is flushed.

        Raises:
            Ap3dError: the run cannot go on.
        """
        self.progress.watch = executor.running
        self.progress.begin()
        try:
            while (self._queue or self._in_flight) and not self._drained():
                self._heed_signals(executor)
                self._submit(executor)
                for outcome in executor.wait(1.0):
                    self._settle(outcome)
                self._keep()
        finally:
            self.progress.watch = dict
            executor.stop()

    def finish(self) -> None:
        """Flush the last rows and derive the table and the gallery.

        Raises:
            RunError: another driver took over.
        """
        self.lease.check()
        self.manifest.flush()
        if has_parts(self.store):  # a run that failed before its first row leaves no empty dataset
            self._publish()

    def _drained(self) -> bool:
        if self._drain_until is None:
            return False
        return not self._in_flight or time.monotonic() > self._drain_until

    def _heed_signals(self, executor: Executor) -> None:
        if self.signals.received is None or self._drain_until is not None:
            return
        self._drain_until = time.monotonic() + self.drain_s
        self.progress.queued = 0
        self._queue.clear()
        executor.drain()
        self.reporter.say("stopping at the next step; interrupt again to end at once")

    def _submit(self, executor: Executor) -> None:
        while self._queue and self._drain_until is None and executor.free() > 0:
            job = self._queue.popleft()
            tries = self._tries.setdefault(job.face_id, Tries())
            task = Task(job, attempt_name(self.lease.epoch, tries.attempts), self.timeout_s)
            tries.attempts += 1
            self._in_flight[job.face_id] = task
            self.progress.queued = len(self._queue)
            executor.submit(task)

    def _settle(self, outcome: Outcome) -> None:
        job = outcome.task.job
        self._in_flight.pop(job.face_id, None)
        status = outcome.report.get("status")
        if status == "broken":
            raise RunError(str(outcome.report["error_message"]))
        kind = failure_kind(outcome)
        if status == "stopped" or (kind is not None and self._drain_until is not None):
            return  # left as it is: the next run resumes it
        row = self._row(outcome)
        if kind is None or not self._tries[job.face_id].may_retry(kind, self.policy):
            self._end(row)
            return
        self.progress.retried += 1
        self.progress.queued += 1
        self._queue.append(job)
        self.reporter.say(f"again  {job.face_id}  {error_line(row)}")

    def _end(self, row: dict[str, Any]) -> None:
        """A portrait has its row: count it, record a failure, show it."""
        if row["status"] == "done":
            self.progress.done += 1
        else:
            self.progress.failed += 1
            self.progress.errors.append(f"{row['face_id']}: {error_line(row)}")
            records.write_failed(self.store, row)
        self.manifest.add([row])
        self.reporter.ended(row)

    def _keep(self) -> None:
        """What is due from time to time: the lease, a part, the table."""
        self.reporter.update()
        if time.monotonic() - self._lease_checked > LEASE_CHECK_SECONDS or self.manifest.flush_due():
            self._lease_checked = time.monotonic()
            self.lease.check()
        if self.manifest.flush_due():
            self.manifest.flush()
            if self.manifest.table_due():
                self._publish()

    def _publish(self) -> None:
        gallery.write(self.store, self.manifest.write_table())

    def _row(self, outcome: Outcome) -> dict[str, Any]:
        report = dict(outcome.report)
        if outcome.lost:
            report = {
                "status": "failed",
                "error_class": _LOSS_CLASSES[outcome.lost],
                "error_message": outcome.reason,
                "finished": now(),
            }
        return self._complete(outcome.task.job, {"attempt": outcome.task.attempt, **report})

    def _rejected_row(self, rejected: Rejected) -> dict[str, Any]:
        report = {"status": "failed", "error_class": "InputError", "error_message": rejected.reason, "finished": now()}
        return self._complete(rejected.job, {"attempt": attempt_name(self.lease.epoch, 0), **report})

    def _complete(self, job: PortraitJob, report: Mapping[str, Any]) -> dict[str, Any]:
        given = {"abstract_prompt": job.abstract_prompt, **report}
        return row_from_report(
            given,
            face_id=job.face_id,
            config_hash=self.config.config_hash,
            prompt=job.prompt,
            seed=job.seed,
            portrait=job.portrait,
            preset=self.config.preset,
            run_id=self.progress.run_id,
        )
