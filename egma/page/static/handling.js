"use strict";
// The picture under the hand: wheel, mouse and fingers on a stage, keys, and the controls that all views share.

// `tap(event)`: a click that was no drag; `again()`: a double click.
egma.handle = (stage, { tap = () => {}, again = () => {} } = {}) => {
  const { display, see } = egma;
  const { canvas } = stage;
  const [NOTCH, LEAST_DRAG] = [0.0015, 4]; // of a wheel's step; pixels
  const held = new Map(); // the pointers that are down: where they went down (pixels) and where they are (of the canvas)
  let [drag, moved] = [null, false];

  const pan = (...way) => see({ view: egmaOptics.panned(display.view, ...way) });
  const level = (...way) => see({ level: egmaOptics.dragged(display.level, ...way, display.presets.given, display.isDeep) });

  canvas.addEventListener("pointerdown", (event) => {
    held.set(event.pointerId, { from: [event.clientX, event.clientY], at: stage.onCanvas(event) });
    canvas.setPointerCapture(event.pointerId);
    if (held.size === 1) [drag, moved] = [event.button === 2 || event.shiftKey ? level : pan, false];
  });

  canvas.addEventListener("pointermove", (event) => {
    const pointer = held.get(event.pointerId);
    if (!pointer) return;
    const [before, now] = [pointer.at, stage.onCanvas(event)];
    moved ||= Math.hypot(event.clientX - pointer.from[0], event.clientY - pointer.from[1]) >= LEAST_DRAG;
    if (!moved) return;
    pointer.at = now;
    const other = [...held].find(([id]) => id !== event.pointerId)?.[1];
    if (other) see({ view: egmaOptics.pinched(display.view, [before, other.at], [now, other.at]) });
    else drag(now[0] - before[0], now[1] - before[1]);
  });

  for (const ending of ["pointerup", "pointercancel"]) canvas.addEventListener(ending, (event) => held.delete(event.pointerId));
  canvas.addEventListener("click", (event) => {
    if (!moved && event.detail < 2) tap(event);
  });
  canvas.addEventListener("dblclick", () => {
    see({ view: egmaOptics.WHOLE });
    again();
  });
  canvas.addEventListener("contextmenu", (event) => event.preventDefault()); // its button changes the greys
  canvas.addEventListener("touchstart", (event) => event.touches.length > 1 && event.preventDefault(), { passive: false });
  canvas.addEventListener("wheel", (event) => {
    const view = egmaOptics.zoomed(display.view, Math.exp(-NOTCH * event.deltaY), stage.onCanvas(event));
    if (view.scale === display.view.scale) return; // the whole picture is seen: the page scrolls
    event.preventDefault();
    see({ view });
  }, { passive: false });
};

// Invert, greys, what is shown first, the keys: the same above every picture. `keys`: the view's own.
egma.pictureControls = (root, keys = []) => {
  const { make, display, see } = egma;
  const ARROWS = { ArrowLeft: [0.1, 0], ArrowRight: [-0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] };
  const GREYS = { full: "full range", contrast: "2 to 98 %", dark: "dark half (lungs)", bright: "bright half (bones)", given: "as it came" };
  const names = Object.keys(GREYS);

  const invert = () => see({ level: { ...display.level, inverted: !display.level.inverted } });
  const preset = (name) => see({ level: { ...display.presets[name], inverted: display.level.inverted } });
  const level = (...way) => see({ level: egmaOptics.dragged(display.level, ...way, display.level, display.isDeep) });
  const zoom = (factor) => see({ view: egmaOptics.zoomed(display.view, factor, [0.5, 0.5]) });
  const wide = () => document.documentElement.toggleAttribute("data-egma-wide");
  const reset = () => {
    greys.value = "given";
    see({ level: { ...display.presets.given, inverted: false }, view: egmaOptics.WHOLE });
  };

  // key, what it does in words, what it does, what letting it go does
  const table = [
    ["+", "nearer", () => zoom(1.25)], ["-", "farther", () => zoom(0.8)],
    ["0", "the whole picture, its greys as they came", reset],
    ["i", "invert the greys", invert],
    ...names.map((name, place) => [String(place + 1), `greys: ${GREYS[name]}`, () => preset(name)]),
    ["[", "greys: a narrower window", () => level(-0.2, 0)], ["]", "greys: a wider window", () => level(0.25, 0)],
    [",", "darker", () => level(0, -0.1)], [".", "brighter", () => level(0, 0.1)],
    ["h", "hold: without the maps", () => see({ hidden: true }), () => see({ hidden: false })],
    ["o", "maps on or off", () => see({ maps: !display.maps })],
    ["b", "left column on or off", wide], ...keys, ["?", "this list", () => help.showModal()],
  ];
  const spoken = [["wheel, pinch", "nearer, farther"], ["drag", "move the enlarged picture (Shift and arrows, too)"],
    ["double click", "the whole picture"], ["right or Shift and drag", "greys: sideways the width of the window, upwards and downwards its middle"]];
  const help = make("dialog", { class: "egma-help", "aria-label": "Keys" }, make("dl", {},
    ...[...table, ...spoken].flatMap(([key, words]) => [make("dt", {}, make("kbd", {}, key)), make("dd", {}, words)])),
    make("button", { type: "button", onclick: () => help.close() }, "Close"));

  const typing = (event) => event.target.matches("select, input[type=text]") || event.ctrlKey || event.metaKey || event.altKey
    || (event.key === " " && event.target.matches("button, input[type=checkbox]"));
  root.addEventListener("keydown", (event) => {
    if (typing(event) || help.open) return;
    if (event.shiftKey && ARROWS[event.key]) see({ view: egmaOptics.panned(display.view, ...ARROWS[event.key]) });
    else if (!table.some(([key, , act]) => key === event.key && (act(), true))) return;
    event.preventDefault();
    event.stopImmediatePropagation();
  }, true);
  root.addEventListener("keyup", (event) => table.find(([key]) => key === event.key)?.[3]?.());
  root.addEventListener("focusout", () => display.hidden && see({ hidden: false }));

  const greys = make("select", { onchange: (event) => preset(event.target.value),
    title: "Windows by the picture's own greys, all that the file has; by hand: drag with the right button, or with Shift" },
  ...names.map((name) => make("option", { value: name }, GREYS[name])));
  const lookFirst = make("input", { type: "checkbox", checked: display.lookFirst, onchange: ({ target }) => {
    document.cookie = `egma_look_first=${target.checked}; max-age=31536000; SameSite=Lax`; // a wish of this browser
    see({ lookFirst: target.checked, maps: !target.checked });
  } });
  const button = (words, onclick, attributes = {}) => make("button", { type: "button", onclick, ...attributes }, words);
  const hint = make("span", { class: "egma-hint", hidden: true }, "Looks inverted (bright beside the neck), whatever the file says: I inverts it.");
  const element = make("div", { class: "egma-controls" },
    button("Show the maps", () => see({ maps: true }), { class: "egma-main egma-ask" }),
    button("Invert", invert), make("label", {}, "Greys ", greys), button("Reset", reset), button("Left column", wide, { class: "egma-column" }),
    make("label", { title: "A picture comes without the maps; ask for them when you have looked" }, lookFirst, " I look first"),
    button("Keys (?)", () => help.showModal()), hint, help);
  const refresh = () => ([hint.hidden, lookFirst.checked, greys.value] = [!display.inverted, display.lookFirst, "given"]);
  return { element, refresh };
};
