"""Encodings that a file does not name, and text that was encoded twice."""

import io
import json

import pytest

from connectors.conversation import Conversation
from connectors.errors import UnknownFormat
from connectors.importers import IMPORTERS, ImportOptions, choose
from connectors.importers.mojibake import fix_mojibake


def read(name: str, data: bytes) -> tuple[list[str], dict[str, str]]:
    notes: dict[str, str] = {}
    items = list(IMPORTERS[name].read(io.BytesIO(data), ImportOptions(), notes.__setitem__))
    kept = [item for item in items if isinstance(item, Conversation)]
    assert len(kept) == len(items)
    return [turn.text for conversation in kept for turn in conversation.turns], notes


TEXTS = {
    "German": "Schöne Grüße für Zoë; können Sie die Größe ändern?",
    "French": "Où est l\u2019équipe ? À bientôt\u2026 ça va très bien",
    "Spanish": "¿Dónde está mi envío? El año pasado llegó en 3 días.",
    "Portuguese": "Não recebi a informação ainda",
    "Nordic": "Jeg får den ikke på hjørnet",
}


@pytest.mark.parametrize("language", TEXTS)
@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_mac_roman_is_known_with_any_line_end(language, end):
    text = TEXTS[language]
    data = f'question,answer{end}"{text}","{text}"{end}'.encode("mac_roman")
    texts, notes = read("csv", data)
    assert texts == [text, text]
    assert notes["encoding"] == "mac_roman (guessed)"


@pytest.mark.parametrize("language", ["German", "Spanish", "Portuguese", "Nordic"])
def test_dos_is_known(language):
    text = TEXTS[language]
    texts, notes = read("csv", f'question,answer\r\n"{text}","{text}"\r\n'.encode("cp850"))
    assert texts == [text, text]
    assert notes["encoding"] == "cp850 (guessed)"


@pytest.mark.parametrize(
    "text",
    [*TEXTS.values(), "don\u2019t \u201cworry\u201d \u2014 it\u2019s fine " * 9, "yes\u2014no, Mon\u2013Fri \u201cok\u201d"],
)  # fmt: skip
def test_cp1252_stays_cp1252(text):
    text = text.strip()
    texts, notes = read("csv", f'question,answer\n"{text}","{text}"\n'.encode("cp1252"))
    assert texts == [text, text]
    assert notes["encoding"] == "cp1252 (guessed)"


def test_old_mac_line_ends_may_have_line_feeds_inside_a_cell():
    texts, _ = read("csv", b'question,answer\r"one\ntwo",three\rfour,five\r')
    assert texts == ["one\ntwo", "three", "four", "five"]


def test_old_mac_line_ends_are_known_in_utf_16():
    texts, _ = read("csv", "question,answer\rä,b\r".encode("utf-16"))
    assert texts == ["ä", "b"]


def twice(text: str, codec: str = "cp1252") -> str:
    """What a program makes of UTF-8 that it takes for another code page."""
    parts = []
    for byte in text.encode():
        try:
            parts.append(bytes([byte]).decode(codec))
        except UnicodeDecodeError:
            parts.append(chr(byte))
    return "".join(parts)


MEANT = "Grüße für Zoë \u2013 don\u2019t \u201cquote\u201d 5 € à 😀 Œuvre cœur Ärger Öl Über ÉTÉ"


@pytest.mark.parametrize("codec", ["cp1252", "latin-1", "mac_roman"])
def test_text_that_was_encoded_twice_is_put_right(codec):
    mended, count = fix_mojibake(twice(MEANT, codec))
    assert mended == MEANT
    assert count == sum(not character.isascii() for character in MEANT)


def test_it_is_put_right_in_other_scripts_and_after_three_times():
    text = "Привет 你好 こんにちは 안녕 Ελλάδα"
    assert fix_mojibake(twice(text))[0] == text
    assert fix_mojibake(twice(twice(MEANT)))[0] == MEANT


@pytest.mark.parametrize(
    "text",
    [
        MEANT,
        "« À LA PROPRIÉTÉ » — «É»",
        "\u201cMAÇÃ\u201d e \u201cIRMÃ\u201d",
        "\u2018cliché\u2019\u201d l\u2019été—à midi\u2013état",
        "Ångström \u2013 Ä\u201c, Ä\u2013Ö, ä\u201c é\u201d è\u2013 ê\u201a",
        "50 °C ±2 √2 ≈ ½ ¥",
        "Þórður Ðe, Xin chào bạn, không nhận được",
        "\u201aÄpfel\u2018 Привет 你好 안녕",
    ],
)
def test_text_that_was_encoded_once_stays_as_it_is(text):
    assert fix_mojibake(text) == (text, 0)


def test_every_importer_but_our_own_puts_it_right_and_says_so():
    said = twice("Grüße")
    texts, notes = read("csv", f"question,answer\n{said},{said}\n".encode())
    assert texts == ["Grüße", "Grüße"]
    assert notes["encoded twice"] == "4 characters, put right"
    messages = [{"role": "user", "content": said}]
    for escaped in (True, False):
        line = json.dumps({"messages": messages}, ensure_ascii=escaped).encode()
        texts, notes = read("openai", line)
        assert texts == ["Grüße"]
        assert "encoded twice" in notes
    own = json.dumps({"turns": [{"role": "customer", "text": said}]}).encode()
    assert read("tenantune", own)[0] == [said]


@pytest.mark.parametrize(
    ("head", "hint"),
    [
        (b"[14/10/2031, 3:34:09 PM] Cara Lind: Hi, my kettle\n", "WhatsApp.*CSV"),
        ("\u200e[14.10.31, 15:34:09] Cara: Hi\n".encode(), "WhatsApp"),
        (b"10/14/31, 15:34 - Cara Lind: Hi\n", "WhatsApp"),
        ("14/10/2031, 3:34\u202fp. m. - Cara: Hi\n".encode(), "WhatsApp"),
        (b"2031/10/14, 15:34 - Messages are encrypted\n", "WhatsApp"),
        (b"PK\x03\x04rest", "Excel"),
        (b"%PDF-1.7", "PDF"),
        (b"<html><body>hi", "HTML"),
        (b"From: a@b.example\nTo: c@d.example\nSubject: x\n\nhi", "e-mail"),
    ],
)
def test_a_file_of_another_kind_is_refused_with_the_right_hint(head, hint):
    with pytest.raises(UnknownFormat, match=hint) as caught:
        choose(head, "export.txt")
    assert "JSON array" not in str(caught.value)
