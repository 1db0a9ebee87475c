"use strict";
// What part of the picture is seen and with which greys. Nothing here needs a page.
const egmaOptics = (() => {
  const [WHOLE, MOST] = [{ scale: 1, x: 0, y: 0 }, 16]; // x, y: the upper left corner that is seen, fractions of the picture
  const [FULL, HIGHEST, DEEP] = [{ low: 0, high: 255, inverted: false }, 255, 65535]; // windows are in 8-bit grey values
  const [LEAST_WIDTH, LEAST_DEEP_WIDTH] = [4, (4 * HIGHEST) / DEEP];
  const BRIGHTER_EDGE = 40; // grey values that the corners lie above the middle in a picture that looks inverted

  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

  function held({ scale, x, y }) {
    const most = 1 - 1 / scale;
    return { scale, x: clamp(x, 0, most), y: clamp(y, 0, most) };
  }

  // A place of the canvas (fractions) -> of the picture.
  const toPicture = (view, [x, y]) => [view.x + x / view.scale, view.y + y / view.scale];

  // Nearer by a factor; the place of the canvas `at` keeps what it shows.
  function zoomed(view, factor, at) {
    const scale = clamp(view.scale * factor, 1, MOST);
    const [x, y] = toPicture(view, at);
    return held({ scale, x: x - at[0] / scale, y: y - at[1] / scale });
  }

  const panned = (view, right, down) => held({ ...view, x: view.x - right / view.scale, y: view.y - down / view.scale });

  // Two fingers that went from `before` to `after`, two places of the canvas each.
  function pinched(view, before, after) {
    const apart = ([a, b]) => Math.hypot(a[0] - b[0], a[1] - b[1]);
    const middle = ([a, b]) => [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
    const [from, to] = [middle(before), middle(after)];
    return panned(zoomed(view, apart(after) / Math.max(apart(before), 1e-6), from), to[0] - from[0], to[1] - from[1]);
  }

  // The grey values of RGBA pixels, and those of 16 bits whose higher half is red, the lower green.
  const eightBits = (pixels) => Uint8Array.from({ length: pixels.length / 4 }, (_, place) => pixels[4 * place]);
  const sixteenBits = (pixels) =>
    Uint16Array.from({ length: pixels.length / 4 }, (_, place) => 256 * pixels[4 * place] + pixels[4 * place + 1]);

  // For each of the 256 grey values, or of 65536, the one that is shown.
  const greys = ({ low, high, inverted }, isDeep = false) => {
    const highest = isDeep ? DEEP : HIGHEST;
    return Uint8ClampedArray.from({ length: highest + 1 }, (_, value) => {
      const shown = (HIGHEST * ((value * HIGHEST) / highest - low)) / (high - low);
      return inverted ? HIGHEST - clamp(shown, 0, HIGHEST) : shown;
    });
  };

  // A window dragged by fractions of the canvas, on which `given` is as wide: to the right it widens, downwards its
  // middle falls (all gets brighter).
  function dragged({ low, high, inverted }, right, down, given = FULL, isDeep = false) {
    const [span, most] = [given.high - given.low, Math.max(2 * HIGHEST, high - low)];
    const width = clamp(high - low + span * right, isDeep ? LEAST_DEEP_WIDTH : LEAST_WIDTH, most);
    const middle = clamp((low + high) / 2 - span * down, 0, HIGHEST);
    return { low: middle - width / 2, high: middle + width / 2, inverted };
  }

  // Windows by the picture's own grey values, of 8 or 16 bits; and the `given` one, that it came with.
  function presets(values, given = FULL) {
    const [highest, least] = values.BYTES_PER_ELEMENT > 1 ? [DEEP, LEAST_DEEP_WIDTH] : [HIGHEST, LEAST_WIDTH];
    const counts = new Float64Array(highest + 1);
    for (const value of values) counts[value] += 1 / values.length;
    const at = (share) => {
      let sum = 0;
      return (clamp(counts.findIndex((count) => (sum += count) >= share - 1e-9), 0, highest) * HIGHEST) / highest;
    };
    const window = (from, to) => ({ low: at(from), high: Math.max(at(to), at(from) + least) });
    return { full: { low: 0, high: HIGHEST }, contrast: window(0.02, 0.98), dark: window(0, 0.5), bright: window(0.5, 1),
      given: { low: given.low, high: given.high } };
  }

  // Whether the corners are so much brighter than the middle as air beside a body is in an inverted picture.
  function looksInverted(pixels, width, height) {
    const median = (left, top, right, bottom) => {
      const values = [];
      for (let y = Math.floor(top * height); y < bottom * height; y += 2) {
        for (let x = Math.floor(left * width); x < right * width; x += 2) values.push(pixels[4 * (y * width + x)]);
      }
      return values.sort((a, b) => a - b)[values.length >> 1];
    };
    const corners = [[0, 0, 0.1, 0.1], [0.9, 0, 1, 0.1]].map((box) => median(...box)); // beside the neck
    return Math.min(...corners) - median(0.45, 0.3, 0.55, 0.7) > BRIGHTER_EDGE;
  }

  return { WHOLE, FULL, toPicture, zoomed, panned, pinched, eightBits, sixteenBits, greys, dragged, presets, looksInverted };
})();
