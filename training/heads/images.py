"""Reads images, of whom nothing is believed, into what a backbone reads; and keeps that.

A picture (``Pixels``) is 224 x 224 pixels of red, green and blue: the whole image, smaller, upright,
its margins grey. What else was in the file (EXIF with places and times, comments, other frames) is
not in it. It is known by the hash of its pixels and kept as a PNG of that name.
"""

import hashlib
import io
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from connectors.knowledge.article import Reason as Unpacked
from connectors.knowledge.article import Unreadable
from connectors.knowledge.unpacking import Archive
from training.errors import BadInput
from training.evaluation.metrics import Vectors
from training.filesystem import sync_tree
from training.heads.examples import MAX_LABEL, LabelledImage, LeftOut, Reason

SIDE = 224
MAX_BYTES = 20 << 20
MAX_PIXELS = 50_000_000
"""Telephones make images of 12 to 50 million pixels. Red, green and blue of so many are 150 MB."""
MAX_SIDE = 20_000
MAX_IMAGES = 2_000
"""Of one upload. A head on a frozen backbone needs some dozens of each label."""
MAX_UNPACKED = 2 << 30
MARGIN = (127, 127, 127)
"""Grey: what the backbone reads as zero."""
_FORMATS = {"PNG": (".png",), "JPEG": (".jpg", ".jpeg"), "WEBP": (".webp",), "GIF": (".gif",)}
_NAMES = {extension: kind for kind, names in _FORMATS.items() for extension in names}
# of what a file means to be, Pillow's readers raise any of these
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    OverflowError,
    struct.error,
    zlib.error,
)
_GREY = 32

Pixels = npt.NDArray[np.uint8]
"""(224, 224, 3)."""


class BadImage(BadInput):
    """An image cannot be used; ``reason`` says why in a word."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def read_picture(data: bytes, *, name: str | None = None) -> Pixels:
    """Decode an image of PNG, JPEG, WebP or GIF, with bounds.

    Args:
        data: The file.
        name: What it is called, where its name is to fit what it is.

    Raises:
        BadImage: it is larger than the bounds above, damaged, animated, or no image.
    """
    if not data:
        raise BadImage(Reason.EMPTY, "the file is empty")
    if len(data) > MAX_BYTES:
        raise BadImage(Reason.TOO_LARGE, f"larger than {MAX_BYTES >> 20} MiB")
    try:
        with Image.open(io.BytesIO(data), formats=tuple(_FORMATS)) as image:
            _check(image, name)
            image.draft("RGB", (2 * SIDE, 2 * SIDE))  # a JPEG is decoded smaller
            return np.asarray(_fitted(image), dtype=np.uint8)
    except UnidentifiedImageError as exc:
        raise BadImage(
            Reason.NOT_AN_IMAGE, "no PNG, JPEG, WebP or GIF image can be read in it"
        ) from exc
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as exc:
        raise BadImage(Reason.TOO_MANY_PIXELS, _TOO_MANY) from exc
    except BadImage:
        raise
    except _BROKEN as exc:
        raise BadImage(Reason.DAMAGED, f"the image is damaged: {str(exc)[:200]}") from exc


_TOO_MANY = f"more than {MAX_PIXELS // 1_000_000} million pixels, or {MAX_SIDE:,} on a side"


def _check(image: Image.Image, name: str | None) -> None:
    """What the head of a file says is enough to refuse it, before its pixels are unpacked."""
    width, height = image.size
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise BadImage(Reason.TOO_MANY_PIXELS, _TOO_MANY)
    kind = "JPEG" if image.format == "MPO" else image.format or ""  # two cameras' JPEG
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise BadImage(Reason.ANIMATED, "it is animated; give one image of it")
    if name is not None and PurePosixPath(name).suffix.lower() not in _FORMATS[kind]:
        raise BadImage(Reason.WRONG_EXTENSION, f"it is a {kind} image by its content; rename it")


def _fitted(image: Image.Image) -> Image.Image:
    """Upright, on white where it was transparent, whole within a square with grey margins."""
    small: Image.Image = image
    if image.mode not in {"L", "RGB", "RGBA"}:
        small = image.convert("RGBA" if image.has_transparency_data else "RGB")
    small.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)  # what comes then takes little memory
    ImageOps.exif_transpose(small, in_place=True)
    if small.has_transparency_data:
        clear = small.convert("RGBA")
        small = Image.new("RGB", clear.size, (255, 255, 255))
        small.paste(clear, mask=clear.getchannel("A"))
    return ImageOps.pad(small.convert("RGB"), (SIDE, SIDE), Image.Resampling.BICUBIC, color=MARGIN)


def keep_picture(folder: Path, pixels: Pixels) -> str:
    """Write a picture under its name, and return that. It is not flushed to the disk here."""
    name = _name_of(pixels)
    beside = folder / f".{name}.{os.getpid()}"
    Image.fromarray(pixels).save(beside, "PNG")
    beside.replace(folder / f"{name}.png")
    return name


def load_picture(folder: Path, name: str) -> Pixels:
    """A picture by its name.

    Raises:
        BadInput: it is missing, or has other pixels than its name says.
    """
    path = folder / f"{name}.png"
    try:
        pixels = read_picture(path.read_bytes())
    except OSError as exc:
        raise BadInput(f"cannot read the picture {path}: {exc.strerror}") from exc
    if _name_of(pixels) != name:
        raise BadInput(f"{path} was changed; create the dataset again")
    return pixels


def _name_of(pixels: Pixels) -> str:
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def read_images(
    path: Path, folder: Path, *, name: str | None = None
) -> tuple[list[LabelledImage], list[LeftOut]]:
    """Read labelled images: the label of each is the name of the folder that it lies in.

    What cannot be used is left out, and named. Hidden files are passed over.

    Args:
        path: A folder, or a zip archive of one.
        folder: Where the pictures are kept; made where it is missing.
        name: What messages call ``path``, for one that has another name on this disk.

    Raises:
        BadInput: it can as a whole not be read, has too many files, or no image that can be used.
    """
    name = name or path.name
    found: list[LabelledImage] = []
    left_out: list[LeftOut] = []
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for place, data in _files(path):
            try:
                found.append(_labelled(place, data, folder))
            except BadImage as exc:
                left_out.append(LeftOut(place=place[:300], reason=exc.reason, detail=str(exc)))
    except Unreadable as exc:
        raise BadInput(f"{name}: {exc}") from exc
    except OSError as exc:
        raise BadInput(f"cannot read {name}: {exc.strerror}") from exc
    sync_tree(folder)
    if not found:
        why = f"; the first, {left_out[0].place}: {left_out[0].detail}" if left_out else ""
        raise BadInput(
            f"{name}: no image in it can be used{why}. Give a zip archive with a folder for each "
            "label, and images in them"
        )
    return found, left_out


def _labelled(place: str, data: bytes | BadImage, folder: Path) -> LabelledImage:
    if isinstance(data, BadImage):
        raise data
    parent, _, own = place.rpartition("/")
    label = parent.rpartition("/")[2].strip()
    if PurePosixPath(own).suffix.lower() not in _NAMES:
        raise BadImage(
            Reason.WRONG_EXTENSION, f"its name ends with none of {', '.join(sorted(_NAMES))}"
        )
    if not label or len(label) > MAX_LABEL or not label.isprintable():
        raise BadImage(
            Reason.NO_LABEL,
            f"it lies in no folder whose name is a label (at most {MAX_LABEL} printable characters)",
        )
    return LabelledImage(keep_picture(folder, read_picture(data, name=own)), label)


def _files(path: Path) -> Iterator[tuple[str, bytes | BadImage]]:
    """(name, bytes, or why there are none) of each file, by name; the archive's own are not paths."""
    if path.is_dir():
        places = [each.relative_to(path).as_posix() for each in path.rglob("*") if each.is_file()]
        for place in _wanted(places):
            with (path / place).open("rb") as file:
                yield place, file.read(MAX_BYTES + 1)
        return
    with path.open("rb") as file:
        archive = Archive(file, max_bytes=MAX_UNPACKED)
        for place in _wanted(archive.names):
            try:
                yield place, archive.read(place, max_bytes=MAX_BYTES)
            except Unreadable as exc:
                if exc.reason is Unpacked.BAD_COMPRESSION:  # the archive was made to do harm
                    raise
                reason = Reason.TOO_LARGE if exc.reason is Unpacked.TOO_LARGE else Reason.DAMAGED
                yield place, BadImage(reason, str(exc))


def _wanted(places: Sequence[str]) -> list[str]:
    kept = [
        place
        for place in sorted(places)
        if not any(part.startswith((".", "__MACOSX")) for part in place.split("/"))
        and not place.lower().endswith("thumbs.db")
    ]
    if len(kept) > MAX_IMAGES:
        raise BadInput(f"{len(kept):,} images are more than {MAX_IMAGES:,}; give fewer")
    return kept


def likeness(pictures: Sequence[Pixels]) -> Vectors:
    """(pictures, 1024): 32 x 32 grey values, less their mean and at length 1.

    The product of two is the correlation of the pictures: the same image, saved again or in another
    size, has 0.99 and more.
    """
    rows = []
    for pixels in pictures:
        small = Image.fromarray(pixels).convert("L").resize((_GREY, _GREY), Image.Resampling.BOX)
        grey = np.asarray(small, dtype=np.float32).ravel()
        grey = grey - grey.mean()
        length = float(np.linalg.norm(grey))
        # those of one colour are all alike
        rows.append(grey / length if length > 1.0 else np.full_like(grey, 1 / _GREY))
    return np.asarray(rows, dtype=np.float32).reshape(-1, _GREY * _GREY)
