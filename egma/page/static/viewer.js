"use strict";
// Lines (sentences, or findings) beside the picture: a line's heat map over it, all maps as small multiples, and the
// reverse: a place of the picture that orders the lines.
egma.kinds.viewer = (root, { picture, label, hint }) => {
  const { make, Stage } = egma;
  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const look = { opacity: 0.65, colorMap: "magma", smooth: true, threshold: 0, outline: false, spots: true, own: false };
  // what is shown, the line that was chosen, the one under the pointer, the patch that was asked for, the picture's id,
  // the frame of its lungs that a person took
  const state = { value: null, chosen: 0, hovered: null, probe: null, of: null, frame: null };
  const layers = new Map(); // what is drawn of a model's shown line, until something of it changes

  const models = [panel(() => state.value), panel(() => state.value?.second)]; // of the second, where there is one
  const lines = egma.linesAndMaps(label, { choose: show("chosen"), preview: show("hovered") });
  const [note, said] = [make("p", { class: "egma-note" }), make("p", { class: "egma-said", "aria-live": "polite" })];
  const back = make("button", { type: "button", onclick: () => ask(null) }, "Back to the first order");
  const lungs = make("input", { type: "checkbox", onchange: () => set(() => {}) });
  const tick = (title, name) => make("label", {}, make("input", { type: "checkbox", checked: look[name],
    onchange: (event) => set(() => (look[name] = event.target.checked)) }), ` ${title}`);
  const slide = (title, name, most) => make("label", {}, `${title} `, make("input", { type: "range", min: 0, max: most, step: 0.05,
    value: look[name], oninput: (event) => set(() => (look[name] = Number(event.target.value))) }));
  const [outline, spots] = [tick("Outline", "outline"), tick("Spots", "spots")];
  outline.title = "Where the map passes what stands under Only above; at 0, half of the scale";
  spots.title = "The highest place of the map, and at most two further ones above half of the scale";
  const controls = make("div", { class: "egma-controls" }, slide("Opacity", "opacity", 1), slide("Only above", "threshold", 0.95), outline, spots,
    make("label", {}, "Colours ", make("select", { onchange: (event) => set(() => (look.colorMap = event.target.value)) },
      ...Object.keys(window.egmaColorMaps).map((name) => make("option", { value: name }, name)))),
    tick("Each its own scale", "own"), tick("Smooth", "smooth"), make("label", {}, lungs, " Only the lungs' frame"),
    make("button", { type: "button", onclick: takeFrame, title: "Enlarge the lungs first; the whole picture takes your frame back" },
      "Frame what is seen"));
  const files = egma.exports(() => ({ ...state, look, picture: picture(), panels: models.map((one) => one.valueOf()).filter(Boolean)
    .map((value) => ({ value, layer: layerOf(value) })) }));
  const ofPicture = egma.pictureControls(root, [
    ["c", "outline on or off", () => outline.firstChild.click()], ["m", "spots on or off", () => spots.firstChild.click()],
    ["Escape", "back to the first order", () => ask(null)]]);
  const side = make("div", { class: "egma-side" }, said, back, lines.list, note, files);
  const pair = make("div", { class: "egma-models" }, ...models.flatMap((one) => [one.name, one.stage.element, one.legend.element]));
  const stageColumn = make("div", { class: "egma-stage-column" }, ofPicture.element, pair, controls, lines.strip);
  const empty = make("p", { class: "egma-note" }, hint);
  root.append(empty, make("div", { class: "egma-split" }, stageColumn, side));

  // A change of how all maps look.
  function set(change) {
    change();
    layers.clear();
    lines.showMaps(state.value, picture(), look, scaleOf, within());
    render();
  }

  function show(which) {
    return (place) => {
      state[which] = place;
      render();
    };
  }

  // --- the frame of the lungs: the picture's own, or what was seen of it when a person said so ---

  const frame = () => state.frame ?? picture()?.chest ?? null;
  const within = () => (lungs.checked ? frame() : null);

  function takeFrame() {
    const { scale, x, y } = egma.display.view;
    state.frame = scale > 1 ? [x, y, x + 1 / scale, y + 1 / scale] : null;
    offerFrame();
    lungs.checked = Boolean(state.frame);
    set(() => {});
  }

  // The box can be ticked where there is a frame.
  function offerFrame() {
    lungs.disabled = !frame();
    if (lungs.disabled) lungs.checked = false;
    lungs.parentElement.title = lungs.disabled ? "This image comes without a frame of the lungs: enlarge them, and frame what is seen" : "";
  }

  // --- drawing ---

  const shownLine = (value) => value.lines[state.hovered ?? state.chosen];

  function scaleOf(line, value = state.value) {
    const maps = look.own ? [line.map] : value.lines.map((one) => one.map);
    return egmaMaps.scaleOf(maps, value.grid, picture(), within());
  }

  function layerOf(value) {
    const [line, layer] = [shownLine(value), layers.get(value)];
    if (layer?.line === line) return layer;
    const [of, scale] = [[line.map, value.grid, picture()], scaleOf(line, value)];
    layers.set(value, { line, scale, heat: egma.colored(...of, look, scale, within()),
      spots: look.spots ? egmaMaps.spots(...of, scale, within()) : [] });
    return layers.get(value);
  }

  // A model's name, the picture with its map of the shown line, and the legend; `valueOf`: its lines.
  function panel(valueOf) {
    const [name, bar] = [make("p", { class: "egma-note" }), egma.legend()];
    const on = new Stage("Radiograph", { tabindex: "0", class: "egma-probed", role: "application" });
    on.draw = (context, width, height, thin) => {
      if (shownLine(valueOf()) && egma.mapsSeen()) {
        const layer = layerOf(valueOf());
        egma.drawLayer(context, layer, look, width, height, thin);
        bar.show(...layer.scale, look.colorMap);
      }
      if (!state.probe) return;
      const [left, top, right, bottom] = egmaMaps.patchRectangle(state.value.grid, picture(), ...state.probe);
      egma.twice(context, thin, () => context.strokeRect(left * width, top * height, (right - left) * width, (bottom - top) * height));
    };
    const render = (shown) => {
      const { model, grid } = valueOf();
      const line = shownLine(valueOf());
      name.textContent = model;
      on.render(shown);
      on.describe(line
        ? `Radiograph with the heat map of "${line.text}" by ${model}, ${egma.peakInWords(line.map, grid, shown)}; arrow keys ask what fits a place, ? lists the keys`
        : "Radiograph; ? lists the keys");
    };
    return { name, stage: on, legend: bar, valueOf, render };
  }

  function render() {
    const shown = picture();
    if (!state.value || !shown) return;
    for (const one of models) if (one.valueOf()) one.render(shown);
    lines.mark(state.chosen, state.hovered ?? state.chosen);
    back.hidden = !state.probe;
  }

  // --- the reverse: which line fits a place best ---

  const hintOfLines = () => (state.value.lines.length
    ? "Hover or choose a line to see its map; click the image (or use the arrow keys on it) to ask in reverse." : "");
  const patchAt = (place) => egmaMaps.patchPlace(state.value.grid, picture(), ...place).map(Math.floor);

  function ask(patch) {
    const { value } = state;
    state.probe = patch;
    const here = (line) => line.map[patch[1] * value.grid + patch[0]];
    const places = [...value.lines.keys()];
    if (patch) {
      places.sort((a, b) => here(value.lines[b]) - here(value.lines[a]));
      state.chosen = places[0] ?? 0;
    }
    said.textContent = !patch || !value.lines.length ? hintOfLines()
      : `At column ${patch[0] + 1}, row ${patch[1] + 1} of ${value.grid}: "${value.lines[state.chosen].text}" fits best.`;
    lines.showLines(value, places, patch && here);
    render();
  }

  const asks = () => Boolean(state.value?.lines.length && picture());
  for (const { stage: on } of models) {
    egma.handle(on, { tap: (event) => asks() && ask(patchAt(on.place(event))), again: () => asks() && ask(null) });
  }
  pair.addEventListener("keydown", (event) => {
    const step = ARROWS[event.key];
    if (!step || !asks()) return;
    event.preventDefault();
    const from = state.probe ?? [Math.floor(state.value.grid / 2), Math.floor(state.value.grid / 2)];
    const [first, last] = [patchAt([0, 0]), patchAt([1, 1])];
    ask(from.map((place, axis) => Math.min(Math.max(place + step[axis], first[axis]), last[axis])));
  });

  return (value) => {
    state.value = value;
    const shown = Boolean(value && picture());
    empty.hidden = shown;
    root.classList.toggle("egma-empty", !shown);
    if (!shown) return;
    const hasLines = value.lines.length > 0;
    const positive = value.lines.findIndex((line) => !egmaWords.absence(line.text));
    [state.chosen, state.hovered, note.textContent] = [Math.max(positive, 0), null, value.note || ""];
    pair.classList.toggle("egma-two", Boolean(value.second));
    for (const one of models) {
      one.name.hidden = !value.second;
      one.stage.element.hidden = !one.valueOf();
      one.legend.element.hidden = !one.valueOf() || !hasLines;
    }
    for (const element of [lines.strip, controls, files]) element.hidden = !hasLines;
    if (value.picture !== state.of) [state.of, state.frame] = [value.picture, null];
    offerFrame();
    ofPicture.refresh();
    set(() => ask(null));
    if (!hasLines) said.textContent = "Type a report, one sentence a line.";
  };
};
