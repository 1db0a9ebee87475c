"use strict";
const assert = require("node:assert/strict");
const test = require("node:test");
const { egmaWords: words } = require("./pure.js");

test("sentences that say that nothing is there", () => {
  for (const text of ["No pleural effusion.", "there is no evidence of pneumothorax", "Lungs without consolidation", "free of edema"]) {
    assert.equal(words.absence(text), "negated", text);
  }
  for (const text of ["The heart is normal.", "Lungs are clear."]) assert.equal(words.absence(text), "normal", text);
  for (const text of ["Left pleural effusion.", "No change in the effusion.", "No significant interval increase of the opacity",
    "Heart normal but small effusion", "nodule in the right lung", "abnormal hilum", "nuclear mass"]) {
    assert.equal(words.absence(text), null, text);
  }
});

test("a table keeps commas, quotes and lines, and nothing of it becomes a formula", () => {
  assert.equal(words.csv([["a,b", 'say "x"', "two\nlines", -0.5, null], ["=1+1", "@x", "-x", 3, undefined]]),
    '"a,b","say ""x""","two\nlines",-0.5,\r\n\'=1+1,\'@x,\'-x,3,\r\n');
});

test("the maps of two models stand in one row, each under its name", () => {
  const line = (value, map) => ({ text: "x", scores: [{ title: "best patch", value }], map });
  const value = { model: "a", grid: 1, lines: [line(1, [2]), line(3, [4])], second: { model: "=b", grid: 2, lines: [line(5, [6, 7, 8, 9]), line(0, [1, 1, 1, 1])] } };
  const titles = (of, ...patches) => ["best patch", "rank", "of sentences", ...patches].map((title) => `${of}: ${title}`);
  const [first, ...rows] = words.table(value).trimEnd().split("\r\n");
  assert.equal(first, ["text", ...titles("a", "row 1 column 1"),
    ...titles("'=b", "row 1 column 1", "row 1 column 2", "row 2 column 1", "row 2 column 2")].join(","));
  assert.deepEqual(rows, ["x,1,,,2,5,,,6,7,8,9", "x,3,,,4,0,,,1,1,1,1"]);
});

test("lines become rows of scores, rank and map", () => {
  const line = (text, rank) => ({ text, scores: [{ title: "best patch", value: 0.5 }], map: [1, 2, 3, 4], rank });
  assert.equal(words.table({ grid: 2, lines: [line("x", { place: 3, of: 9 })] }),
    "text,best patch,rank,of sentences,row 1 column 1,row 1 column 2,row 2 column 1,row 2 column 2\r\nx,0.5,3,9,1,2,3,4\r\n");
  assert.ok(words.table({ grid: 2, lines: [line("x")] }).endsWith("x,0.5,,,1,2,3,4\r\n"));
});
