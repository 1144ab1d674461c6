"""Errors of this package; they know nothing of HTTP (``server/api/problems.py`` maps them).

ServerError
├── Invalid               a value in the request cannot be used
├── Unauthenticated       no key, or one that is unknown, expired or revoked
├── Forbidden             a known key without the scope this needs
├── NotFound              no such thing, or not this tenant's: the two answer alike
│   └── ModelNotFound     no such model for this key
├── Conflict              the thing is not in a state that allows it, or another request was faster
│   └── InProgress        the same request is still running; later is fine
├── TooLarge              more bytes than this server accepts
├── TooMany               the tenant's quota is spent; later is fine
├── Unavailable           a part is missing for now; later is fine
│   ├── EngineUnavailable the engine is starting, restarting or gone
│   └── EngineBusy        every slot of the engine is taken
├── StorageFull           there is no room left to store what came
├── EngineRejected        the engine refused the request, with its own reason
├── StreamBroken          the engine stopped in mid-answer
└── AdapterRefused        an adapter must not reach the engine, or the engine would not load it
"""

import errno


class ServerError(Exception):
    """Anything this package raises on purpose.

    ``message`` is for the caller; ``param`` names the field at fault; ``code`` is a stable word
    that a program may compare.
    """

    default_code: str | None = None

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or self.default_code


class Invalid(ServerError):
    """A value in the request cannot be used; says which and what would do."""

    default_code = "invalid_value"


class Unauthenticated(ServerError):
    """No key, or one that is unknown, expired or revoked."""

    default_code = "invalid_api_key"


class Forbidden(ServerError):
    """The key is good, and lacks the scope that this needs."""

    default_code = "insufficient_permissions"


class NotFound(ServerError):
    """No such thing, or not this tenant's: the two answer alike."""

    default_code = "not_found"


class ModelNotFound(NotFound):
    """No model of this name for this key."""

    default_code = "model_not_found"

    def __init__(self, model: str) -> None:
        super().__init__(
            f"The model '{model}' does not exist or you do not have access to it.", param="model"
        )
        self.model = model


class Conflict(ServerError):
    """The thing is not in a state that allows it, or another request was faster."""

    default_code = "conflict"


class InProgress(Conflict):
    """The same request is still running; asking again later gives its answer."""

    default_code = "request_in_progress"


class TooLarge(ServerError):
    """More bytes than this server accepts."""

    default_code = "too_large"

    def __init__(self, message: str, *, limit_bytes: int) -> None:
        super().__init__(message)
        self.limit_bytes = limit_bytes


class TooMany(ServerError):
    """The tenant's quota is spent; the same request is fine later.

    ``retry_after_seconds`` is None where it never will be: it is larger than the whole quota.
    """

    default_code = "rate_limit_exceeded"

    def __init__(
        self, message: str, *, retry_after_seconds: float | None, code: str | None = None
    ) -> None:
        super().__init__(message, code=code)
        self.retry_after_seconds = retry_after_seconds


class Unavailable(ServerError):
    """A part of the service is missing for now; the same request is fine later."""

    default_code = "service_unavailable"

    def __init__(
        self, message: str, *, retry_after_seconds: float = 5.0, code: str | None = None
    ) -> None:
        super().__init__(message, code=code)
        self.retry_after_seconds = retry_after_seconds


class StorageFull(ServerError):
    """There is no room left to store what came; nothing of it was kept."""

    default_code = "disk_full"

    def __init__(self) -> None:
        super().__init__(
            "There is no room left on the server's disk: nothing was stored. "
            "The operator must make some."
        )


class EngineUnavailable(Unavailable):
    """The engine is starting, restarting or gone."""

    default_code = "engine_unavailable"


class EngineBusy(Unavailable):
    """Every slot of the engine is taken and the waiting line is full."""

    default_code = "engine_overloaded"


class EngineRejected(ServerError):
    """The engine refused the request. ``status`` is the engine's own."""

    def __init__(
        self, message: str, *, status: int, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message, param=param, code=code)
        self.status = status


class StreamBroken(ServerError):
    """The engine stopped in the middle of an answer."""

    default_code = "stream_broken"


class AdapterRefused(ServerError):
    """An adapter must not reach the engine, or the engine would not load it."""

    default_code = "adapter_refused"


_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_DESCRIPTOR = {errno.EMFILE, errno.ENFILE}
_NO_STORAGE = {errno.EIO, errno.EROFS, errno.ESTALE}


def of_system(exc: OSError, *, number: int | None = None) -> ServerError | None:
    """What the operating system refused, where that is no fault of the request's or of ours.

    ``number`` is the system's error where the exception itself does not have it (``errno``).
    """
    number = number or exc.errno
    if number in _NO_ROOM:
        return StorageFull()
    if number in _NO_DESCRIPTOR:
        return Unavailable(
            "The server has too many files and connections open.",
            retry_after_seconds=1.0,
            code="too_many_open_files",
        )
    if number in _NO_STORAGE:
        return Unavailable("The server's disk does not work.", code="storage_unavailable")
    return None
