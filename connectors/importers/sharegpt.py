"""ShareGPT: ``{"conversations": [{"from": "human", "value": "..."}]}`` a line."""

from connectors.conversation import Role
from connectors.importers.messages import MessageLines

_ROLES = {
    "human": Role.CUSTOMER,
    "user": Role.CUSTOMER,
    "gpt": Role.AGENT,
    "assistant": Role.AGENT,
    "chatgpt": Role.AGENT,
    "model": Role.AGENT,
    "system": Role.SYSTEM,
}


class ShareGpt(MessageLines):
    """Tool messages are skipped and counted."""

    name = "sharegpt"
    description = 'JSON lines with {"conversations": [{"from": "human|gpt|system", "value"}]}'
    key = "conversations"
    role_field = "from"
    text_field = "value"
    roles = _ROLES
