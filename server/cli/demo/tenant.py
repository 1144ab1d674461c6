"""One tenant of the demo: its transcripts imported, an adapter trained on them and made live."""

import asyncio
import shutil
from typing import Any

import msgspec

from server.cli.bases import OnProgress
from server.cli.demo.api_client import ApiClient, DemoFailed
from server.cli.demo.samples import Sample
from server.cli.jobs import describe_event
from server.jobs.schemas import FINAL_STATES, JobEventView

POLL_SECONDS = 0.5
_OF_ANSWERS = frozenset({"lookup_f1_gain", "invented_gain"})
"""Gates that two minutes of training may break, on a model of 135 M parameters."""


class DemoTenant:
    """A sample's tenant, as the API's operator prepares it.

    Args:
        api: With an operator's key.
        sample: The tenant and its transcripts.
        base: The name of the base model.
        on_progress: Takes each line of progress.
    """

    def __init__(
        self, api: ApiClient, sample: Sample, *, base: str, on_progress: OnProgress
    ) -> None:
        self._api = api
        self._sample = sample
        self._base = base
        self._path = f"/admin/tenants/{sample.slug}"
        self._on_progress = on_progress

    async def prepare(self) -> dict[str, Any]:
        """Import and train, unless an earlier demo has done it on the same file; the live adapter.

        Raises:
            DemoFailed: a part failed, or no adapter is live at the end.
        """
        await self._create()
        imported = await self._import_transcripts()
        trained = await self._find_trained(imported)
        if trained:
            self._report(f"{trained['model']} was trained on these transcripts before")
        else:
            job = await self._find_unfinished(imported)
            if job is None:
                job = await self._api.call("POST", f"{self._path}/jobs", json={"recipe": _recipe()})
            await self.decide(await self._follow(job["id"]))
        for adapter in await self._api.call("GET", f"{self._path}/adapters"):
            if adapter["live"]:
                return dict(adapter)
        raise DemoFailed(f"no adapter of {self._sample.slug} is live")

    async def decide(self, job: dict[str, Any]) -> None:
        """Make live what the gates leave to a person, openly: they cannot tell with 16 replies.

        What is worse than a look-up, or invents more than the base, is made live against its gates, as
        an operator can: it still shows how the machine works.

        Raises:
            DemoFailed: the gates say that it learnt nothing.
        """
        outcome = job["outcome"]
        if outcome["promoted"]:
            return
        if outcome["gates"] == "worse":
            await self._force(job)
            return
        self._report(f"{job['adapter']} waits for an admin: the demo approves it, as you could")
        path = f"{self._path}/jobs/{job['id']}"
        job = await self._api.call("POST", f"{path}/decision", json={"decision": "approved"})
        while job["state"] not in FINAL_STATES:
            await asyncio.sleep(POLL_SECONDS)
            job = await self._api.call("GET", path)

    async def _force(self, job: dict[str, Any]) -> None:
        version = int(job["adapter"].rpartition("@")[2])
        path = f"{self._path}/adapters/{version}/report"
        verdict = (await self._api.call("GET", path))["verdict"]
        worse = {gate["name"] for gate in verdict["gates"] if gate["result"] == "worse"}
        if not worse <= _OF_ANSWERS:
            raise DemoFailed(f"{job['adapter']} was not promoted: {job['outcome']['reason']}")
        self._report(f"{job['adapter']} is worse by a gate: the demo forces it, as an operator can")
        body = {"version": version, "force": True}
        await self._api.call("POST", f"{self._path}/promote", json=body)

    def _report(self, line: str) -> None:
        self._on_progress(f"{self._sample.slug:9} {line}")

    async def _create(self) -> None:
        if not await self._api.exists(self._path):
            sample = self._sample
            tenant = {
                "slug": sample.slug,
                "name": sample.name,
                "system_prompt": sample.system_prompt,
            }
            await self._api.call("POST", "/admin/tenants", json=tenant)

    async def _import_transcripts(self) -> dict[str, Any]:
        file = self._sample.file
        imported = await self._api.call(
            "POST",
            f"{self._path}/transcripts",
            params={"filename": file},
            data=self._sample.transcripts(),
        )
        while imported["state"] in {"queued", "running"}:
            await asyncio.sleep(POLL_SECONDS)
            imported = await self._api.call("GET", f"{self._path}/imports/{imported['id']}")
        if imported["state"] != "done":
            raise DemoFailed(f"import of {file}: {imported['error']}")
        report = imported["report"]
        redacted = sum(report["redacted"].values())
        self._report(
            f"{file}: {report['read']} conversations, {redacted} personal details redacted"
        )
        return dict(imported)

    async def _find_trained(self, imported: dict[str, Any]) -> dict[str, Any] | None:
        """The live adapter, if it was trained on these transcripts and this base."""
        jobs = {job["id"]: job for job in await self._api.call("GET", f"{self._path}/jobs")}
        for adapter in await self._api.call("GET", f"{self._path}/adapters"):
            job = jobs.get(adapter["job"] or "")
            if (
                adapter["live"]
                and job
                and job["recipe"] == _recipe()
                and adapter["base"] == self._base
                and job["created_at"] > imported["created_at"]
            ):
                return dict(adapter)
        return None

    async def _find_unfinished(self, imported: dict[str, Any]) -> dict[str, Any] | None:
        """The job of a demo that was stopped: the worker goes on with it."""
        for job in await self._api.call("GET", f"{self._path}/jobs"):
            if (
                job["state"] not in FINAL_STATES
                and job["state"] != "paused"
                and job["recipe"] == _recipe()
                and job["created_at"] > imported["created_at"]
            ):
                return dict(job)
        return None

    async def _follow(self, job_id: str) -> dict[str, Any]:
        """Report a job's events until it has succeeded, or awaits a person; the job."""
        path = f"{self._path}/jobs/{job_id}"
        last = 0
        while True:
            job = await self._api.call("GET", path)
            events = await self._api.call("GET", f"{path}/events", params={"after": last})
            for event in msgspec.convert(events, list[JobEventView], strict=False):
                last = event.seq
                if text := describe_event(event):
                    self._report(text)
            if not events and job["state"] in {*FINAL_STATES, "awaiting_approval"}:
                break
            await asyncio.sleep(POLL_SECONDS)
        if job["state"] not in {"succeeded", "awaiting_approval"}:
            reason = (job["error"] or {}).get("message", "")
            raise DemoFailed(f"training of {self._sample.slug} {job['state']}: {reason}")
        return dict(job)


def _recipe() -> str:
    return "gpu-24gb" if shutil.which("nvidia-smi") else "cpu-demo"
