"use strict";
// What is seen, to take away: the picture with its map and legend as SVG and PNG, maps and scores as JSON and CSV.
egma.exports = (now) => {
  const { make } = egma;
  const [WIDTH, MARGIN, LINE, BAR] = [1024, 16, 26, 12]; // pixels of the exported picture

  function node(tag, attributes, text = "") {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.textContent = text;
    return element;
  }

  // The whole picture as it is seen, whatever part of it is enlarged, and what it is in words.
  function drawn({ value, picture, layer, look }) {
    const height = Math.round((WIDTH * picture.height) / picture.width);
    const whole = make("canvas", { width: WIDTH, height });
    const context = whole.getContext("2d");
    context.drawImage(picture.image, 0, 0, WIDTH, height);
    egma.overlay(context, layer.heat, WIDTH, height, look.smooth);
    if (layer.outline.length) egma.drawOutline(context, layer.outline, WIDTH, height, 1);
    egma.drawSpots(context, layer.spots, WIDTH, height, 1);
    const bar = egma.legend();
    bar.show(...layer.scale, look.colorMap);
    const full = height + 4 * LINE + MARGIN;
    const words = [`“${layer.line.text}”`, null, `Model: ${value.model}`, "Not for diagnosis: research software, no medical device"];
    const svg = node("svg", { xmlns: "http://www.w3.org/2000/svg", width: WIDTH, height: full, viewBox: `0 0 ${WIDTH} ${full}` });
    const image = (canvas, box) => node("image", { href: canvas.toDataURL(), preserveAspectRatio: "none", ...box });
    const text = (x, row, words, anchor = "start") => node("text", { x, y: height + LINE * (row + 1) - 6, "text-anchor": anchor,
      "font-family": "system-ui, sans-serif", "font-size": 17, fill: "#000" }, words);
    svg.append(node("rect", { width: WIDTH, height: full, fill: "#fff" }), image(whole, { width: WIDTH, height }),
      image(bar.element.querySelector("canvas"), { x: 150, y: height + LINE + 9, width: 300, height: BAR }),
      text(MARGIN, 1, `cosine ${layer.scale[0].toFixed(2)}`), text(462, 1, layer.scale[1].toFixed(2)),
      ...words.map((line, row) => line && text(MARGIN, row, line.length > 110 ? `${line.slice(0, 109)}…` : line)).filter(Boolean));
    return { svg: new XMLSerializer().serializeToString(svg), height: full };
  }

  function save(name, content, type) {
    const address = content instanceof Blob ? content : new Blob([content], { type });
    const link = make("a", { download: name, href: URL.createObjectURL(address) });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }

  async function savePng({ svg, height }) {
    const image = new Image();
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svg)}`;
    await image.decode();
    const canvas = make("canvas", { width: WIDTH, height });
    canvas.getContext("2d").drawImage(image, 0, 0);
    canvas.toBlob((blob) => save("egma.png", blob));
  }

  const kinds = {
    PNG: (shown) => savePng(drawn(shown)),
    SVG: (shown) => save("egma.svg", drawn(shown).svg, "image/svg+xml"),
    JSON: ({ value }) => save("egma.json", JSON.stringify({ notice: "not for diagnosis", ...value }, null, 1), "application/json"),
    CSV: ({ value }) => save("egma.csv", egmaWords.table(value), "text/csv"),
  };
  return make("div", { class: "egma-controls" }, make("span", {}, "Save"), ...Object.entries(kinds).map(([name, kind]) =>
    make("button", { type: "button", onclick: () => kind(now()), "aria-label": `Save as ${name}` }, name)));
};
