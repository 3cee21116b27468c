"""docs/openapi.yaml, read: its operations, the answers that each documents, and whether an answer
fits."""
import re

import jsonschema
import yaml

from conftest import ROOT

DOC = yaml.safe_load((ROOT / "docs/openapi.yaml").read_text())
METHODS = ("get", "put", "post", "delete", "patch", "options", "head", "trace")
# the rest is any server's: Date, Cache-Control, CORS
OWN_HEADERS = re.compile(r"x-|www-authenticate|retry-after|allow$", re.I)


def inline(node, trail=()):
    """The document without $ref: what stands beside one holds, too."""
    if isinstance(node, list):
        return [inline(v, trail) for v in node]
    if not isinstance(node, dict):
        return node
    if isinstance(node.get("$ref"), str):
        ref = node["$ref"]
        assert ref.startswith("#/") and ref not in trail, ref
        target = DOC
        for part in ref[2:].split("/"):
            target = target[part]
        beside = {k: inline(v, trail) for k, v in node.items() if k != "$ref"}
        return {**inline(target, (*trail, ref)), **beside}
    return {k: inline(v, trail) for k, v in node.items()}


SPEC = inline(DOC)
OPERATIONS = {
    op["operationId"]: (method.upper(), path, item, op)
    for path, item in SPEC["paths"].items()
    for method, op in item.items()
    if method in METHODS
}


def error_codes(schema):
    for part in schema.get("allOf", []):
        if "error" in part.get("properties", {}) and "request_id" not in part["properties"]:
            return part["properties"]["error"]["enum"]
    return [None]


def documented(operation):
    """(status, error) of every answer but those of HTTP itself."""
    found = set()
    for status, response in OPERATIONS[operation][3]["responses"].items():
        if status == "default":
            continue
        schemas = [c["schema"] for c in response.get("content", {}).values()] or [{}]
        found |= {(int(status), e) for s in schemas for e in error_codes(s)}
    return found


def fits(answer, response):
    assert answer.headers["Cache-Control"] == "no-store" and re.fullmatch(
        r"[A-Za-z0-9._-]{1,64}", answer.headers["X-Request-Id"]
    )
    for name, header in response.get("headers", {}).items():
        value = answer.headers.get(name)
        assert value is not None or not header.get("required"), f"{name} is missing"
        if value is not None:
            number = header["schema"].get("type") == "integer"
            jsonschema.validate(
                int(value) if number else value, header["schema"], jsonschema.Draft202012Validator
            )
    known = {n.lower() for n in response.get("headers", {})}
    assert not [
        n for n in answer.headers if OWN_HEADERS.match(n) and n.lower() not in known
    ], answer.headers
    content = response.get("content", {})
    assert bool(content) == bool(answer.body)
    if content:
        kind = answer.headers["Content-Type"].split(";")[0]
        schema = content[kind if kind in content else "*/*"]["schema"]
        jsonschema.validate(
            answer.json if kind == "application/json" else answer.body.decode(), schema,
            jsonschema.Draft202012Validator,
        )
    if answer.json and "request_id" in answer.json:
        assert answer.json["request_id"] == answer.headers["X-Request-Id"]
