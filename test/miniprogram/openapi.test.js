/**
 * docs/openapi.yaml against the schema of OpenAPI 3.1 itself. test/it/test_openapi.py holds it
 * against the server.
 */
"use strict";
const assert = require("node:assert/strict");
const path = require("node:path");
const { test } = require("node:test");

const DOCUMENT = path.resolve(__dirname, "../../docs/openapi.yaml");

test("docs/openapi.yaml is valid OpenAPI 3.1", async () => {
  const { Validator } = await import("@seriousme/openapi-schema-validator");
  const validator = new Validator();
  const { valid, errors } = await validator.validate(DOCUMENT);
  assert.ok(valid, JSON.stringify(errors, null, 1));
  assert.equal(validator.version, "3.1");
});
