"""Images of whom nothing is believed, and heads on them; the last test with the real backbone."""

import io
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image, ImageDraw

from training.errors import BadInput
from training.events import EXIT_BAD_INPUT, EXIT_OK
from training.heads import images
from training.heads.alike import near_any
from training.heads.config import EncoderName, HeadSpec
from training.heads.dataset import create_version
from training.heads.examples import LabelledImage, Reason, pictures_of
from training.heads.images import BadImage, likeness, read_images, read_picture
from training.heads.package import Head, verify
from training.heads.pipeline import finished_head, run


def drawn(kind: str, seed: int, size: tuple[int, int] = (96, 96)) -> Image.Image:
    """A receipt's lines on white, or a photograph's blobs on red."""
    random = np.random.default_rng(seed)
    if kind == "receipt":
        image = Image.new("RGB", size, "white")
        pen = ImageDraw.Draw(image)
        for y in range(8, size[1] - 8, int(random.integers(7, 12))):
            pen.line((8, y, int(random.integers(30, size[0] - 8)), y), fill="black", width=2)
        return image
    image = Image.new("RGB", size, (200, *random.integers(0, 60, 2).tolist()))
    pen = ImageDraw.Draw(image)
    for _ in range(12):
        x, y, radius = random.integers(0, 96, 3).tolist()
        colour = (int(random.integers(90, 255)), *random.integers(0, 90, 2).tolist())
        pen.ellipse((x, y, x + radius // 2, y + radius // 2), fill=colour)
    return image


def as_file(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def archive(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for name, data in files.items():
            made.writestr(name, data)
    return out.getvalue()


def labelled(count: int = 12) -> dict[str, bytes]:
    """Files of two labels that an 8 x 8 grid of colours can tell apart."""
    return {
        f"{kind}/{seed}.png": as_file(drawn(kind, seed))
        for kind in ("receipt", "damage")
        for seed in range(count)
    }


def bomb(width: int, height: int) -> bytes:
    """A PNG that says it has so many pixels."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def test_what_cannot_be_used_is_left_out_with_its_place_and_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "MAX_BYTES", 50_000)
    good, grey = drawn("receipt", 1), Image.new("L", (20, 20))
    bad = {
        "receipt/animated.gif": (
            Reason.ANIMATED,
            as_file(grey, "GIF", save_all=True, append_images=[Image.new("L", (20, 20), 9)]),
        ),
        "receipt/bomb.png": (Reason.TOO_MANY_PIXELS, bomb(60_000, 60_000)),
        "receipt/large.png": (Reason.TOO_MANY_PIXELS, bomb(10_000, 9_000)),
        "receipt/cut.jpg": (Reason.DAMAGED, as_file(drawn("damage", 1), "JPEG")[:-400]),
        "receipt/damaged.png": (Reason.DAMAGED, as_file(good)[:60] + b"\0" * 200),
        "receipt/empty.png": (Reason.EMPTY, b""),
        "receipt/list.pdf": (Reason.WRONG_EXTENSION, b"%PDF-1.7"),
        "receipt/really.png": (Reason.WRONG_EXTENSION, as_file(good, "JPEG")),
        "receipt/text.png": (Reason.NOT_AN_IMAGE, b"I am no image"),
        "receipt/long.jpg": (Reason.TOO_LARGE, b"\xff\xd8" + b"\0" * images.MAX_BYTES),
        "top.png": (Reason.NO_LABEL, as_file(good)),
    }
    files = {name: data for name, (_, data) in bad.items()}
    usable = {
        "export/receipt/one.png": as_file(good),
        "export/receipt/still.gif": as_file(grey, "GIF"),
        "export/receipt/clear.webp": as_file(Image.new("RGBA", (30, 90), (0, 0, 0, 0)), "WEBP"),
        "export/receipt/plate.jpeg": as_file(Image.new("CMYK", (30, 90)), "JPEG"),
        "__MACOSX/receipt/._one.png": b"",
    }
    path = tmp_path / "upload"
    path.write_bytes(archive(files | usable))
    found, left_out = read_images(path, tmp_path / "pictures", name="mine.zip")
    assert {each.place: each.reason for each in left_out} == {
        name: reason for name, (reason, _) in bad.items()
    }
    assert [each.label for each in found] == ["receipt"] * 4
    path.write_bytes(b"text,label\n")
    with pytest.raises(BadInput, match=r"mine\.zip: it is no whole zip archive"):
        read_images(path, tmp_path, name="mine.zip")


def test_what_the_camera_wrote_beside_the_pixels_is_gone_and_the_image_upright(
    tmp_path: Path,
) -> None:
    lying = Image.new("RGB", (200, 100), "red")
    lying.paste("blue", (100, 0, 200, 100))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned to the right: red is above blue
    exif[0x010E] = "secret place"
    folder = tmp_path / "receipt"
    folder.mkdir()
    (folder / "photo.jpg").write_bytes(as_file(lying, "JPEG", exif=exif, quality=95))
    [found], _ = read_images(tmp_path, tmp_path / "pictures")
    kept = (tmp_path / "pictures" / f"{found.image}.png").read_bytes()
    assert b"secret" not in kept
    with Image.open(io.BytesIO(kept)) as picture:
        assert not picture.getexif()
        assert picture.size == (224, 224)
        above, below, margin = (
            picture.getpixel((x, y)) for x, y in ((112, 20), (112, 200), (2, 9))
        )
    assert above == pytest.approx((254, 0, 0), abs=3)
    assert below == pytest.approx((0, 0, 254), abs=3)
    assert margin == images.MARGIN


def test_an_image_saved_again_is_the_same_and_another_is_not() -> None:
    first = drawn("receipt", 3, (400, 400))
    again = as_file(first.resize((300, 300)), "JPEG", quality=60)
    others = [as_file(drawn("receipt", seed, (400, 400))) for seed in (4, 5)]
    marks = likeness([read_picture(data) for data in (as_file(first), again, *others)])
    near = marks @ marks[0]
    assert near[1] > 0.98 > max(near[2:])


def train(
    folder: Path, encoder: EncoderName, files: dict[str, bytes], *, live: str | None = None
) -> Path:
    root = folder / "datasets"
    (folder / "upload.zip").write_bytes(archive(files))
    examples, left_out = read_images(folder / "upload.zip", pictures_of(root))
    assert left_out == []
    dataset = create_version(examples, root, task="image")
    spec = HeadSpec(dataset=str(dataset.folder), encoder=encoder, live=live)
    path = folder / "spec.json"
    path.write_bytes(msgspec.json.encode(spec))
    out = folder / f"run{len(list(folder.iterdir()))}"
    assert run(path, out, resume=False) == EXIT_OK
    return finished_head(out)


def test_a_head_tells_images_apart_and_is_held_against_the_live_one(tmp_path: Path) -> None:
    live = train(tmp_path, "colour-grid", labelled())
    head = Head(live)
    assert (head.manifest.task, head.manifest.method) == ("image", "frozen")
    assert head.manifest.verdict.passed
    asked = [read_picture(as_file(drawn(kind, 99))) for kind in ("damage", "receipt")]
    assert [each.label for each in head.classify(asked)] == ["damage", "receipt"]
    again = verify(train(tmp_path, "colour-grid", labelled(), live=str(live)))
    assert [gate.name for gate in again.verdict.gates] == ["majority", "live"]


def test_a_picture_that_was_changed_or_texts_for_an_image_encoder_are_refused(
    tmp_path: Path,
) -> None:
    (tmp_path / "upload.zip").write_bytes(archive(labelled(8)))
    pictures = pictures_of(tmp_path / "datasets")
    examples, _ = read_images(tmp_path / "upload.zip", pictures)
    dataset = create_version(examples, tmp_path / "datasets", task="image")
    spec = tmp_path / "spec.json"
    spec.write_bytes(msgspec.json.encode(HeadSpec(dataset=str(dataset.folder))))
    assert run(spec, tmp_path / "texts", resume=False) == EXIT_BAD_INPUT
    first = examples[0]
    assert near_any([first], examples[1:], pictures=pictures) == [False]
    assert near_any([first], examples[:2], pictures=pictures) == [True]
    other = LabelledImage(examples[1].image, "x").image
    (pictures / f"{first.image}.png").write_bytes((pictures / f"{other}.png").read_bytes())
    with pytest.raises(BadInput, match="was changed"):
        dataset.content(first)


def test_a_large_jpeg_takes_little_memory_and_a_broken_one_raises_no_other_error() -> None:
    read_picture(as_file(Image.new("RGB", (4_000, 3_000), "red"), "JPEG"))
    random = np.random.default_rng(1)
    for kind in ("PNG", "JPEG", "WEBP", "GIF"):
        whole = as_file(drawn("damage", 2), kind)
        for _ in range(25):
            data = bytearray(whole)
            for place in random.integers(0, len(data), 4):
                data[place] = int(random.integers(0, 256))
            try:
                assert read_picture(bytes(data)).shape == (224, 224, 3)
            except BadImage as exc:
                assert str(exc)  # noqa: PT017


@pytest.mark.heavy
def test_the_real_backbone_knows_imagenet_and_carries_a_head(tmp_path: Path) -> None:
    import torch  # noqa: PLC0415 - seconds
    from sklearn.datasets import load_sample_image  # noqa: PLC0415

    from training.heads.efficientnet import load, scaled  # noqa: PLC0415
    from training.heads.encoders import backbone_file  # noqa: PLC0415

    model = load(backbone_file())
    pictures = []
    for name in ("china.jpg", "flower.jpg"):
        image = Image.fromarray(load_sample_image(name)).resize((342, 228))
        pictures.append(np.asarray(image.crop((59, 2, 283, 226))))
    with torch.inference_mode():
        said = model(scaled(torch.from_numpy(np.stack(pictures)))).argmax(dim=1).tolist()
    assert said == [698, 985]  # palace, daisy

    head = Head(train(tmp_path, "efficientnet-lite0", labelled()))
    assert head.manifest.encoder.dimensions == 1280
    assert head.manifest.scores.accuracy == 1.0
    asked = [read_picture(as_file(drawn(kind, 99))) for kind in ("damage", "receipt")]
    assert [each.label for each in head.classify(asked)] == ["damage", "receipt"]
