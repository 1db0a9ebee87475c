"use strict";
// Pictures in a row: the examples to choose from, and what a search found.
egma.kinds.examples = (root, { trigger }) => {
  const { make } = egma;
  let [shown, buttons] = [null, []];

  function button(item, place) {
    return make("button", { type: "button", title: item.text, onclick: () => egma.mayChange() && trigger("choose", { place }) },
      make("img", { src: item.src, alt: `Example ${place + 1}: ${item.text}` }), make("span", {}, item.text));
  }

  return (value) => {
    const items = value?.items ?? [];
    if (value !== shown) { // else they stay, and keep the focus
      [shown, buttons] = [value, items.map(button)];
      root.replaceChildren(...(items.length ? [make("p", { class: "egma-title" }, "Examples")] : []),
        make("div", { class: "egma-thumbnails" }, ...buttons));
    }
    buttons.forEach((one, place) => one.setAttribute("aria-current", String(egma.isShown(items[place].picture))));
  };
};

egma.kinds.results = (root, { picture, trigger }) => (value) => {
  const { make } = egma;
  if (!value || (value.picture && !picture())) { // reports were found for a picture that is no longer shown
    root.replaceChildren();
    return;
  }
  // An image comes with the text that it was found for, a report to the picture that is shown.
  const { query } = value;
  const open = ({ place }) => (query === undefined ? trigger("report", { place }) : egma.mayChange() && trigger("image", { place, query }));
  root.replaceChildren(make("p", { class: "egma-note" }, `${value.note}. Choose one to see it in Align.`),
    make("ol", { class: "egma-found" }, ...value.items.map((item, place) => make("li", {},
      make("button", { type: "button", onclick: () => open(item) },
        make("img", { src: item.src, alt: `Result ${place + 1}` }),
        make("span", {}, make("strong", {}, `${place + 1}. ${item.findings.join(", ") || "no finding marked"}`),
          make("span", { class: "egma-scores" }, egma.scoreText(item.scores)), make("span", {}, item.report)))))));
};
