"use strict";
// What all components share: elements, colour maps, maps of the square frame brought onto the picture, the stage.
const egma = (() => {
  const kinds = {};
  const picturesById = new Map();
  const waiting = new Set();
  const hand = { recording: false }; // a recording is under way, or made and not yet downloaded
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

  const isShown = (id) => picturesById.has(id);

  // Whether another picture may take the place of this one: a recording of it would be lost.
  const mayChange = () => !hand.recording || window.confirm("Another picture ends the recording. Discard it?");

  for (const chosen of ["change", "drop"]) {
    document.addEventListener(chosen, (event) => {
      if (!event.target.closest("#radiograph") || mayChange()) return;
      event.preventDefault();
      event.stopImmediatePropagation();
      if (chosen === "change") event.target.value = "";
    }, true); // before Gradio takes it
  }

  // --- maps ---

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

  // A map over the picture as a canvas in colour, more opaque where it is higher, and its lowest and highest value.
  function colored(map, grid, picture, look, within = null, longSide = SHOWN_SIDE) {
    const scale = longSide / Math.max(picture.width, picture.height);
    const width = Math.max(1, Math.round(picture.width * scale));
    const height = Math.max(1, Math.round(picture.height * scale));
    const values = onPicture(map, grid, picture, width, height, look.smooth, within);
    let [low, high] = [Infinity, -Infinity];
    for (const value of values) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
    const canvas = make("canvas", { width, height });
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(width, height);
    const colors = window.egmaColorMaps[look.colorMap];
    const range = high > low ? high - low : 1;
    for (let place = 0; place < values.length; place++) {
      const strength = (values[place] - low) / range;
      if (Number.isNaN(strength)) continue;
      const color = 3 * Math.round(255 * strength);
      pixels.data[4 * place] = colors[color];
      pixels.data[4 * place + 1] = colors[color + 1];
      pixels.data[4 * place + 2] = colors[color + 2];
      pixels.data[4 * place + 3] = Math.round(255 * look.opacity * strength);
    }
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

  function start(kind, element, props, watch, trigger, words) {
    const root = element.querySelector(".egma");
    const picture = () => picturesById.get(props.value?.picture);
    const show = kinds[kind](root, { picture, trigger, ...words });
    const redraw = () => show(props.value);
    if (kind !== "picture") waiting.add(redraw);
    watch("value", redraw);
    redraw();
  }

  kinds.picture = () => (value) => void publish(value);

  return {
    kinds, start, hand, isShown, mayChange, make, percent, seconds, scoreText, patchPlace, patchRectangle, colored, peakInWords,
    overlay, legend, Stage,
  };
})();
