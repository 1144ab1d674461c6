"""A tenant's articles and uploads as its pages list them: a word for the state, what was left out, files."""

from collections.abc import Sequence
from typing import Literal

import msgspec

from connectors.knowledge import READERS
from connectors.knowledge.article import Reason, Skipped
from connectors.knowledge.ingestion import KnowledgeReport
from server import spreadsheets
from server.db.models import ArticleVersion, KnowledgeUpload, KnowledgeUploadState
from server.files.names import clean_name
from server.knowledge.importing import OVER_QUOTA
from server.knowledge.service import Listed

ARTICLE_COLUMNS = (
    "name",
    "title",
    "state",
    "version",
    "format",
    "sections",
    "pieces",
    "characters",
    "since",
    "sha256",
    "article",
)
UPLOAD_COLUMNS = (
    "file",
    "state",
    "format",
    "bytes",
    "articles",
    "new",
    "replaced",
    "unchanged",
    "left_out",
    "left_out_parts",
    "pieces",
    "uploaded_at",
    "upload",
)
SKIPPED_COLUMNS = ("place", "reason", "extent", "count", "detail")

Tone = Literal["plain", "going", "ok", "warn", "bad"]


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What a state is called, and how it is shown. ``going``: it will change by itself."""

    word: str
    tone: Tone
    going: bool = False


UPLOAD_STATES: dict[KnowledgeUploadState, State] = {
    "queued": State(word="Waits its turn", tone="plain", going=True),
    "running": State(word="Being read", tone="going", going=True),
    "done": State(word="Read", tone="ok"),
    "failed": State(word="Failed", tone="bad"),
    "cancelled": State(word="Stopped", tone="warn"),
}
SEARCHED = State(word="Searched", tone="ok")
COMING = State(word="Being embedded", tone="going", going=True)
CHANGING = State(word="Searched, new version comes", tone="going", going=True)

REASONS: dict[str, str] = {
    Reason.UNKNOWN_FORMAT: "No format fits",
    Reason.EMPTY: "No text in it",
    Reason.TOO_LARGE: "Too large for one article",
    Reason.TOO_MANY_SECTIONS: "Too many headings for one article",
    Reason.TOO_MANY_ENTRIES: "Too many files in one archive",
    Reason.BAD_COMPRESSION: "Compressed so far that it could do harm",
    Reason.ENCRYPTED: "Protected by a password",
    Reason.DAMAGED: "Damaged",
    Reason.NO_TEXT: "Images without text",
    Reason.TOO_SLOW: "It took too long to read",
    Reason.REPEATED_NAME: "The name of another article of the file",
    Reason.NO_COLUMNS: "No columns for question and answer",
    Reason.BAD_ROW: "A row without question or answer",
    Reason.UNDECODABLE: "The bytes are no text in the file's encoding",
    Reason.HIDDEN: "Text that readers do not see",
    Reason.CONTROL_CHARACTERS: "Characters that readers do not see",
    Reason.CONTROL_TOKENS: "Marks of chat models",
    Reason.NO_FILE: "A page of the sitemap without a file",
    OVER_QUOTA: "No room left for it",
}


class SkippedGroup(msgspec.Struct, frozen=True, kw_only=True):
    """What was left out for one reason: how many, and those that the report names."""

    reason: str
    word: str
    count: int
    examples: list[Skipped]


def state_of(listed: Listed) -> State:
    """The state of an article in a list."""
    if listed.current is None:
        return COMING
    return CHANGING if listed.coming is not None else SEARCHED


def shown_version(listed: Listed) -> ArticleVersion | None:
    """The version that a list tells of: the one that is searched, else the one that comes."""
    return listed.current or listed.coming


def report_of(row: KnowledgeUpload) -> KnowledgeReport | None:
    """What was read of an upload; None until it was."""
    return None if row.report is None else msgspec.convert(row.report, KnowledgeReport)


def skipped_groups(report: KnowledgeReport) -> list[SkippedGroup]:
    """What was left out, the most frequent reason first."""
    return [
        SkippedGroup(
            reason=reason,
            word=REASONS.get(reason, reason),
            count=count,
            examples=[each for each in report.examples if each.reason == reason],
        )
        for reason, count in sorted(report.reasons.items(), key=lambda item: (-item[1], item[0]))
    ]


def formats() -> list[tuple[str, str]]:
    """(name, what it is) of each format."""
    return [(each.name, each.description) for each in READERS.values()]


def articles_to_csv(found: Sequence[Listed]) -> bytes:
    """Articles, a line each."""
    lines = []
    for each in found:
        version = shown_version(each)
        if version is None:
            continue
        lines.append(
            (
                each.article.name,
                version.title,
                state_of(each).word,
                version.number,
                version.format,
                version.sections,
                version.chunks,
                version.characters,
                version.created_at.isoformat(timespec="seconds"),
                version.sha256,
                each.article.id,
            )
        )
    return spreadsheets.to_csv(ARTICLE_COLUMNS, lines)


def uploads_to_csv(rows: Sequence[KnowledgeUpload]) -> bytes:
    """Uploads, a line each."""
    lines = []
    for row in rows:
        report = report_of(row)
        figures = (
            (None,) * 6
            if report is None
            else (
                report.articles,
                report.new,
                report.replaced,
                report.unchanged,
                report.skipped,
                report.skipped_parts,
            )
        )
        lines.append(
            (
                clean_name(row.filename),
                UPLOAD_STATES[row.state].word,
                report.format if report else "",
                row.size_bytes,
                *figures,
                row.chunks,
                row.created_at.isoformat(timespec="seconds"),
                row.id,
            )
        )
    return spreadsheets.to_csv(UPLOAD_COLUMNS, lines)


def skipped_to_csv(report: KnowledgeReport) -> bytes:
    """What was left out and the report names, a line each."""
    return spreadsheets.to_csv(
        SKIPPED_COLUMNS,
        (
            (
                each.place,
                each.reason,
                "a part" if each.part else "the article",
                each.count,
                each.detail,
            )
            for each in report.examples
        ),
    )
