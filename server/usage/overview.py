"""What was used in some days, as people look at it: by day, by model and by key, or by tenant."""

from collections.abc import Iterable
from datetime import date, timedelta
from typing import Literal, TypeVar

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from server.db.models import ApiKey, Person, Tenant, Widget
from server.db.scope import of_installation, of_tenant
from server.usage.report import usage_of
from server.usage.schemas import UsageView

TRAINING = "training:"
ModelKind = Literal["version", "training", "other"]
KeyKind = Literal["key", "widget", "person", "gone", "other"]


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """What was used.

    ``requests`` are those that reached the engine, ``errors`` of them failed; ``refused`` were turned
    away by a limit before. ``engine_seconds`` are shares of the time that the engine was busy,
    ``trainer_seconds`` the time that trainers had their device, on the day that a run ended.
    """

    requests: int = 0
    errors: int = 0
    refused: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    engine_seconds: float = 0.0
    trainer_seconds: float = 0.0

    @property
    def tokens(self) -> int:
        """Prompt and answer together."""
        return self.prompt_tokens + self.completion_tokens


class DayUse(msgspec.Struct, frozen=True):
    """A UTC day."""

    day: date
    use: Use


class ModelUse(msgspec.Struct, frozen=True, kw_only=True):
    """A model. ``version`` is the tenant's, where it is one; training is a model of its own per base."""

    name: str
    kind: ModelKind
    version: int | None
    use: Use


class KeyUse(msgspec.Struct, frozen=True, kw_only=True):
    """What asked. ``name`` is a key's label and beginning, or in words what is no key."""

    name: str
    kind: KeyKind
    use: Use


U = TypeVar("U", ModelUse, KeyUse)


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant's use of the days from ``first`` to ``last``, the oldest first; others by tokens."""

    first: date
    last: date
    total: Use
    days: tuple[DayUse, ...]
    models: tuple[ModelUse, ...]
    keys: tuple[KeyUse, ...]


async def of_one(session: AsyncSession, tenant: Tenant, *, first: date, last: date) -> Overview:
    """What a tenant used from ``first`` to ``last``, both included.

    Raises:
        Invalid: too many rows (`server.usage.report.MAX_ROWS`).
    """
    rows = await usage_of(session, tenant.id, by=["day", "model"], first=first, last=last)
    by_key = await usage_of(session, tenant.id, by=["key", "model"], first=first, last=last)
    days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    of_day = {day: [row for row in rows if row.day == day] for day in days}
    models = {row.model or "": [each for each in rows if each.model == row.model] for row in rows}
    keys: dict[str, list[UsageView]] = {}
    for row in by_key:
        keys.setdefault(TRAINING if _is_training(row) else row.key_id or "", []).append(row)
    names = await _names(session, tenant, keys)
    return Overview(
        first=first,
        last=last,
        total=_add(rows),
        days=tuple(DayUse(day, _add(of_day[day])) for day in days),
        models=_largest_first(_model(tenant, name, _add(found)) for name, found in models.items()),
        keys=_largest_first(
            KeyUse(name=names[key_id][0], kind=names[key_id][1], use=_add(found))
            for key_id, found in keys.items()
        ),
    )


async def of_all(session: AsyncSession, *, first: date, last: date) -> dict[str, Use]:
    """What each tenant used from ``first`` to ``last``, by its slug; those that used nothing are absent."""
    found: dict[str, list[UsageView]] = {}
    for row in await usage_of(session, None, by=["model"], first=first, last=last):
        found.setdefault(row.tenant, []).append(row)
    return {slug: _add(rows) for slug, rows in found.items()}


def add_up(uses: Iterable[Use]) -> Use:
    """Several together."""
    found = list(uses)
    return Use(**{name: sum(getattr(use, name) for use in found) for name in Use.__struct_fields__})


def _add(rows: Iterable[UsageView]) -> Use:
    return add_up(_use(row) for row in rows)


def _use(row: UsageView) -> Use:
    is_training = _is_training(row)
    return Use(
        requests=row.requests,
        errors=row.errors,
        refused=row.refused,
        prompt_tokens=row.prompt_tokens,
        cached_tokens=row.cached_tokens,
        completion_tokens=row.completion_tokens,
        engine_seconds=0.0 if is_training else row.gpu_seconds,
        trainer_seconds=row.gpu_seconds if is_training else 0.0,
    )


def _is_training(row: UsageView) -> bool:
    return (row.model or "").startswith(TRAINING)


def _model(tenant: Tenant, name: str, use: Use) -> ModelUse:
    if name.startswith(TRAINING):
        text = f"Training on {name.removeprefix(TRAINING)}"
        return ModelUse(name=text, kind="training", version=None, use=use)
    slug, at, version = name.rpartition("@")
    if at and slug == tenant.slug and version.isascii() and version.isdigit():
        return ModelUse(name=name, kind="version", version=int(version), use=use)
    return ModelUse(name=name, kind="other", version=None, use=use)


def _largest_first(found: Iterable[U]) -> tuple[U, ...]:
    def size(each: U) -> tuple[int, float, int]:
        return each.use.tokens, each.use.trainer_seconds, each.use.refused

    return tuple(sorted(found, key=size, reverse=True))


async def _names(
    session: AsyncSession, tenant: Tenant, key_ids: Iterable[str]
) -> dict[str, tuple[str, KeyKind]]:
    """What the ids in the counts stand for. A person asks in the console, visitors in the widget."""
    ids = list(key_ids)
    names: dict[str, tuple[str, KeyKind]] = dict.fromkeys(ids, ("A key that is gone", "gone"))
    names |= {"": ("Without a key", "other"), TRAINING: ("Training", "other")}
    mine = of_tenant(tenant.id)
    for key in await session.scalars(mine.select(ApiKey).where(ApiKey.id.in_(ids))):
        text = f"{key.label}, {key.prefix}…" if key.label else f"{key.prefix}…"
        names[key.id] = (text, "key")
    for widget_id in await session.scalars(mine.select(Widget.id).where(Widget.id.in_(ids))):
        names[widget_id] = ("The widget", "widget")
    people = of_installation().select(Person).where(Person.id.in_(ids))
    for person in await session.scalars(people):
        names[person.id] = (f"{person.name or person.email}, in the console", "person")
    return names
