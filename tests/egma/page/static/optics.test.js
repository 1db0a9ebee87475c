"use strict";
const assert = require("node:assert/strict");
const test = require("node:test");
const { egmaOptics: optics, plain } = require("./pure.js");

const near = (a, b) => assert.ok(a.every((value, axis) => Math.abs(value - b[axis]) < 1e-9), `${a} ${b}`);
const rgba = (greys) => Uint8ClampedArray.from(greys.flatMap((grey) => [grey, grey, grey, 255]));

test("what lies under the pointer stays there while one zooms in", () => {
  let view = optics.WHOLE;
  const at = [0.7, 0.2];
  for (const factor of [1.5, 2, 1.1]) {
    const before = optics.toPicture(view, at);
    view = optics.zoomed(view, factor, at);
    near(optics.toPicture(view, at), before);
  }
  assert.ok(Math.abs(view.scale - 3.3) < 1e-9);
});

test("the view never leaves the picture, and all the way out is the whole", () => {
  let view = optics.zoomed(optics.WHOLE, 1e9, [0.5, 0.5]);
  assert.equal(view.scale, 16);
  for (const way of [[9, 9], [-9, -9]]) {
    view = optics.panned(view, ...way);
    for (const axis of ["x", "y"]) assert.ok(view[axis] >= 0 && view[axis] + 1 / view.scale <= 1 + 1e-12);
  }
  assert.deepEqual(plain(optics.zoomed(view, 0, [1, 1])), plain(optics.WHOLE));
});

test("two fingers keep hold of the middle between them", () => {
  const view = optics.zoomed(optics.WHOLE, 2, [0.5, 0.5]);
  const after = optics.pinched(view, [[0.4, 0.5], [0.6, 0.5]], [[0.35, 0.55], [0.65, 0.55]]);
  assert.ok(Math.abs(after.scale - 3) < 1e-9);
  near(optics.toPicture(after, [0.5, 0.55]), optics.toPicture(view, [0.5, 0.5]));
});

test("greys run over the window, and invert", () => {
  const window = { low: 50, high: 150, inverted: false };
  const shown = optics.greys(window);
  assert.deepEqual([0, 50, 100, 150, 255].map((value) => shown[value]), [0, 0, 128, 255, 255]);
  const inverted = optics.greys({ ...window, inverted: true });
  for (let value = 0; value < 256; value++) assert.ok(Math.abs(inverted[value] + shown[value] - 255) <= 1);
  assert.deepEqual([...optics.greys(optics.FULL)], [...Array(256).keys()]); // nothing changes unasked
});

test("a drag widens sideways and brightens downwards, and never ends in an empty window", () => {
  const start = { low: 100, high: 150, inverted: true };
  const wider = optics.dragged(start, 0.2, 0);
  near([wider.high - wider.low, (wider.high + wider.low) / 2], [101, 125]);
  const brighter = optics.dragged(start, 0, 0.1);
  near([brighter.high - brighter.low, (brighter.high + brighter.low) / 2], [50, 99.5]);
  const least = optics.dragged(start, -5, 5);
  assert.ok(least.high - least.low >= 4 && least.inverted);
});

test("presets are shares of the picture's own greys", () => {
  const presets = plain(optics.presets(optics.eightBits(rgba(Array.from({ length: 200 }, (_, value) => value)))));
  assert.deepEqual(presets.full, { low: 0, high: 255 });
  assert.deepEqual(presets.given, presets.full);
  assert.deepEqual(presets.contrast, { low: 3, high: 195 });
  assert.deepEqual([presets.dark.high, presets.bright.low], [99, 99]);
  for (const level of [optics.eightBits(rgba(Array(10).fill(7))), new Uint16Array(10).fill(65535)]) {
    for (const { low, high } of Object.values(optics.presets(level))) assert.ok(high > low);
  }
});

test("values of 16 bits that 8 cannot tell apart are apart in a narrow window", () => {
  const [a, b] = [30000, 30010];
  const pixels = Uint8ClampedArray.from([a, b, 0, 65535].flatMap((value) => [value >> 8, value & 255, 0, 255]));
  const values = optics.sixteenBits(pixels);
  assert.deepEqual([...values], [a, b, 0, 65535]);
  const whole = optics.greys(optics.FULL, true);
  assert.equal(whole.length, 65536);
  assert.deepEqual([whole[0], whole[65535], whole[a]], [0, 255, Math.round(a / 257)]);
  assert.equal(whole[a], whole[b]);
  const given = { low: 100, high: 120 };
  const many = Uint16Array.from({ length: 1000 }, (_, place) => (place < 500 ? a : b));
  const presets = plain(optics.presets(many, { ...given, inverted: false }));
  near([presets.contrast.low, presets.contrast.high], [a / 257, b / 257]);
  assert.deepEqual([presets.given, presets.full], [given, { low: 0, high: 255 }]);
  const narrow = optics.greys({ ...presets.contrast, inverted: true }, true);
  assert.deepEqual([narrow[a], narrow[b]], [255, 0]);
  let level = { ...given, inverted: false }; // a drag is as fine as the window that the picture came with is narrow
  level = optics.dragged(level, 0.5, 0, given, true);
  near([level.low, level.high], [95, 125]);
  assert.ok(optics.dragged(level, -9, 0, given, true).high - level.low < 16);
  const wide = { low: -400, high: 644, inverted: false }; // which is there where a file's window is wider than its values
  near(Object.values(optics.dragged(wide, 0, 0, wide, true)).slice(0, 2), [-400, 644]);
});

test("bright air beside the neck looks inverted", () => {
  const picture = (corner, middle) => rgba(Array.from({ length: 400 }, (_, place) => (place < 60 ? corner : middle)));
  assert.equal(optics.looksInverted(picture(230, 90), 20, 20), true);
  assert.equal(optics.looksInverted(picture(10, 120), 20, 20), false);
});
