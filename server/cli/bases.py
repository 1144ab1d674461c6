"""``tenantune bases``: base models, quantized in a child process so that this one stays small."""

from collections.abc import Callable

import rich_click as click

from server.child_processes import run_child, with_parent_watch
from server.cli.console import App, command, json_option, print_json, print_message, print_table
from server.settings import Settings
from training.base_models.manifest import list_bases, load_base
from training.errors import BaseModelError

OnProgress = Callable[[str], None]
"""Takes a line of progress, as for a terminal."""


def has_base(settings: Settings) -> bool:
    """Whether the configured base is there and complete."""
    try:
        load_base(settings.bases / settings.base)
    except BaseModelError:
        return False
    return True


async def ensure_base(settings: Settings, *, on_progress: OnProgress) -> None:
    """Make the configured base unless it is there.

    Raises:
        BaseModelError: it cannot be made; the reason has been printed.
    """
    if not has_base(settings):
        on_progress(f"base      making {settings.base}, once")
        await add_in_child(settings, settings.base)


async def add_in_child(settings: Settings, source: str, *extra: str) -> None:
    """Run ``python -m training.base_models.quantize``; cancelled, it removes what it had made.

    Raises:
        BaseModelError: it ended with an error, which it has printed.
    """
    if await run_child(
        with_parent_watch("training.base_models.quantize", source, str(settings.bases), *extra)
    ):
        raise BaseModelError(f"the base {source!r} was not made; the reason is above")


@click.group()
def bases() -> None:
    """Base models, and the serving weights made from them."""


@bases.command("add")
@click.argument("source")
@click.option("--chat-template", type=click.Path(exists=True), help="For a model without one.")
@command
async def add(app: App, source: str, chat_template: str | None) -> None:
    """Make a base of a built-in's name, a hub id, or a folder."""
    extra = ("--chat-template", chat_template) if chat_template else ()
    await add_in_child(app.settings, source, *extra)


@bases.command("list")
@json_option
@command
async def list_(app: App, *, as_json: bool) -> None:
    """Bases that are ready."""
    found = list_bases(app.settings.bases)
    if as_json:
        print_json(found)
        return
    rows = [
        (b.name, f"{b.parameters / 1e6:.0f} M", b.license, b.serving_sha256[:12]) for b in found
    ]
    print_table("Bases", ("name", "parameters", "licence", "serving hash"), rows)
    if not found:
        print_message("none yet: `tenantune bases add smollm2-135m-instruct`")
