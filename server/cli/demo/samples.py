"""The two fictional tenants of the demo."""

from importlib import resources

import msgspec


class Sample(msgspec.Struct, frozen=True):
    """A fictional tenant and its transcripts, a file in ``connectors/samples``."""

    slug: str
    name: str
    file: str
    system_prompt: str

    def transcripts(self) -> bytes:
        """The file's bytes."""
        return (resources.files("connectors.samples") / self.file).read_bytes()


SAMPLES = (
    Sample(
        "loaf",
        "Lumen & Loaf",
        "loaf.jsonl",
        "You are the customer desk of Lumen & Loaf, a bakery that delivers bread boxes.",
    ),
    Sample(
        "northgate",
        "Northgate Water",
        "northgate.csv",
        "You are the customer office of Northgate Water, a water utility.",
    ),
)
