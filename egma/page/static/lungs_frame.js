"use strict";
// The frame of the lungs: the picture's own, or one that a person draws with a pointer or with the arrow keys.
// `say(words)`, `render()` and `changed()` (another frame, or whether the maps keep to it) are the view's.
egma.lungsFrame = (stage, picture, { say, render, changed }) => {
  const { make } = egma;
  // the frame that the keyboard starts from, what an arrow moves its corner by, and the least side: fractions
  const [FIRST_FRAME, FRAME_STEP, LEAST_SIDE] = [[0.2, 0.1, 0.8, 0.9], 0.02, 0.05];
  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  // the frame that was drawn; while one is drawn: what it has come to, where the pointer began, the keyboard's corner
  let [drawn, dragged, corner, moved] = [null, null, null, 0];

  const only = make("input", { type: "checkbox", onchange: () => changed() });
  const draw = make("button", { type: "button", "aria-pressed": "false", onclick: () => (dragged ? end() : begin()) }, "Draw that frame");
  const frame = () => drawn ?? picture()?.chest ?? null;

  function begin() {
    [dragged, corner, moved] = [frame() ?? FIRST_FRAME, null, 0];
    say("Drag over the image from one corner of the lungs to the other; or move the upper left corner with the arrow keys, "
      + "press Enter, move the lower right one, and press Enter again. A click takes your frame back.");
    stage.canvas.focus({ preventScroll: true });
    mark(true);
  }

  function end() {
    [dragged, corner] = [null, null];
    say(null);
    mark(false);
  }

  function mark(drawing) {
    stage.grabbed = drawing;
    draw.setAttribute("aria-pressed", String(drawing));
    render();
  }

  // A frame that was drawn; one too small to be meant takes back what was drawn before.
  function take(taken) {
    end();
    drawn = taken[2] - taken[0] >= LEAST_SIDE && taken[3] - taken[1] >= LEAST_SIDE ? taken : null;
    offer();
    if (drawn) only.checked = true;
    changed();
  }

  // The box can be ticked where there is a frame.
  function offer() {
    only.disabled = !frame();
    if (only.disabled) only.checked = false;
    only.parentElement.title = only.disabled ? "This image comes without a frame of the lungs: draw one" : "";
  }

  // From the corner that the drawing began at to a place, as fractions of the picture.
  function rectangleTo([x1, y1]) {
    const [x0, y0] = corner;
    const edges = [Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1)];
    return edges.map((fraction) => Math.min(Math.max(fraction, 0), 1));
  }

  const tool = {
    down: (place) => (corner = place),
    move: (place) => {
      dragged = rectangleTo(place);
      render();
    },
    up: (place) => (place ? take(rectangleTo(place)) : end()),
  };

  // Arrows move a corner, Enter goes on to the other one and then ends.
  function key(event) {
    const step = ARROWS[event.key];
    if (!step && event.key !== "Enter") return;
    event.preventDefault();
    if (event.key === "Enter" && moved) return take(dragged);
    if (step) {
      dragged = [...dragged];
      for (const axis of [0, 1]) {
        const [low, high] = moved ? [dragged[axis] + LEAST_SIDE, 1] : [0, dragged[axis + 2] - LEAST_SIDE];
        dragged[moved + axis] = Math.min(Math.max(dragged[moved + axis] + FRAME_STEP * step[axis], low), high);
      }
    } else {
      moved = 2;
    }
    say(`${moved ? "Lower right" : "Upper left"} corner: ${egma.percent(dragged[moved])} from the left, `
      + `${egma.percent(dragged[moved + 1])} from the top.`);
    render();
  }

  return {
    controls: [make("label", {}, only, " Only the lungs' frame"), draw],
    within: () => (only.checked ? frame() : null),
    dragged: () => dragged,
    tool: () => (dragged ? tool : null),
    key,
    leave: end, // the frame stays as it was
    offer,
    forget: () => {
      if (dragged) end();
      drawn = null;
      offer();
    },
  };
};
