"""Token F1: how many words two texts share. Loads nothing, as a server uses it too."""

import re
import string
from collections import Counter


def squad_words(text: str) -> list[str]:
    """Lower case, without punctuation and English articles, as SQuAD's evaluation script splits."""
    plain = "".join(character for character in text.lower() if character not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", plain).split()


def f1_of_words(given: Counter[str], wanted: Counter[str]) -> float:
    """Harmonic mean of precision and recall of words; 1 for two empty texts, 0 for one."""
    if not given or not wanted:
        return float(given == wanted)
    return 2 * (given & wanted).total() / (given.total() + wanted.total())
