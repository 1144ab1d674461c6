"""Heads: what a tenant's are worth, labelled examples for more, which is live, and what it says.

It works without a script. With one, an upload shows its progress, and what is being trained its state.
"""

from http import HTTPStatus
from importlib.resources import files
from typing import Any

from litestar import Controller, Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery
from sqlalchemy.ext.asyncio import AsyncSession

from server.accounts.schemas import Viewer
from server.api.upload import UploadedFile
from server.db.models import MAX_NUMBER, Head, Tenant, now
from server.db.session import Database
from server.errors import Conflict, Invalid, NotFound, ServerError, StorageFull, TooLarge
from server.heads import listing, rules, service
from server.heads.schemas import Rule
from server.heads.uploads import queue_stored
from server.insights import labelling
from server.settings import Settings
from server.storage.blobs import BlobStore
from server.storage.references import stored
from server.web.console.downloads import csv_file
from server.web.console.figures import size
from server.web.console.forms import read_form, see_other
from server.web.console.pages import heads_view as view
from server.web.console.pages.release import UNDO_SECONDS
from server.web.console.pages.release_changes import Question
from server.web.console.pages.usage_view import DAYS, DEFAULT_DAYS, day_links
from server.web.console.rendering import page
from server.web.console.session import FORM_HEADER, signed_in
from training.heads.config import IMAGE, Task

_ADMIN = [signed_in("admin")]
_SAMPLES = "training.heads.samples"
_DONE = {
    "deleted": "The version was deleted.",
    "rules": "Saved. It holds for new messages.",
    "shared": "Saved.",
}
FIRST_PERCENT = "80"
"""The probability that the form of a rule proposes."""
EXAMPLE = """text,label
"I have explained this four times now, does anybody listen?",annoyed
"Could you please send me the invoice again?",calm"""
_Refusal = Invalid | Conflict | TooLarge | StorageFull


class HeadsController(Controller):
    """What people see of a tenant's heads, and do with them."""

    include_in_schema = False
    path = "/console/t/{slug:str}/heads"
    guards = (signed_in("viewer"),)

    @get()
    async def list_(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        *,
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
        task: FromQuery[str] = "",
    ) -> Response[str]:
        """The heads with what is live of each, and the form for labelled examples."""
        return await _list_page(request, tenant, database, settings, given=task)

    @post(guards=_ADMIN, request_max_body_size=None)
    async def upload(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        *,
        database: NamedDependency[Database],
        blobs: NamedDependency[BlobStore],
        settings: NamedDependency[Settings],
    ) -> Response[Any]:
        """Check labelled examples and queue a version's training; or say why not."""
        most = settings.max_upload_bytes
        file = UploadedFile(request, filename="upload", max_bytes=most, raw=False)
        given = ""
        try:
            async with stored(database, blobs, file.chunks(), max_bytes=most) as (sha256, _):
                given = next(iter(file.fields.get("task", ())), "")
                task = _chosen(given)
                await queue_stored(
                    tenant.slug,
                    sha256,
                    task=task,
                    filename=file.filename,
                    database=database,
                    blobs=blobs,
                    settings=settings,
                )
        except (Invalid, Conflict, TooLarge, StorageFull) as exc:
            return await _list_page(request, tenant, database, settings, refusal=exc, given=given)
        where = f"{_address(tenant)}/{task}"
        if FORM_HEADER in request.headers:  # a script, which would fetch the page twice
            return Response(b"", status_code=HTTPStatus.CREATED, headers={"location": where})
        return see_other(where)

    @get("/heads.csv")
    async def csv(
        self, tenant: NamedDependency[Tenant], database: NamedDependency[Database]
    ) -> Response[bytes]:
        """Every version of every head, a line each."""
        async with database.reading() as session:
            rows = await service.list_for(session, tenant)
        return csv_file(listing.to_csv(rows), f"{tenant.slug}-heads.csv")

    @get("/samples/{name:str}")
    async def sample(self, name: FromPath[str]) -> Response[bytes]:
        """A small invented file of labelled texts, for a first try."""
        if name not in listing.SAMPLES:
            raise NotFound("There is no such sample.")
        data = files(_SAMPLES).joinpath(name).read_bytes()
        return csv_file(data, name)

    @get("/{name:str}")
    async def show(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        *,
        name: FromPath[str],
        viewer: NamedDependency[Viewer],
        database: NamedDependency[Database],
        days: FromQuery[str | None] = None,
        done: FromQuery[str] = "",
    ) -> Response[str]:
        """A head: its versions, its rules, and what it said of messages."""
        return await _head_page(
            request, tenant, database, viewer, task=_task(name), days=_days(days), done=done
        )

    @get("/{name:str}/counts.csv")
    async def counts_csv(
        self,
        tenant: NamedDependency[Tenant],
        *,
        name: FromPath[str],
        database: NamedDependency[Database],
        days: FromQuery[str | None] = None,
    ) -> Response[bytes]:
        """How many messages got which label, a line a day and label."""
        task = _task(name)
        async with database.reading() as session:
            found = await labelling.counts(session, tenant.id, days=_days(days), task=task)
        return csv_file(listing.counts_to_csv(found), f"{tenant.slug}-{task}.csv")

    @post("/{name:str}/shared", guards=_ADMIN)
    async def use_shared(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        *,
        name: FromPath[str],
        database: NamedDependency[Database],
    ) -> Response[Any]:
        """Use the installation's head where no own one is live (``use=yes``), or do not."""
        task, form = _task(name), await read_form(request)
        async with database.transaction() as session:
            await service.use_shared(session, tenant, task, use=form.get("use") == "yes")
        return see_other(f"{_address(tenant)}/{task}?done=shared")

    @post("/{name:str}/rules", guards=_ADMIN)
    async def change_rules(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        *,
        name: FromPath[str],
        viewer: NamedDependency[Viewer],
        database: NamedDependency[Database],
    ) -> Response[Any]:
        """Add a rule, change one, or remove it (``remove``); or say what is wrong."""
        task, form = _task(name), await read_form(request)
        try:
            rule = _rule(form)
            async with database.transaction() as session:
                kept = [
                    rules.view(row)
                    for row in await rules.list_for(session, tenant.id, task)
                    if row.label not in {form.get("label"), form.get("remove")}
                ]
                await rules.replace(session, tenant, task, [*kept, rule] if rule else kept)
        except Invalid as exc:
            return await _head_page(request, tenant, database, viewer, task=task, wrong=(exc, form))
        return see_other(f"{_address(tenant)}/{task}?done=rules")

    @get("/{name:str}/{version:int}")
    async def read_version(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        *,
        name: FromPath[str],
        version: FromPath[int],
        database: NamedDependency[Database],
    ) -> Response[str]:
        """A version: what was measured of it, and what it was made of."""
        async with database.reading() as session:
            row = await _get(session, tenant, _task(name), version)
        found = listing.measured(row)
        left_out = service.view(row).left_out
        return await page(
            request,
            "heads/version.html",
            text=listing.TASK_TEXTS[row.task],
            row=view.row_of(row),
            gates=view.gate_items(found) if found else [],
            verdict=view.verdict_words(found) if found else "",
            scores=found.scores if found else None,
            bins=view.bin_rows(found) if found else [],
            labels=view.label_rows(found) if found else [],
            made_of=view.made_of(row),
            left_out=left_out,
            problem=(row.error or {}).get("message", ""),
        )

    @get("/{name:str}/{version:int}/promote", guards=_ADMIN)
    async def ask_to_promote(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        *,
        name: FromPath[str],
        version: FromPath[int],
        database: NamedDependency[Database],
    ) -> Response[str]:
        """Ask once more, by the version's name."""
        return await _promotion(request, tenant, database, task=_task(name), version=version)

    @post("/{name:str}/{version:int}/promote", guards=_ADMIN)
    async def promote(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        *,
        name: FromPath[str],
        version: FromPath[int],
        database: NamedDependency[Database],
    ) -> Response[Any]:
        """Make a version live, or say why not. What its gates say, the page before has told."""
        task, expected = _task(name), await _expected(request)
        try:
            async with database.transaction() as session:
                await _get(session, tenant, task, version)
                await service.promote(
                    session, tenant, task, version, force=True, expected_live=expected
                )
        except Conflict as exc:
            return await _promotion(
                request, tenant, database, task=task, version=version, refused=exc
            )
        return see_other(f"{_address(tenant)}/{task}?done=promoted")

    @get(["/{name:str}/roll-back", "/{name:str}/retire"], guards=_ADMIN)
    async def ask_to_go_back(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        *,
        name: FromPath[str],
        database: NamedDependency[Database],
    ) -> Response[str]:
        """Ask once more, by the versions' names."""
        return await _going_back(request, tenant, database, task=_task(name))

    @post("/{name:str}/roll-back", guards=_ADMIN)
    async def roll_back(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        *,
        name: FromPath[str],
        database: NamedDependency[Database],
    ) -> Response[Any]:
        """Make live what was before, or say why not."""
        task, expected = _task(name), await _expected(request)
        try:
            async with database.transaction() as session:
                await service.roll_back(session, tenant, task, expected_live=expected)
        except Conflict as exc:
            return await _going_back(request, tenant, database, task=task, refused=exc)
        return see_other(f"{_address(tenant)}/{task}?done=rolled_back")

    @post("/{name:str}/retire", guards=_ADMIN)
    async def retire(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        *,
        name: FromPath[str],
        database: NamedDependency[Database],
    ) -> Response[Any]:
        """Let no version label messages, or say why not."""
        task, expected = _task(name), await _expected(request)
        try:
            async with database.transaction() as session:
                await service.retire(session, tenant, task, expected_live=expected)
        except Conflict as exc:
            return await _going_back(request, tenant, database, task=task, refused=exc)
        return see_other(f"{_address(tenant)}/{task}?done=retired")

    @get("/{name:str}/{version:int}/delete", guards=_ADMIN)
    async def ask_to_delete(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        *,
        name: FromPath[str],
        version: FromPath[int],
        database: NamedDependency[Database],
    ) -> Response[str]:
        """Ask whether to delete a version, by its name."""
        return await _deletion(request, tenant, database, task=_task(name), version=version)

    @post("/{name:str}/{version:int}/delete", guards=_ADMIN)
    async def delete(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        *,
        name: FromPath[str],
        version: FromPath[int],
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
    ) -> Response[Any]:
        """Delete a version that is not live, or say why not."""
        task = _task(name)
        try:
            async with database.transaction() as session:
                await _get(session, tenant, task, version)
                await service.delete(session, tenant, task, version)
        except Conflict as exc:
            return await _deletion(
                request, tenant, database, task=task, version=version, refused=exc
            )
        async with database.transaction() as session:
            await service.remove_unused(session, tenant, settings=settings)
        return see_other(f"{_address(tenant)}/{task}?done=deleted")


async def _list_page(
    request: Request[Any, Any, Any],
    tenant: Tenant,
    database: Database,
    settings: Settings,
    *,
    refusal: _Refusal | None = None,
    given: str = "",
) -> Response[str]:
    """The list; with a refusal it is an answer of its status, with the message at the field."""
    async with database.reading() as session:
        found = await service.list_for(session, tenant)
        shared = await service.list_shared(session, tenant)
    rows = []
    for task, text in listing.TASK_TEXTS.items():
        mine = [row for row in found if row.task == task]
        if mine:
            shown = next((row for row in mine if row.live), mine[0])
            going = next((row for row in mine if row.state in {"queued", "running"}), None)
            rows.append(
                (text, view.row_of(shown), view.row_of(going) if going else None, len(mine))
            )
    most = settings.max_upload_bytes
    wrong_task = refusal is not None and getattr(refusal, "param", "") == "task"
    return await page(
        request,
        "heads/heads.html",
        status=_status(refusal) if refusal else HTTPStatus.OK,
        rows=rows,
        shared=[(listing.TASK_TEXTS[each.task], each) for each in shared],
        texts=list(listing.TASK_TEXTS.values()),
        refusal=refusal.message if refusal else "",
        wrong_field="task" if wrong_task else "file",
        given=given,
        example=EXAMPLE,
        max_bytes=most,
        most=size(most),
    )


async def _head_page(
    request: Request[Any, Any, Any],
    tenant: Tenant,
    database: Database,
    viewer: Viewer,
    *,
    task: Task,
    days: int = DEFAULT_DAYS,
    done: str = "",
    wrong: tuple[Invalid, dict[str, str]] | None = None,
) -> Response[str]:
    """A head's page; with ``wrong`` the form of its rules comes back with what is wrong."""
    last = now().date()
    async with database.reading() as session:
        rows = await service.list_for(session, tenant, task=task)
        before = await service.before_live(session, tenant, task)
        found = await labelling.counts(session, tenant.id, days=days, task=task)
        own_rules = await rules.list_for(session, tenant.id, task)
        used = await service.find_used(session, tenant.id, task)
        shared = [each for each in await service.list_shared(session, tenant) if each.task == task]
    live = next((row for row in rows if row.live), None)
    may_act = viewer.may(tenant.id, "admin")
    return await page(
        request,
        "heads/head.html",
        status=HTTPStatus.UNPROCESSABLE_ENTITY if wrong else HTTPStatus.OK,
        text=listing.TASK_TEXTS[task],
        rows=[view.row_of(row) for row in rows],
        now_live=view.row_of(live) if live else None,
        before=before,
        said=view.said_of(found, first=labelling.first_day(last, days), last=last),
        days=days,
        day_choice=day_links(days),
        is_image=task == IMAGE,
        rules=[(row.label, f"{100 * row.at_least:g}") for row in own_rules],
        labels=list(used.manifest["labels"]) if used and used.manifest else [],
        shared=shared[0] if shared else None,
        wrong=wrong[0].message if wrong else "",
        form=wrong[1] if wrong else {"label": "", "percent": FIRST_PERCENT},
        may_act=may_act,
        toast_of=_toast(tenant, task, done, live=live, before=before) if may_act else None,
    )


async def _promotion(
    request: Request[Any, Any, Any],
    tenant: Tenant,
    database: Database,
    *,
    task: Task,
    version: int,
    refused: ServerError | None = None,
) -> Response[str]:
    """The page that asks whether a version is to go live."""
    async with database.reading() as session:
        row = await _get(session, tenant, task, version)
        live = await service.find_live(session, tenant.id, task)
    found, name = listing.measured(row), _name(row)
    why = "" if row.state == "ready" else f"{name} is not ready."
    if row.live:
        why = f"{name} is live already."
    not_better = found is not None and not found.verdict.passed
    question = Question(
        title=f"Make {name} live?",
        effects=[
            _effect_of(task),
            f"In place of version {live.version}, which stays: you can roll back to it at any time."
            if live
            else "Nothing is live for this now.",
            "What was said of earlier messages stays as it is."
            if task != IMAGE
            else "Requests that are under way end as they began.",
        ],
        act="Make it live all the same" if not_better else "Make it live",
        send=request.url.path,
        back=f"{_address(tenant)}/{task}/{version}",
        revision=live.version if live else 0,
        warning=f"{view.verdict_words(found)} {found.verdict.summary.capitalize()}."
        if found and not_better
        else "",
    )
    return await _ask(request, question, task=task, refused=refused, why=why)


async def _going_back(
    request: Request[Any, Any, Any],
    tenant: Tenant,
    database: Database,
    *,
    task: Task,
    refused: ServerError | None = None,
) -> Response[str]:
    """The page that asks whether to go back to the version before, or to none."""
    async with database.reading() as session:
        live = await service.find_live(session, tenant.id, task)
        before = await service.before_live(session, tenant, task)
    text, back = listing.TASK_TEXTS[task], f"{_address(tenant)}/{task}"
    revision = live.version if live else 0
    now_live = f"version {live.version}" if live else "none"
    if request.url.path.endswith("/retire"):
        question = Question(
            title=f"Take {text.name.lower()} out of use?",
            effects=[
                "Images are refused from the next request on."
                if task == IMAGE
                else "New messages get no label of this head any more.",
                f"Its versions stay; now it is {now_live}. You can put one to use again.",
            ],
            act="Take it out of use",
            send=request.url.path,
            back=back,
            revision=revision,
            danger=True,
        )
        why = "" if live else "No version is live."
    else:
        question = Question(
            title=f"Roll back to {_name(before)}?" if before else "Roll back?",
            effects=[
                _effect_of(task),
                f"Now it is {now_live}, which stays, and can be made live again.",
            ],
            act=f"Roll back to version {before.version}" if before else "Roll back",
            send=request.url.path,
            back=back,
            revision=revision,
            danger=True,
        )
        why = "" if before else "No other version was live before."
    return await _ask(request, question, task=task, refused=refused, why=why)


async def _deletion(
    request: Request[Any, Any, Any],
    tenant: Tenant,
    database: Database,
    *,
    task: Task,
    version: int,
    refused: ServerError | None = None,
) -> Response[str]:
    """The page that asks whether a version is to be deleted."""
    async with database.reading() as session:
        row = await _get(session, tenant, task, version)
    name = _name(row)
    question = Question(
        title=f"Delete {name}?",
        effects=[
            "Its training stops."
            if row.state in {"queued", "running"}
            else "What was measured of it goes with it.",
            f"Its {'images' if task == IMAGE else 'labelled texts'} go too, where no other version was "
            "trained on the same.",
            "What it said of messages stays. This cannot be undone; the file can be uploaded again.",
        ],
        act="Delete the version",
        send=request.url.path,
        back=f"{_address(tenant)}/{task}/{version}",
        danger=True,
    )
    why = f"{name} is live: take it out of use, or make another one live." if row.live else ""
    return await _ask(request, question, task=task, refused=refused, why=why)


async def _ask(
    request: Request[Any, Any, Any],
    question: Question,
    *,
    task: Task,
    refused: ServerError | None,
    why: str,
) -> Response[str]:
    return await page(
        request,
        "heads/confirm.html",
        status=HTTPStatus.CONFLICT if refused else HTTPStatus.OK,
        text=listing.TASK_TEXTS[task],
        question=question,
        bounds={},
        refused=refused.message if refused else "",
        last=None,
        why=why,
    )


def _toast(
    tenant: Tenant, task: Task, done: str, *, live: Head | None, before: Head | None
) -> dict[str, Any] | None:
    """What was done a moment ago, and how to take it back, while nobody changed it again."""
    if done in _DONE:
        return {"text": _DONE[done], "undo": "", "revision": 0, "percent": None}
    changed = live.live_since if live else before.replaced_at if before else None
    fresh = changed is not None and (now() - changed).total_seconds() < UNDO_SECONDS
    if not fresh or done not in {"promoted", "rolled_back", "retired"}:
        return None
    # what was live until then; where nothing was, to undo is to take it out of use
    replaced = before is not None and before.replaced_at == changed
    return {
        "text": f"{_name(live)} is live." if live else "No version is live any more.",
        "undo": f"{_address(tenant)}/{task}/{'roll-back' if replaced else 'retire'}",
        "revision": live.version if live else 0,
        "percent": None,
    }


def _effect_of(task: Task) -> str:
    if task == IMAGE:
        return "From the next request on, it says of every image what it is."
    return (
        "Within seconds it labels what visitors write, and conversations of the last seven days that "
        "have no label yet."
    )


def _name(row: Head) -> str:
    return f"{listing.TASK_TEXTS[row.task].name}, version {row.version}"


async def _expected(request: Request[Any, Any, Any]) -> int:
    """The version that was live, as the person who sends this form has seen it; 0 for none.

    Raises:
        Invalid: the form does not say.
    """
    given = (await read_form(request)).get("revision", "")
    if not (given.isascii() and given.isdigit() and int(given[:12]) <= MAX_NUMBER):
        raise Invalid("The form does not say what was live when it was opened: open it again.")
    return int(given)


async def _get(session: AsyncSession, tenant: Tenant, task: Task, version: int) -> Head:
    return await service.get(session, tenant, task, min(version, MAX_NUMBER))


def _task(name: str) -> Task:
    """The task of an address.

    Raises:
        NotFound: there is none of this name.
    """
    task = listing.find_task(name)
    if task is None:
        raise NotFound("There is no such head.")
    return task


def _chosen(name: str) -> Task:
    """The task of a form.

    Raises:
        Invalid: there is none of this name.
    """
    task = listing.find_task(name)
    if task is None:
        raise Invalid("Choose what the labels tell.", param="task")
    return task


def _rule(form: dict[str, str]) -> Rule | None:
    """The rule that a form asks for; None where it asks to remove one.

    Raises:
        Invalid: the probability is no whole number of per cent.
    """
    if "remove" in form:
        return None
    given = form.get("percent", "").strip()
    percent = int(given[:4]) if given.isascii() and given.isdigit() else 0
    if not 1 <= percent <= 100:  # noqa: PLR2004
        raise Invalid("Write a whole number from 1 to 100.", param="percent")
    return Rule(label=form.get("label", ""), at_least=percent / 100)


def _days(given: str | None) -> int:
    return next((days for days in DAYS if str(days) == given), DEFAULT_DAYS)


def _status(exc: _Refusal) -> HTTPStatus:
    if isinstance(exc, TooLarge):
        return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    if isinstance(exc, StorageFull):
        return HTTPStatus.INSUFFICIENT_STORAGE
    if isinstance(exc, Conflict):
        return HTTPStatus.CONFLICT
    return HTTPStatus.UNPROCESSABLE_ENTITY


def _address(tenant: Tenant) -> str:
    return f"/console/t/{tenant.slug}/heads"
