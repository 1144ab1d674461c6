"""The headers of every page: what its browser may load, and from whom."""

from collections.abc import Iterable


def console_headers(*, form_action: Iterable[str] = ()) -> dict[str, str]:
    """The headers of a console page.

    Scripts, styles, images and requests come from this server alone; nothing inline runs, and nobody
    may frame the page. Pages hold a tenant's data, so no cache keeps them.

    Args:
        form_action: other origins that a form of this page may lead to, redirects included: those of
            the OpenID provider on the sign-in page.
    """
    forms = " ".join(["'self'", *form_action])
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        f"connect-src 'self'; frame-src 'self'; form-action {forms}; base-uri 'none'; "
        "frame-ancestors 'none'"
    )
    return {
        "content-security-policy": policy,
        "cache-control": "no-store",
        "cross-origin-opener-policy": "same-origin",
        "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
        "referrer-policy": "same-origin",
        "x-content-type-options": "nosniff",
    }
