"use strict";
const assert = require("node:assert/strict");
const test = require("node:test");
const { egmaMaps, plain } = require("./pure.js");

const [WIDE, SQUARE] = [{ width: 320, height: 160 }, { width: 200, height: 200 }];
const random = (seed) => () => ((seed = (seed * 16807) % 2147483647) / 2147483647);

test("a patch's rectangle and a place in it are each other's reverse", () => {
  const draw = random(7);
  for (let round = 0; round < 500; round++) {
    const picture = { width: 50 + Math.floor(400 * draw()), height: 50 + Math.floor(400 * draw()) };
    const [grid, x, y] = [2 + Math.floor(14 * draw()), draw(), draw()];
    const [column, row] = egmaMaps.patchPlace(grid, picture, x, y).map(Math.floor);
    const [left, top, right, bottom] = egmaMaps.patchRectangle(grid, picture, column, row);
    assert.ok(left <= x + 1e-4 && x <= right + 1e-4 && top <= y + 1e-4 && y <= bottom + 1e-4);
  }
});

test("values between the middles of patches are bilinear, and level beyond the outermost", () => {
  const values = egmaMaps.onPicture([0, 1, 2, 3], 2, SQUARE, 4, 4, true, null);
  assert.deepEqual([...values].slice(0, 4), [0, 0.25, 0.75, 1]);
  assert.deepEqual([0, 4, 8, 12].map((place) => values[place]), [0, 0.5, 1.5, 2]);
});

test("the scale spans all maps, but not the padding beside the picture", () => {
  const map = Array(16).fill(0).map((_, place) => (place < 4 ? 99 : place)); // the first row is above a wide picture
  assert.deepEqual(plain(egmaMaps.scaleOf([map], 4, WIDE)), [4, 11]);
  assert.deepEqual(plain(egmaMaps.scaleOf([map, map.map((value) => -value)], 4, WIDE)), [-11, 11]);
  assert.deepEqual(plain(egmaMaps.scaleOf([map], 4, WIDE, [0, 0, 0.25, 0.5])), [4, 4]);
});

test("at most three spots, the highest first, further ones above half of the scale and their neighbours", () => {
  const map = Array(49).fill(0);
  for (const [place, value] of [[0, 1], [6, 0.9], [42, 0.8], [48, 0.7], [24, 0.3]]) map[place] = value;
  const found = plain(egmaMaps.spots(map, 7, SQUARE, [0, 1]));
  assert.deepEqual(found.map((spot) => spot.value), [1, 0.9, 0.8]);
  assert.ok(Math.abs(found[1].x - 6.5 / 7) < 1e-9 && Math.abs(found[1].y - 0.5 / 7) < 1e-9);
  assert.equal(egmaMaps.spots(map, 7, SQUARE, [0, 10]).length, 1); // the highest alone, however low on the scale
  assert.equal(egmaMaps.spots(Array(49).fill(2), 7, SQUARE, [0, 1]).length, 1); // a level map has one
});

test("the edge of a disc is a ring, and nothing outside the frame or beyond the picture makes one", () => {
  const [side, radius] = [80, 0.3];
  const apart = (place) => Math.hypot(((place % side) + 0.5) / side - 0.5, (Math.floor(place / side) + 0.5) / side - 0.5);
  const values = Float32Array.from({ length: side * side }, (_, place) => 1 - apart(place));
  const edge = [...values.keys()].filter(egmaMaps.edgeOf(values, side, 1 - radius));
  assert.ok(edge.length > 2 * Math.PI * radius * side * 0.8 && edge.every((place) => Math.abs(apart(place) - radius) < 1.5 / side));
  const level = Float32Array.from({ length: side * side }, () => 1);
  assert.equal([...level.keys()].filter(egmaMaps.edgeOf(level, side, 0.5)).length, 0);
});
