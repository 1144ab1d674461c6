"""Types that the schemas of several domains share."""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

# a time with its zone, which msgspec describes as date-time
Moment = Annotated[datetime, Meta(tz=True)]
_Bound = Annotated[int, Meta(ge=1, le=1 << 31)]


class WidgetBudgets(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """How much a widget may be used; what is exceeded works again later.

    An address is an IPv4 address or an IPv6 network of 64 bits. ``tokens_per_day`` is of the whole
    widget in a UTC day, prompts included; null is no bound of its own.
    """

    visitor_messages_per_minute: _Bound = 10
    visitor_messages_per_day: _Bound = 200
    address_messages_per_minute: _Bound = 30
    address_sessions_per_minute: _Bound = 30
    address_handoffs_per_day: _Bound = 20
    tokens_per_day: _Bound | None = 2_000_000
