"""The loop that gives jobs to workers, tries again what was lost, and writes down how each portrait ended.

At least once, idempotent, committed last: a portrait may be worked on twice after a loss, its outputs lie in folders
of their attempt, and its row is flushed only after its bundle and its record are whole.
"""

import time
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
from cluster.portrait_log import log_name, read_tail
from cluster.progress import Progress, Reporter, error_line
from cluster.prompts import Rejected
from cluster.retry import Losses, RetryPolicy, Tries, failure_kind
from cluster.schema import attempt_name, now, row_from_report
from cluster.signals import Signals
from cluster.stragglers import Stragglers
from cluster.work_queue import WorkQueue, expected_seconds

LEASE_CHECK_SECONDS = 5.0
STORAGE_FAILURES_IN_A_ROW = 10  # of any portraits, without a success between: the storage is gone
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
        stage_timeout_s: longest time of one stage of a try, or None.
        drain_s: time that running portraits get to stop after the first interrupt.
        speculate: give a second worker the slowest portraits while workers have nothing else to do.
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
        stage_timeout_s: float | None = None,
        drain_s: float = 20.0,
        speculate: bool = False,
    ) -> None:
        self.store, self.config, self.plan, self.lease = store, config, plan, lease
        self.progress, self.reporter, self.signals = progress, reporter, signals
        self.policy, self.timeout_s, self.drain_s = policy or RetryPolicy(), timeout_s, drain_s
        self.stage_timeout_s = stage_timeout_s
        self.manifest = ManifestWriter(store, lease.epoch)
        self._queue = WorkQueue(plan.todo, *expected_seconds(plan.known, config.config_hash))
        self._portraits = len(plan.todo)
        self._in_flight: dict[str, list[Task]] = {}  # by face_id; two tasks of one only when speculating
        self._ended: set[str] = set()  # while a copy of them still runs
        self._tries: dict[str, Tries] = {}
        self._losses = Losses()
        self._stragglers = Stragglers() if speculate else None
        self._storage_failures = 0
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
            while (self._queue or self._in_flight.keys() - self._ended) and not self._drained():
                self._heed_signals(executor)
                self._submit(executor)
                for outcome in executor.wait(1.0):
                    self._settle(outcome, executor)
                self._keep(executor)
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
        if self._drain_until is not None:
            return
        if self._stragglers is None:  # copies need idle workers
            executor.expect(len(self._queue) + len(self._in_flight))
        while executor.free() > 0 and (job := self._queue.take() or self._straggler()) is not None:
            executor.submit(self._task(job))
        self.progress.queued = len(self._queue)

    def _task(self, job: PortraitJob) -> Task:
        tries = self._tries.setdefault(job.face_id, Tries())
        attempt = attempt_name(self.lease.epoch, tries.attempts)
        smaller = bool(tries.failures.get("memory"))
        task = Task(job, attempt, self.timeout_s, self.stage_timeout_s, frozenset(tries.lost_at), smaller)
        tries.attempts += 1
        self._in_flight.setdefault(job.face_id, []).append(task)
        if self._stragglers is not None:
            self._stragglers.begin(task)
        return task

    def _straggler(self) -> PortraitJob | None:
        alone = (tasks[0] for tasks in self._in_flight.values() if len(tasks) == 1)
        return self._stragglers.slowest(alone) if self._stragglers is not None else None

    def _settle(self, outcome: Outcome, executor: Executor) -> None:
        face_id, kind = outcome.task.job.face_id, failure_kind(outcome)
        copies = self._forget(outcome.task)
        self._losses.tries += 1
        if self._stragglers is not None:
            self._stragglers.end(outcome.task, done=outcome.report.get("status") == "done")
        if face_id in self._ended:  # the slower copy: the other one was committed
            self._ended -= set() if copies else {face_id}
            return
        self._check_storage(outcome, kind)
        if outcome.report.get("status") == "stopped" or (kind is not None and self._drain_until is not None):
            return  # left as it is: the next run resumes it
        row = self._row(outcome)
        if kind is not None and (copies or self._again(outcome, kind, row)):
            return
        for other in copies:
            executor.cancel(other)
            self._ended.add(face_id)
        self._end(row)

    def _forget(self, task: Task) -> list[Task]:
        """Strike a task off; returns the copies of it that still run."""
        face_id = task.job.face_id
        copies = [t for t in self._in_flight.pop(face_id, []) if t is not task]
        if copies:
            self._in_flight[face_id] = copies
        return copies

    def _check_storage(self, outcome: Outcome, kind: str | None) -> None:
        """End the run when no portrait could succeed."""
        message = str(outcome.report.get("error_message"))
        if outcome.report.get("status") == "broken":
            raise RunError(message)
        if kind == "storage":
            self._storage_failures += 1
        elif outcome.report:
            self._storage_failures = 0
        if self._storage_failures >= STORAGE_FAILURES_IN_A_ROW:
            raise RunError(f"{self._storage_failures} tries in a row could not use the storage, the last: {message}")

    def _again(self, outcome: Outcome, kind: str, row: dict[str, Any]) -> bool:
        """Queue a portrait for another try, unless its budget is spent or it kills its workers."""
        job, tries = outcome.task.job, self._tries[outcome.task.job.face_id]
        if kind == "worker" and outcome.place is not None:
            self._losses.died += outcome.place not in tries.lost_at
            tries.lost_at.add(outcome.place)
            if self._losses.is_poison(tries, self._portraits, self.policy):
                places = " and ".join(sorted(tries.lost_at))
                row["error_class"] = "Poison"
                row["error_message"] = f"it ended the interpreter on {places}, where other portraits are made"
                return False
        if not tries.may_retry(kind, self.policy):
            return False
        self.progress.retried += 1
        self._queue.put(job, tries.storage_delay if kind == "storage" else 0.0)
        self.progress.queued = len(self._queue)
        self.reporter.say(f"again  {job.face_id}  {error_line(row)}")
        return True

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

    def _keep(self, executor: Executor) -> None:
        """What is due from time to time: the lease, a part, the table."""
        for note in executor.notes():
            self.reporter.say(note)
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
                **self._log_of(outcome.task.job),
            }
        return self._complete(outcome.task.job, {"attempt": outcome.task.attempt, **report})

    def _log_of(self, job: PortraitJob) -> dict[str, str]:
        """What a lost worker wrote last, where the storage has it."""
        name = log_name(job.face_id, self.config.config_hash)
        tail = read_tail(self.store, name)
        return {"uri_log": name, "log_tail": tail} if tail else {}

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
