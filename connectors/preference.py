"""What people preferred: two replies compared, or one reply judged.

Both end where an assistant has to answer. What is learnt is that last reply alone; the turns
before it are context, whatever their weight.
"""

import msgspec

from connectors.conversation import Split, Turn


class Preference(msgspec.Struct, frozen=True, omit_defaults=True):
    """Two replies to one history, of which ``chosen`` was preferred to ``rejected``.

    ``turns`` is the history, oldest first, ending in a customer's turn; ``chosen`` and
    ``rejected`` are an agent's or bot's turns. ``id`` and ``split`` are those of `Conversation`.
    """

    id: str
    turns: tuple[Turn, ...]
    chosen: tuple[Turn, ...]
    rejected: tuple[Turn, ...]
    split: Split | None = None


class UnpairedPreference(msgspec.Struct, frozen=True, omit_defaults=True):
    """A conversation up to a reply, and whether that reply was wanted (a thumb up or down).

    ``turns`` ends in the agent's or bot's turn that ``label`` is about.
    """

    id: str
    turns: tuple[Turn, ...]
    label: bool
    split: Split | None = None
