/**
 * Makes from common.js what else is shipped: common.mjs and common.d.mts, and miniprogram_dist, the
 * npm package's files. `npm run build` and `npm pack` run it. It needs Node and nothing else.
 */
"use strict";
const fs = require("fs");
const path = require("path");

const FILES = {
  "common.js": "index.js",
  "common.mjs": "index.mjs",
  "common.d.ts": "index.d.ts",
  "common.d.mts": "index.d.mts",
};

const at = (...names) => path.join(__dirname, ...names);
const read = (name) => fs.readFileSync(at("common", name), "utf8");

/** The functions' names, in the order of module.exports. */
function names(source) {
  const [, list] = /\nmodule\.exports = {\n([^}]*)};\n$/.exec(source);
  return [...list.matchAll(/^  (\w+):/gm)].map((m) => m[1]);
}

/** The same module with `export` in place of `module.exports`. */
function esModule(source) {
  const all = names(source);
  const parts = all.map((name) => `const export_${name} = common.${name};\n`).join("");
  const list = all.map((name) => `  export_${name} as ${name},\n`).join("");
  return (
    source
      .replace(
        /^ \* This file is the source\.[^]*?\n \*\n/m,
        " * Made from common.js by `npm run build`: change that file, not this one.\n *\n"
      )
      .replace('"use strict";\n\n', "")
      .replace("\nmodule.exports = {", "\nconst common = {") +
    `\n${parts}\nexport {\n${list}};\n\nexport default common;\n`
  );
}

function esTypes(types, source) {
  const list = names(source)
    .map((name) => `  ${name}: typeof ${name};\n`)
    .join("");
  const sourceNote = "common.d.mts is the same for common.mjs: `npm run build`. */";
  const madeNote = "Made from common.d.ts by\n * `npm run build`. */";
  return `${types.replace(sourceNote, madeNote)}
declare const common: {
${list}};

export default common;
`;
}

/** What the made files must hold: name -> text. */
function made() {
  const source = read("common.js");
  return { "common.mjs": esModule(source), "common.d.mts": esTypes(read("common.d.ts"), source) };
}

module.exports = { FILES, made };

if (require.main === module) {
  Object.entries(made()).forEach(([name, text]) => fs.writeFileSync(at("common", name), text));
  fs.mkdirSync(at("miniprogram_dist"), { recursive: true });
  Object.entries(FILES).forEach(([from, to]) =>
    fs.copyFileSync(at("common", from), at("miniprogram_dist", to))
  );
}
