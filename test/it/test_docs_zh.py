"""The Chinese documents say what the English ones say: the same files, headings, commands, names,
links and numbers, section by section; and no English page has changed since it was translated."""
import hashlib
import itertools
import re

import pytest

from conftest import ROOT
from test_docs import FENCE, PAGES, anchors

CHINESE = [p for p in PAGES if p.parent == ROOT / "docs/zh" or p.name.endswith(".zh-CN.md")]
each = pytest.mark.parametrize("page", CHINESE, ids=lambda p: str(p.relative_to(ROOT)))


def in_english(path):
    name = str(path.relative_to(ROOT)).replace("docs/zh/", "docs/").replace(".zh-CN.md", ".md")
    return ROOT / re.sub(r"zh(-[\w-]+\.png)$", r"en\1", name)


def place(page, link):
    """Where a link leads, whatever the language: the English file, and which of its headings."""
    if re.match(r"https?:", link):
        return link
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    return in_english(target), anchors(target.read_text()).index(anchor) if anchor else None


def in_digits(text):
    """Chinese counts in ten thousands."""
    scale = {"million": 10**6, "万": 10**4, "亿": 10**8}
    return re.sub(r"(\d+) (million|万|亿)", lambda m: str(int(m[1]) * scale[m[2]]), text)


def sections(page):
    """What no language changes, of each part that a heading begins; without generated figures."""
    prose = re.sub(r"<!-- figures.*?<!-- /figures -->|<!--.*?-->", "", page.read_text(), flags=re.S)
    for part in re.split(r"^(?=#+ )", FENCE.sub("", prose), flags=re.M):
        text = re.sub(r"`[^`]+`", "", part)
        links = {place(page, link) for link in re.findall(r"\]\(([^)\s]+)\)", text)}
        text = re.sub(r"\]\([^)]+\)|<https?:[^>]+>", "", text)
        yield {
            "heading": len(re.match(r"#*", part)[0]),
            "code": {" ".join(span.split()) for span in re.findall(r"`([^`]+)`", part)},
            "links": links - {(in_english(page), None)},  # from one language to the other
            "numbers": set(
                re.findall(r"\d+(?:[.,:]\d+)*", in_digits(text))
            ),
            "rows": [
                (row.count("|") - row.count("\\|"), set(re.findall(r"`([^`]+)`", row)))
                for row in part.splitlines()
                if row.lstrip().startswith("|")
            ],
        }


def test_each_document_is_there():
    english = {p.name for p in (ROOT / "docs").glob("*.md")}
    assert english == {p.name for p in (ROOT / "docs/zh").glob("*.md")}
    assert {ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")} <= {
        in_english(page) for page in CHINESE
    }


@each
def test_each_section_says_the_same(page):
    pairs = itertools.zip_longest(sections(in_english(page)), sections(page), fillvalue={})
    for number, (english, chinese) in enumerate(pairs):
        assert english.keys() == chinese.keys(), f"section {number}"
        for what in english:
            if what == "links":  # a Chinese page may have more
                assert english[what] <= chinese[what], f"section {number}: {what}"
            else:
                assert english[what] == chinese[what], f"section {number}: {what}"


@each
def test_code_is_the_same(page):
    """But for comments and drawings (```text), which are translated."""
    bare = lambda text: re.sub(r"\s*(?:#|//) .*$|^; .*$", "", text, flags=re.M)
    code = lambda path: [b for b in FENCE.findall(path.read_text()) if not b.startswith("```text")]
    assert [bare(b) for b in code(in_english(page))] == [bare(b) for b in code(page)]


@each
def test_links_stay_in_chinese(page):
    """Where a page is there in Chinese, a Chinese page does not lead to the English one."""
    english = {in_english(p) for p in CHINESE} - {in_english(page)}
    for link in re.findall(r"\]\(([^)\s#]+\.md)", FENCE.sub("", page.read_text())):
        assert re.match(r"https?:", link) or (page.parent / link).resolve() not in english, link


@each
def test_no_page_is_stale(page):
    name, source = page.relative_to(ROOT), in_english(page).relative_to(ROOT)
    text = (ROOT / source).read_bytes()
    now = hashlib.sha1(b"blob %d\0" % len(text) + text).hexdigest()[:12]  # git's name of the text
    last = page.read_text().splitlines()[-1]
    said = re.fullmatch(rf"<!-- English: {re.escape(str(source))} ([0-9a-f]{{12}}) -->", last)
    assert said, f"{name} names no English text in its last line: run scripts/zh-touch {name}"
    assert said[1] == now, (
        f"{name} is stale: the English page changed. See `git diff {said[1]} HEAD:{source}`,"
        f" bring {name} up to date, then run scripts/zh-touch {name}"
    )
