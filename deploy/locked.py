"""What is installed, and what is known against it: from the lock files, without a network.

    python deploy/locked.py sbom deploy/requirements-cpu.lock deploy/torch-cpu.lock > sbom.cdx.json
    python deploy/locked.py audit deploy/advisories.json deploy/*.lock
    python deploy/locked.py refresh all.zip deploy/advisories.json deploy/*.lock

``sbom`` prints a bill of materials (CycloneDX 1.6, JSON): each package with its version, hashes and
what asked for it. ``audit`` holds the locked versions against a committed list of advisories (in the
form of osv.dev) and fails where one applies that ``accepted`` does not name with a reason. It knows
what the list knows, of the day that it prints: ``refresh`` makes the list anew from all of PyPI's
advisories, which somebody with a network fetches now and then, and before a release:

    curl -O https://osv-vulnerabilities.storage.googleapis.com/PyPI/all.zip
"""

import datetime
import hashlib
import json
import re
import sys
import uuid
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).parents[1]
_PIN = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[^\s;\\]+)")
_HASH = re.compile(r"--hash=sha256:(?P<digest>[0-9a-f]{64})")
_PARENT = re.compile(r"    # (?:via |  )(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(?: \(.*\))?")
_KEPT = ("id", "aliases", "summary", "published", "modified")


class Pin(NamedTuple):
    """One locked version of a package. ``parents``: names of the packages that ask for it."""

    name: str
    version: str
    hashes: list[str]
    parents: list[str]

    @property
    def purl(self) -> str:
        """Its package URL, which names it anywhere."""
        return f"pkg:pypi/{self.name}@{self.version.replace('+', '%2B')}"


def pins(path: Path) -> list[Pin]:
    """The packages of a lock file, as uv or pip-tools writes it."""
    found: list[Pin] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if match := _PIN.match(line):
            found.append(Pin(canonicalize_name(match["name"]), match["version"], [], []))
        elif found and (parent := _PARENT.fullmatch(line)):
            found[-1].parents.append(canonicalize_name(parent["name"]))
        if found:
            found[-1].hashes.extend(_HASH.findall(line))
    return found


def bill_of(paths: Iterable[Path]) -> dict[str, Any]:
    """A CycloneDX bill of materials of lock files; the same for the same files."""
    paths = list(paths)
    found = {(pin.name, pin.version): pin for path in paths for pin in pins(path)}
    locked = [found[key] for key in sorted(found)]
    seed = hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()
    needs: dict[str, set[str]] = {pin.name: set() for pin in locked}
    for pin in locked:
        for parent in pin.parents:
            needs.setdefault(parent, set()).add(pin.purl)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, seed)}",
        "version": 1,
        "metadata": {
            "component": {"type": "application", "bom-ref": "tenantune", "name": "tenantune"}
        },
        "components": [
            {
                "type": "library",
                "bom-ref": pin.purl,
                "name": pin.name,
                "version": pin.version,
                "purl": pin.purl,
                "hashes": [{"alg": "SHA-256", "content": digest} for digest in pin.hashes],
            }
            for pin in locked
        ],
        "dependencies": [
            {"ref": "tenantune", "dependsOn": sorted(needs.get("tenantune", set()))},
            *({"ref": pin.purl, "dependsOn": sorted(needs[pin.name])} for pin in locked),
        ],
    }


def affects(advisory: dict[str, Any], pin: Pin) -> bool:
    """Whether an advisory in OSV's form is about a locked version."""
    if advisory.get("withdrawn"):
        return False
    for affected in advisory["affected"]:
        package = affected["package"]
        if package["ecosystem"] != "PyPI" or canonicalize_name(package["name"]) != pin.name:
            continue
        version = Version(pin.version)
        public = Version(version.public)
        if public in set(_versions(affected.get("versions", []))):
            return True
        kinds = affected.get("ranges", [])
        if any(_is_within(kind["events"], public) for kind in kinds if kind["type"] == "ECOSYSTEM"):
            return True
    return False


def _is_within(events: list[dict[str, str]], version: Version) -> bool:
    """OSV's rule: events in the order of their versions, the last that came before decides."""
    order = {"introduced": 0, "fixed": 1, "limit": 1, "last_affected": 2}
    steps = [
        (Version("0.dev0" if text == "0" else text), order[kind], kind)
        for event in events
        for kind, text in event.items()
    ]
    inside = False
    for at, _, kind in sorted(steps):
        match kind:
            case "introduced" if version >= at:
                inside = True
            case "fixed" | "limit" if version >= at:
                inside = False
            case "last_affected" if version > at:
                inside = False
            case _:
                pass
    return inside


def _versions(texts: Iterable[str]) -> Iterator[Version]:
    for text in texts:
        try:
            yield Version(text)
        except (
            InvalidVersion
        ):  # of a time before versions had a form: nothing that is locked has one
            continue


def audit(known: dict[str, Any], locked: Iterable[Pin]) -> list[str]:
    """What is wrong, one line each: an advisory that applies, or a reason that is out of date."""
    accepted: dict[str, str] = known["accepted"]
    problems: list[str] = []
    needed: set[str] = set()
    for pin in sorted({(pin.name, pin.version) for pin in locked}):
        for advisory in known["advisories"]:
            if not affects(advisory, Pin(*pin, [], [])):
                continue
            needed.add(advisory["id"])
            if not accepted.get(advisory["id"]):
                summary = advisory.get("summary", "no summary")
                problems.append(f"{pin[0]} {pin[1]}: {advisory['id']}: {summary}")
    problems += [
        f"accepted: {name} applies to nothing that is locked: remove it"
        for name in sorted(set(accepted) - needed)
    ]
    return problems


def refreshed(archive: Path, known: dict[str, Any], locked: Iterable[Pin]) -> dict[str, Any]:
    """The list anew, from OSV's archive: what was ever said of a package that is locked."""
    names = {pin.name for pin in locked}
    found = []
    with zipfile.ZipFile(archive) as records:
        for entry in sorted(records.namelist()):
            record = json.loads(records.read(entry))
            about = [
                {key: affected[key] for key in ("package", "ranges", "versions") if key in affected}
                for affected in record.get("affected", [])
                if affected["package"]["ecosystem"] == "PyPI"
                and canonicalize_name(affected["package"]["name"]) in names
            ]
            if about and not record.get("withdrawn"):
                kept = {key: record[key] for key in _KEPT if key in record}
                found.append({**kept, "affected": about})
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return {**known, "collected": today, "source": archive.name, "advisories": found}


def main(arguments: list[str]) -> int:
    """Do what the first argument says; returns the exit status."""
    what, *rest = arguments or [""]
    if what == "sbom" and rest:
        sys.stdout.write(json.dumps(bill_of(map(Path, rest)), indent=2) + "\n")
        return 0
    if what == "audit" and len(rest) > 1:
        known = json.loads(Path(rest[0]).read_text(encoding="utf-8"))
        locked = [pin for path in rest[1:] for pin in pins(Path(path))]
        problems = audit(known, locked)
        for problem in problems:
            sys.stderr.write(problem + "\n")
        sys.stderr.write(
            f"{len({pin.name for pin in locked})} packages against {len(known['advisories'])} "
            f"advisories of {known['collected']}: {len(problems)} problems\n"
        )
        return 1 if problems else 0
    if what == "refresh" and len(rest) > 2:  # noqa: PLR2004 - archive, list, locks
        path = Path(rest[1])
        locked = [pin for lock in rest[2:] for pin in pins(Path(lock))]
        known = refreshed(Path(rest[0]), json.loads(path.read_text(encoding="utf-8")), locked)
        beside = path.with_name(f".{path.name}.new")
        beside.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
        beside.replace(path)
        return 0
    sys.stderr.write(__doc__ or "")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
