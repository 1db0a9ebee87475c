"use strict";
// What all components share: elements, colour maps, maps of the square frame brought onto the picture, the stage.
const egma = (() => {
  const kinds = {};
  const picturesById = new Map();
  const waiting = new Set();
  const SHOWN_SIDE = 320; // of the raster that a map is brought to before the browser enlarges it

  // An element with attributes, listeners (on...) and children; text becomes text, never HTML.
  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value === true) element.setAttribute(name, "");
      else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
    }
    element.append(...children.filter((child) => child !== null));
    return element;
  }

  const percent = (fraction) => `${Math.round(100 * fraction)} %`;
  const seconds = (value) => `${value.toFixed(1)} s`;
  const scoreText = (scores) => scores.map((score) => `${score.title} ${score.value.toFixed(2)}`).join(" · ");

  // --- pictures: sent once by the component `picture`, named by their id everywhere else ---

  async function publish(picture) {
    if (!picture) return;
    const image = new Image();
    image.src = picture.src;
    await image.decode();
    picturesById.clear();
    picturesById.set(picture.id, { ...picture, image });
    for (const redraw of [...waiting]) redraw();
  }

  // --- maps ---

  // The value of a map (G x G, row by row, on the square frame that the model sees) at a place of the picture.
  function valueAt(map, grid, picture, x, y, smooth) {
    const [column, row] = patchPlace(grid, picture, x, y);
    if (!smooth) return map[Math.floor(row) * grid + Math.floor(column)];
    const clamp = (place) => Math.min(Math.max(place - 0.5, 0), grid - 1);
    const [c, r] = [clamp(column), clamp(row)];
    const [c0, r0] = [Math.floor(c), Math.floor(r)];
    const [c1, r1] = [Math.min(c0 + 1, grid - 1), Math.min(r0 + 1, grid - 1)];
    const above = map[r0 * grid + c0] * (c0 + 1 - c) + map[r0 * grid + c1] * (c - c0);
    const below = map[r1 * grid + c0] * (c0 + 1 - c) + map[r1 * grid + c1] * (c - c0);
    return above * (r0 + 1 - r) + below * (r - r0);
  }

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

  // A map over the picture as a canvas in colour, more opaque where it is higher, and its lowest and highest value.
  // `within` limits both to a rectangle (fractions of the picture).
  function colored(map, grid, picture, look, within = null) {
    const scale = SHOWN_SIDE / Math.max(picture.width, picture.height);
    const width = Math.max(1, Math.round(picture.width * scale));
    const height = Math.max(1, Math.round(picture.height * scale));
    const values = new Float32Array(width * height).fill(NaN);
    let [low, high] = [Infinity, -Infinity];
    for (let row = 0; row < height; row++) {
      for (let column = 0; column < width; column++) {
        const [x, y] = [(column + 0.5) / width, (row + 0.5) / height];
        if (within && (x < within[0] || y < within[1] || x > within[2] || y > within[3])) continue;
        const value = valueAt(map, grid, picture, x, y, look.smooth);
        values[row * width + column] = value;
        low = Math.min(low, value);
        high = Math.max(high, value);
      }
    }
    const canvas = make("canvas", { width, height });
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(width, height);
    const colors = window.egmaColorMaps[look.colorMap];
    const range = high > low ? high - low : 1;
    values.forEach((value, place) => {
      if (Number.isNaN(value)) return;
      const strength = (value - low) / range;
      const color = 3 * Math.round(255 * strength);
      pixels.data.set(colors.slice(color, color + 3), 4 * place);
      pixels.data[4 * place + 3] = Math.round(255 * look.opacity * strength);
    });
    context.putImageData(pixels, 0, 0);
    return { canvas, low, high };
  }

  // Where a map is highest on the picture, in words for those who do not see it.
  function peakInWords(map, grid, picture) {
    const place = map.indexOf(Math.max(...map));
    const [left, top, right, bottom] = patchRectangle(grid, picture, place % grid, Math.floor(place / grid));
    const middle = (a, b) => Math.min(Math.max((a + b) / 2, 0), 1);
    return `highest ${percent(middle(left, right))} from the left and ${percent(middle(top, bottom))} from the top`;
  }

  // --- the stage: a canvas of the picture's shape that is drawn again when its place on the page changes ---

  class Stage {
    constructor(alt, attributes = {}) {
      this.canvas = make("canvas", { role: "img", "aria-label": alt, ...attributes });
      this.element = make("div", { class: "egma-stage" }, this.canvas);
      this.draw = () => {};
      this.seen = null;
      new ResizeObserver(() => {
        const width = this.element.clientWidth;
        if (width && width !== this.seen) this.render();
      }).observe(this.element);
    }

    // Draw the picture, then `this.draw(context, width, height)` over it.
    render(picture = this.picture) {
      this.picture = picture;
      this.seen = this.element.clientWidth;
      if (!picture || !this.seen) return;
      const tallest = 0.72 * window.innerHeight;
      const width = Math.min(this.seen, (tallest * picture.width) / picture.height);
      const height = (width * picture.height) / picture.width;
      const density = Math.min(window.devicePixelRatio || 1, 2);
      const [pixelsWide, pixelsHigh] = [Math.round(width * density), Math.round(height * density)];
      if (this.canvas.width !== pixelsWide || this.canvas.height !== pixelsHigh) {
        [this.canvas.width, this.canvas.height] = [pixelsWide, pixelsHigh];
        [this.canvas.style.width, this.canvas.style.height] = [`${width}px`, `${height}px`];
      }
      const context = this.canvas.getContext("2d");
      context.setTransform(density, 0, 0, density, 0, 0);
      context.drawImage(picture.image, 0, 0, width, height);
      this.draw(context, width, height);
    }

    describe(words) {
      this.canvas.setAttribute("aria-label", words);
    }

    // Where an event of the pointer lies, as fractions of the picture.
    place(event) {
      const box = this.canvas.getBoundingClientRect();
      return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    }
  }

  function overlay(context, canvas, width, height, smooth) {
    context.save();
    context.imageSmoothingEnabled = smooth;
    context.drawImage(canvas, 0, 0, width, height);
    context.restore();
  }

  // The colour map from its lowest to its highest colour, with the values at its ends.
  function legend() {
    const bar = make("canvas", { width: 256, height: 1, "aria-hidden": "true" });
    const [low, high] = [make("span"), make("span")];
    const element = make("div", { class: "egma-legend" }, make("span", {}, "cosine"), low, bar, high);
    const show = (lowest, highest, colorMap) => {
      low.textContent = lowest.toFixed(2);
      high.textContent = highest.toFixed(2);
      const context = bar.getContext("2d");
      const pixels = context.createImageData(256, 1);
      const colors = window.egmaColorMaps[colorMap];
      for (let place = 0; place < 256; place++) {
        pixels.data.set([...colors.slice(3 * place, 3 * place + 3), 255], 4 * place);
      }
      context.putImageData(pixels, 0, 0);
    };
    return { element, show };
  }

  // --- starting a component: `kind(root, api)` gives a function that shows a value ---

  function start(kind, element, props, watch, trigger, label) {
    const root = element.querySelector(".egma");
    const picture = () => picturesById.get(props.value?.picture);
    const show = kinds[kind](root, { picture, trigger, label });
    const redraw = () => show(props.value);
    if (kind !== "picture") waiting.add(redraw);
    watch("value", redraw);
    redraw();
  }

  kinds.picture = () => (value) => void publish(value);

  return {
    kinds, start, make, percent, seconds, scoreText, valueAt, patchPlace, patchRectangle, colored, peakInWords,
    overlay, legend, Stage,
  };
})();
