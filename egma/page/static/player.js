"use strict";
// A recording played back in time: fixations as circles sized by duration, the scanpath, the sentence that is being
// said; beside it the model's map of that sentence, and how well both agree.
egma.kinds.player = (root, { picture }) => {
  const { make, Stage, seconds } = egma;
  const LOOK = { opacity: 0.65, colorMap: "magma", smooth: true };
  const RADIUS_OF_A_SECOND = 0.05; // of the picture's long side; the circle's area follows the duration
  const [PATH_FIXATIONS, NOW, BEFORE, COUNTED] = [12, "#E69F00", "#56B4E9", "#009E73"]; // Okabe and Ito, 2008
  let [value, time, playing, last, spoken, speed] = [null, 0, false, null, null, 1];
  const maps = { model: null, reader: null };
  const shown = { heat: false, gaze: false };

  const [reader, model] = ["The reader's gaze", "The model's map"].map((alt) =>
    new Stage(alt, { tabindex: "0", role: "application" }));
  const legend = egma.legend();
  const sentence = make("p", { class: "egma-spoken", "aria-live": "polite" });
  const play = make("button", { type: "button", class: "egma-play", onclick: () => toggle(!playing) }, "Play");
  const slider = make("input", { type: "range", min: 0, max: 1, step: 0.01, value: 0, "aria-label": "Time",
    oninput: (event) => seek(Number(event.target.value)) });
  const track = make("div", { class: "egma-track", "aria-hidden": "true" });
  const clock = make("span", { class: "egma-clock" });
  const speeds = make("select", { "aria-label": "Speed", onchange: (event) => (speed = Number(event.target.value)) },
    ...[0.5, 1, 2, 4].map((factor) => make("option", { value: factor, selected: factor === 1 }, `${factor} ×`)));
  const tick = (title, name) => make("label", {}, make("input", { type: "checkbox", onchange: (event) => {
    shown[name] = event.target.checked;
    draw();
  } }), ` ${title}`);
  const [heatBox, gazeBox] = [tick("Reader's heat map", "heat"), tick("Gaze on the model's map, too", "gaze")];
  const controls = make("div", { class: "egma-controls" }, play, make("div", { class: "egma-time" }, slider, track), clock, speeds,
    heatBox, gazeBox);
  const ofPicture = egma.pictureControls(root, [[" ", "play or pause", () => toggle(!playing)],
    ["ArrowLeft", "a second back", () => seek(time - 1)], ["ArrowRight", "a second on", () => seek(time + 1)]]);
  const rows = make("tbody");
  const centre = make("p", { class: "egma-note" });
  const TITLES = ["Sentence", "said", "NSS", "NSS of the centre", "CC", "CC of the centre"];
  const table = make("table", { class: "egma-table" },
    make("thead", {}, make("tr", {}, ...TITLES.map((title) => make("th", { scope: "col" }, title)))), rows);
  const note = make("p", { class: "egma-note" });
  const body = make("div", {}, ofPicture.element, sentence,
    make("div", { class: "egma-pair" },
      make("figure", {}, reader.element, make("figcaption", {}, "The reader's gaze")),
      make("figure", {}, model.element, legend.element, make("figcaption", {}, "Where the model finds the sentence"))),
    controls, make("div", { class: "egma-scroll" }, table), centre);
  root.append(body, note);
  for (const stage of [reader, model]) egma.handle(stage);

  // --- drawing ---

  function drawGaze(context, width, height, thin) {
    const { x, y, start, duration } = value.fixations;
    const scored = value.sentences[spoken]?.window;
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
        [context.strokeStyle, context.lineWidth] = [BEFORE, 1.5 * thin];
        context.stroke();
      }
      const now = time < start[place] + duration[place];
      const lasted = Math.min(duration[place], time - start[place]);
      context.beginPath();
      context.arc(left, top, Math.max(3 * thin, scale * Math.sqrt(lasted)), 0, 2 * Math.PI);
      const past = egmaTimeline.counts(start[place], duration[place], scored) ? COUNTED : BEFORE;
      [context.fillStyle, context.strokeStyle, context.lineWidth] = [now ? NOW : past, "#000", thin];
      context.fill();
      context.stroke();
    }
    context.globalAlpha = 1;
  }

  reader.draw = (context, width, height, thin) => {
    if (shown.heat && maps.reader && egma.mapsSeen()) egma.overlay(context, maps.reader, width, height, true);
    drawGaze(context, width, height, thin);
  };

  model.draw = (context, width, height, thin) => {
    if (maps.model && egma.mapsSeen()) egma.overlay(context, maps.model, width, height, true);
    if (shown.gaze) drawGaze(context, width, height, thin);
  };

  function draw() {
    reader.render(picture());
    model.render(picture());
  }

  // --- time ---

  const begin = () => egmaTimeline.begin(value);
  const end = () => egmaTimeline.end(value);
  const fromBegin = (moment) => moment - begin(); // what is shown starts at 0

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
    clock.textContent = `${seconds(fromBegin(time))} of ${seconds(fromBegin(end()))}`;
    slider.setAttribute("aria-valuetext", clock.textContent);
    const { place, speaking } = egmaTimeline.sentenceAt(value.sentences, time);
    sentence.classList.toggle("egma-silent", !speaking);
    if (place !== null && place !== spoken) say(place);
    if (shown.gaze) model.render(picture());
    reader.render(picture());
  }

  // Under the slider: when each sentence was said, and the window in which the shown one's fixations count.
  function showTrack() {
    const whole = end() - begin() || 1;
    const part = (kind, from, to) => {
      const element = make("span", { class: `egma-track-${kind}` });
      const [left, right] = [from, to].map((moment) => Math.min(Math.max(fromBegin(moment) / whole, 0), 1));
      [element.style.left, element.style.width] = [`${100 * left}%`, `${100 * (right - left)}%`];
      return element;
    };
    const scored = value.sentences[spoken]?.window;
    track.replaceChildren(...value.sentences.filter((one) => one.start !== null).map((one) => part("said", one.start, one.end)),
      ...(scored ? [part("scored", ...scored)] : []));
  }

  // The sentence that both sides show.
  function say(place) {
    spoken = place;
    const one = value.sentences[place];
    const scaleOf = (all) => egmaMaps.scaleOf(all, value.grid, picture());
    const scale = scaleOf(value.sentences.map((other) => other.map));
    maps.model = one ? egma.colored(one.map, value.grid, picture(), LOOK, scale) : null;
    maps.reader = one?.gaze_map ? egma.colored(one.gaze_map, value.grid, picture(), LOOK, scaleOf([one.gaze_map])) : null;
    sentence.textContent = one ? `“${one.text}”` : "";
    if (one) {
      legend.show(...scale, LOOK.colorMap);
      model.describe(`The model's map of "${one.text}", ${egma.peakInWords(one.map, value.grid, picture())}`);
    }
    [...rows.children].forEach((row, at) => row.toggleAttribute("data-spoken", at === place));
    showTrack();
    draw();
  }

  // --- the sentences, with their agreement ---

  function sentenceRow(one, place) {
    const start = make("button", { type: "button", onclick: () => {
      if (one.start === null) say(place);
      else seek(one.start + 0.001);
    } }, one.text);
    const cells = one.agreement
      ? ["nss", "cc"].flatMap((metric) => [one.agreement.model[metric], one.agreement.centre[metric]])
        .map((number, at) => make("td", { "data-title": TITLES[at + 2] }, number.toFixed(2)))
      : [make("td", { colspan: 4 }, one.reason)];
    const when = one.start === null ? "untimed" : `${fromBegin(one.start).toFixed(1)} to ${seconds(fromBegin(one.end))}`;
    return make("tr", {}, make("th", { scope: "row" }, start), make("td", { "data-title": TITLES[1] }, when), ...cells);
  }

  return (next) => {
    toggle(false);
    value = next;
    note.textContent = value?.note || "";
    body.hidden = !value?.fixations || !picture();
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
    heatBox.hidden = !value.sentences.some((one) => one.gaze_map);
    ofPicture.refresh();
    say(egmaTimeline.sentenceAt(value.sentences, begin()).place ?? 0);
    seek(begin());
  };
};
