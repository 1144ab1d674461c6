"""Every query of a tenant's rows begins at ``server/db/scope.py``: checked in the source.

``of_tenant(tenant_id)`` filters, ``across_tenants("why")`` is the named way around it, and the tables
that no tenant has (``INSTALLATION_WIDE``) begin at ``of_installation()``. What begins elsewhere is refused with its file, its line and the reason. The check fails closed: a statement whose
tables it cannot see is refused too. It reads one expression at a time, so a model must be called by
its own name.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from server.db.models import INSTALLATION_WIDE, Record, Tenant

ROOT = Path(__file__).parents[1]
NOT_CHECKED = ("server/db/scope.py", "server/db/migrations")

MODELS = {model.__name__ for model in Record.__subclasses__()} - {Tenant.__name__}
TABLES = {str(model.__tablename__) for model in Record.__subclasses__()} - {Tenant.__tablename__}
STATEMENTS = {"select", "update", "delete"}
CLASSES = {"Select", "Update", "Delete"}  # may be named in annotations, but not called
UNSEEN = {"aliased", "exists", "lambda_stmt", "table", "Table"}
SCOPES = {"of_tenant", "of_operator", "of_installation", "across_tenants"}
JOINS = {"join", "outerjoin", "join_from", "outerjoin_from", "select_from", "add_columns"}
BY_ID = {"get", "get_one"}
WORK = {"add", "add_all", "delete", "execute", "get", "get_one", "merge", "scalar", "scalars"}
REASON_WORDS = 3

BEGIN = "begin at of_tenant(tenant_id) or across_tenants('why') of server/db/scope.py"
UNKNOWN = f"this hides which tables are meant: {BEGIN}"
BY_HAND = "the tenant filter is written by hand: of_tenant(tenant_id) has it"
ALIAS = "a tenant's table must be called by its own name, so that this check sees it"
JOINED = "a joined table is not filtered: select it too, or compare its tenant_id in the join"
OUTER = "the filter of a selected table makes this an inner join: see TenantScope"
REASON = f"across_tenants takes the reason, as a literal of at least {REASON_WORDS} words"
DOOR = "endpoints and commands make no queries: ask the domain's service"


def problems(source: str, path: str) -> list[str]:
    """What is wrong with a module: ``path:line: why``, in the order of lines."""
    found = sorted(set(_Module(ast.parse(source), path).problems()))
    return [f"{path}:{line}: {why}" for line, why in found]


class _Module:
    """One module's syntax, and the names that its imports gave to SQLAlchemy's functions."""

    def __init__(self, tree: ast.Module, path: str) -> None:
        self._tree = tree
        self._is_door = path.startswith(("server/api/", "server/cli/")) and not path.endswith(
            "/service.py"
        )
        self._imported: dict[str, str] = {}  # local name -> the function's own
        self._scopes: dict[str, str] = {}
        self._called: set[int] = set()  # of names that stand before "(", their ids

    def problems(self) -> Iterator[tuple[int, str]]:
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Import):
                yield from self._module_import(node)
            elif isinstance(node, ast.ImportFrom):
                yield from self._name_import(node)
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                self._called.add(id(node.func))
        for node in ast.walk(self._tree):
            match node:
                case ast.Call():
                    yield from ((node.lineno, why) for why in self._call(node))
                case ast.Name() if id(node) not in self._called and (
                    node.id in self._imported or self._scopes.get(node.id) == "across_tenants"
                ):
                    if self._imported.get(node.id) not in CLASSES | {"text"}:
                        yield node.lineno, UNKNOWN
                case ast.Compare():
                    if _is_filter(node):
                        yield node.lineno, BY_HAND
                case ast.Assign(value=ast.Name(id=name)) if name in MODELS:
                    yield node.lineno, ALIAS
                case _:
                    pass

    def _module_import(self, node: ast.Import) -> Iterator[tuple[int, str]]:
        if any(name.name.partition(".")[0] == "sqlalchemy" for name in node.names):
            yield node.lineno, f"import functions by name ({UNKNOWN})"

    def _name_import(self, node: ast.ImportFrom) -> Iterator[tuple[int, str]]:
        module = node.module or ""
        package = module.partition(".")[0]
        for name in node.names:
            local = name.asname or name.name
            if package == "sqlalchemy":
                if name.name in UNSEEN | {"*", "sql", "orm"}:
                    yield node.lineno, f"{name.name}: {UNKNOWN}"
                if name.name in STATEMENTS | CLASSES | {"text"}:
                    self._imported[local] = name.name
                if name.name in STATEMENTS and self._is_door:
                    yield node.lineno, DOOR
            elif module == "server.db.scope":
                self._scopes[local] = name.name
                if self._is_door:
                    yield node.lineno, DOOR
            elif module.startswith("server.db") and (
                name.name == "models" or (name.name in MODELS and name.asname is not None)
            ):
                yield node.lineno, ALIAS

    def _call(self, node: ast.Call) -> Iterator[str]:
        if self._is_door and _is_query(node):
            yield DOOR
        match node.func:
            case ast.Name(id=name) if name in self._scopes:
                yield from _scope_call(self._scopes[name], node)
            case ast.Name(id=name) if self._imported.get(name) == "text":
                if not _is_harmless(node.args):
                    yield f"SQL in words: {BEGIN}"
            case ast.Name(id=name) if name in self._imported:
                if not node.args or not all(_is_no_tenants(each) for each in node.args):
                    yield BEGIN
            case ast.Attribute(attr="exec_driver_sql") if not _is_harmless(node.args, strict=False):
                yield f"SQL in words: {BEGIN}"
            case ast.Attribute(attr="query", value=owner) if _is_session(owner):
                yield BEGIN
            case ast.Attribute(attr=method, value=owner) if method in BY_ID and node.args:
                given = node.args[0]
                named = isinstance(given, ast.Name) and given.id in MODELS
                of_session = _is_session(owner) and len(node.args) > 1  # HTTP's have one
                if named or (of_session and not _is_no_tenants(given)):
                    yield BEGIN
            case ast.Attribute(attr=method) if method in JOINS:
                yield from self._join(node, outer=method == "outerjoin")
            case _:
                pass

    def _join(self, node: ast.Call, *, outer: bool) -> Iterator[str]:
        """A join must bring in no table that nothing filters, and be of the kind that it says."""
        named = {name for each in node.args for name in _models(each)}
        selected: set[str] = set()
        root = _root(node)
        if root is not None and isinstance(root.func, ast.Attribute):
            match root.func.value:
                case ast.Call(func=ast.Name(id=name)) if self._scopes.get(name) == "across_tenants":
                    return
            selected = {name for each in root.args for name in _models(each)}
        if outer and node.args and _models(node.args[0]) & selected:
            yield OUTER
        compared = {
            part.value.id
            for part in ast.walk(node)
            if isinstance(part, ast.Attribute)
            and part.attr == "tenant_id"
            and isinstance(part.value, ast.Name)
        }
        if named - selected - compared:
            yield JOINED


def _scope_call(function: str, node: ast.Call) -> Iterator[str]:
    if function == "TenantScope":
        yield f"a TenantScope is made by of_tenant or across_tenants: {BEGIN}"
    if function == "across_tenants":
        match node.args:
            case [ast.Constant(value=str(reason))] if len(reason.split()) >= REASON_WORDS:
                pass
            case _:
                yield REASON


def _is_session(owner: ast.expr) -> bool:
    name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
    return name.endswith("session")


def _is_query(node: ast.Call) -> bool:
    """Whether a session does something, but for what only asks whether the database answers."""
    match node:
        case ast.Call(
            func=ast.Attribute(attr="execute"), args=[ast.Call(func=ast.Name(id="text"))]
        ):
            return False
        case ast.Call(func=ast.Attribute(value=owner, attr=method)) if method in WORK:
            return _is_session(owner) and bool(node.args)
        case _:
            return False


def _is_no_tenants(entity: ast.expr) -> bool:
    """The table of tenants or its column, or a column of a query that was made before."""
    match entity:
        case ast.Name(id="Tenant") | ast.Attribute(value=ast.Name(id="Tenant")):
            return True
        case ast.Attribute(value=ast.Attribute(value=ast.Name(id=name), attr="c")):
            return name not in MODELS
        case _:
            return False


def _is_harmless(arguments: list[ast.expr], *, strict: bool = True) -> bool:
    """SQL that names no tenant's table; what is no literal cannot be seen."""
    match arguments:
        case [ast.Constant(value=str(words)), *_]:
            parts = [words]
        case [ast.JoinedStr(values=values), *_]:
            parts = [str(each.value) for each in values if isinstance(each, ast.Constant)]
        case _:
            return not strict
    return not TABLES & set(re.findall(r"\w+", " ".join(parts).lower()))


def _is_filter(node: ast.Compare) -> bool:
    """``Model.tenant_id == value``, either way round; not that of two tables."""
    sides = [node.left, *node.comparators]
    owners = [_owner_column(side) for side in sides]
    return isinstance(node.ops[0], ast.Eq | ast.Is) and any(owners) and not all(owners)


def _owner_column(node: ast.expr) -> bool:
    match node:
        case ast.Attribute(value=ast.Name(id=name), attr="tenant_id"):
            return name in MODELS
        case ast.Attribute(value=ast.Name(id="Tenant"), attr="id"):
            return True
        case _:
            return False


def _models(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name) and part.id in MODELS}


def _root(node: ast.Call) -> ast.Call | None:
    """The call of ``select`` that a chain of methods begins with."""
    at: ast.expr = node
    while isinstance(at, ast.Call) and isinstance(at.func, ast.Attribute):
        if at.func.attr in STATEMENTS:
            return at
        at = at.func.value
    return None


def sources() -> Iterator[Path]:
    """The server's modules, but those that are not checked."""
    for path in sorted((ROOT / "server").rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if not any(name == each or name.startswith(f"{each}/") for each in NOT_CHECKED):
            yield path


def test_every_query_of_a_tenants_rows_begins_at_the_scope() -> None:
    found = [
        problem
        for path in sources()
        for problem in problems(path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix())
    ]
    assert not found, "\n" + "\n".join(found)


def test_what_is_not_checked_is_there() -> None:
    assert all((ROOT / each).exists() for each in NOT_CHECKED)


def test_every_table_but_the_tenants_own_has_a_tenant_and_no_relationships() -> None:
    for model in Record.__subclasses__():
        columns, relationships = model.__mapper__.columns, model.__mapper__.relationships
        has_no_tenant = model is Tenant or model in INSTALLATION_WIDE
        assert has_no_tenant != ("tenant_id" in columns), model
        assert not list(relationships), f"{model}: a relationship loads rows without the filter"


def test_only_people_how_they_sign_in_and_workers_are_no_tenants() -> None:
    names = sorted(str(model.__tablename__) for model in INSTALLATION_WIDE)
    assert names == [
        "person",
        "sign_in_link",
        "sign_in_session",
        "sign_in_try",
        "worker_process",
    ]


IMPORTS = """
from sqlalchemy import delete as delete_rows
from sqlalchemy import Select, select, text, update
from server.db.models import File, Job, Membership, Person, Tenant, Upload
from server.db.scope import TenantScope, across_tenants, of_installation, of_tenant
"""


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("select(File)", BEGIN),
        ("select(File.id).where(File.tenant_id == tenant.id)", BEGIN),
        ("select(func.count(File.id))", BEGIN),
        ("select(func.count()).where(File.size_bytes > 1)", BEGIN),
        ("select(Tenant, File).join(File, File.tenant_id == Tenant.id)", BEGIN),
        ("select(*columns)", BEGIN),
        ("select(rows)", BEGIN),
        ("Select(File.id)", BEGIN),
        ("select(File.c.id)", BEGIN),
        ("update(File).values(purpose='x')", BEGIN),
        ("delete_rows(File)", BEGIN),
        ("session.get(File, file_id)", BEGIN),
        ("session.get_one(File, file_id)", BEGIN),
        ("self._session.get(rows, file_id)", BEGIN),
        ("connection.get(File, file_id)", BEGIN),
        ("session.query(File)", BEGIN),
        ("select(Person)", BEGIN),
        ("session.get(Person, person_id)", BEGIN),
        ("of_tenant(t).select(Membership).join(Person, Person.id == Membership.person_id)", JOINED),
        ("text('SELECT * FROM file')", "SQL in words"),
        ("text(f'DELETE FROM job WHERE id = {job_id}')", "SQL in words"),
        ("text(words)", "SQL in words"),
        ("connection.exec_driver_sql('SELECT id FROM job')", "SQL in words"),
        ("make = select", UNKNOWN),
        ("everything = across_tenants", UNKNOWN),
        ("rows = File", ALIAS),
        ("TenantScope(None, all_tenants=True)", "a TenantScope is made"),
        ("across_tenants()", REASON),
        ("across_tenants('needed')", REASON),
        ("across_tenants(reason).select(File)", REASON),
        ("of_tenant(t).select(File).where(File.tenant_id == other)", BY_HAND),
        ("of_tenant(t).select(File).where(other == File.tenant_id)", BY_HAND),
        ("of_tenant(t).select(File).join(Upload, Upload.file_id == File.id)", JOINED),
        ("of_tenant(t).select(File, Upload).outerjoin(Upload, Upload.file_id == File.id)", OUTER),
        ("query.outerjoin(Upload, Upload.file_id == File.id)", JOINED),
        ("of_tenant(t).select(File).select_from(Upload)", JOINED),
        ("import sqlalchemy as sa", "import functions by name"),
        ("from sqlalchemy import exists", "exists"),
        ("from sqlalchemy.orm import aliased", "aliased"),
        ("from sqlalchemy import *", "hides"),
        ("from server.db.models import Job as Work", ALIAS),
        ("from server.db import models", ALIAS),
    ],
)
def test_a_way_around_is_refused_with_its_line(line: str, why: str) -> None:
    found = problems(f"{IMPORTS}\n\n{line}\n", "server/files/service.py")
    at = f"server/files/service.py:{IMPORTS.count(chr(10)) + 3}: "
    assert found, line
    assert all(problem.startswith(at) for problem in found), found
    assert any(why in problem for problem in found), found


@pytest.mark.parametrize(
    "line",
    [
        "select(Tenant).where(Tenant.slug == slug)",
        "select(Tenant.id, Tenant.slug)",
        "session.get_one(Tenant, tenant_id)",
        "of_installation().select(Person).where(Person.email == email)",
        "select(places.c.id).where(places.c.place == 1)",
        "of_tenant(t).select(File).where(File.id == file_id)",
        "of_tenant(t).select(File, Upload).join(Upload, Upload.file_id == File.id)",
        "of_tenant(t).select(File).join(Upload, Upload.tenant_id == File.tenant_id)",
        "of_tenant(t).select(Tenant).outerjoin(File, File.tenant_id == Tenant.id).add_columns(File)",
        "across_tenants('the sweep is for all').delete(File).where(File.expires_at < now())",
        "across_tenants('operators see every tenant').select(Tenant.slug, Job.base).join("
        "Tenant, Tenant.id == Job.tenant_id)",
        "of_tenant(t).get(session, File, file_id)",
        "session.add(File(tenant_id=tenant_id))",
        "text('SELECT 1')",
        "def newest(query: Select[File]) -> Select[File]: ...",
        "text(f\"SET LOCAL lock_timeout = '{seconds}s'\")",
        "', '.join(names)",
        "settings.get(name)",
        "self._session.get(url, timeout=2)",
    ],
)
def test_what_the_scope_or_the_tenant_covers_passes(line: str) -> None:
    assert problems(f"{IMPORTS}\n{line}\n", "server/files/service.py") == []


@pytest.mark.parametrize("folder", ["api/admin", "cli"])
def test_endpoints_and_commands_make_no_queries(folder: str) -> None:
    source = dedent(
        """
        from sqlalchemy import select
        from server.db.scope import of_tenant

        async def work(session):
            await session.delete(await files.get(session, "file-1"))
        """
    )
    path = f"server/{folder}/files.py"
    assert problems(source, path) == [f"{path}:{line}: {DOOR}" for line in (2, 3, 6)]
    health = "async def ready(session): await session.execute(text('SELECT 1'))"
    assert problems(health, path) == []
