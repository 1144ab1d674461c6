"""What a recognizer is: a text in, spans of personal data out.

The interface is the part of Presidio's ``EntityRecognizer`` that is used here: the entity types it
supports, and ``analyze``. Those of this package go by form and checksum: offline, no model, no
downloads. A name in the middle of a sentence has no form; a recognizer that knows it (a model for
named entities, say) can be given to the ``Redactor``::

    class Places:
        supported_entities = ("LOCATION",)

        def analyze(self, text: str, context: str = "") -> Iterator[Span]:
            for entity in model(text):
                yield Span(entity.start, entity.end, "LOCATION", entity.text.casefold())

    redactor = Redactor(recognizers=[Places()])
"""

from collections.abc import Iterator
from typing import NamedTuple, Protocol


class Span(NamedTuple):
    """``text[start:end]`` is personal data of ``entity_type``.

    Spans with the same ``key`` are the same thing, also where it is written differently.
    ``prefix`` is put before the placeholder: the scheme and host of a URL. What is not ``certain``
    is left for a person to decide; ``rule`` says by what it was found.
    """

    start: int
    end: int
    entity_type: str
    key: str
    prefix: str = ""
    rule: str = ""
    certain: bool = True


class Recognizer(Protocol):
    """Finds personal data of one or a few types. It must be safe to share between threads."""

    @property
    def supported_entities(self) -> tuple[str, ...]:
        """The entity types of its spans, in capitals, as placeholders show them: ``("EMAIL",)``."""

    def analyze(self, text: str, context: str = "") -> Iterator[Span]:
        """Yield the spans of one text.

        Args:
            text: A folded text (see ``folding``). It may hold placeholders; a span that touches one
                is ignored.
            context: The turn before, folded: what ``text`` may answer. Empty where there is none.
        """
