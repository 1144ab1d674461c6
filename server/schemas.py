"""Types that the schemas of several domains share."""

from datetime import datetime
from typing import Annotated

from msgspec import Meta

# a time with its zone, which msgspec describes as date-time
Moment = Annotated[datetime, Meta(tz=True)]
