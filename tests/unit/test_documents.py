"""Files to chunks: structure is kept, places are cited, what cannot be read is said."""

import io
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.documents.apart import Reader
from agentflow.documents.chunks import chunks
from agentflow.documents.passages import passages
from agentflow.errors import BadInput
from agentflow.retrieval.pieces import PIECE_TOKENS, tokens

MARKDOWN = b"""# Handbook

Welcome.

## Refunds

Within 30 days.

```sh
# not a heading
refund --all
```

# Contact
Write to us.
"""


def pdf(*pages: str) -> bytes:
    """A PDF with a line of text per page."""
    kids = " ".join(f"{2 * number + 4} 0 R" for number in range(len(pages)))
    font = "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"
    objects = ["<</Type/Catalog/Pages 2 0 R>>", f"<</Type/Pages/Kids[{kids}]/Count {len(pages)}>>", font]
    for number, text in enumerate(pages):
        shown = f"BT /F 12 Tf 10 10 Td ({text}) Tj ET"
        fonts = "/Resources<</Font<</F 3 0 R>>>>/MediaBox[0 0 99 99]"
        objects.append(f"<</Type/Page/Parent 2 0 R/Contents {2 * number + 5} 0 R{fonts}>>")
        objects.append(f"<</Length {len(shown)}>>stream\n{shown}\nendstream")
    body, offsets = "%PDF-1.4\n", []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(body))
        body += f"{number} 0 obj{content}endobj\n"
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    size = len(objects) + 1
    end = f"trailer<</Root 1 0 R/Size {size}>>\nstartxref\n{len(body)}\n%%EOF"
    return f"{body}xref\n0 {size}\n0000000000 65535 f \n{table}{end}".encode()


def docx(*paragraphs: tuple[str, str]) -> bytes:
    """A Word file of (style, text)."""
    word = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    relation = "http://schemas.openxmlformats.org/package/2006/relationships"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"
    body = "".join(
        f'<w:p><w:pPr><w:pStyle w:val="{style}"/></w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>'
        for style, text in paragraphs
    )
    styles = '<w:style w:type="paragraph" w:styleId="Heading1"><w:name w:val="heading 1"/></w:style>'
    kinds = '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default Extension="xml" ContentType="application/xml"/></Types>'  # noqa: E501
    files = {
        "[Content_Types].xml": kinds,
        "_rels/.rels": f'<Relationships xmlns="{relation}"><Relationship Id="1" Type="{office}" Target="word/document.xml"/></Relationships>',  # noqa: E501
        "word/document.xml": f'<w:document xmlns:w="{word}"><w:body>{body}</w:body></w:document>',
        "word/styles.xml": f'<w:styles xmlns:w="{word}">{styles}</w:styles>',
        "word/_rels/document.xml.rels": f'<Relationships xmlns="{relation}"><Relationship Id="1" Type="{office.replace("officeDocument/2006/relationships/officeDocument", "officeDocument/2006/relationships/styles")}" Target="styles.xml"/></Relationships>',  # noqa: E501
    }
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return target.getvalue()


def places(name: str, data: bytes) -> list[tuple[str, str, int | None, int | None]]:
    return [(one.content, one.heading, one.page, one.line) for one in chunks(passages(name, data))]


def test_markdown_is_cut_at_headings_and_knows_its_lines() -> None:
    assert places("handbook.md", MARKDOWN) == [
        ("Welcome.", "Handbook", None, 3),
        ("Within 30 days.\n\n```sh\n# not a heading\nrefund --all\n```", "Handbook > Refunds", None, 7),
        ("Write to us.", "Contact", None, 15),
    ]


def test_of_a_document_of_headings_alone_they_are_the_text() -> None:
    assert places("office.md", b"# Office\n\n## Upstairs\n") == [
        ("Office", "", None, 1),
        ("Upstairs", "Office", None, 3),
    ]


def test_html_says_what_a_reader_sees() -> None:
    page = b"<html><head><title>x</title></head><script>evil()</script><h1>Refunds</h1><p>Within <b>30</b> days.</p>"
    assert places("page.html", page) == [("Within **30** days.", "Refunds", None, None)]


def test_a_pdf_is_cited_by_page() -> None:
    assert places("paper.pdf", pdf("First page", "Second page")) == [
        ("First page", "", 1, None),
        ("Second page", "", 2, None),
    ]


def test_a_word_file_keeps_its_headings() -> None:
    file = docx(("Heading1", "Refunds"), ("Normal", "Within 30 days."))
    assert places("letter.docx", file) == [("Within 30 days.", "Refunds", None, None)]


def test_rows_of_a_table_name_their_columns() -> None:
    rows = b"name,age\n" + b"".join(b"Ann %d,%d\n" % (n, n) for n in range(30))
    (first, *rest) = places("people.csv", rows)
    assert first[0].startswith("name: Ann 0; age: 0\nname: Ann 1; age: 1")
    assert (first[3], rest[-1][3]) == (2, 22)


def test_a_table_is_read_whatever_stands_between_its_columns_and_loses_no_cell() -> None:
    assert places("shops.csv", "Nr;Stadt\n1;Köln;Neumarkt\n2\n".encode())[0][0] == (
        "Nr: 1; Stadt: Köln; Neumarkt\nNr: 2"
    )
    assert places("long.csv", b"a,b\n1," + b"x " * 100_000)[1][0].startswith("b: x x")


def test_of_a_web_page_navigation_is_left_out() -> None:
    page = (
        b"<body><header>Home</header><nav>Shop</nav><h1>Milk</h1><p>Hot.</p><aside>Ads</aside><footer>Imprint"
    )
    assert places("page.html", page) == [("Hot.", "Milk", None, None)]
    assert places("page.html", b"<p>Cookies</p><main><p>Hot.</p></main>") == [("Hot.", "", None, None)]


def test_underlined_headings_are_headings_and_only_its_own_fence_ends_code() -> None:
    text = b"Refunds\n=======\n\nSoon.\n\n~~~\n# no heading\n```\n# none either\n~~~\n\n| a |\n| --- |\n"
    ((content, heading, _, line),) = places("page.md", text)
    assert (content.split("\n")[0], heading, line) == ("Soon.", "Refunds", 4)
    assert content.endswith("| a |\n| --- |")


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "Où irons-nous à Noël ? Die Straße über die Brücke."),
        ("cp1250", "Zażółć gęślą jaźń, proszę pana. Łódź jest piękna."),
        ("cp1251", "Поезд в Саратов отправляется в десять часов утра."),
        ("utf-16", "Der Zug nach Passau fährt um neun."),
        ("utf-16-le", "Поезд в Саратов."),
        ("utf-16-be", "Hello there."),
        ("shift_jis", "札幌行きの列車は十時に出発します。駅で切符を買ってください。"),
    ],
)
def test_older_encodings_are_read(encoding: str, text: str) -> None:
    assert places("text.txt", text.encode(encoding)) == [(text, "", None, 1)]


def test_a_word_file_that_unpacks_to_more_than_a_parser_bears_is_refused() -> None:
    target = io.BytesIO(docx(("Normal", "Hello.")))
    with zipfile.ZipFile(target, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/more.xml", b" " * (64 * 1024**2))
    with pytest.raises(BadInput, match="unpacks to 64 MiB of text"):
        passages("bomb.docx", target.getvalue())


def test_code_is_cut_between_functions() -> None:
    code = "\n\n".join(f"def f{n}():\n" + "    x = 1\n" * 40 for n in range(6)).encode()
    cut = places("code.py", code)
    assert all(content.startswith("def f") for content, *_ in cut[:3])
    assert [line for *_, line in cut[:3]] == [1, 44, 87]


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("film.mp4", b"x", "no kind that can be read"),
        ("text.txt", b"\xff\xfa\x00", "not text in UTF-8"),
        ("text.txt", b"a\x00b", "not text in UTF-8"),
    ],
)
def test_what_cannot_be_read_is_said(name: str, data: bytes, reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        passages(name, data)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=3000))
def test_no_chunk_is_longer_than_an_embedder_reads_and_parts_count_on(text: str) -> None:
    cut = chunks(passages("text.txt", text.encode()))
    assert all(tokens(one.content) <= PIECE_TOKENS for one in cut)
    assert [one.part for one in cut] == list(range(1, len(cut) + 1))


def test_long_prose_overlaps() -> None:
    text = " ".join(f"word{n}" for n in range(2000))
    first, second, *_ = [one.content for one in chunks(passages("text.txt", text.encode()))]
    assert first.split()[-5:] == [word for word in second.split() if word in first.split()][-5:]


async def test_a_broken_file_is_refused_by_a_process_of_its_own() -> None:
    with pytest.raises(BadInput, match=r"broken\.pdf cannot be read"):
        await Reader().read("broken.pdf", b"%PDF-1.4 nothing else")


async def test_a_file_that_takes_too_long_is_given_up() -> None:
    with pytest.raises(BadInput, match=r"not read within 0\.01 s"):
        await Reader(seconds=0.01).read("text.txt", b"hello")


async def test_a_file_without_text_is_refused() -> None:
    with pytest.raises(BadInput, match="holds no text"):
        await Reader().read("empty.md", b"\n\n")
