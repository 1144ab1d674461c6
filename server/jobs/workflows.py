"""The life of a job and of an import, as workflows of DBOS: read ``job_workflow`` first.

prepare -> train and evaluate (a child process) -> publish the folder -> parity with the engine
-> gates, report, adapter row -> result file -> approval, where required -> promotion, or not

Gates decide what goes live, not whether a job succeeds: a job that has trained a safe adapter has
succeeded, and the adapter answers to its own name. A job fails because of its input, of weights that
must not reach an engine, or of an engine that does not serve what was trained.

DBOS records each step that is done, with what it returned or raised. A worker that was killed goes
on at the first step that is not recorded, so every step may run again after a crash at any point
within it. A paused job goes through all steps again when it is resumed, as another workflow, and
each finds its earlier result: the spec, the checkpoint, the published folder, the adapter's row.

A step is a function of ``server/jobs/steps/``. To add one:

1. Write it in the module of its stage. What it returns or raises can be pickled, and a second run
   finds what the first one has made::

       async def measure(context: StepContext, job_id: str) -> float: ...

2. Call it from the workflow: ``speed = await step(measure, job_id)``.
3. Raise ``WORKFLOW_VERSION``.
"""

from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar

import structlog
from dbos import DBOS, DBOSConfiguredInstance

from server.audit.actors import WORKER, acting
from server.jobs.steps.context import StepContext, Superseded
from server.jobs.steps.end import end, failure, pause
from server.jobs.steps.gate import apply_gates, keep_results
from server.jobs.steps.prepare import prepare
from server.jobs.steps.promote import await_approval, promote
from server.jobs.steps.publish import compare_with_engine, publish
from server.jobs.steps.read_articles import read_articles
from server.jobs.steps.run_import import run_import
from server.jobs.steps.train import train
from server.jobs.trainer_process import TrainingCancelled, TrainingPaused

log = structlog.get_logger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

WORKFLOW_VERSION = "4"
"""Changes with the names and the order of steps, and with the module of an exception that
they raise. DBOS recovers only workflows of its own version; ``recovery`` starts the others again."""


@DBOS.dbos_class("Workflows")
class Workflows(DBOSConfiguredInstance):
    """The workflows of this process's worker. Make one before ``DBOS.launch``.

    Args:
        context: what the steps work with.
        on_end: called on the event loop when a workflow ends, however it does, with its id.
    """

    def __init__(self, context: StepContext, *, on_end: Callable[[str], None]) -> None:
        super().__init__("worker")  # DBOS stores it with each workflow, and finds this object by it
        self._context = context
        self._on_end = on_end

    async def _step(
        self,
        work: Callable[Concatenate[StepContext, P], Coroutine[Any, Any, T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run a step, or return or raise what is recorded of it. DBOS knows it by its own name."""
        with acting(WORKER):
            return await DBOS.run_step_async(
                {"name": work.__name__}, work, self._context, *args, **kwargs
            )

    @DBOS.workflow(name="job_workflow")
    async def job_workflow(self, job_id: str, attempt: int) -> str:
        """One attempt at a job, from its dataset to its promotion, or not; what became of it."""
        step = self._step
        try:
            await step(prepare, job_id, attempt)
            await step(train, job_id)
            adapter_name = await step(publish, job_id)
            await step(compare_with_engine, job_id, adapter_name)
            unsafe = await step(apply_gates, job_id, adapter_name)
            await step(keep_results, job_id)
            if unsafe:
                await step(end, job_id, "failed", {"code": "unsafe_adapter", "message": unsafe})
                return "failed"
            # a person may take weeks: ``decision_workflow`` goes on then, and no slot is held
            decided = await step(await_approval, job_id)
            if decided:
                await step(promote, job_id)
        except Superseded:
            return "superseded"
        except TrainingPaused:
            await step(pause, job_id, attempt)
            return "paused"
        except TrainingCancelled:
            await step(end, job_id, "cancelled", None)
            return "cancelled"
        except Exception as exc:
            log.exception("job failed", job=job_id)
            await step(end, job_id, "failed", failure(exc))
            return "failed"
        finally:
            self._on_end(workflow_id(job_id, attempt))
        return "succeeded" if decided else "awaiting_approval"

    @DBOS.workflow(name="decision_workflow")
    async def decision_workflow(self, job_id: str) -> str:
        """Act on a person's decision about a job's adapter, or on its absence; what became of it."""
        step = self._step
        try:
            await step(promote, job_id)
        except TrainingCancelled:
            await step(end, job_id, "cancelled", None)
            return "cancelled"
        except Exception as exc:
            log.exception("job failed", job=job_id)
            await step(end, job_id, "failed", failure(exc))
            return "failed"
        return "succeeded"

    @DBOS.workflow(name="import_workflow")
    async def import_workflow(self, import_id: str) -> None:
        """One import."""
        try:
            await self._step(run_import, import_id)
        finally:
            self._on_end(import_id)

    @DBOS.workflow(name="knowledge_workflow")
    async def knowledge_workflow(self, upload_id: str) -> None:
        """One upload of articles."""
        try:
            await self._step(read_articles, upload_id)
        finally:
            self._on_end(upload_id)


def workflow_id(job_id: str, attempt: int) -> str:
    """The id of the workflow that works on a job's attempt. That of an import is the import's."""
    return f"{job_id}-{attempt}" if attempt else job_id


def decision_id(job_id: str, attempt: int) -> str:
    """The id of the workflow that acts on a person's decision about it."""
    return f"{workflow_id(job_id, attempt)}-decision"
