// The scripts of the page that need no page, as a browser runs them: one after the other in one global scope.
"use strict";
const fs = require("node:fs");
const path = require("node:path");
const vm = require("node:vm");

const STATIC = path.join(__dirname, "../../../../egma/page/static");
const context = vm.createContext({ Blob, TextEncoder });
for (const name of ["maps.js", "optics.js", "timeline.js", "words.js", "zip.js"]) {
  vm.runInContext(fs.readFileSync(path.join(STATIC, name), "utf8"), context, { filename: name });
}
// as plain values: what another context made is of its own classes
const plain = (value) => JSON.parse(JSON.stringify(value));
module.exports = { ...vm.runInContext("({ egmaMaps, egmaOptics, egmaTimeline, egmaWords, egmaZip })", context), plain };
