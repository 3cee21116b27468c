"""docs/operations.md names every warning and error that the server can log, and no other."""
import re

from conftest import ROOT

STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
CALL = re.compile(r"\b(log_warn|log_error|log_at|(?:conn_)?log_trouble|log_write|line_make)\(")
FIELDS = re.compile(r"\b(?:LOG_STR|LOG_INT|LOG_CODE)\(|\(struct log_field")


def arguments(text, at):
    """From behind a call's opening parenthesis to the closing one. Parentheses in strings do not
    count."""
    end, depth = at, 1
    while depth:
        string = STRING.match(text, end)
        if string:
            end = string.end()
            continue
        depth += {"(": 1, ")": -1}.get(text[end], 0)
        end += 1
    return text[at : end - 1]


def messages(text):
    """Every text that a call above level info may have as its message, and the calls that have none
    of their own."""
    found, bare = set(), []
    for call in CALL.finditer(text):
        given = FIELDS.split(arguments(text, call.end()))[0]
        texts = STRING.findall(re.sub(r'"\s*"', "", given))
        found.update(texts)
        if not texts:
            bare.append(f"{call[1]}({given})")
    return found, bare


def logged():
    found = set()
    for path in sorted([*ROOT.glob("server/**/*.c"), *ROOT.glob("common/*.c")]):
        texts, bare = messages(path.read_text())
        found |= texts
        # What is handed on was named by the caller, which is found itself.
        assert all("msg" in call for call in bare), (path.name, bare)
    return found


def documented():
    page = (ROOT / "docs/operations.md").read_text().partition("\n### Messages in the log\n")[2]
    rows = re.findall(r"^\| `([^`]+)` \| (.+) \|$", page.partition("\n## ")[0], re.M)
    assert all(len(what) > 10 for _, what in rows)
    names = [name for name, _ in rows]
    assert len(names) == len(set(names))
    return set(names)


def test_the_reader_of_log_calls():
    text = (
        'log_warn("one (of " "two)", LOG_STR("no", "message")); log_at(a ? LOG_WARN : LOG_INFO, b '
        '? "three" : "four"); log_info("five"); log_at(l, msg, x);'
    )
    assert messages(text) == ({"one (of two)", "three", "four"}, ["log_at(l, msg, x)"])


def test_every_warning_and_error_has_a_row():
    code, page = logged(), documented()
    assert len(code) > 50
    assert not code - page, "a message of the code that docs/operations.md does not name"
    assert not page - code, "a message of docs/operations.md that the code does not have"
