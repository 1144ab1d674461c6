"""What a new run would need, before it is started: from what runs before it needed on this machine.

The trainer itself measures a first batch and writes its own estimate into the run before it trains. This
one is for the page with the button: it is rougher, costs a few queries, and says what it rests on.
"""

from typing import Any

import msgspec
from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession

from server.db.models import ConversationRow, DatasetVersion, Import, Job, Tenant
from server.db.scope import across_tenants, of_tenant
from server.jobs.recipes import default_recipe, gpu_memory, why_not
from server.settings import Settings
from training.config import Recipe, load_recipe, recipe_names, recipe_summary
from training.data.dataset import MIN_EXAMPLES

_RUNS_LOOKED_AT = 20
_SAMPLE = 100  # conversations, the newest
_CHARACTERS_A_TOKEN = 4  # of English text, about
_TRAIN_SHARE = 0.8  # of conversations; the others are held out


class RunEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """What one recipe would need.

    ``seconds``: of the whole run; None where no run was measured here. ``impossible``: why the machine
    of the server cannot run it; empty where it can.
    """

    recipe: str
    summary: str
    tokens: int
    seconds: float | None
    memory_bytes: int
    impossible: str = ""


class Prospect(msgspec.Struct, frozen=True, kw_only=True):
    """What a new run would learn from and need.

    ``missing``: conversations that are needed beside those there are; ``unread``: uploads that are being
    read still. ``basis`` says in words what the estimates rest on. ``recipes``: first the one that a run
    gets which names none, last those that cannot run here.
    """

    conversations: int
    missing: int
    unread: int
    basis: str
    recipes: tuple[RunEstimate, ...]

    @property
    def can_start(self) -> bool:
        """Whether a run may be started: there is enough, or there may be once the uploads are read."""
        return not self.missing or self.unread > 0

    def of(self, recipe: str) -> RunEstimate | None:
        """The estimate of one recipe; None where there is no such recipe."""
        return next((each for each in self.recipes if each.recipe == recipe), None)


class _Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What an earlier run showed: its speed, and how long it took beside its steps."""

    tokens_per_second: float
    other_seconds: float
    tokens_per_conversation: float | None
    train_share: float | None
    memory: dict[str, int]


async def estimate_run(session: AsyncSession, tenant: Tenant, *, settings: Settings) -> Prospect:
    """What a new run of this tenant would need, for each recipe that ships."""
    mine = of_tenant(tenant.id)
    count = await session.scalar(mine.select(func.count(ConversationRow.id))) or 0
    reading = mine.select(func.count(Import.id)).where(Import.state.in_(("queued", "running")))
    unread = await session.scalar(reading) or 0
    measured, basis = await _measured(session, tenant, settings.base)
    if measured is not None and measured.tokens_per_conversation is not None:
        tokens_each = measured.tokens_per_conversation
    else:
        tokens_each = await _tokens_by_length(session, tenant)
    gpu, first = await gpu_memory(), await default_recipe(settings)
    share = measured.train_share if measured and measured.train_share else _TRAIN_SHARE
    return Prospect(
        conversations=count,
        missing=max(0, MIN_EXAMPLES - count),
        unread=unread,
        basis=basis,
        recipes=tuple(
            msgspec.structs.replace(
                _of_recipe(name, load_recipe(name), count * share * tokens_each, measured),
                impossible=why_not(name, gpu),
            )
            for name in sorted(
                recipe_names(), key=lambda name: (name != first, bool(why_not(name, gpu)), name)
            )
        ),
    )


def _of_recipe(
    name: str, recipe: Recipe, tokens_an_epoch: float, measured: _Measured | None
) -> RunEstimate:
    tokens = round(tokens_an_epoch * recipe.epochs)
    if recipe.max_train_tokens:
        tokens = min(tokens, recipe.max_train_tokens)
    seconds = None
    if measured is not None:
        speed = measured.tokens_per_second
        if recipe.train_minutes:
            fitting = round(60 * recipe.train_minutes * speed)
            tokens = min(tokens, max(fitting, recipe.min_train_tokens))
        seconds = tokens / speed + measured.other_seconds
    memory = measured.memory.get(name) if measured is not None else None
    return RunEstimate(
        recipe=name,
        summary=recipe_summary(name),
        tokens=tokens,
        seconds=seconds,
        memory_bytes=memory or recipe.memory_bytes,
    )


async def _measured(
    session: AsyncSession, tenant: Tenant, base: str
) -> tuple[_Measured | None, str]:
    """The newest run of the tenant that showed a speed, else of anybody; and what that is in words."""
    columns = (Job.recipe_name, Job.estimate, Job.progress, Job.gpu_seconds, Job.dataset_id)
    newest = of_tenant(tenant.id).select(*columns).where(Job.base == base)
    rows = await session.execute(newest.order_by(Job.id.desc()).limit(_RUNS_LOOKED_AT))
    runs = [tuple(row) for row in rows]
    memory = {name: estimate["memory_bytes"] for name, estimate, *_ in reversed(runs) if estimate}
    for _, _, progress, gpu_seconds, dataset_id in runs:
        if _shows_speed(progress):
            counts = await session.scalar(
                of_tenant(tenant.id)
                .select(DatasetVersion.counts)
                .where(DatasetVersion.id == dataset_id)
            )
            return _from(
                progress, gpu_seconds, counts, memory
            ), "estimated from this tenant's last run"
    anyone = across_tenants("how fast this machine trains is no tenant's secret")
    query = anyone.select(Job.progress, Job.gpu_seconds).where(Job.base == base)
    for progress, gpu_seconds in await session.execute(
        query.order_by(Job.id.desc()).limit(_RUNS_LOOKED_AT)
    ):
        if _shows_speed(progress):
            found = _from({**progress, "examples": None}, gpu_seconds, None, memory)
            return found, "estimated from the last run here and the length of these conversations"
    return None, (
        "known in part only: nothing was trained here yet. The run measures its first batch, and shows how "
        "long it takes before it trains"
    )


def _shows_speed(progress: dict[str, Any]) -> bool:
    return bool(progress.get("tokens_per_second") and progress.get("tokens"))


def _from(
    progress: dict[str, Any],
    gpu_seconds: float,
    counts: dict[str, int] | None,
    memory: dict[str, int],
) -> _Measured:
    speed, tokens = float(progress["tokens_per_second"]), int(progress["tokens"])
    examples, epoch = progress.get("examples"), progress.get("epoch")
    everything = sum(counts.values()) if counts else 0
    return _Measured(
        tokens_per_second=speed,
        other_seconds=max(0.0, gpu_seconds - tokens / speed),
        tokens_per_conversation=tokens / (epoch * examples) if epoch and examples else None,
        train_share=counts["train"] / everything if counts and everything else None,
        memory=memory,
    )


async def _tokens_by_length(session: AsyncSession, tenant: Tenant) -> float:
    """About how many tokens one of the tenant's conversations has, by the newest ones' length."""
    query = of_tenant(tenant.id).select(ConversationRow.body).order_by(ConversationRow.id.desc())
    bodies = list(await session.scalars(query.limit(_SAMPLE)))
    characters = sum(len(turn.get("text", "")) for body in bodies for turn in body.get("turns", ()))
    return characters / _CHARACTERS_A_TOKEN / len(bodies) if bodies else 0.0
