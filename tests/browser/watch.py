"""What is wrong with a page that its own test may not notice: listened for in every browser test."""

from collections.abc import Collection
from urllib.parse import urlsplit

from playwright.sync_api import BrowserContext, ConsoleMessage, Page, Request, Response

_TELL = """
addEventListener("securitypolicyviolation", (event) => console.error(
  `content security policy: ${event.effectiveDirective} refused ${event.blockedURI} ${event.sample}`
));
"""
_LOADED_BY_PAGE = ("document", "fetch", "xhr")
_STATUS = "Failed to load resource: the server responded with a status of"


class Watch:
    """Collects faults of all pages of a context.

    They are violations of a content security policy, errors on the console and those that nobody
    caught, requests to other origins than the allowed ones, and files that are not there. A page or a
    request of a script may answer 4xx: whether it should is for the test to say.
    """

    def __init__(self, context: BrowserContext, *, allowed: Collection[str]) -> None:
        self.faults: list[str] = []
        self._allowed = {_origin(url) for url in allowed}
        context.add_init_script(_TELL)
        context.on("page", self._listen)

    def _listen(self, page: Page) -> None:
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.faults.append(f"not caught: {error}"))
        page.on("request", self._request)
        page.on("response", self._response)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not message.text.startswith(_STATUS):
            self.faults.append(f"console: {message.text}")

    def _request(self, request: Request) -> None:
        if not request.url.startswith(("data:", "blob:", "about:")) and (
            _origin(request.url) not in self._allowed
        ):
            self.faults.append(f"foreign request: {request.url}")

    def _response(self, response: Response) -> None:
        kind = response.request.resource_type
        if response.status >= 400 and kind not in _LOADED_BY_PAGE:
            self.faults.append(f"{response.status} for the {kind} {response.url}")


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
