"""HTML, Markdown and Word documents as elements."""

from __future__ import annotations

import html
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kontrast.data.documents import TAG_CLASSES, parse_html, parse_markdown, plain_document, read_source
from kontrast.errors import DataError

PAGE = """<!doctype html><html><head><title>t</title><style>p{}</style></head><body class="x"><div id="a">
<!-- a comment --><h1>ls</h1><p>List <b>one</b><i>word</i> per line, <code>&lt;dir&gt;</code> &amp; more.<br/>Next.</p>
<script>alert(1)</script><dl><dt>-a</dt><dd>show all</dd><dt>-l</dt><dd><p>long format</p><p>and more</p></dd></dl>
<table><tr><td>a</td><td>b</td></tr></table><ul><li>x<ul><li>y</li></ul></li></ul>loose <em>text</em>
<pre>  ls -l
    ls -a</pre></div></body></html>"""


def texts(document):
    return [element.text for element in document.elements]


def test_blocks_come_in_reading_order_with_entities_decoded_and_scripts_gone():
    found = texts(parse_html(PAGE))
    assert found[:3] == ["ls", "List oneword per line, <dir> & more. Next.", "-a"]
    assert found[3:9] == ["show all", "-l", "long format", "and more", "a b", "x"]
    assert found[9:] == ["y", "loose text", "  ls -l\n    ls -a"]


def test_tags_lose_their_attributes_and_keep_their_nesting():
    tagged = parse_html(PAGE).tagged()
    assert tagged.startswith(
        "<div><h1>ls</h1><p>List <b>one</b><i>word</i> per line, <code>&lt;dir&gt;</code> &amp; more."
    )
    assert "<ul><li>x<ul><li>y</li></ul></li></ul>loose <em>text</em>" in tagged
    for opened in set(re.findall(r"<(\w+)>", tagged)):
        assert tagged.count(f"<{opened}>") == tagged.count(f"</{opened}>")
    assert "class" not in tagged
    assert "alert" not in tagged


def test_blocks_are_set_apart_and_inline_tags_glue():
    document = parse_html(
        "<p>Introduction</p><p>Python is</p><table><tr><td>a</td><td>b</td></tr></table><p><b>git</b>-add</p>"
    )
    assert document.plain() == "Introduction Python is a b git-add"


def test_a_term_and_the_beginning_of_its_description_are_one_unit():
    document = parse_html(PAGE)
    units = document.unit_texts
    assert "-a show all" in units
    assert "-l long format" in units
    assert "and more" in units


def test_stripping_the_tagged_string_gives_the_plain_words():
    document = parse_html(PAGE)
    blocks = "p|div|h1|dl|dt|dd|table|tr|td|ul|li|pre"
    stripped = re.sub(rf"</?({blocks})>", " ", document.tagged())
    stripped = html.unescape(re.sub(r"<[^<>]+>", "", stripped))
    assert stripped.split() == document.plain().split()


def test_a_text_without_tags_is_kept_as_it_is():
    document = parse_html("a < b and c > d &lt;\n\nsecond   part")
    assert texts(document) == ["a < b and c > d &lt;", "second part"]
    assert document.tagged().split() == document.plain().split()
    assert document == plain_document("a < b and c > d &lt;\n\nsecond   part")


@pytest.mark.parametrize("text", ["", "  ", "<!-- x -->", "<p></p>", "<div><br/></div>", "<script>x</script>"])
def test_what_holds_no_text_has_no_elements(text):
    assert parse_html(text).elements == ()
    assert parse_html(text).title == ""


def test_broken_html_is_read_as_far_as_it_goes():
    document = parse_html("<div><p>one<p>two <b>three</div> four</i> <li>five")
    assert " ".join(texts(document)).split() == ["one", "two", "three", "four", "five"]


@pytest.mark.parametrize("name", ["div", "b", "span", "ul"])
def test_tags_nested_deeper_than_python_recurses_are_read(name):
    text = f"<p>before</p>{f'<{name}>' * 1500}inside &lt;{f'</{name}>' * 1500}<p>after</p>"
    assert parse_html(text).plain() == "before inside < after"


def test_parsing_the_tagged_string_again_gives_the_same_elements():
    once = parse_html(PAGE)
    again = parse_html(once.tagged())
    assert texts(once) == texts(again)
    assert once.tagged() == again.tagged()
    assert once.units == again.units


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    st.recursive(
        st.text("ab <>&;é", max_size=8).map(html.escape),
        lambda inner: st.builds(
            lambda name, parts: f"<{name}>{''.join(parts)}</{name}>",
            st.sampled_from(["div", "p", "ul", "li", "b", "h2", "dl", "dt", "dd", "td", "tr", "table", "pre", "span"]),
            st.lists(inner, max_size=4),
        ),
        max_leaves=12,
    )
)
def test_any_nesting_parses_to_balanced_tags_and_is_stable(text):
    document = parse_html(f"<div>{text}</div>")
    tagged = document.tagged()
    stack = []
    for slash, name in re.findall(r"<(/?)(\w+)>", tagged):
        if slash:
            assert stack.pop() == name
        else:
            stack.append(name)
    assert not stack
    assert all(element.text.strip() for element in document.elements)
    assert parse_html(tagged).plain().split() == document.plain().split()


def test_leaving_elements_out_keeps_the_containers():
    document = parse_html("<section><h1>a</h1><ul><li>b</li><li>c</li></ul></section>")
    assert document.tagged(without=[1]) == "<section><h1>a</h1><ul><li>c</li></ul></section>"
    assert document.tagged(without=range(3)) == "<section><ul></ul></section>"


def test_tag_classes_are_known_for_every_element():
    document = parse_html(PAGE + "<custom>odd</custom>")
    assert all(0 <= element.tag_class < len(TAG_CLASSES) for element in document.elements)
    assert TAG_CLASSES[parse_html("<h3>x</h3>").elements[0].tag_class] == "h3"
    assert document.title == "ls"


def test_markdown_keeps_headings_lists_tables_and_code():
    document = parse_markdown(
        "# Title\n\nSome *words* `x<y>`.\n\n- one\n- two\n\n| a | b |\n|---|---|\n| c | d |\n\n    code\n"
    )
    tags = [element.tag for element in document.elements]
    assert tags == ["h1", "p", "li", "li", "tr", "tr", "pre"]
    assert document.elements[1].text == "Some words x<y>."
    assert document.elements[5].text == "c d"


def test_word_files_become_headings_and_lists(tmp_path):
    file = write_docx(tmp_path / "a.docx", ["Chapter", "Some words & signs."])
    document = read_source(file)
    assert texts(document) == ["Chapter", "Some words & signs."]
    assert [element.tag for element in document.elements] == ["h1", "p"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.html", b"", "is empty"),
        ("a.html", b"\xff\xfe\x00x", "not UTF-8"),
        ("a.html", b"<p></p>", "holds no text"),
        ("a.docx", b"PK not a zip", "not a whole .docx"),
        ("a.md", b"a\0b", "NUL byte"),
        ("a.pdf", b"%PDF", "which is no document's"),
    ],
)
def test_files_that_are_no_documents_are_refused_in_a_sentence(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=re.escape(said)) as error:
        read_source(tmp_path / name)
    assert name in str(error.value)


def write_docx(path, paragraphs):
    """The least that a Word file needs: its first paragraph is a heading."""
    import zipfile

    space = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    heading = '<w:pPr><w:pStyle w:val="Heading1"/></w:pPr>'
    runs = [f"<w:r><w:t>{html.escape(text)}</w:t></w:r>" for text in paragraphs]
    body = "".join(f"<w:p>{heading if n == 0 else ''}{run}</w:p>" for n, run in enumerate(runs))
    style = '<w:style w:type="paragraph" w:styleId="Heading1"><w:name w:val="heading 1"/></w:style>'
    styles = f"<w:styles {space}>{style}</w:styles>"
    kinds = "application/vnd.openxmlformats-officedocument.wordprocessingml"
    link = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    files = {
        "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        f'<Override PartName="/word/document.xml" ContentType="{kinds}.document.main+xml"/>'
        f'<Override PartName="/word/styles.xml" ContentType="{kinds}.styles+xml"/></Types>',
        "_rels/.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
        f'<Relationship Id="r1" Type="{link}/officeDocument" Target="word/document.xml"/></Relationships>',
        "word/_rels/document.xml.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
        f'<Relationship Id="r1" Type="{link}/styles" Target="styles.xml"/></Relationships>',
        "word/document.xml": f"<w:document {space}><w:body>{body}</w:body></w:document>",
        "word/styles.xml": styles,
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path
