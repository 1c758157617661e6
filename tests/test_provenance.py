"""Author's texts are found, decoded in whatever encoding they have, and hinted at without verdicts."""

from __future__ import annotations

import hashlib
import json

import pytest

from mmdgen.generate.provenance import decode_text, hints, json_line, jsonl_bytes, provenance_row, terms_beside

JAPANESE = "このモデルの再配布と商用利用は禁止です。改造はご自由にどうぞ。ｱｲｳもある。"
CHINESE = "本模型禁止二次配布，不得用于商业用途。请勿用于18禁作品。使用前请阅读说明。"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (JAPANESE, "utf-8"),
        (JAPANESE, "utf-8-sig"),
        (JAPANESE, "cp932"),
        (JAPANESE, "utf-16"),
        (JAPANESE, "utf-16-be"),
        (CHINESE, "utf-8"),
        (CHINESE, "gbk"),
        (CHINESE, "utf-16"),
        ("Plain words. No commercial use.\r\n", "ascii"),
        ("Plain words. No commercial use.\r\n", "utf-16-le"),
    ],
)
def test_encodings(text, encoding):
    found = decode_text(text.encode(encoding))
    if encoding == "utf-16-be" and text == JAPANESE:
        assert found is None  # without a byte order mark and without ASCII there is nothing to tell it by
        return
    assert found is not None
    assert found[0] == text


def test_what_is_no_text():
    assert decode_text(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x01") is None
    assert decode_text(bytes(range(1, 256))) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (JAPANESE, ["no_commercial", "no_redistribution"]),
        (CHINESE, ["no_commercial", "no_redistribution", "r18"]),
        ("ＡＩ学習への使用を禁止します", ["no_ai"]),
        ("生成AIの学習に使わないでください。機械学習はお断りします。", ["no_ai"]),
        ("Do not use this model for AI training or machine learning.", ["no_ai"]),
        ("You may NOT redistribute this.", ["no_redistribution"]),
        ("R-18作品への使用は禁止", ["r18"]),
        ("You may use it commercially. Have fun!", []),
        ("商用利用も可能です。", []),
        ("She said hello again to the captain.", []),  # "ai" inside words
        ("", []),
    ],
)
def test_hints(text, expected):
    assert hints(text) == expected


def test_texts_beside_a_model(tmp_path):
    folder = tmp_path / "anime" / "miku"
    folder.mkdir(parents=True)
    model = folder / "miku.pmx"
    texts = {
        tmp_path / "readme.txt": b"not of a model: the collection's own",
        tmp_path / "anime" / "LICENSE": b"all of anime",
        folder / "りどみ.txt": JAPANESE.encode("cp932"),
        folder / "README.md": b"hello",
        folder / "利用規約.pdf": b"%PDF-1.4 \x00\xff",
        folder / "notes.txt": b"no terms by its name",
        folder / "readme.png": b"a picture",
        tmp_path / "games" / "readme.txt": b"another source",
    }
    for path, content in texts.items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    found = {text.file: text for text in terms_beside(model, tmp_path)}
    assert sorted(found) == [
        "anime/LICENSE",
        "anime/miku/README.md",
        "anime/miku/りどみ.txt",
        "anime/miku/利用規約.pdf",
    ]
    assert found["anime/miku/りどみ.txt"].text == JAPANESE
    assert found["anime/miku/りどみ.txt"].encoding == "cp932"
    assert found["anime/miku/利用規約.pdf"].text is None
    for text in found.values():
        assert text.sha256 == hashlib.sha256((tmp_path / text.file).read_bytes()).hexdigest()
    row = provenance_row(
        "ab" * 32, "anime/miku/miku.pmx", "初音ミク", "コメント: AI禁止", terms_beside(model, tmp_path)
    )
    assert row["hints"] == ["no_ai", "no_commercial", "no_redistribution"]
    assert row["folder"] == "anime/miku"
    # a model in the top folder has the texts there
    assert [text.file for text in terms_beside(tmp_path / "m.pmx", tmp_path)] == ["readme.txt"]


def test_lines_survive_odd_names():
    odd = {"path": "caf\udce9/初音.pmx", "n": 1.5}
    assert json.loads(json_line(odd)) == odd
    assert "初音" in json_line({"path": "初音"})
    assert jsonl_bytes([odd, {"a": "b\nc"}]).count(b"\n") == 2
