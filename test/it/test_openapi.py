"""docs/openapi.yaml against the running server, both ways: every route is a path and every path a
route; every answer that is documented is provoked, and fits its schema, headers and all."""
import email
import json
import re
import subprocess

import jsonschema
import pytest

from conftest import ROOT
from openapi_cases import CASES, EXAMPLES, World, redis_is_gone
from openapi_doc import DOC, METHODS, OPERATIONS, SPEC, documented, error_codes, fits


# ---- the document alone ----

def test_the_document_is_sound():
    assert DOC["openapi"].startswith("3.1.") and len(OPERATIONS) == sum(
        m in METHODS for i in SPEC["paths"].values() for m in i
    )
    version = re.search(r"^VERSION := (\S+)", (ROOT / "Makefile").read_text(), re.M)[1]
    assert DOC["info"]["version"] == version
    for method, path, item, op in OPERATIONS.values():
        parameters = item.get("parameters", []) + op.get("parameters", [])
        assert {p["name"] for p in parameters if p["in"] == "path"} == set(
            re.findall(r"\{(\w+)\}", path)
        ), path
        assert (
            all(p.get("required") for p in parameters if p["in"] == "path")
            and op["summary"]
            and "default" in op["responses"]
        )
        sides = {
            "internal" if s["url"].startswith("http:") else "public"
            for s in item.get("servers", DOC["servers"])
        }
        assert set(op["tags"]) == sides <= {t["name"] for t in DOC["tags"]}
        for requirement in op.get("security", []):
            assert set(requirement) <= set(DOC["components"]["securitySchemes"])
    used = set(re.findall(r"#/components/(\w+/[\w-]+)", (ROOT / "docs/openapi.yaml").read_text()))
    there = {
        f"{kind}/{name}"
        for kind, things in DOC["components"].items()
        if kind != "securitySchemes"
        for name in things
    }
    assert used == there


def test_every_operation_says_who_may_call_it():
    assert not [name for name, (_, _, _, op) in OPERATIONS.items() if "security" not in op]


WORDS = set(
    """$ref type enum const multipleOf maximum exclusiveMaximum minimum exclusiveMinimum maxLength
    minLength pattern maxItems minItems uniqueItems contains maxProperties minProperties required
    dependentRequired allOf anyOf oneOf not if then else prefixItems items properties
    patternProperties additionalProperties propertyNames unevaluatedProperties format
    contentEncoding contentMediaType title description default deprecated readOnly writeOnly
    examples example discriminator externalDocs""".split()
)


def test_schemas_have_known_words_only():
    """JSON Schema allows others, and YAML makes one of what stands after a comma in {description:
    This, that}. The file test/miniprogram/openapi.test.js holds the rest of the document against
    the schema of OpenAPI 3.1, which allows none."""
    def schema(node, at):
        if isinstance(node, dict):
            assert set(node) <= WORDS, (at, set(node) - WORDS)
            for word, value in node.items():
                if word in (
                    "not", "if", "then", "else", "items", "contains", "additionalProperties",
                    "propertyNames", "unevaluatedProperties",
                ):
                    schema(value, f"{at}/{word}")
                elif word in (
                    "allOf", "anyOf", "oneOf", "prefixItems", "properties", "patternProperties",
                ):
                    for key, one in value.items() if isinstance(value, dict) else enumerate(value):
                        schema(one, f"{at}/{word}/{key}")

    def walk(node, at):
        for key, value in (
            node.items()
            if isinstance(node, dict)
            else enumerate(node)
            if isinstance(node, list)
            else ()
        ):
            assert value is not None or at.endswith("/enum"), (at, key)
            if key == "schema":
                schema(value, at)
            walk(value, f"{at}/{key}")
    for name, one in DOC["components"]["schemas"].items():
        schema(one, name)
    walk(DOC, "")


def test_every_schema_is_one():
    def walk(node):
        if isinstance(node, dict):
            for k, v in node.items():
                if k == "schema":
                    jsonschema.Draft202012Validator.check_schema(v)
                walk(v)
        elif isinstance(node, list):
            for v in node:
                walk(v)
    walk(SPEC)


def test_errors_are_those_of_the_source():
    codes = set(re.findall(r'X\(\w+,\s*\d+, "(\w+)"', (ROOT / "common/outcome.h").read_text())) - {
        "ok"
    }
    listed = DOC["components"]["schemas"]["Error"]["properties"]["error"]["enum"]
    assert set(listed) == codes and len(listed) == len(codes)
    for operation, (_, _, _, op) in OPERATIONS.items():
        for status, response in op["responses"].items():
            for e in error_codes(
                response.get("content", {}).get("application/json", {}).get("schema", {})
            ):
                assert e is None or e in codes, (operation, status, e)


def routes():
    """The table of server/api/routes.c, as the compiler reads it: (side, path) -> (methods,
    everything below too)."""
    text = subprocess.run(
        ["cc", "-E", "-P", "-D_GNU_SOURCE", "-I.", "-Iserver", "server/api/routes.c"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout
    table = re.search(r"struct route routes\[\] = \{(.*?)\};", text, re.S)[1]
    found = {}
    for row in re.findall(r"\{(SIDE_\w+,.*?)\},?\s*(?=\{SIDE_|\Z)", table.strip(), re.S):
        path = "".join(re.findall(r'"([^"]*)"', row))
        methods = set(re.findall(r"METHOD_(GET|POST|PUT|DELETE|PATCH)\b", row)) or {"ANY"}
        assert ("~0u" in row) == (methods == {"ANY"})
        side = re.match(r"SIDE_(\w+)", row)[1].lower()
        old = found.get((side, path), (set(), False))
        found[side, path] = (old[0] | methods, old[1] or "ROUTE_BELOW" in row)
    assert len(re.findall("SIDE_", table)) >= len(found) > 10
    return found


def test_every_route_is_a_path_and_every_path_a_route():
    left, table = dict(SPEC["paths"]), routes()
    for (side, path), (methods, below) in table.items():
        item = left.get(path) or left.get(path + "/{path}")
        assert item, f"{path} is not documented"
        assert bool(item.get("x-any-method")) == (methods == {"ANY"}), path
        if methods != {"ANY"}:
            assert {m.upper() for m in item if m in METHODS} | set(
                item.get("x-also", ())
            ) == methods, path
        assert {t for m in item if m in METHODS for t in item[m]["tags"]} == {
            s for s, p in table if p == path
        }, path
    found = {p for _, p in table}
    assert not [
        p for p in left if p not in found and p.removesuffix("/{path}") not in found
    ], "no such route"


# ---- the document against the server ----

def test_every_documented_answer_is_tried():
    assert set(CASES) == set(OPERATIONS) == set(EXAMPLES)
    for operation in OPERATIONS:
        tried = {(status, error) for status, error, _ in CASES[operation]}
        assert tried == documented(operation), operation


@pytest.mark.parametrize("operation", OPERATIONS)
def test_answers(stack, operation):
    w = World(stack)
    for status, error, how in sorted(CASES[operation], key=lambda c: c[2] is redis_is_gone):
        a = how(w, operation)
        assert (a.status, a.error) == (status, error), (how.__name__, a)
        try:
            fits(a, OPERATIONS[operation][3]["responses"][str(status)])
        except (AssertionError, jsonschema.ValidationError) as e:
            raise AssertionError(f"{how.__name__}: {a} {dict(a.headers)}: {e}") from e


def test_an_answer_that_does_not_fit_is_noticed(server, wxfake):
    """The checks above can fail."""
    a = server.login(wxfake.code())
    responses = OPERATIONS["login"][3]["responses"]
    fits(a, responses["200"])
    for spoil in (
        lambda: a.json.pop("expires_in"), lambda: a.json.update(more=1),
        lambda: a.json.update(expires_in="soon"), lambda: a.headers.add_header("X-Wx-Openid", "o"),
        lambda: a.headers.replace_header("X-Request-Id", "a b"),
        lambda: a.headers.replace_header("Content-Type", "text/plain"),
    ):
        a = server.login(wxfake.code())
        spoil()
        with pytest.raises((AssertionError, jsonschema.ValidationError, KeyError)):
            fits(a, responses["200"])


def test_answers_of_http_itself(stack, wxfake):
    """The default of every operation. internal (500) cannot be provoked: it is for our bugs."""
    server = stack.server(stack.redis(), wxfake, server__client_timeout="300ms")
    seen = set()
    for internal in (False, True):
        for data in (
            b"nonsense\r\n\r\n", b"GET /no/such HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            b"PUT /v1/login HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
            b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", b"GET /",
            b"POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n",
            b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 9000 + b"\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
            b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
        ):
            head, _, body = server.raw(data, internal=internal).partition(b"\r\n\r\n")
            status, _, lines = head.decode().partition("\r\n")
            a = type(
                "A", (),
                {
                    "status": int(status.split()[1]), "headers": email.message_from_string(lines),
                    "body": body, "json": json.loads(body),
                },
            )
            fits(a, SPEC["components"]["responses"]["Http"])
            assert (a.status == 405) == ("Allow" in a.headers)
            seen.add((a.status, a.json["error"]))
    assert {e for _, e in seen} == set(
        error_codes(
            SPEC["components"]["responses"]["Http"]["content"]["application/json"]["schema"]
        )
    ) - {"internal"}
