"""Reads what chats, texts and responses say about sampling."""

from server.errors import Invalid

MIN_TOP_P = 1e-5  # the engine refuses 0, which means the likeliest token alone


def stops(stop: str | list[str] | None) -> tuple[str, ...]:
    """The texts at which an answer ends."""
    return (stop,) if isinstance(stop, str) else tuple(stop or ())


def nucleus(top_p: float | None) -> float | None:
    """``top_p`` as the engine takes it."""
    return None if top_p is None else max(top_p, MIN_TOP_P)


def check_sampling(*, n: int, temperature: float | None, seed: int | None) -> None:
    """Check the fields that depend on each other.

    Raises:
        Invalid: several answers that would all be the same, or a seed of more than 64 bits.
    """
    if n > 1 and temperature == 0:
        raise Invalid("With temperature 0 all answers are the same: n must be 1.", param="n")
    if seed is not None and not -(1 << 63) <= seed < 1 << 63:
        raise Invalid("'seed' must fit into 64 bits.", param="seed")
