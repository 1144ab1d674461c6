"""What people decided, applied to the conversations of a new dataset version.

Pure: it neither reads nor writes the database, and may run in a thread.
"""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from connectors.conversation import Conversation
from connectors.redaction.redactor import IN_A_REPLY, Redactor, UncertainHit
from server.curation.scanning import text_key
from server.curation.schemas import Rules
from server.db.models.curation import DoubtDecision
from training.data.curation.flags import flags_of

PUBLIC_FROM = 3  # conversations


class Decided(NamedTuple):
    """A remembered decision; ``masked`` is the part that ``edit`` replaces."""

    decision: DoubtDecision
    masked: str
    entity_type: str


class Decisions(NamedTuple):
    """All that a tenant's people decided.

    ``doubts``: by rule and ``text_key``. ``choices``: by conversation, whether it is kept.
    """

    doubts: Mapping[tuple[str, str], Decided]
    choices: Mapping[str, bool]
    rules: Rules


class Curator:
    """Applies decisions to one conversation after the other; ``left_out`` counts by flag.

    Args:
        redactor: The tenant's.
        decisions: What was decided. A doubtful text that nobody has decided about is replaced,
            unless it is the company's own address.
    """

    def __init__(self, redactor: Redactor, decisions: Decisions) -> None:
        self.left_out: Counter[str] = Counter()
        self._told: Counter[str] = Counter()
        self._redactor = redactor
        self._decisions = decisions
        self._rules: dict[str, str] = msgspec.to_builtins(decisions.rules)

    def observe(self, conversation: Conversation) -> None:
        """Count the addresses of its replies. Call it for all before ``curate``.

        One that replies of ``PUBLIC_FROM`` conversations tell is the company's own, and stays where
        nobody has decided.
        """
        found = self._redactor.uncertain(conversation)
        self._told.update({text_key(hit.text) for hit in found if hit.rule == IN_A_REPLY})

    def curate(self, conversation_id: str, conversation: Conversation) -> Conversation | None:
        """The conversation as it is learnt from; None where it is left out."""
        if reason := self._reason_against(conversation_id, conversation):
            self.left_out[reason] += 1
            return None
        hits = [
            replaced
            for hit in self._redactor.uncertain(conversation)
            if (replaced := self._replaced(hit))
        ]
        return self._redactor.replace(conversation, hits) if hits else conversation

    def _reason_against(self, conversation_id: str, conversation: Conversation) -> str:
        """The flag for which it is left out; empty where it is kept."""
        choice = self._decisions.choices.get(conversation_id)
        if choice is True or (choice is None and set(self._rules.values()) == {"keep"}):
            return ""
        for found in flags_of(conversation):
            if choice is False or self._rules[found.flag] != "keep":
                return found.flag
        return "left_out_by_hand" if choice is False else ""

    def _replaced(self, hit: UncertainHit) -> tuple[UncertainHit, str] | None:
        decided = self._decisions.doubts.get((hit.rule, text_key(hit.text)))
        if decided is None and hit.rule == IN_A_REPLY:
            public = self._told[text_key(hit.text)] >= PUBLIC_FROM
            return None if public else (hit, hit.entity_type)
        if decided is None or decided.decision == "approve":
            return hit, hit.entity_type
        if decided.decision == "reject":
            return None
        at = hit.text.casefold().find(decided.masked.casefold())
        if at < 0:  # written with other blanks here: all of it, rather than nothing
            return hit, decided.entity_type
        start = hit.start + at
        end = start + len(decided.masked)
        part = hit._replace(start=start, end=end, text=hit.text[at : at + len(decided.masked)])
        return part, decided.entity_type
