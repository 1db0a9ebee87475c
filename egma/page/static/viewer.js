"use strict";
// Lines (sentences, or findings) beside the picture: a line's heat map over it, all maps as small multiples, and the
// reverse: a place of the picture that orders the lines.
egma.kinds.viewer = (root, { picture, label, hint }) => {
  const { make, Stage } = egma;
  const SMALL_SIDE = 132; // pixels of a small multiple
  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  // the frame that the keyboard starts from, what an arrow moves its corner by, and the least side: fractions
  const [FIRST_FRAME, FRAME_STEP, LEAST_SIDE] = [[0.2, 0.1, 0.8, 0.9], 0.02, 0.05];
  const look = { opacity: 0.65, colorMap: "magma", smooth: true };
  let [value, chosen, hovered, probe, lungsOnly] = [null, 0, null, null, false];
  // the frame that a person draws where the image comes without one, the corner that the drawing began at, what it has
  // come to, the corner that the keyboard moves, and whether a click may follow that ended it
  let [drawnFrame, drawing, corner, dragged, moved, ended, of] = [null, false, null, null, 0, false, null];

  const stage = new Stage("Radiograph", { tabindex: "0", class: "egma-probed" });
  const legend = egma.legend();
  const list = make("ol", { class: "egma-lines" });
  const strip = make("div", { class: "egma-strip", role: "group", "aria-label": `All maps: ${label}` });
  const note = make("p", { class: "egma-note" });
  const said = make("p", { class: "egma-said", "aria-live": "polite" });
  const back = make("button", { type: "button", onclick: () => ask(null) }, "Back to the first order");
  const lungs = make("input", { type: "checkbox", onchange: (event) => set(() => (lungsOnly = event.target.checked)) });
  const draw = make("button", { type: "button", onclick: () => {
    drawing = !drawing;
    draw.setAttribute("aria-pressed", String(drawing));
    stage.canvas.style.touchAction = drawing ? "none" : "";
    [dragged, moved] = [drawing ? frame() ?? FIRST_FRAME : null, 0];
    said.textContent = drawing
      ? "Drag over the image from one corner of the lungs to the other; or move the upper left corner with the arrow keys, "
        + "press Enter, move the lower right one, and press Enter again. A click takes your frame back."
      : hintOfLines();
    if (drawing) stage.canvas.focus({ preventScroll: true });
    render();
  } }, "Draw that frame");
  const controls = make("div", { class: "egma-controls" },
    make("label", {}, "Opacity ", make("input", { type: "range", min: 0, max: 1, step: 0.05, value: look.opacity,
      oninput: (event) => set(() => (look.opacity = Number(event.target.value))) })),
    make("label", {}, "Colours ", make("select", { onchange: (event) => set(() => (look.colorMap = event.target.value)) },
      ...Object.keys(window.egmaColorMaps).map((name) => make("option", { value: name }, name)))),
    make("label", {}, make("input", { type: "checkbox", checked: true,
      onchange: (event) => set(() => (look.smooth = event.target.checked)) }), " Smooth"),
    make("label", {}, lungs, " Only the lungs' frame"), draw);
  const side = make("div", { class: "egma-side" }, said, back, list, note);
  const stageColumn = make("div", { class: "egma-stage-column" }, stage.element, legend.element, controls, strip);
  const empty = make("p", { class: "egma-note" }, hint);
  root.append(empty, make("div", { class: "egma-split" }, stageColumn, side));

  // A change of how all maps look.
  function set(change) {
    change();
    render();
    multiples();
  }

  function choose(place) {
    chosen = place;
    render();
  }

  function preview(place) {
    hovered = place;
    render();
  }

  const shownPlace = () => hovered ?? chosen;
  const frame = () => drawnFrame ?? picture()?.chest ?? null;
  const within = () => (lungsOnly ? frame() : null);

  stage.draw = (context, width, height) => {
    const line = value.lines[shownPlace()];
    if (line) {
      const { canvas, low, high } = egma.colored(line.map, value.grid, picture(), look, within());
      egma.overlay(context, canvas, width, height, look.smooth);
      legend.show(low, high, look.colorMap);
    }
    const marked = dragged ?? (probe && egma.patchRectangle(value.grid, picture(), ...probe));
    if (marked) {
      const [left, top, right, bottom] = marked;
      for (const [color, thickness] of [["#000", 4], ["#fff", 2]]) {
        [context.strokeStyle, context.lineWidth] = [color, thickness];
        context.strokeRect(left * width, top * height, (right - left) * width, (bottom - top) * height);
      }
    }
  };

  const hintOfLines = () => (value.lines.length
    ? "Hover or choose a line to see its map; click the image (or use the arrow keys on it) to ask in reverse." : "");

  // --- the reverse: which line fits a place best ---

  const here = (line) => line.map[probe[1] * value.grid + probe[0]];

  function ask(patch) {
    probe = patch;
    const places = [...value.lines.keys()];
    if (probe) {
      places.sort((a, b) => here(value.lines[b]) - here(value.lines[a]));
      chosen = places[0] ?? 0;
      said.textContent = value.lines.length
        ? `At column ${probe[0] + 1}, row ${probe[1] + 1} of ${value.grid}: "${value.lines[chosen].text}" fits best.`
        : "";
    } else {
      said.textContent = hintOfLines();
    }
    list.replaceChildren(...places.map(lineElement));
    render();
  }

  // --- the lungs' frame ---

  stage.canvas.addEventListener("pointerdown", (event) => {
    ended = false;
    if (!drawing) return;
    corner = stage.place(event);
    stage.canvas.setPointerCapture(event.pointerId);
  });
  stage.canvas.addEventListener("pointerup", (event) => {
    if (!corner) return;
    const drawn = rectangleTo(event);
    [corner, ended] = [null, true]; // a click follows from a mouse, none from a finger
    draw.click();
    take(drawn);
  });
  stage.canvas.addEventListener("pointermove", (event) => {
    if (!corner) return;
    dragged = rectangleTo(event);
    render();
  });

  // A frame that was drawn; one too small to be meant takes back what was drawn before.
  function take(drawn) {
    drawnFrame = drawn[2] - drawn[0] >= LEAST_SIDE && drawn[3] - drawn[1] >= LEAST_SIDE ? drawn : null;
    offerFrame();
    if (drawnFrame) lungs.checked = lungsOnly = true;
    set(() => {});
  }

  // The box can be ticked where there is a frame.
  function offerFrame() {
    lungs.disabled = !frame();
    if (lungs.disabled) lungs.checked = lungsOnly = false;
    lungs.parentElement.title = lungs.disabled ? "This image comes without a frame of the lungs: draw one" : "";
  }

  // Arrows move a corner, Enter goes on to the other one and then ends, Escape leaves the frame as it was.
  function drawByKey(event) {
    const step = ARROWS[event.key];
    if (!step && event.key !== "Enter" && event.key !== "Escape") return;
    event.preventDefault();
    if (step) {
      dragged = [...dragged];
      for (const axis of [0, 1]) {
        const [low, high] = moved ? [dragged[axis] + LEAST_SIDE, 1] : [0, dragged[axis + 2] - LEAST_SIDE];
        dragged[moved + axis] = Math.min(Math.max(dragged[moved + axis] + FRAME_STEP * step[axis], low), high);
      }
    } else if (event.key === "Enter" && moved === 0) {
      moved = 2;
    } else {
      const drawn = dragged;
      draw.click();
      if (event.key === "Enter") take(drawn);
      return;
    }
    said.textContent = `${moved ? "Lower right" : "Upper left"} corner: ${egma.percent(dragged[moved])} from the left, `
      + `${egma.percent(dragged[moved + 1])} from the top.`;
    render();
  }

  // From the corner that the drawing began at to an event, as fractions of the picture.
  function rectangleTo(event) {
    const [[x0, y0], [x1, y1]] = [corner, stage.place(event)];
    const edges = [Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1)];
    return edges.map((fraction) => Math.min(Math.max(fraction, 0), 1));
  }

  stage.canvas.addEventListener("click", (event) => {
    if (ended) return void (ended = false);
    if (!value?.lines.length || !picture()) return;
    ask(egma.patchPlace(value.grid, picture(), ...stage.place(event)).map(Math.floor));
  });
  stage.canvas.addEventListener("keydown", (event) => {
    if (drawing) return drawByKey(event);
    const step = ARROWS[event.key];
    if (event.key === "Escape") ask(null);
    if (!step || !value?.lines.length || !picture()) return;
    event.preventDefault();
    const from = probe ?? [Math.floor(value.grid / 2), Math.floor(value.grid / 2)];
    const [first, last] = [[0, 0], [1, 1]].map((corner) => egma.patchPlace(value.grid, picture(), ...corner).map(Math.floor));
    ask(from.map((place, axis) => Math.min(Math.max(place + step[axis], first[axis]), last[axis])));
  });

  // --- lines and small multiples ---

  function lineElement(place) {
    const line = value.lines[place];
    const scores = probe ? `here ${here(line).toFixed(2)} · ${egma.scoreText(line.scores)}` : egma.scoreText(line.scores);
    return make("li", {}, make("button", {
      type: "button", "aria-pressed": String(place === chosen), "data-place": place,
      onclick: () => choose(place), onmouseenter: () => preview(place), onmouseleave: () => preview(null),
      onfocus: () => preview(place), onblur: () => preview(null),
    }, make("span", { class: "egma-text" }, line.text),
    line.detail ? make("span", { class: "egma-detail" }, line.detail) : null,
    value.bars ? bars(line.scores) : make("span", { class: "egma-scores" }, scores)));
  }

  function bars(scores) {
    const all = value.lines.flatMap((line) => line.scores.map((score) => score.value));
    const [low, high] = [Math.min(0, ...all), Math.max(0, ...all, 1e-6)];
    const share = (number) => `${(100 * (number - low)) / (high - low)}%`;
    return make("span", { class: "egma-bars" }, ...scores.flatMap((score, kind) => {
      const [from, to] = [Math.min(0, score.value), Math.max(0, score.value)];
      const bar = make("span", { class: `egma-bar egma-bar-${kind}` });
      bar.style.marginLeft = share(from);
      bar.style.width = `calc(${share(to)} - ${share(from)})`;
      return [make("span", { class: "egma-bar-title" }, score.title), make("span", { class: "egma-bar-box" }, bar),
        make("span", { class: "egma-bar-value" }, score.value.toFixed(2))];
    }));
  }

  function multiples() {
    const smallLook = { ...look, opacity: Math.max(look.opacity, 0.5) };
    strip.replaceChildren(...value.lines.map((line, place) => {
      const shown = picture();
      const scale = SMALL_SIDE / Math.max(shown.width, shown.height);
      const canvas = make("canvas", { width: Math.max(1, Math.round(shown.width * scale)),
        height: Math.max(1, Math.round(shown.height * scale)), role: "img",
        "aria-label": `${line.text}: ${egma.peakInWords(line.map, value.grid, shown)}` });
      const context = canvas.getContext("2d");
      context.drawImage(shown.image, 0, 0, canvas.width, canvas.height);
      const { canvas: heat } = egma.colored(line.map, value.grid, shown, smallLook, within(), SMALL_SIDE);
      egma.overlay(context, heat, canvas.width, canvas.height, look.smooth);
      return make("button", { type: "button", "aria-pressed": String(place === chosen), title: line.text,
        "data-place": place, onclick: () => choose(place) }, canvas, make("span", {}, line.text));
    }));
  }

  function render() {
    const shown = picture();
    if (!value || !shown) return;
    stage.render(shown);
    const line = value.lines[shownPlace()];
    stage.describe(line
      ? `Radiograph with the heat map of "${line.text}", ${egma.peakInWords(line.map, value.grid, shown)}`
      : "Radiograph");
    for (const button of [...list.querySelectorAll("button"), ...strip.children]) {
      button.setAttribute("aria-pressed", String(Number(button.dataset.place) === chosen));
    }
    back.hidden = !probe;
  }

  return (next) => {
    value = next;
    const shown = Boolean(value && picture());
    empty.hidden = shown;
    root.classList.toggle("egma-empty", !shown);
    if (!shown) return;
    const hasLines = value.lines.length > 0;
    [chosen, hovered, note.textContent] = [0, null, value.note || ""];
    [legend.element.hidden, strip.hidden, controls.hidden] = [!hasLines, !hasLines, !hasLines];
    if (value.picture !== of) {
      if (drawing) draw.click();
      [drawnFrame, of] = [null, value.picture];
    }
    offerFrame();
    ask(null);
    multiples();
    if (!hasLines) said.textContent = "Type a report, one sentence a line.";
  };
};
