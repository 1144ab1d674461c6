"""The stored report of a version as a page of its own, which runs and loads nothing."""

from typing import Any

import msgspec
from litestar import Response

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self'; sandbox"
)


def report_page(report: dict[str, Any]) -> Response[str]:
    """A report as an adapter's row holds it, with texts of customers in it: escaped, and in a sandbox."""
    from training.reports.report import Report, render_html  # noqa: PLC0415 - loads the templates

    return Response(
        render_html(msgspec.convert(report, Report)),
        media_type="text/html",
        headers={
            "content-security-policy": POLICY,
            "cache-control": "no-store",
            "referrer-policy": "no-referrer",
            "x-content-type-options": "nosniff",
        },
    )
