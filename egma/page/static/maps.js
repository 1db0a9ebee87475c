"use strict";
// Maps of the square frame brought onto the picture: places, values, scale, spots, edges. Nothing here needs a page.
const egmaMaps = (() => {
  const [EDGE, SPOT_SHARE, MOST_SPOTS] = [1e-6, 0.5, 3]; // further spots reach that share of the scale

  // Fractions of the picture -> place on the patch grid, [0, G) along either side: the picture is padded, centred.
  function patchPlace(grid, picture, x, y) {
    const side = Math.max(picture.width, picture.height);
    const place = (fraction, length) => ((fraction * length + (side - length) / 2) / side) * grid;
    const inside = (value) => Math.min(Math.max(value, 0), grid - 1e-6);
    return [inside(place(x, picture.width)), inside(place(y, picture.height))];
  }

  // Patch (column, row) -> its rectangle as fractions of the picture.
  function patchRectangle(grid, picture, column, row) {
    const side = Math.max(picture.width, picture.height);
    const edge = (place, length) => ((place / grid) * side - (side - length) / 2) / length;
    return [edge(column, picture.width), edge(row, picture.height),
      edge(column + 1, picture.width), edge(row + 1, picture.height)];
  }

  // Along one axis of the picture, for each of `size` pixels: the two patches around its middle and the second's share;
  // level beyond the outermost patches' middles. Not smooth: the patch that it lies in.
  function patchesAlong(size, length, side, grid, smooth) {
    const along = { first: new Int32Array(size), second: new Int32Array(size), share: new Float32Array(size) };
    for (let pixel = 0; pixel < size; pixel++) {
      const place = ((((pixel + 0.5) / size) * length + (side - length) / 2) / side) * grid;
      const centred = smooth ? Math.min(Math.max(place - 0.5, 0), grid - 1) : Math.min(Math.floor(place), grid - 1);
      along.first[pixel] = Math.floor(centred);
      along.second[pixel] = Math.min(along.first[pixel] + 1, grid - 1);
      along.share[pixel] = centred - along.first[pixel];
    }
    return along;
  }

  // The values of a map (G x G, row by row, on the square frame that the model sees) on `width` x `height` pixels of
  // the picture; NaN outside `within` (fractions of the picture).
  function onPicture(map, grid, picture, width, height, smooth, within) {
    const side = Math.max(picture.width, picture.height);
    const columns = patchesAlong(width, picture.width, side, grid, smooth);
    const rows = patchesAlong(height, picture.height, side, grid, smooth);
    const [left, top, right, bottom] = within ?? [0, 0, 1, 1];
    const values = new Float32Array(width * height).fill(NaN);
    for (let y = Math.floor(top * height); y < Math.min(height, Math.ceil(bottom * height)); y++) {
      const [above, below, down] = [grid * rows.first[y], grid * rows.second[y], rows.share[y]];
      for (let x = Math.floor(left * width); x < Math.min(width, Math.ceil(right * width)); x++) {
        const [first, second, share] = [columns.first[x], columns.second[x], columns.share[x]];
        const upper = map[above + first] * (1 - share) + map[above + second] * share;
        const lower = map[below + first] * (1 - share) + map[below + second] * share;
        values[y * width + x] = upper * (1 - down) + lower * down;
      }
    }
    return values;
  }

  // The patches of which a part lies on the picture (and in `within`).
  function patchesOn(grid, picture, within = null) {
    const [left, top, right, bottom] = within ?? [0, 0, 1, 1];
    return [...Array(grid * grid).keys()].filter((place) => {
      const [x0, y0, x1, y1] = patchRectangle(grid, picture, place % grid, Math.floor(place / grid));
      return x1 > left + EDGE && x0 < right - EDGE && y1 > top + EDGE && y0 < bottom - EDGE;
    });
  }

  // The lowest and the highest value of maps on the picture.
  function scaleOf(maps, grid, picture, within = null) {
    const places = patchesOn(grid, picture, within);
    const values = maps.flatMap((map) => places.map((place) => map[place]));
    return values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
  }

  // Where a value lies on a scale, from 0 to 1.
  const strength = (value, [low, high]) => Math.min(Math.max((value - low) / (high > low ? high - low : 1), 0), 1);

  // The highest place of a map on the picture, and the next ones that top their neighbours and half of the scale.
  function spots(map, grid, picture, scale, within = null) {
    const on = patchesOn(grid, picture, within);
    const row = (place) => Math.floor(place / grid);
    const isNear = (a, b) => Math.abs((a % grid) - (b % grid)) <= 1 && Math.abs(row(a) - row(b)) <= 1;
    const isBelow = (a, b) => map[a] < map[b] || (map[a] === map[b] && b < a); // of equal ones the first stands out
    const tops = (place) => !on.some((other) => isNear(place, other) && isBelow(place, other));
    const inside = (a, b) => Math.min(Math.max((a + b) / 2, 0), 1);
    return on.filter(tops).sort((a, b) => map[b] - map[a]).slice(0, MOST_SPOTS)
      .filter((place, rank) => rank === 0 || strength(map[place], scale) >= SPOT_SHARE)
      .map((place) => {
        const [left, top, right, bottom] = patchRectangle(grid, picture, place % grid, Math.floor(place / grid));
        return { x: inside(left, right), y: inside(top, bottom), value: map[place] };
      });
  }

  // Whether a pixel (row by row, `width` a row) reaches a level that a neighbour beside, above or below does not.
  function edgeOf(values, width, level) {
    const below = (place) => place >= 0 && place < values.length && !(values[place] >= level);
    return (place) => values[place] >= level && (below(place - width) || below(place + width)
      || (place % width > 0 && below(place - 1)) || (place % width < width - 1 && below(place + 1)));
  }

  return { patchPlace, patchRectangle, onPicture, scaleOf, strength, spots, edgeOf };
})();
