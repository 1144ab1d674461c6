"""Which requests a canary answers: a share of them by a hash, the same each time for the same key.

By the rule of Unleash's gradual rollout (docs.getunleash.io, "Stickiness"): a hash of the group and the key,
taken modulo 100, is held against the share. So more per cent take keys in and let none go. The group
is the tenant with the canary's version: each canary meets other people.
"""

import hashlib

import msgspec

from server.adapters.schemas import Resolved
from server.db.models import new_id

_BUCKETS = 100


def bucket(tenant_id: str, version: int, key: str) -> int:
    """The place of a key in [0, 100) for this canary; it is in a share of ``percent`` that is greater."""
    drawn = hashlib.sha256(f"{tenant_id}:{version}:{key}".encode()).digest()
    return int.from_bytes(drawn[:8]) % _BUCKETS


class Split(msgspec.Struct, frozen=True, kw_only=True):
    """What a name means: always ``live``, or for ``percent`` of the requests ``canary``."""

    live: Resolved
    canary: Resolved | None = None
    percent: int = 0

    def choose(self, key: str | None) -> Resolved:
        """Who answers a request; with the same ``key`` the same. None: each request by chance."""
        if self.canary is None or self.canary.version is None:
            return self.live
        drawn = bucket(self.canary.tenant_id, self.canary.version, key or new_id())
        return self.canary if drawn < self.percent else self.live
