// The list of a model's morphs: those that move the eyes, the mouth, or all of them.

import { byId, el, setShown, setText } from "./dom.js";
import { VirtualList } from "./virtual.js";

const ROW_HEIGHT = 40;
const FILTERS = ["eyes", "mouth", "all"];
const PANELS = { 1: "brow", 2: "eye", 3: "mouth", 4: "other", eyebrow: "brow", lip: "mouth" };

function panelOf(morph) {
  return PANELS[morph.panel] ?? String(morph.panel ?? "");
}

function ofMouth(morph) {
  return panelOf(morph) === "mouth" || /\bmouth\b/.test(morph.what);
}

// `what` says what geometry tells about a morph; the panel is only what its author put in the file
const BELONGS = {
  eyes: (morph) => morph.candidate && (panelOf(morph) === "eye" || /\beyes?\b/.test(morph.what)),
  mouth: (morph) => morph.candidate && ofMouth(morph),
  all: () => true,
};

export class MorphList {
  constructor(tried) {
    this.tried = tried;
    this.filter = "eyes";
    this.model = null;
    this.current = null;
    this.uses = new Map();
    this.list = new VirtualList(byId("morphs"), {
      rowHeight: ROW_HEIGHT,
      idOf: (morph) => morph.number,
      pick: (morph) => tried(morph.number),
      make: () =>
        el(
          "div",
          { class: "morph" },
          el("span", { class: "morph-name" }),
          el("span", { class: "morph-what" }),
          el("span", { class: "morph-uses" }),
        ),
      fill: (row, morph) => {
        const [name, what, uses] = row.children;
        const english = morph.name_en && morph.name_en !== morph.name ? `  ${morph.name_en}` : "";
        name.replaceChildren(morph.name || `morph ${morph.number}`, el("span", { class: "quiet", text: english }));
        name.title = `${morph.name}${english}`;
        setText(what, morph.what || panelOf(morph));
        what.title = what.textContent;
        uses.replaceChildren(...(this.uses.get(morph.number) ?? []).map((key) => el("kbd", { text: key })));
      },
    });
    for (const filter of FILTERS) byId(`list-${filter}`).addEventListener("click", () => this.setFilter(filter));
  }

  set(model) {
    this.model = model;
    this.current = null;
    this.#refresh();
    byId("morphs").scrollTop = 0;
  }

  setFilter(filter) {
    this.filter = filter;
    this.#refresh();
    this.list.reveal();
  }

  nextFilter() {
    this.setFilter(FILTERS[(FILTERS.indexOf(this.filter) + 1) % FILTERS.length]);
  }

  /** Mark the morph on show, and which slots use which morphs. */
  mark(number, uses) {
    const moved = number !== this.current;
    this.current = number ?? null;
    this.uses = uses;
    this.#refresh();
    if (moved) this.list.reveal();
  }

  #refresh() {
    const items = (this.model?.morphs ?? []).filter(BELONGS[this.filter]);
    for (const each of FILTERS) byId(`list-${each}`).setAttribute("aria-pressed", String(each === this.filter));
    this.list.set(items, items.findIndex((morph) => morph.number === this.current));
    setShown(byId("morphs"), items.length > 0);
    setShown(byId("morphs-empty"), this.model !== null && !items.length);
  }

  isMouth(number) {
    const morph = this.model?.morphs.find((each) => each.number === number);
    return morph !== undefined && ofMouth(morph) && !BELONGS.eyes(morph);
  }

  /** Return the number of the morph `by` places from `number` in the list, around its ends; null in an empty list. */
  neighbour(number, by) {
    const { items } = this.list;
    if (!items.length) return null;
    const place = items.findIndex((morph) => morph.number === number);
    if (place < 0) return items[by > 0 ? 0 : items.length - 1].number;
    return items[(place + by + items.length) % items.length].number;
  }
}
