"""Configuration: the only module that reads environment variables.

Each field is the variable ``TENANTUNE_<FIELD>`` in capitals; ``describe`` lists them for ``--help``
and the documentation.
"""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import msgspec
from msgspec import Meta

from server.origins import origins
from training.config import Objectives

PREFIX = "TENANTUNE_"
_OLD_WORDS = {"engine": {"scripted": "fake"}}  # values that were renamed, by setting
_PAIRS = ("engine_options", "limits", "objectives")  # written as 'name=value name=value'


class SettingsError(ValueError):
    """A variable holds something that cannot be used; names the variable and what it accepts."""


def _default_home() -> Path:
    return Path.home() / ".local" / "share" / "tenantune"


MOST_LIMIT = 1 << 53  # JSON numbers are exact up to here
_Bound = Annotated[int, Meta(ge=1, le=MOST_LIMIT)] | None


class Limits(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """How much a tenant, or a key, may ask of the models; None is no limit.

    Days are UTC days. ``concurrent_streams`` are requests in flight, streamed or not.
    """

    requests_per_minute: _Bound = None
    tokens_per_minute: _Bound = None
    requests_per_day: _Bound = None
    tokens_per_day: _Bound = None
    concurrent_streams: _Bound = None


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything an operator may set. All have defaults that run on one machine."""

    home: Annotated[Path, Meta(description="data folder")] = msgspec.field(
        default_factory=_default_home
    )
    host: Annotated[str, Meta(description="address to listen on")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="port to listen on; 0 picks one")] = 8000
    public_url: Annotated[
        str,
        Meta(
            pattern="^(https?://[^/?#@]+)?$",
            description="where browsers reach this server, as https://chat.example.com; empty: the "
            "address that they ask for",
        ),
    ] = ""
    database_url: Annotated[
        str, Meta(description="sqlite path or postgresql URL; empty: a file in the data folder")
    ] = ""
    blobs_url: Annotated[
        str, Meta(description="folder, s3://, gs://, az:// for uploads; empty: in the data folder")
    ] = ""
    engine: Annotated[
        Literal["vllm", "fake"],
        Meta(
            description="fake: answers by rule, without a model, for work on the rest "
            "(scripted is its old name)"
        ),
    ] = "vllm"
    engine_url: Annotated[
        str,
        Meta(
            description="http(s):// or unix: address of a running engine, of the kind that engine "
            "says; empty: start one"
        ),
    ] = ""
    engine_options: Annotated[
        dict[str, str],
        Meta(description="overrides of the engine's settings, as 'name=value name=value'"),
    ] = {}
    engine_group: Annotated[
        str,
        Meta(
            description="group of an engine that runs as another user: it may read bases and "
            "adapters; empty: no other user may read anything"
        ),
    ] = ""
    engine_ready_seconds: Annotated[
        float, Meta(gt=0, description="how long the engine may take to start")
    ] = 600.0
    server_url: Annotated[
        str, Meta(description="where a worker reaches the server; empty: this machine, this port")
    ] = ""
    worker_token: Annotated[
        str, Meta(description="secret between server and workers; empty: a file in the data folder")
    ] = ""
    base: Annotated[str, Meta(description="base model that is served and trained on")] = (
        "smollm2-135m-instruct"
    )
    recipe: Annotated[
        str, Meta(description="training recipe of jobs that name none; empty: by device")
    ] = ""
    objectives: Annotated[
        Objectives,
        Meta(
            description="gates of jobs that declare none, where they differ, as 'name=number', of "
            + ", ".join(Objectives.__struct_fields__)
        ),
    ] = Objectives()
    worker_jobs: Annotated[int, Meta(ge=1, description="training jobs at once per worker")] = 1
    default_region: Annotated[
        str, Meta(pattern="^[A-Z]{2}$", description="country of phone numbers without a prefix")
    ] = "GB"
    limits: Annotated[
        Limits,
        Meta(
            description="limits of tenants that have none of their own, as 'name=number', of "
            + ", ".join(Limits.__struct_fields__)
        ),
    ] = Limits()
    queue_per_tenant: Annotated[
        int, Meta(ge=1, description="requests of one tenant that may wait for the engine")
    ] = 128
    queue_total: Annotated[
        int, Meta(ge=1, description="requests of all tenants that may wait for the engine")
    ] = 1024
    queue_seconds: Annotated[
        float, Meta(gt=0, description="how long a request may wait for the engine")
    ] = 60.0
    max_upload_bytes: Annotated[int, Meta(gt=0, description="largest file or transcript")] = 2 << 30
    knowledge_chunks: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000,
            description="pieces of articles that a tenant may have to search; up to the most they are "
            "compared one by one, exactly",
        ),
    ] = 100_000
    knowledge_bytes: Annotated[
        int,
        Meta(ge=1, description="text of articles that a tenant may have, old versions included"),
    ] = 1 << 30
    max_body_bytes: Annotated[int, Meta(gt=0, description="largest JSON request")] = 8 << 20
    cors_origins: Annotated[
        tuple[str, ...],
        Meta(
            description="web pages whose scripts may call this server, as https://app.example.com, "
            "several by spaces; *: every page; empty: none"
        ),
    ] = ()
    secrets_key: Annotated[
        str,
        Meta(
            description="key that secrets of webhooks and widgets are encrypted with, where machines "
            "share a database (several: the first encrypts); empty: a file in the data folder"
        ),
    ] = ""
    oidc_issuer: Annotated[
        str,
        Meta(
            pattern=r"^(https://[^?#\s]+|http://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?(/[^?#\s]*)?)?$",
            description="OpenID Connect issuer through which people may sign in, as "
            "https://login.example.com; empty: by password only",
        ),
    ] = ""
    oidc_client_id: Annotated[str, Meta(description="what this server is called there")] = ""
    oidc_client_secret: Annotated[
        str, Meta(description="its secret there; empty: it has none, PKCE alone protects the code")
    ] = ""
    oidc_domains: Annotated[
        tuple[str, ...],
        Meta(
            description="e-mail domains whose people get an account by signing in there, several by "
            "spaces; empty: only who was invited"
        ),
    ] = ()
    oidc_roles_claim: Annotated[
        str,
        Meta(
            description="claim that lists what a person may do, as 'operator' or 'SLUG:ROLE'; empty: "
            "operators decide it here"
        ),
    ] = ""
    webhook_private: Annotated[
        bool, Meta(description="whether webhooks may go to private addresses and plain http://")
    ] = False
    audit_keep_days: Annotated[
        int,
        Meta(
            ge=1,
            le=36_500,
            description="days that the audit log is kept; PCI DSS 4.0.1 (10.5.1) asks for 12 months",
        ),
    ] = 365
    drain_seconds: Annotated[
        float,
        Meta(ge=0, description="how long open answers may go on when stopping; all ends 4 s later"),
    ] = 5.0
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="how much to log")
    ] = "info"
    log_format: Annotated[
        Literal["auto", "text", "json"], Meta(description="auto: text on a terminal, else json")
    ] = "auto"

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **overrides: object) -> "Settings":
        """Read ``TENANTUNE_*``; ``overrides`` (from the command line) win, None means not given.

        Raises:
            SettingsError: a value does not fit; the message names its variable.
        """
        source = os.environ if environ is None else environ
        values: dict[str, Any] = {}
        for field in cls.__struct_fields__:
            text = source.get(PREFIX + field.upper())
            if text:
                values[field] = _read(field, text)
        values.update({name: value for name, value in overrides.items() if value is not None})
        for field, words in _OLD_WORDS.items():
            if field in values:
                values[field] = words.get(values[field], values[field])
        try:
            settings = msgspec.convert(values, cls, strict=False, dec_hook=_decode)
        except msgspec.ValidationError as exc:
            raise SettingsError(_explain(exc)) from exc
        if settings.oidc_issuer and not (settings.oidc_client_id and settings.public_url):
            raise SettingsError(
                f"{PREFIX}OIDC_ISSUER needs {PREFIX}OIDC_CLIENT_ID, and {PREFIX}PUBLIC_URL to come "
                "back to"
            )
        return msgspec.structs.replace(settings, home=settings.home.expanduser().absolute())

    @property
    def database(self) -> str:
        """The database URL with its asynchronous driver."""
        url = self.database_url
        if not url:
            return f"sqlite+aiosqlite:///{self.home / 'tenantune.sqlite'}"
        for plain, driver in (
            ("postgresql://", "postgresql+asyncpg://"),
            ("postgres://", "postgresql+asyncpg://"),
            ("sqlite://", "sqlite+aiosqlite://"),
        ):
            if url.startswith(plain):
                return driver + url.removeprefix(plain)
        if "://" not in url:
            return f"sqlite+aiosqlite:///{Path(url).expanduser().absolute()}"
        return url

    @property
    def blobs(self) -> str:
        """Where uploads are kept: a URL, or a folder's path."""
        return self.blobs_url or str(self.home / "blobs")

    @property
    def own_url(self) -> str:
        """Where workers reach the server."""
        return self.server_url.rstrip("/") or f"http://127.0.0.1:{self.port}"

    def child_environment(self) -> dict[str, str]:
        """Our environment with these settings in it, for a process that we start."""
        values = {"HOME": self.home, "HOST": self.host, "PORT": self.port, "BASE": self.base}
        return {
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            **{PREFIX + name: str(value) for name, value in values.items()},
        }

    @property
    def bases(self) -> Path:
        """One folder per base model."""
        return self.home / "bases"

    @property
    def datasets(self) -> Path:
        """One immutable folder per dataset version, by hash."""
        return self.home / "datasets"

    @property
    def sweeps(self) -> Path:
        """One folder per dataset version, by hash, with a folder for each sweep on it."""
        return self.home / "sweeps"

    @property
    def adapters(self) -> Path:
        """One immutable folder per adapter, by engine name."""
        return self.home / "adapters"

    @property
    def heads(self) -> Path:
        """One folder per tenant, by its id: its labelled texts, and its heads."""
        return self.home / "heads"

    @property
    def jobs(self) -> Path:
        """One folder per job."""
        return self.home / "jobs"

    @property
    def scratch(self) -> Path:
        """Folders that are gone when the work that needs them is done; see ``server/scratch.py``."""
        return self.home / "scratch"

    @property
    def run(self) -> Path:
        """Sockets, logs and pid files of running processes."""
        return self.home / "run"


def describe() -> list[tuple[str, str, str]]:
    """(variable, default, help) of every setting, in the order of ``Settings``."""
    hints = get_type_hints(Settings, include_extras=True)
    rows = []
    for field in msgspec.structs.fields(Settings):
        default = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
        shown = "~/.local/share/tenantune" if field.name == "home" else default
        text = hints[field.name].__metadata__[-1].description
        empty = shown in ({}, (), Limits(), Objectives())
        rows.append((PREFIX + field.name.upper(), "" if empty else str(shown), text))
    return rows


def _read(field: str, text: str) -> object:
    """What a variable says, where it is more than one value; else its text."""
    if field in _PAIRS:
        return _options(field, text)
    if field == "cors_origins":
        try:
            return origins(text)
        except ValueError as exc:
            raise SettingsError(f"{PREFIX}{field.upper()}: {exc}") from exc
    if field == "oidc_domains":
        return tuple(text.lower().replace(",", " ").split())
    return text


def _options(field: str, text: str) -> dict[str, str]:
    pairs = {}
    for word in shlex.split(text):
        name, equals, value = word.partition("=")
        if not (name and equals):
            raise SettingsError(f"{PREFIX}{field.upper()}: {word!r} is not of the form name=value")
        pairs[name] = value
    return pairs


def _decode(kind: type, value: object) -> object:
    if kind is Path:
        return Path(str(value))
    raise NotImplementedError(kind)


def _explain(exc: msgspec.ValidationError) -> str:
    """Turn msgspec's path (``$.port``) into the variable's name."""
    message, _, path = str(exc).partition(" - at `$.")
    variable, _, name = path.rstrip("`").partition(".")
    where = f" ({name})" if name else ""
    return f"{PREFIX}{variable.upper()}: {message}{where}" if path else message
