// The side: all models with their marks, the filter and the search.

import { byId, el, percent, setShown, setText } from "./dom.js";
import { FILTERS, counts, on, setFilter, setSearch, standing, state, visibleRows } from "./state.js";
import { readable } from "./terms.js";
import { VirtualList } from "./virtual.js";

const ROW_HEIGHT = 52;
const MARKS = {
  unsure: ["?", "the machine is unsure"],
  sure: ["", "the machine is sure"],
  waiting: ["…", "the machine has not looked at it yet"],
  mine: ["✓", "checked by you"],
  other: ["✓", "checked by someone else"],
  rejected: ["✕", "rejected"],
  error: ["!", "cannot be used"],
};
const NOTHING = {
  all: "There are no models in this folder.",
  unsure: "The machine is sure about every model that is left.",
  rejected: "No model is rejected.",
  mine: "You have not checked any model yet.",
};
const NAMES = { all: "All", unsure: "Unsure", rejected: "Rejected", mine: "Mine" };

export class ModelList {
  constructor(actions) {
    this.list = new VirtualList(byId("models"), {
      rowHeight: ROW_HEIGHT,
      idOf: (row) => row.id,
      pick: (row) => actions.open(row.id),
      make: () =>
        el(
          "div",
          { class: "model" },
          el("span", { class: "mark" }),
          el("span", { class: "model-name" }),
          el("span", { class: "model-sure number" }),
          el("span", { class: "model-note" }),
        ),
      fill: (row, item) => this.#fill(row, item),
    });
    this.buttons = new Map();
    for (const filter of FILTERS) {
      const count = el("span", { class: "count" });
      const button = el("button", { type: "button", on: { click: () => setFilter(filter) } }, NAMES[filter], count);
      this.buttons.set(filter, { button, count });
      byId("filters").append(button);
    }
    const search = byId("search");
    search.addEventListener("input", () => setSearch(search.value));
    search.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        search.value = "";
        setSearch("");
      }
      if (event.key === "Enter") {
        const [first] = visibleRows();
        if (first && !visibleRows().some((row) => row.id === state.current)) actions.open(first.id);
      }
      if (event.key === "Escape" || event.key === "Enter") search.blur();
    });
    byId("models").addEventListener("keydown", (event) => {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (!step || event.target !== event.currentTarget) return;
      event.preventDefault(); // here the arrows walk through the list, not a line or the morphs
      actions.step(step);
    });
    for (const event of ["rows", "kind", "filter", "current"]) on(event, () => this.refresh(event !== "rows"));
  }

  refresh(reveal = true) {
    if (!this.soon) this.soon = requestAnimationFrame(() => this.#refresh());
    this.reveal = this.reveal || reveal;
  }

  #refresh() {
    this.soon = 0;
    const rows = visibleRows();
    this.list.set(rows, rows.findIndex((row) => row.id === state.current));
    if (this.reveal) this.list.reveal();
    this.reveal = false;
    const all = counts();
    for (const [filter, { button, count }] of this.buttons) {
      button.setAttribute("aria-pressed", String(filter === state.filter));
      setText(count, String(all[filter]));
    }
    setShown(byId("models"), rows.length > 0);
    setShown(byId("models-empty"), !rows.length);
    setText(byId("models-empty"), state.search ? "No model has these words in its name." : NOTHING[state.filter]);
  }

  #fill(row, item) {
    const [mark, name, sure, note] = row.children;
    const kind = standing(item);
    mark.className = `mark ${kind}`;
    setText(mark, MARKS[kind][0]);
    mark.title = MARKS[kind][1];
    mark.setAttribute("role", "img");
    mark.setAttribute("aria-label", MARKS[kind][1]);
    setText(name, item.name || item.file);
    name.title = item.name || item.file;
    setText(sure, ["unsure", "sure"].includes(kind) ? percent(item.confidence[state.kind]) : "");
    const reason = ["unsure", "waiting", "rejected", "error"].includes(kind) ? readable(item.reason[state.kind]) : "";
    setText(note, reason || item.folder || item.file);
    note.title = `${item.folder}/${item.file}${reason ? `: ${reason}` : ""}`;
  }
}
