"use strict";
// What all components share: elements, the picture with its view and greys, maps in colour, the stage, the legend.
const egma = (() => {
  const kinds = {};
  const picturesById = new Map();
  const waiting = new Set();
  const hand = { recording: false, finished: false }; // one is not yet finished; one that is finished is not yet downloaded
  const SHOWN_SIDE = 320; // of the raster that a map is brought to before the browser enlarges it
  const [NARROW, OUTLINE] = [760, [86, 180, 233, 255]]; // pixels, as in page.css; red, green, blue, opacity

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

  // null where a browser keeps nothing for this page, as in some frames
  const storage = (kind) => { try { return window[kind]; } catch { return null; } };
  const percent = (fraction) => `${Math.round(100 * fraction)} %`;
  const seconds = (value) => `${value.toFixed(1)} s`;
  const scoreText = (scores) => scores.map((score) => `${score.title} ${score.value.toFixed(2)}`).join(" · ");

  // --- pictures: sent once by the component `picture`, named by their id everywhere else ---

  async function publish(picture) {
    if (!picture) return;
    const { canvas, source } = await decoded(picture.src);
    const deep = picture.depth && egmaOptics.sixteenBits((await decoded(picture.depth.png)).source.data);
    const presets = egmaOptics.presets(deep ?? egmaOptics.eightBits(source.data), picture.depth ?? egmaOptics.FULL);
    picturesById.clear();
    see({ view: egmaOptics.WHOLE, level: { ...presets.given, inverted: false }, presets, isDeep: Boolean(deep),
      maps: !display.lookFirst, inverted: egmaOptics.looksInverted(source.data, canvas.width, canvas.height) });
    picturesById.set(picture.id, { ...picture, image: canvas, source, deep });
    for (const redraw of [...waiting]) redraw();
  }

  async function decoded(src) {
    const image = new Image();
    image.src = src;
    await image.decode();
    const canvas = make("canvas", { width: image.naturalWidth, height: image.naturalHeight });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    return { canvas, source: context.getImageData(0, 0, canvas.width, canvas.height) };
  }

  // Gradio calls every place for files the same: its own label goes before what is written there.
  new MutationObserver(() => {
    for (const one of document.querySelectorAll(".upload-container[aria-label^='Click']")) {
      one.setAttribute("aria-label", `${one.closest(".block").querySelector("label")?.textContent.trim()}: ${one.innerText}`);
    }
  }).observe(document, { childList: true, subtree: true });

  // --- how the picture is seen, the same in every view ---

  const display = { view: egmaOptics.WHOLE, level: egmaOptics.FULL, presets: null, isDeep: false, inverted: false, maps: true, hidden: false,
    lookFirst: document.cookie.includes("egma_look_first=true") };
  const stages = new Set();

  // Another view, level, or whether the maps are asked for (`maps`; else the reader looks first), or hidden by a key.
  function see(changes) {
    Object.assign(display, changes);
    document.documentElement.toggleAttribute("data-egma-looking", !display.maps);
    const shown = [...picturesById.values()];
    if (changes.level) shown.forEach(relevel);
    for (const stage of stages) if (shown.includes(stage.picture)) stage.render();
  }

  // As it came, the 8-bit picture; through another window the source's own greys, where there are more.
  function relevel({ image, source, deep }) {
    const { level, presets: { given } } = display;
    const asGiven = level.low === given.low && level.high === given.high;
    const values = asGiven ? null : deep;
    const greys = egmaOptics.greys(asGiven ? { ...egmaOptics.FULL, inverted: level.inverted } : level, Boolean(values));
    const pixels = new ImageData(source.data.slice(), source.width);
    source.data.forEach((value, place) => {
      if (place % 4 < 3) pixels.data[place] = greys[values ? values[place >> 2] : value]; // not the opacity
    });
    image.getContext("2d").putImageData(pixels, 0, 0);
  }

  // The first view's picture, as soon as its tab is shown.
  function focusPicture(frames = 120) {
    const canvas = document.querySelector(".egma-viewer canvas");
    canvas.focus();
    if (document.activeElement !== canvas && frames) requestAnimationFrame(() => focusPicture(frames - 1));
  }
  const isShown = (id) => picturesById.has(id);

  // Whether a recording that was not downloaded may be lost.
  const mayLose = (what, loses = hand.recording) => !loses || window.confirm(`${what}, and the recording is not downloaded. Discard it?`);
  const mayChange = () => mayLose("Another picture comes");
  window.addEventListener("beforeunload", (event) => (hand.recording || hand.finished) && event.preventDefault());

  for (const chosen of ["change", "drop"]) {
    document.addEventListener(chosen, (event) => {
      if (!event.target.closest("#radiograph") || mayChange()) return;
      event.preventDefault();
      event.stopImmediatePropagation();
      if (chosen === "change") event.target.value = "";
    }, true); // before Gradio takes it
  }

  // --- maps ---

  // Width and height of a picture whose long side is brought to so many pixels.
  function sized(picture, longSide) {
    const scale = longSide / Math.max(picture.width, picture.height);
    return [picture.width, picture.height].map((side) => Math.max(1, Math.round(side * scale)));
  }

  // A map over the picture as a canvas in colour, more opaque where it is higher on the scale [low, high].
  function colored(map, grid, picture, look, scale, within = null, longSide = SHOWN_SIDE) {
    const [width, height] = sized(picture, longSide);
    const values = egmaMaps.onPicture(map, grid, picture, width, height, look.smooth, within);
    const canvas = make("canvas", { width, height });
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(width, height);
    const colors = window.egmaColorMaps[look.colorMap];
    const strengths = values.map((value) => egmaMaps.strength(value, scale)); // NaN outside the frame
    const edge = look.outline ? egmaMaps.edgeOf(strengths, width, look.threshold || 0.5) : () => false;
    strengths.forEach((strength, place) => {
      if (edge(place)) return void pixels.data.set(OUTLINE, 4 * place);
      if (!(strength >= (look.threshold ?? 0))) return;
      const color = 3 * Math.round(255 * strength);
      for (let channel = 0; channel < 3; channel++) pixels.data[4 * place + channel] = colors[color + channel];
      pixels.data[4 * place + 3] = Math.round(255 * look.opacity * strength);
    });
    context.putImageData(pixels, 0, 0);
    return canvas;
  }

  const mapsSeen = () => display.maps && !display.hidden;

  // A map in colour and its spots.
  function drawLayer(context, { heat, spots }, look, width, height, thin) {
    overlay(context, heat, width, height, look.smooth);
    drawSpots(context, spots, width, height, thin);
  }

  // Numbered rings, the first around the highest place.
  function drawSpots(context, spots, width, height, thin) {
    context.font = `bold ${13 * thin}px system-ui, sans-serif`;
    spots.forEach(({ x, y }, rank) => {
      context.beginPath();
      context.arc(x * width, y * height, 9 * thin, 0, 2 * Math.PI);
      twice(context, thin, () => context.stroke());
      const place = [String(rank + 1), x * width + 12 * thin, y * height - 8 * thin];
      twice(context, thin, (isTop) => (isTop ? context.fillText(...place) : context.strokeText(...place)));
    });
  }

  // White on black, so that it is seen on every ground.
  function twice(context, thin, paint) {
    for (const [color, thickness] of [["#000", 4], ["#fff", 2]]) {
      [context.strokeStyle, context.fillStyle, context.lineWidth] = [color, color, thickness * thin];
      paint(color === "#fff");
    }
  }

  // Where a map is highest on the picture, in words for those who do not see it.
  function peakInWords(map, grid, picture) {
    const [{ x, y }] = egmaMaps.spots(map, grid, picture, [0, 0]);
    return `highest ${percent(x)} from the left and ${percent(y)} from the top`;
  }

  // --- the stage: a canvas of the picture's shape that is drawn again when its place on the page changes ---

  class Stage {
    // A `fixed` one always shows the whole picture.
    constructor(alt, attributes = {}, fixed = false) {
      this.canvas = make("canvas", { role: "img", "aria-label": alt, ...attributes });
      this.element = make("div", { class: "egma-stage" }, this.canvas);
      this.draw = () => {};
      this.fixed = fixed;
      this.seen = null;
      stages.add(this);
      new ResizeObserver(() => {
        const width = this.element.clientWidth;
        if (width && width !== this.seen) this.render();
      }).observe(this.element);
    }

    get view() {
      return this.fixed ? egmaOptics.WHOLE : display.view;
    }

    // Draw the picture, then `this.draw(context, width, height, thin)` over it; `thin` times a width is not enlarged.
    render(picture = this.picture) {
      this.picture = picture;
      this.seen = this.element.clientWidth;
      if (!picture || !this.seen) return;
      const tallest = (window.innerWidth > NARROW ? 0.86 : 0.6) * window.innerHeight;
      const width = Math.min(this.seen, (tallest * picture.width) / picture.height);
      const height = (width * picture.height) / picture.width;
      const density = Math.min(window.devicePixelRatio || 1, 2);
      const [pixelsWide, pixelsHigh] = [Math.round(width * density), Math.round(height * density)];
      if (this.canvas.width !== pixelsWide || this.canvas.height !== pixelsHigh) {
        [this.canvas.width, this.canvas.height] = [pixelsWide, pixelsHigh];
        [this.canvas.style.width, this.canvas.style.height] = [`${width}px`, `${height}px`];
      }
      if (!this.fixed) this.canvas.style.touchAction = this.view.scale > 1 ? "none" : "pan-y";
      const [context, { scale, x, y }] = [this.canvas.getContext("2d"), this.view];
      const enlarged = density * scale;
      context.setTransform(enlarged, 0, 0, enlarged, -x * width * enlarged, -y * height * enlarged);
      context.drawImage(picture.image, 0, 0, width, height);
      this.draw(context, width, height, 1 / scale);
    }

    describe(words) {
      this.canvas.setAttribute("aria-label", words);
    }

    // Where an event of the pointer lies, as fractions of the canvas.
    onCanvas(event) {
      const box = this.canvas.getBoundingClientRect();
      return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    }

    // The same, as fractions of the picture.
    place(event) {
      return egmaOptics.toPicture(this.view, this.onCanvas(event));
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

  // `events`: what it may trigger; Gradio looks for their names in the code that calls this.
  function start(kind, element, props, watch, trigger, words, events) {
    const root = element.querySelector(".egma");
    const picture = () => picturesById.get(props.value?.picture);
    const tell = (name, data) => events.includes(name) && trigger(name, data);
    const show = kinds[kind](root, { picture, trigger: tell, ...words });
    const redraw = () => show(props.value);
    if (kind !== "picture") waiting.add(redraw);
    watch("value", redraw);
    redraw();
  }

  kinds.picture = () => (value) => void publish(value);

  return {
    kinds, start, hand, focusPicture, isShown, mayLose, mayChange, make, storage, percent, seconds, scoreText, display, see, mapsSeen,
    sized, colored, drawLayer, twice, peakInWords, overlay, legend, Stage,
  };
})();
