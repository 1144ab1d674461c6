"""Tokens and engine time that a request or a tenant used."""

from datetime import date

import msgspec


class PromptDetails(msgspec.Struct, frozen=True):
    """Of the prompt's tokens, those that were in the cache."""

    cached_tokens: int = 0


class Usage(msgspec.Struct, frozen=True):
    """Tokens of a request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails | None = None

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens that were in the cache."""
        details = self.prompt_tokens_details
        return details.cached_tokens if details else 0


class UsageView(msgspec.Struct, frozen=True, kw_only=True):
    """What a tenant used in a UTC day with one key and model; null where it was not grouped by.

    ``key_id`` is empty where no key was used. ``refused``: requests that a limit turned away, which
    ``requests`` and ``errors`` do not count. ``gpu_seconds``: the requests' shares of the time
    that the engine was busy; they add up to that time. Training has rows of its own, with the
    model ``training:<base>``, on the day that a job ended.
    """

    tenant: str
    day: date | None
    model: str | None
    key_id: str | None
    requests: int
    errors: int
    refused: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    gpu_seconds: float
