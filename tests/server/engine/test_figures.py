"""What an engine says of its work."""

from server.engine import figures
from server.engine.figures import EngineFigures, Figures
from server.errors import EngineUnavailable

# as vLLM 0.32 writes them
METRICS = """\
# HELP vllm:kv_cache_usage_perc KV-cache usage. 1 means 100 percent usage.
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{{engine="0",model_name="base"}} {cache}
# HELP vllm:prompt_tokens_total Number of prefill tokens processed.
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{{engine="0",model_name="base"}} {prompt}
# HELP vllm:generation_tokens_total Number of generation tokens processed.
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{{engine="0",model_name="base"}} {generated}
"""


class Engine:
    """Answers with the next text, or fails where it is None."""

    def __init__(self, *texts: str | None) -> None:
        self.texts = list(texts)

    async def metrics(self, *, timeout_seconds: float) -> str:
        text = self.texts.pop(0)
        if text is None:
            raise EngineUnavailable("gone")
        return text


def text(cache: float, prompt: int, generated: int) -> str:
    return METRICS.format(cache=cache, prompt=prompt, generated=generated)


async def test_counts_become_rates_between_two_looks(monkeypatch):
    seconds = [100.0]
    monkeypatch.setattr(figures, "monotonic", lambda: seconds[0])
    engine = Engine(text(0.25, 1000, 50), text(0.5, 1300, 90), text(0.1, 10, 5))
    seen = EngineFigures(engine)
    assert await seen.read() == Figures(kv_cache=0.25)
    seconds[0] += 0.5
    assert await seen.read() == Figures(kv_cache=0.25)  # another reader, a moment later
    seconds[0] += 3.5
    assert await seen.read() == Figures(
        kv_cache=0.5, generated_per_second=10.0, prompt_per_second=75.0
    )
    seconds[0] += 2
    again = await seen.read()  # the engine began anew
    assert (again.generated_per_second, again.prompt_per_second) == (0.0, 0.0)


async def test_an_engine_that_says_nothing_or_nonsense_has_no_figures():
    seen = EngineFigures(Engine(text(0.25, 1, 1), None, "}{ 3", "other_metric 3\n"))
    assert (await seen.read()).kv_cache == 0.25
    seen._looked_at -= 10
    for _ in range(3):
        assert await seen.read() == Figures()
