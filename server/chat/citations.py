"""Adds to an answer the articles that it was given, where their tenant tells them.

An answer does not say which of its words rest on what, so each article is cited for all of them.
"""

from collections import Counter
from collections.abc import Sequence

from server.chat.completions import TextChoice
from server.chat.schemas import Annotation, ChunkChoice, UrlCitation
from server.retrieval.schemas import Source


class Citations:
    """The annotations of one answer's choices.

    Args:
        sources: the articles; those without an address are not cited, which OpenAI's annotations have
            no room for.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self._pages = [(each.title, each.url) for each in sources if each.url]
        self._lengths: Counter[int] = Counter()

    def add(self, choices: Sequence[ChunkChoice | TextChoice]) -> None:
        """Annotate the last chunk of each choice that has a text."""
        if not self._pages:
            return
        for choice in choices:
            if not isinstance(choice, ChunkChoice):
                continue
            self._lengths[choice.index] += len(choice.delta.content or "")
            end = self._lengths[choice.index]
            if choice.finish_reason is not None and end:
                choice.delta.annotations = [
                    Annotation(
                        url_citation=UrlCitation(start_index=0, end_index=end, title=title, url=url)
                    )
                    for title, url in self._pages
                ]
