"use strict";
// What is seen, to take away: the picture with its map and legend as SVG and PNG, maps and scores as JSON and CSV.
egma.save = (name, content, type) => {
  const address = content instanceof Blob ? content : new Blob([content], { type });
  const link = egma.make("a", { download: name, href: URL.createObjectURL(address) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
};

egma.exports = (now) => {
  const { make, save } = egma;
  const [WIDTH, LINE, MOST_LETTERS] = [1024, 26, 110]; // pixels of the exported picture; of a line of words

  const escaped = (text) => text.replace(/[&<>"]/g, (character) => `&#${character.charCodeAt(0)};`);

  // For each model the whole picture as it is seen, whatever part of it is enlarged, and what it is in words.
  function drawn({ panels, picture, look }) {
    const height = Math.round((WIDTH * picture.height) / picture.width);
    const [wide, full] = [WIDTH * panels.length, height + 4.5 * LINE];
    const image = (canvas, box) => `<image href="${canvas.toDataURL()}" preserveAspectRatio="none" ${box}/>`;
    const parts = panels.flatMap(({ value: { model }, layer }, place) => {
      const [whole, bar, left] = [make("canvas", { width: WIDTH, height }), egma.legend(), place * WIDTH];
      const context = whole.getContext("2d");
      context.drawImage(picture.image, 0, 0, WIDTH, height);
      egma.drawLayer(context, layer, look, WIDTH, height, 1);
      bar.show(...layer.scale, look.colorMap);
      const words = [`“${layer.line.text}”`, `cosine ${layer.scale.map((value) => value.toFixed(2)).join(" to ")}`,
        `Model: ${model}`, "Not for diagnosis: research software, no medical device"];
      return [image(whole, `x="${left}" width="${WIDTH}" height="${height}"`),
        image(bar.element.querySelector("canvas"), `x="${left + 240}" y="${height + 1.5 * LINE - 6}" width="300" height="12"`),
        ...words.map((line, row) => `<text x="${left + 16}" y="${height + LINE * (row + 1)}">${escaped(line.slice(0, MOST_LETTERS))}</text>`)];
    });
    return { width: wide, height: full, svg: `<svg xmlns="http://www.w3.org/2000/svg" width="${wide}" height="${full}" font-family="system-ui, sans-serif" font-size="17">
<rect width="${wide}" height="${full}" fill="#fff"/>${parts.join("\n")}</svg>` };
  }

  async function savePng({ svg, width, height }) {
    const image = new Image();
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svg)}`;
    await image.decode();
    const canvas = make("canvas", { width, height });
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
