# %% [markdown]
# # Chat with tools
#
# OpenAI's own client against a running server. The server here is started with the fake engine, which answers
# by rule instead of with a model: it starts at once, needs no base, and speaks the same protocol. With a
# server of yours, leave the first cell out and set `url` and `key`.

# %%
import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolUnionParam

from server.settings import Settings

home = tempfile.mkdtemp(prefix="tenantune-example-")
with socket.create_server(("127.0.0.1", 0)) as free:
    port = free.getsockname()[1]
env = {**Settings.from_env().child_environment(), "TENANTUNE_HOME": home}
env |= {"TENANTUNE_PORT": str(port), "TENANTUNE_ENGINE": "fake"}


def tenantune(*words: str) -> str:
    """Run a command; what it prints on standard output."""
    argv = [sys.executable, "-m", "server", *words]
    return subprocess.run(argv, env=env, check=True, capture_output=True, text=True).stdout.strip()


tenantune("tenants", "create", "loaf", "--system-prompt", "You are the desk of Lumen & Loaf.")
key = tenantune("keys", "create", "--tenant", "loaf", "--scopes", "chat")
url = f"http://127.0.0.1:{port}"
server = subprocess.Popen(
    [sys.executable, "-m", "server", "up"],
    env=env,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
)
for _ in range(300):
    try:
        urllib.request.urlopen(f"{url}/health/ready")
        break
    except urllib.error.URLError:  # not there, or not ready yet
        time.sleep(0.2)

# %% [markdown]
# ## A streamed answer
#
# The model's name is the tenant's: what answers is its live adapter, or the base while it has none.

# %%
client = OpenAI(base_url=f"{url}/v1", api_key=key)
print([model.id for model in client.models.list()])
question: ChatCompletionMessageParam = {"role": "user", "content": "Can I skip a week?"}
for chunk in client.chat.completions.create(model="loaf", messages=[question], stream=True):
    print(chunk.choices[0].delta.content or "", end="")

# %% [markdown]
# ## A call of a function
#
# Offer a function, run what the model calls, and send back what it gave. The fake engine calls a function whose
# name is in the question.

# %%
skip_week: ChatCompletionToolUnionParam = {
    "type": "function",
    "function": {
        "name": "skip_week",
        "description": "Leaves out the next deliveries.",
        "parameters": {
            "type": "object",
            "properties": {"weeks": {"type": "integer"}},
            "required": ["weeks"],
        },
    },
}
ask: ChatCompletionMessageParam = {"role": "user", "content": "Please skip_week for 2 weeks."}
first = client.chat.completions.create(model="loaf", messages=[ask], tools=[skip_week])
calls = [call for call in first.choices[0].message.tool_calls or [] if call.type == "function"]
for call in calls:
    print(call.function.name, call.function.arguments)

# %%
weeks = json.loads(calls[0].function.arguments)["weeks"]
messages: list[ChatCompletionMessageParam] = [
    ask,
    {
        "role": "assistant",
        "tool_calls": [
            {
                "id": calls[0].id,
                "type": "function",
                "function": {"name": "skip_week", "arguments": calls[0].function.arguments},
            }
        ],
    },
    {"role": "tool", "tool_call_id": calls[0].id, "content": f"skipped {weeks} weeks"},
]
second = client.chat.completions.create(model="loaf", messages=messages, tools=[skip_week])
print(second.choices[0].message.content)

# %% [markdown]
# ## An answer by schema
#
# The answer is JSON that follows the schema, whatever the model would rather say.

# %%
answer = client.chat.completions.create(
    model="loaf",
    messages=[{"role": "user", "content": "How many weeks, and is there a fee?"}],
    response_format={
        "type": "json_schema",
        "json_schema": {
            "name": "skipping",
            "strict": True,
            "schema": {
                "type": "object",
                "properties": {"weeks": {"type": "integer"}, "fee": {"type": "boolean"}},
                "required": ["weeks", "fee"],
                "additionalProperties": False,
            },
        },
    },
)
print(answer.choices[0].message.content)

# %% [markdown]
# SIGTERM ends the server, and all that it has started.

# %%
server.terminate()
server.wait(timeout=30)
