"use strict";
// What a sentence says by its words alone, and tables as text. Nothing here needs a page.
const egmaWords = (() => {
  const NEGATED = /\b(no|not|without|absent|absence of|negative for|free of|ruled out|neither|nor)\b/i;
  const STILL_THERE = /\b(no|not|without)\s+(\w+\s+){0,2}(changed?|increased?|decreased?|worsened|worsening|improved|improvement|resolved)\b|\bnot only\b|\bbut\b/i;
  const NORMAL = /\b(normal|clear|unremarkable)\b/i;

  // "negated" or "normal" where a sentence says that nothing is to be found, else null; a guess from single words.
  function absence(text) {
    if (STILL_THERE.test(text)) return null;
    return NEGATED.test(text) ? "negated" : NORMAL.test(text) ? "normal" : null;
  }

  // RFC 4180; a text that a spreadsheet would take for a formula begins with an apostrophe.
  function csv(rows) {
    const cell = (value) => {
      const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value ?? "");
      return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
    };
    return rows.map((row) => `${row.map(cell).join(",")}\r\n`).join("");
  }

  // Lines with their scores and maps as a table, a line a row; of two models one's columns after the other's.
  function table(value) {
    const models = value.second ? [value, value.second] : [value];
    const titles = ({ model, lines, grid }) => [...(lines[0]?.scores ?? []).map((score) => score.title), "rank", "of sentences",
      ...Array.from({ length: grid * grid }, (_, place) => `row ${Math.floor(place / grid) + 1} column ${(place % grid) + 1}`)]
      .map((title) => (value.second ? `${model}: ${title}` : title));
    const cells = (line) => [...line.scores.map((score) => score.value), line.rank?.place, line.rank?.of, ...line.map];
    return csv([["text", ...models.flatMap(titles)],
      ...value.lines.map(({ text }, row) => [text, ...models.flatMap((one) => cells(one.lines[row]))])]);
  }

  return { absence, csv, table };
})();
