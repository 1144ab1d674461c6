"""Rules of a tenant: which label of a live head hands a conversation to a person."""

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from server.audit import service as audit
from server.audit.schemas import Subject
from server.db.models import HandoffRule, Tenant
from server.db.scope import of_tenant
from server.errors import Invalid
from server.heads import service
from server.heads.schemas import Rule
from training.heads.config import IMAGE, Task


async def list_for(session: AsyncSession, tenant_id: str, task: Task) -> list[HandoffRule]:
    """The rules of a task, by label."""
    query = of_tenant(tenant_id).select(HandoffRule).where(HandoffRule.task == task)
    return list(await session.scalars(query.order_by(HandoffRule.label)))


async def replace(
    session: AsyncSession, tenant: Tenant, task: Task, rules: Sequence[Rule]
) -> list[HandoffRule]:
    """Give a task these rules instead of those that it has. One that stays as it is keeps its time.

    They hold for messages that are written from now on.

    Raises:
        Invalid: the task is of images; a label is there twice; a new one is none of the version's that labels.
    """
    if task == IMAGE and rules:
        raise Invalid("Images are in no conversation that could be handed over.", param="task")
    labels = [rule.label for rule in rules]
    if len(set(labels)) < len(labels):
        raise Invalid("A label can have one rule.", param="rules")
    await of_tenant(tenant.id).get_one(session, Tenant, tenant.id, lock=True)
    before = {row.label: row for row in await list_for(session, tenant.id, task)}
    wanted = {rule.label: rule.at_least for rule in rules}
    if wanted == {label: row.at_least for label, row in before.items()}:
        return list(before.values())
    await _check_labels(session, tenant, task, sorted(set(wanted) - set(before)))
    for label, row in before.items():
        if wanted.get(label) != row.at_least:
            await session.delete(row)
    await session.flush()
    for label, at_least in wanted.items():
        if label not in before or before[label].at_least != at_least:
            row = HandoffRule(tenant_id=tenant.id, task=task, label=label, at_least=at_least)
            session.add(row)
    await session.flush()
    audit.record(
        session,
        "head.rules_changed",
        tenant_id=tenant.id,
        subject=Subject("head", task, task),
        details={"rules": wanted},
    )
    return await list_for(session, tenant.id, task)


def view(row: HandoffRule) -> Rule:
    """A rule as the API shows it."""
    return Rule(label=row.label, at_least=row.at_least)


async def _check_labels(
    session: AsyncSession, tenant: Tenant, task: Task, labels: Sequence[str]
) -> None:
    if not labels:
        return
    live = await service.find_used(session, tenant.id, task)
    known = live.manifest.get("labels", ()) if live and live.manifest else ()
    unknown = [label for label in labels if label not in known]
    if unknown:
        there = ", ".join(known) if known else "none, since no version is live"
        raise Invalid(
            f"The live version of {task} has no label {unknown[0]!r}; it has {there}.",
            param="rules",
            code="unknown_label",
        )
