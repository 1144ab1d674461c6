from pathlib import Path

import pytest

from training.errors import BadInput
from training.heads.examples import Labelled, read_examples


def write(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_json_lines_and_a_table_read_alike(tmp_path: Path) -> None:
    lines = write(tmp_path, "a.jsonl", '{"text": " Hi ", "label": "calm", "id": 3}\n\n')
    table = write(tmp_path, "a.csv", b'\xef\xbb\xbfid,text,label\r\n3,"Hi",calm\r\n')
    assert read_examples(lines) == read_examples(table) == [Labelled("Hi", "calm")]


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ('{"text": "a", "label": "b"}\n{"text": "c"}\n', "x.txt, line 2: "),
        ('{"text": "a", "label": "b"}\n\n{"text": \n', "x.txt, line 3: "),
        ('{"text": " ", "label": "b"}\n', "x.txt, line 1: there is no text"),
        ("text,label\na,b\nc,\n", "x.txt, line 3: there is no label"),
        ('text,label\n"a\nb",c\nd\n', "x.txt, line 4: there is no label"),
        ("text,class\na,b\n", "x.txt, line 1: no column label"),
        (b"text,label\na,b\n\xff,b\n", "x.txt, line 3: not UTF-8"),
        ("", "x.txt, line 1: no column text"),
        ("text,label\n", "x.txt: there is no text in it"),
    ],
)
def test_a_bad_line_is_named_with_its_file(
    tmp_path: Path, content: str | bytes, where: str
) -> None:
    path = write(tmp_path, "other", content)
    with pytest.raises(BadInput) as refused:
        read_examples(path, name="x.txt")
    assert str(refused.value).startswith(where)
