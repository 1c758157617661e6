// Terms (a morph at a weight on a side) and the editor that shows and changes a list of them.

import { el, setText } from "./dom.js";

export const SLOTS = [
  { name: "normal_left", label: "Left eye", group: "Closed", key: "1" },
  { name: "normal_right", label: "Right eye", group: "Closed", key: "2" },
  { name: "normal_both", label: "Both eyes", group: "Closed", key: "3" },
  { name: "smile_left", label: "Left eye", group: "Smiling", key: "4" },
  { name: "smile_right", label: "Right eye", group: "Smiling", key: "5" },
  { name: "smile_both", label: "Both eyes", group: "Smiling", key: "6" },
  { name: "mouth_open", label: "Mouth open", group: "", key: "m" },
];

export const SIDES = [
  { name: "both", label: "Whole" },
  { name: "left", label: "Left half" },
  { name: "right", label: "Right half" },
];

/** Return a reason of the machine with the slots called as on the page. */
export function readable(reason) {
  return reason.replace(/\b(normal|smile)_(left|right|both)\b|\bmouth_open\b/g, (slot) => {
    const { group, label } = SLOTS.find((each) => each.name === slot);
    return group ? `${label} ${group.toLowerCase()}` : "mouth";
  });
}

/** Return the terms of a slot, or of the mouth, in something with `eyes` and `mouth_open`. */
export function termsOf(holder, slot) {
  return (slot === "mouth_open" ? holder?.mouth_open : holder?.eyes?.[slot]) ?? [];
}

export function copyTerms(terms) {
  return terms.map(({ morph, weight, side }) => ({ morph, weight, side }));
}

export function sameTerms(one, other) {
  const key = (terms) => JSON.stringify(terms.map((t) => [t.morph, t.side, t.weight.toFixed(3)]).sort());
  return key(one) === key(other);
}

export function morphName(model, number) {
  const morph = model.morphs.find((each) => each.number === number);
  return morph ? morph.name || morph.name_en || `morph ${number}` : `morph ${number} (missing)`;
}

/** Return a line of text for terms: names, and weight and half where they are not 1 and whole. */
export function describe(model, terms) {
  return terms
    .map(({ morph, weight, side }) => {
      const parts = [morphName(model, morph)];
      if (Math.abs(weight - 1) > 0.004) parts.push(`${Math.round(100 * weight)} %`);
      if (side !== "both") parts.push(`${side} half`);
      return parts.join(", ");
    })
    .join(" + ");
}

/** Rows with a weight slider and the side of each term. `changed(index, change, done)`, `removed(index)`. */
export class TermEditor {
  constructor(host, { changed, removed, chosen }) {
    Object.assign(this, { host, changed, removed, chosen });
    this.rows = [];
  }

  /** Show these terms; rows are kept while they are dragged. */
  show(model, terms, active, removable) {
    while (this.rows.length < terms.length) this.rows.push(this.#row(this.rows.length));
    this.rows.forEach((row, index) => {
      row.root.hidden = index >= terms.length;
      if (row.root.hidden) return;
      const term = terms[index];
      const name = morphName(model, term.morph);
      setText(row.name, name);
      row.name.title = name;
      row.root.classList.toggle("active", index === active && terms.length > 1);
      row.input.value = String(term.weight);
      row.input.setAttribute("aria-label", `Weight of ${name}`);
      const text = `${Math.round(100 * term.weight)} %`;
      row.input.setAttribute("aria-valuetext", text);
      setText(row.out, text);
      row.remove.hidden = !removable;
      for (const [side, button] of row.sides) button.setAttribute("aria-pressed", String(side === term.side));
    });
  }

  #row(index) {
    const name = el("span", { class: "term-name" });
    const input = el("input", { type: "range", min: 0, max: 1, step: 0.01 });
    const out = el("output", { class: "number" });
    const sides = new Map();
    const group = el("div", { class: "segments small", role: "group", "aria-label": "Side of the face" });
    for (const { name: side, label } of SIDES) {
      const button = el("button", { type: "button", text: label, on: { click: () => this.changed(index, { side }, true) } });
      sides.set(side, button);
      group.append(button);
    }
    input.addEventListener("input", () => this.changed(index, { weight: Number(input.value) }, false));
    input.addEventListener("change", () => this.changed(index, { weight: Number(input.value) }, true));
    input.addEventListener("pointerdown", () => this.chosen(index));
    const remove = el("button", {
      type: "button",
      class: "plain",
      "aria-label": "Remove this morph from the slot",
      title: "Remove",
      text: "✕",
      on: { click: () => this.removed(index) },
    });
    const root = el("div", { class: "term" }, name, group, remove, input, out);
    this.host.append(root);
    return { root, name, input, out, sides, remove };
  }
}
