"""Pages of somebody else's site that carry the widget, at an origin and host name of their own."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_PAGE = """<!doctype html>
<html lang="{lang}"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Lumen &amp; Loaf</title></head>
<body><main><h1>Bread by post</h1><p>Every week a loaf.</p><p><a id="basket" href="#">My basket</a> is empty.</p></main>{scripts}</body></html>
"""


class Shop:
    """``write`` a page, and get its address."""

    def __init__(self, url: str, server: str) -> None:
        self.url = url
        self._server = server
        self.pages: dict[str, tuple[str, dict[str, str]]] = {}
        self.violations: list[str] = []  # of the pages' policies, as browsers report them

    def write(self, *scripts: str, lang: str = "en", policy: str = "", **headers: str) -> str:
        """A page with these tags, under the strictest policy that lets the widget in."""
        path = f"/{len(self.pages)}"
        policy = policy or (
            f"default-src 'none'; script-src {self._server}; frame-src {self._server}; "
            "require-trusted-types-for 'script'; report-uri /violations"
        )
        body = _PAGE.format(lang=lang, scripts="".join(scripts))
        self.pages[path] = (body, {"Content-Security-Policy": policy, **headers})
        return self.url + path

    def tag(self, key: str, **data: str) -> str:
        """The snippet: ``tag(key, label="Questions?")``."""
        more = "".join(f' data-{name}="{value}"' for name, value in data.items())
        return f'<script async src="{self._server}/widget.js" data-key="{key}"{more}></script>'


@contextmanager
def running_shop(server: str) -> Iterator[Shop]:
    """A site whose pages are written by tests; ``server`` is where the widget comes from."""
    shop = Shop("", server)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body, headers = shop.pages.get(self.path, ("", {}))
            self.send_response(200 if body else 404)
            for name, value in {"Content-Type": "text/html", **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body.encode())

        def do_POST(self) -> None:
            report = self.rfile.read(int(self.headers["Content-Length"])).decode()
            if "/favicon.ico" not in report:  # browsers ask for it by themselves
                shop.violations.append(report)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        threading.Thread(target=made.serve_forever, name="shop", daemon=True).start()
        shop.url = f"http://localhost:{made.server_address[1]}"
        yield shop
        made.shutdown()
