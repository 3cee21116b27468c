/** What is shipped: syntax, types, and the npm package. */
"use strict";
const assert = require("node:assert/strict");
const { execFileSync, spawnSync } = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { test } = require("node:test");
const acorn = require("acorn");
const ts = require("typescript");
const { MINIPROGRAM } = require("./phone.js");

const read = (file) => fs.readFileSync(path.join(MINIPROGRAM, file), "utf8");

for (const file of [
  "common/common.js",
  "app.js",
  "pages/index/index.js",
  "pages/profile/profile.js",
  "pages/pay/pay.js",
]) {
  test(`${file} is ES2015`, () => {
    acorn.parse(read(file), { ecmaVersion: 2015, sourceType: "script" });
  });
}

test("common.js stands alone and is silent", () => {
  assert.doesNotMatch(read("common/common.js"), /\brequire\(|\bconsole\.|\.finally\(/);
});

test("common.mjs and common.d.mts are what `npm run build` makes of common.js", () => {
  for (const [name, text] of Object.entries(require(path.join(MINIPROGRAM, "build.cjs")).made())) {
    assert.ok(
      read(`common/${name}`) === text,
      `common/${name} is stale: run \`npm run build\` in miniprogram/`,
    );
  }
  acorn.parse(read("common/common.mjs"), { ecmaVersion: 2015, sourceType: "module" });
});

test("common.mjs has the same functions, by name and as the default", async () => {
  const { default: common, ...named } = await import(path.join(MINIPROGRAM, "common/common.mjs"));
  assert.deepEqual(
    Object.keys(common),
    Object.keys(require(path.join(MINIPROGRAM, "common/common.js"))),
  );
  assert.deepEqual(named, common);
});

/** What the compiler says to some files. */
function compile(files, options) {
  const all = {
    target: ts.ScriptTarget.ES2022,
    lib: ["lib.es2022.d.ts"],
    types: [],
    strict: true,
    noEmit: true,
    ...options,
  };
  const program = ts.createProgram(files, all);
  return ts
    .getPreEmitDiagnostics(program)
    .map((d) => `${d.file?.fileName}: ${ts.flattenDiagnosticMessageText(d.messageText, "\n")}`);
}

test("the types fit miniprogram-api-typings; the code uses ES2015 and WeChat only", () => {
  const tsc = require.resolve("typescript/bin/tsc");
  const { status, stdout } = spawnSync(process.execPath, [tsc, "-p", __dirname], {
    encoding: "utf8",
  });
  assert.equal(status, 0, stdout);
});

for (const types of [[], ["miniprogram-api-typings"]])
  test(`all types compile ${types.length ? "beside" : "without"} a platform's typings`, () => {
    const found = compile([path.join(__dirname, "types-esm.ts")], {
      module: ts.ModuleKind.ESNext,
      moduleResolution: ts.ModuleResolutionKind.Bundler,
      types,
      typeRoots: [path.join(__dirname, "node_modules")],
    });
    assert.deepEqual(found, []);
  });

test("common.d.ts names what common.js exports", () => {
  const file = path.join(MINIPROGRAM, "common/common.d.ts");
  const source = ts.createSourceFile(file, fs.readFileSync(file, "utf8"), ts.ScriptTarget.ES2015);
  const declared = source.statements.filter(ts.isFunctionDeclaration).map((f) => f.name.text);
  assert.deepEqual(
    [...new Set(declared)].sort(),
    Object.keys(require(path.join(MINIPROGRAM, "common/common.js"))).sort(),
  );
});

test("npm pack: a few kB that work in Node and build as a mini program package", () => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), "wxlogind-pack-"));
  try {
    // packing writes miniprogram_dist: not into the tree that others read
    const source = path.join(dir, "source");
    fs.cpSync(MINIPROGRAM, source, { recursive: true });
    execFileSync("npm", ["pack", "--pack-destination", dir], { cwd: source, stdio: "pipe" });
    const [tarball] = fs.readdirSync(dir).filter((name) => name.endsWith(".tgz"));
    assert.ok(fs.statSync(path.join(dir, tarball)).size < 40000);
    execFileSync("tar", ["-xzf", tarball], { cwd: dir });
    // as npm install leaves it
    const unpacked = path.join(dir, "node_modules/wxlogind-miniprogram");
    fs.mkdirSync(path.dirname(unpacked));
    fs.renameSync(path.join(dir, "package"), unpacked);
    const manifest = JSON.parse(fs.readFileSync(path.join(unpacked, "package.json"), "utf8"));
    assert.equal(manifest.dependencies, undefined);
    assert.equal(manifest.license, "Apache-2.0");
    // The developer tools copy the directory named by "miniprogram" and take its index.js.
    assert.equal(
      fs.readFileSync(path.join(unpacked, manifest.miniprogram, "index.js"), "utf8"),
      read("common/common.js"),
    );
    assert.equal(
      fs.readFileSync(path.join(unpacked, manifest.types), "utf8"),
      read("common/common.d.ts"),
    );
    assert.deepEqual(
      Object.keys(require(unpacked)),
      Object.keys(require(path.join(MINIPROGRAM, "common/common.js"))),
    );
    assert.equal(
      fs.readFileSync(path.join(unpacked, "LICENSE"), "utf8"),
      fs.readFileSync(path.join(MINIPROGRAM, "../LICENSE"), "utf8"),
    );
    assert.deepEqual(fs.readdirSync(unpacked).sort(), [
      "LICENSE",
      "README.md",
      "README.zh-CN.md",
      "miniprogram_dist",
      "package.json",
    ]);
    // Where bundlers look: `exports` and `module` by import, `main` by require.
    fs.writeFileSync(
      path.join(dir, "use.mjs"),
      'import common, { request } from "wxlogind-miniprogram"; process.exit(common.request === ' +
        "request ? 0 : 1);",
    );
    execFileSync(process.execPath, ["use.mjs"], { cwd: dir });
    assert.equal(
      fs.readFileSync(path.join(unpacked, manifest.module), "utf8"),
      read("common/common.mjs"),
    );
    // The compiler finds the types in each of its ways to look for a package.
    const file = path.join(dir, "use.ts");
    fs.writeFileSync(
      file,
      'import common, { request } from "wxlogind-miniprogram";\nexport const a: Promise<{ data: ' +
        'string }> = request<string>({ url: "/x" });\ncommon.userLogin();\n',
    );
    const { Node10, Node16, Bundler } = ts.ModuleResolutionKind;
    for (const [moduleResolution, module] of [
      [Node10, ts.ModuleKind.CommonJS],
      [Node16, ts.ModuleKind.Node16],
      [Bundler, ts.ModuleKind.ESNext],
    ]) {
      assert.deepEqual(
        compile([file], {
          moduleResolution,
          module,
          esModuleInterop: true,
          ignoreDeprecations: "5.0",
        }),
        [],
        `moduleResolution ${moduleResolution}`,
      );
    }
  } finally {
    fs.rmSync(dir, { recursive: true, force: true });
  }
});

test("the lock file of the tests names no registry", () => {
  assert.doesNotMatch(
    fs.readFileSync(path.join(__dirname, "package-lock.json"), "utf8"),
    /"resolved"|https?:\/\/(?!github\.com|opencollective\.com)/,
  );
});

test("the READMEs' TypeScript compiles, and each of their beginnings has ten lines at most", () => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), "wxlogind-readme-"));
  try {
    const [, code] = /```ts\n([^]*?)```/.exec(read("README.md"));
    const file = path.join(dir, "use.ts");
    fs.writeFileSync(file, code.replace('"wxlogind-miniprogram"', '"./common.mjs"'));
    ["common.mjs", "common.d.mts"].forEach((name) =>
      fs.copyFileSync(path.join(MINIPROGRAM, "common", name), path.join(dir, name)),
    );
    assert.deepEqual(
      compile([file], {
        module: ts.ModuleKind.ESNext,
        moduleResolution: ts.ModuleResolutionKind.Bundler,
      }),
      [],
    );
    for (const heading of ["Native", "uni-app", "Taro", "TypeScript"]) {
      const [, section] = new RegExp(`\n## ${heading}\n([^]*?)\n## `).exec(read("README.md"));
      const lines = [...section.matchAll(/```\w+\n([^]*?)```/g)].flatMap((m) =>
        m[1].split("\n").filter((line) => line.trim()),
      );
      assert.ok(lines.length > 3 && lines.length <= 10, `${heading}: ${lines.length} lines`);
    }
  } finally {
    fs.rmSync(dir, { recursive: true, force: true });
  }
});

test("the two READMEs hold the same code and the same tables", () => {
  const shape = (text) => ({
    code: [...text.matchAll(/```\w+\n([\s\S]*?)```/g)].map((m) => m[1]),
    rows: [...text.matchAll(/^\| (`[^|]*) \|/gm)].map((m) => m[1]),
    headings: (text.match(/^#+ /gm) || []).length,
  });
  const english = shape(read("README.md"));
  assert.ok(english.code.length > 0 && english.rows.length > 0);
  assert.deepEqual(shape(read("README.zh-CN.md")), english);
});
