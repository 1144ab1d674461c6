"""Images as requests bring them, and what a head says of them.

They come as ``data:`` URLs and never as an address: nothing leaves the house. Their pixels are unpacked in
the encoder's process, so that a file which is made to do harm does none here.
"""

import asyncio
import base64
import binascii
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from server.embeddings.schemas import ImageRefused, Label
from server.embeddings.service import EmbeddingService
from server.errors import Invalid

MAX_IMAGES = 8
"""Of one request."""
MAX_IMAGE_BYTES = 5 << 20
MAX_URL = MAX_IMAGE_BYTES * 4 // 3 + 64
_HEAD = re.compile(r"data:image/(?:png|jpe?g|webp|gif);base64,", re.IGNORECASE)


class ImageInput(NamedTuple):
    """An image of a request: its URL, and the field that has it, for messages."""

    url: str
    param: str


def image_bytes(image: ImageInput) -> bytes:
    """The file in a ``data:`` URL; its pixels are not looked at.

    Raises:
        Invalid: it is an address, another URL, not base64, or has more than ``MAX_IMAGE_BYTES``.
    """
    url, param = image
    head = _HEAD.match(url)
    if head is None:
        address = url[:8].lower().startswith(("http:", "https:"))
        raise Invalid(
            f"'{param}' must hold the image itself, as data:image/png;base64,... (png, jpeg, webp or gif)"
            + (
                ": addresses are not fetched, since nothing leaves this server." if address else "."
            ),
            param=param,
            code="invalid_image_url",
        )
    if len(url) - head.end() > MAX_IMAGE_BYTES * 4 // 3 + 4:
        raise Invalid(
            f"The image in '{param}' is larger than {MAX_IMAGE_BYTES >> 20} MiB: send a smaller one.",
            param=param,
            code="image_too_large",
        )
    try:
        return base64.b64decode(url[head.end() :], validate=True)
    except (binascii.Error, ValueError) as exc:
        raise Invalid(
            f"The image in '{param}' is not base64: {exc}.", param=param, code="invalid_base64"
        ) from exc


async def classify_images(
    embeddings: EmbeddingService, images: Sequence[ImageInput], *, tenant: str, head: Path
) -> list[Label]:
    """What the head in a folder says of a request's images, in their order.

    Raises:
        Invalid: there are too many, or one cannot be used; the message names its field.
        Conflict, TooMany, Unavailable: as ``EmbeddingService.classify``.
    """
    if len(images) > MAX_IMAGES:
        raise Invalid(
            f"There are {len(images)} images: a request may have {MAX_IMAGES}.",
            param=images[MAX_IMAGES].param,
            code="too_many_images",
        )
    files = await asyncio.to_thread(lambda: [image_bytes(each) for each in images])
    try:
        return await embeddings.classify_images(files, tenant=tenant, head=head)
    except ImageRefused as exc:
        param = images[exc.what.index].param
        raise Invalid(
            f"The image in '{param}' cannot be used: {exc.what.detail}.",
            param=param,
            code=f"image_{exc.what.reason}",
        ) from exc
