// The grid of the six eye slots and the mouth: what each holds, with a small picture, and which one is shown large.

import { byId, cap, el, setShown, setText } from "./dom.js";
import { Picture } from "./picture.js";
import { SLOTS, copyTerms, describe, sameTerms, termsOf } from "./terms.js";

export class Slots {
  /** `pick(slot)` shows a slot large, `assign(slot)` puts the current morph in, `clear(slot)` empties it. */
  constructor(socket, ahead, { pick, clear }) {
    this.ahead = ahead;
    this.cells = new Map();
    this.waiting = []; // cells whose pictures are out of date: drawn one after the other
    this.drawing = null;
    for (const slot of SLOTS) {
      const canvas = el("canvas", { class: "thumb", "aria-hidden": "true" });
      const text = el("span", { class: "slot-text" });
      const mark = el("span", { class: "slot-mark" });
      const choose = el(
        "button",
        { type: "button", class: "slot-pick", on: { click: () => pick(slot.name) } },
        el("span", { class: "slot-head" }, cap(slot.key.toUpperCase()), el("span", { text: slot.label }), mark),
        canvas,
        text,
      );
      const empty = el("button", {
        type: "button",
        class: "plain slot-clear",
        text: "✕",
        title: "Clear this slot",
        "aria-label": `Clear: ${slot.group} ${slot.label}`,
        on: { click: () => clear(slot.name) },
      });
      const root = el("div", { class: "slot", data: { slot: slot.name } }, choose, empty);
      byId(slot.group ? `slots-${slot.group.toLowerCase()}` : "slots-mouth").append(root);
      const picture = new Picture(socket, ahead, canvas, `slot-${slot.name}`, { fit: "width" });
      picture.ondrawn = picture.onfailed = () => this.#next(slot.name);
      this.cells.set(slot.name, { ...slot, root, choose, text, mark, empty, picture, shown: null });
    }
  }

  /** Write what the slots hold; pictures are only marked as out of date (see `draw`). */
  refresh(model, id, current) {
    for (const cell of this.cells.values()) {
      const terms = termsOf(model, cell.name);
      const suggested = model.suggested ? termsOf(model.suggested, cell.name) : null;
      const text = terms.length ? describe(model, terms) : "nothing";
      setText(cell.text, text);
      cell.text.title = text;
      cell.root.classList.toggle("empty", !terms.length);
      cell.root.classList.toggle("current", cell.name === current);
      cell.choose.setAttribute("aria-pressed", String(cell.name === current));
      cell.choose.setAttribute("aria-label", `${cell.group} ${cell.label}: ${text}`);
      setShown(cell.empty, terms.length > 0);
      const differs = suggested !== null && !sameTerms(terms, suggested);
      setText(cell.mark, differs ? "●" : "");
      cell.mark.title = differs ? `The machine has: ${describe(model, suggested) || "nothing"}` : "";
      if (differs) cell.choose.setAttribute("aria-label", `${cell.choose.ariaLabel}; ${cell.mark.title}`);
      const wish = this.#wish(id, model, cell.name);
      const shown = JSON.stringify(wish);
      if (shown === cell.shown) continue;
      cell.shown = shown;
      this.waiting = this.waiting.filter((each) => each.name !== cell.name);
      this.waiting.push({ name: cell.name, wish });
    }
  }

  #wish(id, model, name) {
    const { center, height } = name === "mouth_open" ? model.mouth_view : model.eyes_view.both;
    return { model: id, view: { from: "front", center, height }, terms: copyTerms(termsOf(model, name)) };
  }

  /** Draw what all slots will show of a model, as long as `wanted()` holds. */
  async prepare(id, model, wanted) {
    for (const { name, picture } of this.cells.values())
      await this.ahead.draw(picture.request(this.#wish(id, model, name)), wanted);
  }

  /** Draw what is out of date, one picture at a time so that the large one never waits for long. */
  draw() {
    if (this.drawing === null) this.#next(null);
  }

  #next(done) {
    if (done !== null && done !== this.drawing) return;
    const next = this.waiting.shift();
    this.drawing = next?.name ?? null;
    if (next) this.cells.get(next.name).picture.show(next.wish);
  }

  clear() {
    this.waiting = [];
    this.drawing = null;
    for (const cell of this.cells.values()) {
      cell.picture.clear();
      cell.shown = null;
      setText(cell.text, "");
      setText(cell.mark, "");
      cell.root.classList.remove("current");
      setShown(cell.empty, false);
    }
  }

  repaint() {
    for (const { picture } of this.cells.values()) picture.redraw();
  }
}
