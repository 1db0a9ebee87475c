"use strict";
// A recording played back in time: fixations as circles sized by duration, the scanpath, the sentence that is being
// said; beside it the model's map of that sentence, and how well both agree.
egma.kinds.player = (root, { picture }) => {
  const { make, Stage, seconds } = egma;
  const LOOK = { opacity: 0.65, colorMap: "magma", smooth: true };
  const RADIUS_OF_A_SECOND = 0.05; // of the picture's long side; the circle's area follows the duration
  const [PATH_FIXATIONS, NOW, BEFORE] = [12, "#E69F00", "#56B4E9"]; // Okabe and Ito, 2008
  let [value, time, playing, last, spoken, speed, heat] = [null, 0, false, null, null, 1, false];
  const maps = { model: null, reader: null };

  const reader = new Stage("The reader's gaze");
  const model = new Stage("The model's map");
  const legend = egma.legend();
  const sentence = make("p", { class: "egma-spoken", "aria-live": "polite" });
  const play = make("button", { type: "button", class: "egma-play", onclick: () => toggle(!playing) }, "Play");
  const slider = make("input", { type: "range", min: 0, max: 1, step: 0.01, value: 0, "aria-label": "Time",
    oninput: (event) => seek(Number(event.target.value)) });
  const clock = make("span", { class: "egma-clock" });
  const speeds = make("select", { "aria-label": "Speed", onchange: (event) => (speed = Number(event.target.value)) },
    ...[0.5, 1, 2, 4].map((factor) => make("option", { value: factor, selected: factor === 1 }, `${factor} ×`)));
  const heatBox = make("input", { type: "checkbox", onchange: (event) => {
    heat = event.target.checked;
    reader.render(picture());
  } });
  const controls = make("div", { class: "egma-controls" }, play, slider, clock, speeds,
    make("label", {}, heatBox, " Reader's heat map"));
  const rows = make("tbody");
  const centre = make("p", { class: "egma-note" });
  const table = make("table", { class: "egma-table" },
    make("thead", {}, make("tr", {}, ...["Sentence", "said", "NSS", "NSS of the centre", "CC", "CC of the centre"]
      .map((title) => make("th", { scope: "col" }, title)))), rows);
  const note = make("p", { class: "egma-note" });
  const body = make("div", {}, sentence,
    make("div", { class: "egma-pair" },
      make("figure", {}, reader.element, make("figcaption", {}, "The reader's gaze")),
      make("figure", {}, model.element, legend.element, make("figcaption", {}, "Where the model finds the sentence"))),
    controls, make("div", { class: "egma-scroll" }, table), centre);
  root.append(body, note);

  // --- drawing ---

  reader.draw = (context, width, height) => {
    if (heat && maps.reader) egma.overlay(context, maps.reader.canvas, width, height, true);
    const { x, y, start, duration } = value.fixations;
    const begun = start.findLastIndex((from) => from <= time);
    const from = Math.max(0, begun - PATH_FIXATIONS);
    const scale = RADIUS_OF_A_SECOND * Math.max(width, height);
    for (let place = from; place <= begun; place++) {
      const fading = (place - from + 1) / (begun - from + 1);
      const [left, top] = [x[place] * width, y[place] * height];
      context.globalAlpha = 0.25 + 0.6 * fading;
      if (place > from) {
        context.beginPath();
        context.moveTo(x[place - 1] * width, y[place - 1] * height);
        context.lineTo(left, top);
        [context.strokeStyle, context.lineWidth] = [BEFORE, 1.5];
        context.stroke();
      }
      const now = time < start[place] + duration[place];
      const lasted = Math.min(duration[place], time - start[place]);
      context.beginPath();
      context.arc(left, top, Math.max(3, scale * Math.sqrt(lasted)), 0, 2 * Math.PI);
      [context.fillStyle, context.strokeStyle, context.lineWidth] = [now ? NOW : BEFORE, "#000", 1];
      context.fill();
      context.stroke();
    }
    context.globalAlpha = 1;
  };

  model.draw = (context, width, height) => {
    if (maps.model) egma.overlay(context, maps.model.canvas, width, height, true);
  };

  // --- time ---

  function begin() {
    const { start } = value.fixations;
    return Math.min(start[0], ...value.sentences.filter((one) => one.start !== null).map((one) => one.start));
  }

  function end() {
    const { start, duration } = value.fixations;
    const ends = value.sentences.filter((one) => one.end !== null).map((one) => one.end);
    return Math.max(start.at(-1) + duration.at(-1), ...ends);
  }

  function saidAt(moment) {
    const place = value.sentences.findIndex((one) => one.start !== null && one.start <= moment && moment < one.end);
    return place < 0 ? null : place;
  }

  function toggle(wanted) {
    playing = wanted;
    play.textContent = playing ? "Pause" : "Play";
    if (!playing) return;
    if (time >= end()) seek(begin());
    last = null;
    requestAnimationFrame(step);
  }

  function step(now) {
    if (!playing || !root.isConnected) return;
    if (last !== null) seek(time + ((now - last) / 1000) * speed);
    last = now;
    if (time >= end()) toggle(false);
    else requestAnimationFrame(step);
  }

  function seek(moment) {
    time = Math.min(Math.max(moment, begin()), end());
    slider.value = time;
    clock.textContent = `${seconds(time)} of ${seconds(end())}`;
    const said = saidAt(time);
    sentence.classList.toggle("egma-silent", said === null);
    if (said !== null && said !== spoken) say(said);
    reader.render(picture());
  }

  // The sentence that both sides show: the one that is being said, or the last one that was.
  function say(place) {
    spoken = place;
    const one = value.sentences[place];
    maps.model = one ? egma.colored(one.map, value.grid, picture(), LOOK) : null;
    maps.reader = one?.gaze_map ? egma.colored(one.gaze_map, value.grid, picture(), LOOK) : null;
    sentence.textContent = one ? `“${one.text}”` : "";
    if (one) {
      legend.show(maps.model.low, maps.model.high, LOOK.colorMap);
      model.describe(`The model's map of "${one.text}", ${egma.peakInWords(one.map, value.grid, picture())}`);
    }
    [...rows.children].forEach((row, at) => row.toggleAttribute("data-spoken", at === place));
    model.render(picture());
  }

  // --- the sentences, with their agreement ---

  function sentenceRow(one, place) {
    const start = make("button", { type: "button", onclick: () => {
      if (one.start === null) say(place);
      else seek(one.start + 0.001);
    } }, one.text);
    const cells = one.agreement
      ? ["nss", "cc"].flatMap((metric) => [one.agreement.model[metric], one.agreement.centre[metric]])
        .map((number) => make("td", {}, number.toFixed(2)))
      : [make("td", { colspan: 4 }, one.reason)];
    const when = one.start === null ? "untimed" : `${one.start.toFixed(1)} to ${seconds(one.end)}`;
    return make("tr", {}, make("th", { scope: "row" }, start), make("td", {}, when), ...cells);
  }

  return (next) => {
    toggle(false);
    value = next;
    const shown = picture();
    note.textContent = value?.note || "";
    body.hidden = !value?.fixations || !shown;
    if (body.hidden) return;
    rows.replaceChildren(...value.sentences.map(sentenceRow));
    centre.textContent = value.sentences.some((one) => one.agreement)
      ? `NSS (normalised scanpath saliency) and CC (linear correlation) of the model's map with the fixations in a sentence's window: the time in which it was said, ${
        value.lead_seconds ? `${seconds(value.lead_seconds)} earlier, as the model takes the eyes to run ahead` : "no lead"
      }. Chance is 0. Centre: ${value.centre_source}.`
      : "";
    reader.describe(`Playback of ${value.fixations.x.length} fixations`);
    [slider.min, slider.max] = [begin(), end()];
    [legend.element.hidden, table.hidden] = [value.sentences.length === 0, value.sentences.length === 0];
    heatBox.disabled = !value.sentences.some((one) => one.gaze_map);
    if (heatBox.disabled) heatBox.checked = heat = false;
    spoken = null;
    say(value.sentences.findIndex((one) => one.start !== null) < 0 ? 0 : saidAt(begin()) ?? 0);
    seek(begin());
  };
};
