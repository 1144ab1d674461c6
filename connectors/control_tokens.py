"""Text that a tokenizer reads as structure: the end of a turn, or the start of somebody else's.

Known by form, for every family of chat templates at once: ChatML and Llama 3 (``<|im_start|>``),
DeepSeek's wide bars, Mistral and Llama 2 (``[INST]``, ``</s>``), Gemma (``<start_of_turn>``).
"""

import re

_BAR = "[|\\uff5c]"  # FULLWIDTH VERTICAL LINE
CONTROL_TOKEN = re.compile(
    rf"<{_BAR}[^|\uff5c<>\s]{{1,40}}{_BAR}>|\[/?INST\]|</?s>|<(?:start|end)_of_turn>"
)


def has_control_token(text: str) -> bool:
    """Whether there is one in a text."""
    return CONTROL_TOKEN.search(text) is not None


def without_control_tokens(text: str) -> str:
    """The text with none left, not even one that leaving out another puts together."""
    while has_control_token(text):
        text = CONTROL_TOKEN.sub("", text)
    return text
