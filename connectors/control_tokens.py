"""Text that a tokenizer reads as structure: the end of a turn, or the start of another.

Known by form, for all common families of chat templates: ChatML and Llama 3 (``<|im_start|>``),
DeepSeek's wide bars, Mistral and Llama 2 (``[INST]``, ``</s>``), Gemma (``<start_of_turn>``).
"""

import re

_BAR = "[|\\uff5c]"  # FULLWIDTH VERTICAL LINE
CONTROL_TOKEN = re.compile(
    rf"<{_BAR}[^|\uff5c<>\s]{{1,40}}{_BAR}>|\[/?INST\]|</?s>|<(?:start|end)_of_turn>"
)


def has_control_token(text: str) -> bool:
    """Whether a text holds a control token."""
    return CONTROL_TOKEN.search(text) is not None


def without_control_tokens(text: str) -> str:
    """The text without control tokens, also those that only the removal of another forms."""
    while has_control_token(text):
        text = CONTROL_TOKEN.sub("", text)
    return text
