"use strict";
// A mouse (or a finger) as an eye tracker: its places on the picture while a report is typed or spoken.
egma.kinds.recorder = (root, { picture, trigger }) => {
  const { make, Stage, seconds } = egma;
  const TRAIL = 60; // samples
  const backups = egma.storage("localStorage");
  const [KEPT, KEPT_EVERY] = ["egma-recording ", 300]; // of backups' names; samples
  // `key`: its backup's name; `sent`: of the one that was finished last; `refused`: the browser had no room for a backup
  let [value, running, started, pointer, samples, sentences, key, sent, refused] = [null, false, 0, null, empty(), [], "", "", false];
  const made = new Map(); // the finished ones by their backups' names: reading, picture's id and address, whether downloaded

  const stage = new Stage("Radiograph: move the pointer to where you look", { class: "egma-recorded" }, true);
  const begin = make("button", { type: "button", class: "egma-main", onclick: () => egma.mayLose("Another one begins") && start() }, "Start");
  const done = make("button", { type: "button", onclick: endSentence }, "Sentence done (Enter)");
  const finish = make("button", { type: "button", class: "egma-main", onclick: send }, "Finish");
  const discard = make("button", { type: "button", onclick: () =>
    egma.mayLose("This ends it", egma.hand.recording || made.get(key)?.saved === false) && reset(made.delete(key)) }, "Discard");
  const text = make("input", { type: "text", maxlength: 400, "aria-label": "The sentence",
    placeholder: "Type the sentence, or speak and write it later",
    onkeydown: (event) => {
      if (event.key === "Enter") endSentence();
    }, oninput: keep });
  const clock = make("span", { class: "egma-clock", role: "timer" });
  const list = make("ol", { class: "egma-said-list" });
  const [reader, patient] = ["Reader (optional)", "Patient, pseudonymous (optional)"].map((title) =>
    make("input", { type: "text", maxlength: 60, "aria-label": title, placeholder: title }));
  const result = make("div", { class: "egma-result", "aria-live": "polite" });
  const all = make("button", { type: "button", onclick: saveAll });
  const left = make("div", { class: "egma-note" });
  const steps = make("ol", { class: "egma-note" },
    make("li", {}, "Start, and keep the pointer on the picture where you look."),
    make("li", {}, "Type a sentence, or speak it, and press Enter when it ends. What you spoke can be written later."),
    make("li", {}, "Finish: the trace becomes a reading, its source named tracker/mouse, to download."));
  root.append(make("div", { class: "egma-split" }, make("div", { class: "egma-stage-column" }, stage.element),
    make("div", { class: "egma-side" }, left, steps, make("div", { class: "egma-controls" }, begin, done, finish, discard, clock),
      text, list, make("div", { class: "egma-controls" }, reader, patient), all, result)));

  function empty() {
    return { x: [], y: [], time: [] };
  }

  const now = () => (performance.now() - started) / 1000;

  // --- the trace ---

  stage.canvas.addEventListener("pointermove", (event) => (pointer = stage.place(event)));
  stage.canvas.addEventListener("pointerdown", (event) => (pointer = stage.place(event)));
  stage.canvas.addEventListener("pointerleave", () => (pointer = null));

  function start() {
    reset();
    [running, started, key] = [true, performance.now(), KEPT + new Date().toLocaleString()];
    buttons();
    text.focus({ preventScroll: true }); // what is disabled takes no focus
    requestAnimationFrame(sample);
  }

  // Every frame, also while the pointer rests: resting is looking.
  function sample() {
    if (!running || !root.isConnected) return;
    if (pointer) {
      samples.x.push(Number(pointer[0].toFixed(5)));  // short: a request holds 2 MiB
      samples.y.push(Number(pointer[1].toFixed(5)));
      samples.time.push(Number(now().toFixed(4)));
      if (samples.time.length % KEPT_EVERY === 0) keep();
    }
    clock.textContent = `${seconds(now())}, ${sentences.length} sentences`;
    stage.render(picture());
    requestAnimationFrame(sample);
  }

  stage.draw = (context, width, height) => {
    if (!running) return;
    context.fillStyle = "#E69F00";
    const from = Math.max(0, samples.x.length - TRAIL);
    for (let place = from; place < samples.x.length; place++) {
      context.globalAlpha = (place - from + 1) / (samples.x.length - from + 1);
      context.beginPath();
      context.arc(samples.x[place] * width, samples.y[place] * height, 4, 0, 2 * Math.PI);
      context.fill();
    }
    context.globalAlpha = 1;
  };

  // --- sentences ---

  function endSentence() {
    if (!running) return;
    const from = sentences.length ? sentences.at(-1).end_seconds : 0;
    sentences.push({ text: text.value.trim(), start_seconds: from, end_seconds: now() });
    text.value = "";
    text.focus({ preventScroll: true });
    keep();
    showSentences();
  }

  function showSentences() {
    list.replaceChildren(...sentences.map((one, place) => make("li", {},
      make("input", { type: "text", value: one.text, maxlength: 400, "aria-label": `Sentence ${place + 1}`,
        placeholder: "Write what was said", oninput: (event) => edit(one, event.target.value) }),
      make("span", {}, `${one.start_seconds.toFixed(1)} to ${seconds(one.end_seconds)}`))));
    buttons();
  }

  function edit(sentence, words) {
    sentence.text = words;
    keep();
    if (!made.delete(key)) return;
    result.replaceChildren(make("p", {}, "Changed since: press Finish again for the files."));
    buttons();
  }

  function send() {
    if (text.value.trim() && running) endSentence();
    [running, sent] = [false, key];
    made.delete(key);
    keep();
    buttons();
    stage.render(picture());
    trigger("finish", { samples, sentences, reader_id: reader.value.trim(), subject_id: patient.value.trim() });
  }

  function reset() {
    if (!made.has(key)) backups?.removeItem(key);
    [key, running, samples, sentences] = ["", false, empty(), []];
    [clock.textContent, text.value] = ["", ""];
    result.replaceChildren();
    showSentences();
    if (picture()) stage.render(picture());
  }

  function buttons() {
    egma.hand.recording = running || (samples.x.length > 0 && !made.has(key));
    egma.hand.finished = [...made.values()].some((one) => !one.saved);
    [all.hidden, all.textContent] = [!made.size, `Download all recordings (${made.size}) in one ZIP`];
    begin.disabled = running || !picture();
    [done.disabled, text.disabled] = [!running, !running];
    finish.disabled = !sentences.length && !running;
    discard.disabled = !running && !samples.x.length;
    offer();
  }

  // --- what is not downloaded yet lies in this browser, and is offered again after a reload ---

  function keep() {
    try {
      backups.setItem(key, JSON.stringify({ picture: value.picture, samples, sentences, typed: text.value.trim(), names: [reader.value, patient.value] }));
      refused = false;
    } catch {
      refused = true;
    }
  }

  function offer() {
    const names = Object.keys(backups ?? {}).filter((name) => name.startsWith(KEPT) && name !== key && !made.has(name));
    const full = refused ? "This browser has no room for a backup of the recording: download it before you leave." : "";
    left.replaceChildren(full, ...names.map((name) => {
      const kept = JSON.parse(backups.getItem(name));
      const another = running || kept.picture !== value?.picture;
      return make("p", {}, `A recording of ${name.slice(KEPT.length)} was not downloaded${another ? "; it can be restored over its own picture" : ""}. `,
        make("button", { type: "button", disabled: another, onclick: () => egma.mayLose("Another one comes") && restore(name, kept) }, "Restore"),
        make("button", { type: "button", onclick: () => offer(backups?.removeItem(name)) }, "Discard it"));
    }));
  }

  function restore(name, kept) {
    reset();
    [key, samples, sentences, [reader.value, patient.value]] = [name, kept.samples, kept.sentences, kept.names];
    const from = sentences.at(-1)?.end_seconds ?? 0;
    const until = Math.max(from, samples.time.at(-1) ?? 0);
    if (kept.typed || !sentences.length) sentences.push({ text: kept.typed ?? "", start_seconds: from, end_seconds: until });
    showSentences();
  }

  // --- what came of it ---

  // Every finished recording, and every picture once; two pictures may be called the same, and have ids of their own.
  function saveAll() {
    const files = new Map();
    for (const [name, { reading, of, src }] of made) {
      const image_id = `${reading.image_id}_${of}`;
      const named = { ...reading, image: `${image_id}.png`, image_id };
      files.set(`${image_id}.png`, Uint8Array.from(atob(src.split(",")[1]), (letter) => letter.charCodeAt(0)));
      files.set(`${reading.reading_id}.json`, new TextEncoder().encode(JSON.stringify(named, null, 1)));
      made.get(name).saved = true;
      backups?.removeItem(name);
    }
    egma.save("egma_recordings.zip", egmaZip(files));
    buttons();
  }

  function showResult(reading) {
    if (!made.has(key)) made.set(key, { reading, of: value.picture, src: picture().src, saved: false });
    const wordless = sentences.length - reading.sentences.length;
    result.replaceChildren(
      make("p", {}, `${reading.fixations.x.length} fixations in ${reading.sentences.length} sentences`
        + `${wordless > 0 ? ` (${wordless} without words left out)` : ""}; see them under Gaze. Unpack the ZIP into a folder:`),
      make("code", {}, "egma build tracker --source FOLDER --output data/ours"));
  }

  return (next) => {
    const another = next?.picture !== value?.picture;
    value = next;
    if (another) {
      patient.value = ""; // the next picture is another patient's
      reset();
    }
    stage.element.hidden = !picture();
    if (picture()) stage.render(picture());
    if (value?.reading && picture() && sent === key) showResult(value.reading);
    buttons();
  };
};
