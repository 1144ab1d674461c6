"""The tags of the document: which paths each has, and what it is for."""

from typing import NamedTuple

_TENANT = "/admin/tenants/{slug}"


class Tag(NamedTuple):
    """One tag; its operations are those whose path begins with one of ``paths``."""

    name: str
    text: str
    paths: tuple[str, ...]


TAGS = (
    Tag("Chat", "Continue a conversation, in one piece or streamed.", ("/v1/chat",)),
    Tag("Responses", "Answers that remember what was said before.", ("/v1/responses",)),
    Tag("Completions", "Continue a text.", ("/v1/completions",)),
    Tag("Receipts", "What an answer rests on.", ("/v1/receipts",)),
    Tag("Embeddings", "Texts as vectors.", ("/v1/embeddings",)),
    Tag(
        "Models",
        "The names that a key may ask for: assistants, versions, the base.",
        ("/v1/models",),
    ),
    Tag("Files", "Files to train on, and what jobs leave behind.", ("/v1/files",)),
    Tag("Uploads", "Large files in parts.", ("/v1/uploads",)),
    Tag("Fine-tuning", "Train an assistant on a file.", ("/v1/fine_tuning",)),
    Tag("Tenants", "Who is served here.", ("/admin/tenants",)),
    Tag("Keys", "Who may ask, and for what.", (f"{_TENANT}/keys", "/admin/keys")),
    Tag(
        "Transcripts",
        "Conversations to learn from: imports, and the dataset versions made of them.",
        (f"{_TENANT}/transcripts", f"{_TENANT}/imports", f"{_TENANT}/datasets"),
    ),
    Tag(
        "Knowledge",
        "Articles to ground answers in, and the search over them.",
        (f"{_TENANT}/knowledge",),
    ),
    Tag(
        "Curation",
        "What is doubtful or wrong in the conversations, and what is learnt from.",
        (f"{_TENANT}/curation",),
    ),
    Tag("Jobs", "Fine-tuning runs: start, follow, stop, approve.", (f"{_TENANT}/jobs",)),
    Tag(
        "Adapters",
        "What training made, and which version answers.",
        (f"{_TENANT}/adapters", f"{_TENANT}/promot", f"{_TENANT}/rollback", f"{_TENANT}/canary"),
    ),
    Tag("Heads", "Classifiers of what customers write.", (f"{_TENANT}/heads", "/admin/heads")),
    Tag("Usage", "What was used, by day, key and model.", (f"{_TENANT}/usage", "/v1/usage")),
    Tag("Audit log", "Who did what, when, to what.", (f"{_TENANT}/audit", "/admin/audit")),
    Tag("Webhooks", "Where news of jobs is sent.", (f"{_TENANT}/webhook", "/v1/webhook")),
    Tag("Limits", "How much a tenant may ask for.", (f"{_TENANT}/limits",)),
    Tag("Health", "Is it alive, can it answer, what does it measure.", ("/health", "/metrics")),
)


def tag_of(path: str) -> Tag:
    """The tag of a path: the longest beginning wins; a path without one gets its own."""
    fitting = [(len(start), tag) for tag in TAGS for start in tag.paths if path.startswith(start)]
    if fitting:
        return max(fitting, key=lambda found: found[0])[1]
    words = [part for part in path.split("/") if part and not part.startswith("{")]
    name = words[1] if len(words) > 1 else (words or ["root"])[0]
    return Tag(name.replace("_", " ").capitalize(), "", ())
