"""Applications for one test after another: to build one takes 0.4 s, and some 2,000 tests want one."""

from copy import copy
from typing import Any, NamedTuple

from litestar.datastructures import State
from litestar.di import Provide
from litestar.utils import ensure_async_callable

from server.api.head import Application

# what a test's own application differs by; everything else is the same objects for all tests
_OF_ONE_TEST = ("dependencies", "before_send", "lifespan")
_MOST_KEPT = 3  # each is 100,000 objects


class _Kept(NamedTuple):
    app: Application
    options: dict[str, Any]
    routes: int


class Applications:
    """Stands in for ``server.app.Application``: gives applications that tests before have done with.

    What ``create_app`` makes for the one installation is put in anew: the services, the hooks, the
    lifespan, an empty state. An application goes only to who asks for the very same handlers and
    options otherwise; a test that needs two at once gets two.
    """

    def __init__(self) -> None:
        self._free: list[_Kept] = []
        self._lent: list[_Kept] = []

    def __call__(self, **options: Any) -> Application:
        """Lend an application until ``take_back``; built where none is free that fits."""
        mine = {name: options[name] for name in _OF_ONE_TEST}
        others = {name: copy(value) for name, value in options.items() if name not in mine}
        kept = next((each for each in self._free if each.options == others), None)
        if kept is None:
            app = Application(**options)
            kept = _Kept(app, others, len(app.routes))
        else:
            self._free.remove(kept)
            _furnish(kept.app, **mine)
        self._lent.append(kept)
        return kept.app

    def take_back(self) -> None:
        """The test is over; what it added routes to is not used again."""
        self._free += [each for each in self._lent if len(each.app.routes) == each.routes]
        del self._free[:-_MOST_KEPT]
        self._lent.clear()


def _furnish(
    app: Application,
    *,
    dependencies: dict[str, Provide],
    before_send: list[Any],
    lifespan: list[Any],
) -> None:
    assert dependencies.keys() == app.dependencies.keys()
    for name, given in dependencies.items():
        held = app.dependencies[name]
        assert isinstance(held, Provide)
        held.dependency = given.dependency  # handlers hold the provider
    app.before_send = [ensure_async_callable(hook) for hook in before_send]
    app._lifespan_managers = lifespan
    app.state = State()
