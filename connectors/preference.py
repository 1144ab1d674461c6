"""Preferences: a pair of replies (DPO), or one reply with a label (KTO).

Only the reply is trained on. The turns before it are context, whatever their weight.
"""

import msgspec

from connectors.conversation import Split, Turn


class Preference(msgspec.Struct, frozen=True, omit_defaults=True):
    """Two replies to one history, of which ``chosen`` was preferred to ``rejected``.

    ``turns`` is the history, oldest first, and ends in a customer's turn. ``chosen`` and
    ``rejected`` are turns of an agent or bot. ``id`` and ``split`` are as in ``Conversation``.
    """

    id: str
    turns: tuple[Turn, ...]
    chosen: tuple[Turn, ...]
    rejected: tuple[Turn, ...]
    split: Split | None = None


class UnpairedPreference(msgspec.Struct, frozen=True, omit_defaults=True):
    """A conversation up to a reply, and whether that reply was desirable (a thumb up or down).

    ``turns`` ends in the turn of an agent or bot that ``label`` is about.
    """

    id: str
    turns: tuple[Turn, ...]
    label: bool
    split: Split | None = None
