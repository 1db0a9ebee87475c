"use strict";
// Pictures in a row: the examples to choose from, and what a search found.
egma.kinds.examples = (root, { trigger }) => (value) => {
  const { make } = egma;
  const items = value?.items ?? [];
  root.replaceChildren(...(items.length ? [make("p", { class: "egma-title" }, "Examples")] : []),
    make("div", { class: "egma-thumbnails" }, ...items.map((item, place) => make("button", {
      type: "button", title: item.text, onclick: () => {
        if (!egma.isRecording || window.confirm("Another picture ends the recording. Discard it?")) trigger("choose", { place });
      },
    }, make("img", { src: item.src, alt: `Example ${place + 1}: ${item.text}` }), make("span", {}, item.text)))));
};

egma.kinds.results = (root, { picture }) => (value) => {
  const { make } = egma;
  if (!value || (value.picture && !picture())) { // reports were found for a picture that is no longer shown
    root.replaceChildren();
    return;
  }
  root.replaceChildren(make("p", { class: "egma-note" }, value.note),
    make("ol", { class: "egma-found" }, ...value.items.map((item, place) => make("li", {},
      make("img", { src: item.src, alt: `Result ${place + 1}: ${item.findings.join(", ") || "no finding marked"}` }),
      make("div", {}, make("strong", {}, `${place + 1}. ${item.findings.join(", ") || "no finding marked"}`),
        make("span", { class: "egma-scores" }, egma.scoreText(item.scores)), make("p", {}, item.report))))));
};
