"use strict";
// What is typed outlives a reload: this tab keeps it until it is cleared or replaced, or another visit begins.
egma.typed = (() => {
  const [FIELDS, KEPT, SETTLED_MS] = [["report", "query", "prompts"], "egma-typed ", 1000]; // FIELDS: the elements' ids
  const kept = egma.storage("sessionStorage");
  let given = false; // the fields have got what was kept
  const keep = (name, text) => (text ? kept?.setItem(KEPT + name, text) : kept?.removeItem(KEPT + name));

  if (performance.getEntriesByType("navigation")[0].type === "navigate" && !document.wasDiscarded) FIELDS.forEach((name) => keep(name, ""));
  document.addEventListener("input", ({ target }) => {
    const name = FIELDS.find((one) => target.closest(`#${one}`));
    if (name) keep(name, target.value);
  });
  window.addEventListener("pagehide", () => {
    for (const name of given ? FIELDS : []) {
      const field = document.querySelector(`#${name} :is(textarea, input)`);
      if (field && field.value !== kept?.getItem(KEPT + name)) keep(name, "");
    }
  });

  // What the fields are to hold, in the order of FIELDS, given what they hold.
  return (...shown) => {
    setTimeout(() => (given = true), SETTLED_MS);
    return FIELDS.map((name, place) => kept?.getItem(KEPT + name) ?? shown[place]);
  };
})();
