"""Every page of the console: where it is, and as whom to look at it. Checks and screenshots use it."""

from typing import NamedTuple

from tests.browser.seed import (
    DISABLED_ID,
    FIRST_LINK,
    LINK,
    PERSON_ID,
    article_id,
    hook_id,
    import_id,
    key_id,
    knowledge_id,
    run_id,
    talk_id,
)


class Look(NamedTuple):
    """A page in one state.

    ``who``: as in ``Site.sign_in``; nobody where it is empty. ``status``: what it answers.
    """

    name: str
    path: str
    who: str = ""
    status: int = 200


TRAINING = "/console/t/loaf/training"
TALKS = "/console/t/loaf/conversations"
DATA = "/console/t/loaf/data"
KNOWLEDGE = "/console/t/loaf/knowledge"
RELEASE = "/console/t/loaf/release"
WIDGET = "/console/t/loaf/widget"
KEYS = "/console/t/loaf/keys"
HOOKS = "/console/t/loaf/webhooks"
PAGES = (
    Look("sign-in", "/console/sign-in"),
    Look("link-first", f"/console/link/{FIRST_LINK}"),
    Look("link", f"/console/link/{LINK}"),
    Look("link-gone", "/console/link/nothing", "", 404),
    Look("account", "/console/account", "loaf:admin"),
    Look("account-done", "/console/account?done=name", "operator"),
    Look("people", "/console/people", "operator"),
    Look("people-new", "/console/people/new", "operator"),
    Look("person", f"/console/people/{PERSON_ID}", "operator"),
    Look("person-disabled", f"/console/people/{DISABLED_ID}", "operator"),
    Look("tenants", "/console", "operator"),
    Look("tenants-none", "/console", "nobody"),
    Look("tenant-new", "/console/tenants/new", "operator"),
    Look("home", "/console/t/loaf", "loaf:admin"),
    Look("home-new", "/console/t/northgate", "operator"),
    Look("gallery", "/console/t/loaf/gallery", "loaf:admin"),
    Look("data", DATA, "loaf:admin"),
    Look("data-viewer", DATA, "loaf:viewer"),
    Look("data-empty", "/console/t/northgate/data", "northgate:admin"),
    Look("data-report", f"{DATA}/imports/{import_id(1)}", "loaf:admin"),
    Look("data-failed", f"{DATA}/imports/{import_id(2)}", "loaf:admin"),
    Look("data-columns", f"{DATA}/imports/{import_id(3)}", "loaf:admin"),
    Look("data-reading", f"{DATA}/imports/{import_id(4)}", "loaf:admin"),
    Look("data-delete", f"{DATA}/imports/{import_id(1)}/delete", "loaf:admin"),
    Look("data-versions", f"{DATA}/versions", "loaf:admin"),
    Look("data-versions-empty", "/console/t/northgate/data/versions", "northgate:admin"),
    Look(
        "data-compare",
        f"{DATA}/versions/compare?version={'3' * 64}&version={'a71f' * 16}",
        "loaf:viewer",
    ),
    Look("data-compare-none", f"{DATA}/versions/compare", "loaf:viewer", 422),
    Look("data-curation", f"{DATA}/curation", "loaf:admin"),
    Look("data-curation-viewer", f"{DATA}/curation", "loaf:viewer"),
    Look("data-curation-flag", f"{DATA}/curation?flag=no_reply", "loaf:admin"),
    Look("data-curation-language", f"{DATA}/curation?language=all", "loaf:admin"),
    Look("data-curation-empty", "/console/t/northgate/data/curation", "northgate:admin"),
    Look("data-topics", f"{DATA}/topics", "loaf:viewer"),
    Look("data-topics-empty", "/console/t/northgate/data/topics", "northgate:admin"),
    Look("knowledge", KNOWLEDGE, "loaf:admin"),
    Look("knowledge-viewer", KNOWLEDGE, "loaf:viewer"),
    Look("knowledge-tried", f"{KNOWLEDGE}?q=when+do+we+deliver+in+the+morning", "loaf:viewer"),
    Look("knowledge-empty", "/console/t/northgate/knowledge", "northgate:admin"),
    Look("knowledge-uploads", f"{KNOWLEDGE}/uploads", "loaf:admin"),
    Look("knowledge-answers", f"{KNOWLEDGE}/answers", "loaf:admin"),
    Look("knowledge-uploads-empty", "/console/t/northgate/knowledge/uploads", "northgate:admin"),
    Look("knowledge-report", f"{KNOWLEDGE}/uploads/{knowledge_id(1)}", "loaf:admin"),
    Look("knowledge-failed", f"{KNOWLEDGE}/uploads/{knowledge_id(2)}", "loaf:admin"),
    Look("knowledge-reading", f"{KNOWLEDGE}/uploads/{knowledge_id(3)}", "loaf:admin"),
    Look("knowledge-article", f"{KNOWLEDGE}/{article_id(1)}", "loaf:admin"),
    Look("knowledge-delete", f"{KNOWLEDGE}/{article_id(1)}/delete", "loaf:admin"),
    Look("training", TRAINING, "loaf:admin"),
    Look("training-empty", "/console/t/northgate/training", "northgate:admin"),
    Look("training-new", f"{TRAINING}/new", "loaf:admin"),
    Look("training-run", f"{TRAINING}/{run_id(5)}", "loaf:admin"),
    Look("training-speed", f"{TRAINING}/{run_id(5)}?measure=speed", "loaf:viewer"),
    Look("training-memory", f"{TRAINING}/{run_id(5)}?measure=memory", "loaf:viewer"),
    Look("training-waits", f"{TRAINING}/{run_id(4)}", "loaf:admin"),
    Look("training-failed", f"{TRAINING}/{run_id(3)}", "loaf:admin"),
    Look("training-cancel", f"{TRAINING}/{run_id(5)}/cancel", "loaf:admin"),
    Look(
        "training-compare",
        f"{TRAINING}/compare?run={run_id(5)}&run={run_id(2)}&run={run_id(1)}",
        "loaf:viewer",
    ),
    Look("training-compare-none", f"{TRAINING}/compare", "loaf:viewer", 422),
    Look("talks", TALKS, "loaf:viewer"),
    Look("talks-empty", "/console/t/northgate/conversations", "northgate:admin"),
    Look("talks-nothing", f"{TALKS}?q=nobody+said+this", "loaf:viewer"),
    Look("talks-older", f"{TALKS}?after=0-{talk_id(0)}", "loaf:viewer"),
    Look("talk-waits", f"{TALKS}/{talk_id(1)}?queue=needs_person", "loaf:reviewer"),
    Look("talk-poor", f"{TALKS}/{talk_id(2)}", "loaf:reviewer"),
    Look("talk-verified", f"{TALKS}/{talk_id(3)}", "loaf:viewer"),
    Look("talk-annoyed", f"{TALKS}/{talk_id(3)}?queue=annoyed", "loaf:reviewer"),
    Look("talk-done", f"{TALKS}/{talk_id(4)}?done=given_back", "loaf:reviewer"),
    Look("talk-gone", f"{TALKS}/{talk_id(0)}", "loaf:viewer", 404),
    Look("release", RELEASE, "loaf:admin"),
    Look("release-empty", "/console/t/northgate/release", "northgate:admin"),
    Look("release-history", f"{RELEASE}/history", "loaf:viewer"),
    Look("release-past-canary", f"{RELEASE}/history/2", "loaf:viewer"),
    Look("release-waits", f"{RELEASE}/3", "loaf:admin"),
    Look("release-live", f"{RELEASE}/2", "loaf:viewer"),
    Look("release-unmeasured", f"{RELEASE}/1", "loaf:admin"),
    Look("release-approve", f"{RELEASE}/3/approve", "loaf:admin"),
    Look("release-promote", f"{RELEASE}/1/promote", "loaf:admin"),
    Look("release-share", f"{RELEASE}/3/canary", "loaf:admin"),
    Look("release-take-back", f"{RELEASE}/take-back", "loaf:admin"),
    Look("release-impossible", f"{RELEASE}/2/promote", "loaf:admin"),
    Look("release-vote", f"{RELEASE}/3/vote", "loaf:admin"),
    Look("release-vote-keys-off", f"{RELEASE}/3/vote?keys=off", "loaf:admin"),
    Look("release-vote-nothing", f"{RELEASE}/1/vote", "loaf:reviewer"),
    Look("release-ask", f"{RELEASE}/ask", "loaf:reviewer"),
    Look("release-roll-back", f"{RELEASE}/roll-back", "loaf:admin"),
    Look("widget", WIDGET, "loaf:admin"),
    Look("widget-none", "/console/t/northgate/widget", "northgate:admin"),
    Look("widget-saved", f"{WIDGET}?done=saved", "loaf:admin"),
    Look("widget-secret", f"{WIDGET}/secret", "loaf:admin"),
    Look("audit", "/console/t/loaf/audit", "loaf:admin"),
    Look("audit-nothing", "/console/t/loaf/audit?by=nobody", "loaf:admin"),
    Look("audit-all", "/console/audit", "operator"),
    Look("keys", KEYS, "loaf:admin"),
    Look("keys-all", f"{KEYS}?show=all&done=restored&key={key_id(4)}", "loaf:admin"),
    Look("keys-empty", "/console/t/northgate/keys", "northgate:admin"),
    Look("keys-new", f"{KEYS}/new", "loaf:admin"),
    Look("keys-rotate", f"{KEYS}/{key_id(5)}/rotate", "loaf:admin"),
    Look("keys-revoke", f"{KEYS}/{key_id(4)}/revoke", "loaf:admin"),
    Look("keys-operator", "/console/keys", "operator"),
    Look("keys-operator-new", "/console/keys/new", "operator"),
    Look("hooks", HOOKS, "loaf:admin"),
    Look("hooks-empty", "/console/t/northgate/webhooks", "northgate:admin"),
    Look("hooks-new", f"{HOOKS}/new", "loaf:admin"),
    Look("hook", f"{HOOKS}/{hook_id(1)}", "loaf:admin"),
    Look("hook-off", f"{HOOKS}/{hook_id(2)}?done=off", "loaf:admin"),
    Look("hook-secret", f"{HOOKS}/{hook_id(1)}/secret", "loaf:admin"),
    Look("hook-delete", f"{HOOKS}/{hook_id(2)}/delete", "loaf:admin"),
    Look("usage", "/console/t/loaf/usage", "loaf:viewer"),
    Look("usage-empty", "/console/t/northgate/usage?days=7", "northgate:admin"),
    Look("usage-limits", "/console/t/loaf/usage/limits", "operator"),
    Look("usage-all", "/console/usage", "operator"),
    Look("engine", "/console/engine", "operator"),
    Look("engine-restart", "/console/engine/restart", "operator"),
    Look("not-found", "/console/nothing", "loaf:admin", 404),
    Look("server-error", "/console/t/loaf/gallery/broken", "loaf:admin", 500),
)
