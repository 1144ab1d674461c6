"""Every page of the console: where it is, and as whom to look at it. Checks and screenshots use it."""

from typing import NamedTuple


class Look(NamedTuple):
    """A page in one state.

    ``who``: as in ``Site.sign_in``; nobody where it is empty. ``status``: what it answers.
    """

    name: str
    path: str
    who: str = ""
    status: int = 200


PAGES = (
    Look("gallery", "/console/t/loaf/gallery", "loaf:admin"),
    Look("not-found", "/console/nothing", "loaf:admin", 404),
    Look("server-error", "/console/t/loaf/gallery/broken", "loaf:admin", 500),
)
