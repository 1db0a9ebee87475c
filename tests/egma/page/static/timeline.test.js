"use strict";
const assert = require("node:assert/strict");
const test = require("node:test");
const { egmaTimeline: timeline, plain } = require("./pure.js");

const said = (...spans) => spans.map(([start, end]) => ({ start, end }));
const fixations = { start: [2, 3], duration: [0.5, 1] };

test("time runs from the first fixation or word to the last", () => {
  assert.equal(timeline.begin({ fixations, sentences: said([2.5, 6]) }), 2);
  assert.equal(timeline.end({ fixations, sentences: said([2.5, 6], [null, null]) }), 6);
  assert.deepEqual([timeline.begin({ fixations, sentences: [] }), timeline.end({ fixations, sentences: [] })], [2, 4]);
});

test("every moment has its sentence, whichever way it was reached", () => {
  const sentences = said([1, 2], [4, 5], [null, null], [2, 3]);
  const at = (moment) => plain(timeline.sentenceAt(sentences, moment));
  assert.deepEqual(at(0.5), { place: 0, speaking: false }); // before the first word
  assert.deepEqual(at(1.5), { place: 0, speaking: true });
  assert.deepEqual(at(2.5), { place: 3, speaking: true });
  assert.deepEqual(at(3.5), { place: 3, speaking: false }); // the last that was said
  assert.deepEqual(at(9), { place: 1, speaking: false });
  assert.deepEqual(plain(timeline.sentenceAt(said([null, null]), 1)), { place: null, speaking: false });
});

test("a fixation counts where a part of it lies in the window", () => {
  assert.ok(timeline.counts(1, 0.5, [1.4, 2]) && timeline.counts(1.9, 5, [1.4, 2]));
  assert.ok(!timeline.counts(1, 0.4, [1.4, 2]) && !timeline.counts(2, 1, [1.4, 2]) && !timeline.counts(1, 1, null));
});
