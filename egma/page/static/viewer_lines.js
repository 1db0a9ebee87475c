"use strict";
// Lines with their scores and all their maps as small multiples: one group, through which the arrow keys go.
egma.linesAndMaps = (label, { choose, preview }) => {
  const { make } = egma;
  const SMALL_SIDE = 132; // pixels of a small multiple
  const MARKS = { present: "\u2713", absent: "\u2717", uncertain: "?" };
  const list = make("ol", { class: "egma-lines", "aria-label": `${label}: up and down move, left and right go to the map, Enter chooses`, onkeydown: move });
  const strip = make("div", { class: "egma-strip", role: "group", "aria-label": `All maps: ${label}; left and right move, up and down go to the line`, onkeydown: move });

  // Up and down along the lines, left and right along the maps; across, from a line to its map and back.
  function move(event) {
    const step = { ArrowUp: -1, ArrowDown: 1, ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const along = (event.currentTarget === list) === /Up|Down/.test(event.key);
    const group = along ? event.currentTarget : event.currentTarget === list ? strip : list;
    const buttons = [...group.querySelectorAll("button")];
    const place = buttons.findIndex((one) => one.dataset.place === event.target.dataset.place);
    buttons[along ? place + step : place]?.focus();
  }

  function button(place, attributes, ...children) {
    return make("button", { type: "button", "data-place": place, onclick: () => choose(place),
      onmouseenter: () => preview(place), onmouseleave: () => preview(null),
      onfocus: () => preview(place), onblur: () => preview(null), ...attributes }, ...children);
  }

  function lineElement(value, place, here) {
    const line = value.lines[place];
    const absence = egmaWords.absence(line.text);
    const scores = [...(here ? [`here ${here(line).toFixed(2)}`] : []), egma.scoreText(line.scores)].join(" · ");
    return make("li", {}, button(place, {},
      make("span", { class: "egma-text" }, line.text),
      absence && line.bar === undefined ? make("span", { class: "egma-absent", title: "By its words: a bright map is no finding here" }, absence) : null,
      line.marked ? make("span", { class: "egma-marked", title: "By the corpus' labels of this image" },
        `${MARKS[line.marked]} marked ${line.marked}`) : null,
      line.detail ? make("span", { class: "egma-detail" }, line.detail) : null,
      line.rank ? make("span", { class: "egma-rank" }, `rank ${line.rank.place} of ${line.rank.of} sentences on this image`) : null,
      line.bar === undefined ? null : bar(line.bar), make("span", { class: "egma-scores" }, scores)));
  }

  function bar(share) {
    const filled = make("span");
    filled.style.width = `${100 * share}%`;
    return make("span", { class: "egma-bar" }, filled);
  }

  // The lines in the order of `places`; `here(line)`: its cosine at the place that was asked for.
  function showLines(value, places, here) {
    list.replaceChildren(...places.map((place) => lineElement(value, place, here)));
  }

  function showMaps(value, picture, look, scaleOf, within) {
    const smallLook = { ...look, opacity: Math.max(look.opacity, 0.5) };
    strip.replaceChildren(...value.lines.map((line, place) => {
      const [width, height] = egma.sized(picture, SMALL_SIDE);
      const canvas = make("canvas", { width, height, role: "img",
        "aria-label": `${line.text}: ${egma.peakInWords(line.map, value.grid, picture)}` });
      const context = canvas.getContext("2d");
      context.drawImage(picture.image, 0, 0, width, height);
      const heat = egma.colored(line.map, value.grid, picture, smallLook, scaleOf(line), within, SMALL_SIDE);
      egma.overlay(context, heat, width, height, look.smooth);
      return button(place, { title: line.text }, canvas, make("span", {}, line.text));
    }));
  }

  // The chosen line is where the Tab key enters; of the one whose map is shown line and small map stand out.
  function mark(chosen, shown) {
    for (const one of [list, strip].flatMap((group) => [...group.querySelectorAll("button")])) {
      const isChosen = Number(one.dataset.place) === chosen;
      one.toggleAttribute("data-shown", Number(one.dataset.place) === shown);
      one.setAttribute("aria-pressed", String(isChosen));
      one.tabIndex = isChosen && list.contains(one) ? 0 : -1;
    }
  }

  return { list, strip, showLines, showMaps, mark };
};
