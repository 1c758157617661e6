// The view of wink morphs: the eyes large, the list of morphs, the terms that are shown, and the slots.

import { byId, clamp, el, percent, setShown, setText } from "./dom.js";
import { MorphList } from "./morphs.js";
import { Picture } from "./picture.js";
import { Slots } from "./slots.js";
import { emit, state } from "./state.js";
import { SIDES, SLOTS, TermEditor, copyTerms, describe, readable, sameTerms, termsOf } from "./terms.js";

const KIND = "wink_morphs";
const AREAS = ["eyes", "mouth", "face"];
const STRAIGHT = { head_x: 0, head_y: 0, neck_z: 0 };

export class WinksView {
  constructor(socket, saver, ahead) {
    this.saver = saver;
    this.ahead = ahead;
    this.close = new Picture(socket, ahead, byId("close"), "close", { fit: "width" });
    this.dragging = false; // the small pictures wait meanwhile
    this.close.ondrawn = this.close.onfailed = () => this.dragging || this.slots.draw();
    this.slots = new Slots(socket, ahead, { pick: (slot) => this.pick(slot), clear: (slot) => this.clearSlot(slot) });
    this.list = new MorphList((morph) => this.tryMorph(morph));
    this.editor = new TermEditor(byId("terms"), {
      changed: (index, change, done) => this.change(index, change, done),
      removed: (index) => this.remove(index),
      chosen: (index) => (this.active = index),
    });
    this.area = ""; // chosen by the person; "" goes with what is shown
    this.slot = "normal_both"; // the slot that is shown, or "" while a morph is tried
    this.trial = null; // the term that is tried
    this.active = 0; // the term that the keys change
    this.before = false;
    for (const area of AREAS) byId(`area-${area}`).addEventListener("click", () => this.setArea(area));
    const peek = byId("before");
    for (const event of ["pointerdown"]) peek.addEventListener(event, () => this.setBefore(true));
    for (const event of ["pointerup", "pointerleave", "pointercancel"])
      peek.addEventListener(event, () => this.setBefore(false));
  }

  open() {
    this.area = "";
    this.slot = "normal_both";
    this.trial = null;
    this.active = 0;
    this.before = this.dragging = false;
    const { model } = state;
    this.list.set(model);
    if (!model) {
      this.close.clear();
      this.slots.clear();
      this.editor.show(null, [], 0, false);
      setText(byId("shown-name"), "");
      setShown(byId("suggestion"), false);
      return;
    }
    this.#suggestion();
    this.refresh(true); // a small picture at once, the sharp one after it
  }

  #suggestion() {
    const { model } = state;
    setShown(byId("suggestion"), true);
    const confidence = model.suggested?.eyes_confidence ?? model.eyes_confidence;
    setText(byId("suggestion-sure"), confidence === undefined ? "" : `${percent(confidence)} sure`);
    const known = model.suggested?.eyes_reasons ?? [];
    const reasons = known.length ? known : (model.eyes_reasons ?? []);
    byId("suggestion-reasons").replaceChildren(
      ...(reasons.length ? reasons : ["No remarks."]).map((text) => el("li", { text: readable(text) })),
    );
  }

  /** Return the terms on show. */
  get terms() {
    if (this.slot) return termsOf(state.model, this.slot);
    return this.trial ? [this.trial] : [];
  }

  get shownArea() {
    if (this.area) return this.area;
    if (this.slot) return this.slot === "mouth_open" ? "mouth" : "eyes";
    return this.list.isMouth(this.trial?.morph) ? "mouth" : "eyes";
  }

  refresh(live = false) {
    const { model } = state;
    const id = state.current;
    const area = this.shownArea;
    this.close.show(this.#wish(id, model, area, this.before ? [] : this.terms), live);
    this.editor.show(model, this.terms, this.active, Boolean(this.slot));
    if (this.dragging) return; // nothing else changes until it is let go
    for (const each of AREAS) byId(`area-${each}`).setAttribute("aria-pressed", String(each === area));
    byId("before").setAttribute("aria-pressed", String(this.before));
    const slot = SLOTS.find((each) => each.name === this.slot);
    const title = slot ? [slot.group, slot.label].filter(Boolean).join(": ") : "Trying a morph";
    setText(byId("shown-name"), this.before ? "Before: face at rest" : title);
    setShown(byId("shown-empty"), !this.terms.length);
    setShown(byId("assign-hint"), !this.slot);
    this.list.mark(this.slot ? this.terms[this.active]?.morph : this.trial?.morph, this.#uses());
    this.slots.refresh(model, id, this.slot);
  }

  #wish(id, model, area, terms) {
    const place = { eyes: model.eyes_view.both, mouth: model.mouth_view, face: model.front }[area];
    const view = { from: "front", center: place.center, height: place.height };
    const fit = area === "eyes" ? "width" : "whole";
    return { model: id, view, pose: STRAIGHT, terms: copyTerms(terms).filter((term) => term.weight !== 0), fit };
  }

  /** Draw what `open` will show of a model, as long as `wanted()` holds. */
  async prepare(id, model, wanted) {
    if (!this.close.width) return;
    const terms = termsOf(model, "normal_both");
    await this.ahead.draw(this.close.request(this.#wish(id, model, "eyes", terms)), wanted);
    await this.slots.prepare(id, model, wanted);
  }

  /** Return, for each morph number, the keys of the slots that use it. */
  #uses() {
    const uses = new Map();
    for (const { name, key } of SLOTS)
      for (const { morph } of termsOf(state.model, name))
        uses.set(morph, [...(uses.get(morph) ?? []), key.toUpperCase()]);
    return uses;
  }

  #save(soon = false) {
    const { eyes, mouth_open: mouth } = state.model;
    const value = { eyes: {}, mouth_open: this.#storable(mouth) };
    for (const { name } of SLOTS.slice(0, 6)) value.eyes[name] = this.#storable(eyes[name] ?? []);
    this.saver.save(state.current, KIND, value, soon);
    emit("edited");
  }

  #storable(terms) {
    return copyTerms(terms).filter((term) => term.weight !== 0);
  }

  #put(slot, terms) {
    if (slot === "mouth_open") state.model.mouth_open = terms;
    else state.model.eyes[slot] = terms;
  }

  pick(slot) {
    if (!state.model) return;
    this.slot = slot;
    this.active = 0;
    this.area = "";
    this.refresh();
  }

  tryMorph(morph) {
    if (!state.model) return;
    this.slot = "";
    this.active = 0;
    this.trial = { morph, weight: 1, side: "both" };
    this.refresh(true);
  }

  /** Change a shown term; while a slider is dragged nothing is stored yet (`done` false). */
  change(index, change, done) {
    const { terms } = this;
    if (!terms[index]) return;
    this.active = index;
    this.dragging = !done;
    const changed = copyTerms(terms).map((term, place) => (place === index ? { ...term, ...change } : term));
    if (this.slot) this.#put(this.slot, changed);
    else this.trial = changed[0];
    this.refresh(!done);
    if (this.slot && done) {
      if (changed[index].weight === 0) this.remove(index);
      else this.#save(done === "soon");
    }
  }

  remove(index) {
    if (!this.slot) return;
    this.#put(this.slot, copyTerms(this.terms).filter((_, place) => place !== index));
    this.active = 0;
    this.refresh();
    this.#save();
  }

  /** Put what is shown into a slot; with `add`, beside what it holds. */
  assign(slot, add) {
    if (!state.model) return;
    const terms = this.#storable(this.terms);
    if (!terms.length || (this.slot === slot && !add)) {
      this.pick(slot);
      return;
    }
    const keep = add ? copyTerms(termsOf(state.model, slot)) : [];
    const isNew = (old) => !terms.some((term) => term.morph === old.morph && term.side === old.side);
    this.#put(slot, [...keep.filter(isNew), ...terms]);
    this.refresh();
    this.#save();
    const { group, label } = SLOTS.find((each) => each.name === slot);
    emit("message", { text: `${[group, label].filter(Boolean).join(": ")} = ${describe(state.model, termsOf(state.model, slot))}` });
  }

  clearSlot(slot) {
    if (!slot || !state.model || !termsOf(state.model, slot).length) return;
    this.#put(slot, []);
    this.active = 0;
    this.refresh();
    this.#save();
  }

  takeMachine() {
    const suggested = state.model?.suggested;
    if (!suggested?.eyes) {
      emit("message", { text: "The machine has no suggestion for this model." });
      return;
    }
    const same = SLOTS.every(({ name }) => sameTerms(termsOf(state.model, name), termsOf(suggested, name)));
    for (const { name } of SLOTS) this.#put(name, copyTerms(termsOf(suggested, name)));
    if (!this.slot) this.slot = "normal_both";
    this.active = 0;
    this.refresh();
    if (same) emit("message", { text: "These are the machine's already." });
    else this.#save();
  }

  setArea(area) {
    this.area = area;
    if (state.model) this.refresh();
  }

  setBefore(before) {
    if (this.before === before || !state.model) return;
    this.before = before;
    this.refresh(true);
  }

  repaint() {
    this.close.redraw();
    this.slots.repaint();
  }

  #step(by) {
    if (!state.model) return;
    const from = this.slot ? this.terms[this.active]?.morph : this.trial?.morph;
    const morph = this.list.neighbour(from, by);
    if (morph !== null) this.tryMorph(morph);
    else emit("message", { text: "This model has no morphs in this list." });
  }

  #weigh(by) {
    const term = this.terms[this.active];
    if (!term) return;
    const weight = Math.round(100 * clamp(term.weight + by, 0.01, Math.max(1, term.weight))) / 100;
    this.change(this.active, { weight }, "soon");
  }

  #nextSide() {
    const term = this.terms[this.active];
    if (!term) return;
    const place = SIDES.findIndex((side) => side.name === term.side);
    this.change(this.active, { side: SIDES[(place + 1) % SIDES.length].name }, true);
  }

  #nextSlot(by) {
    const place = SLOTS.findIndex((slot) => slot.name === this.slot);
    this.pick(SLOTS[(place + by + SLOTS.length) % SLOTS.length].name);
  }

  keys() {
    const row = (keys, what, act, more = {}) => ({ keys, what, act, kind: KIND, group: "Wink morphs", ...more });
    const slotOf = (key) => SLOTS.find((slot) => slot.key === key.split("+").pop()).name;
    return [
      row(["ArrowUp", "ArrowDown"], "try the morph before, the next", (key) => this.#step(key === "ArrowUp" ? -1 : 1)),
      row(["ArrowLeft", "ArrowRight"], "weight by 5 %", (key) => this.#weigh(key.endsWith("Right") ? 0.05 : -0.05)),
      row(["Shift+ArrowLeft", "Shift+ArrowRight"], "… by 1 %", (key) => this.#weigh(key.endsWith("Right") ? 0.01 : -0.01)),
      row(["1", "2", "3", "4", "5", "6", "m"], "put what is shown into a slot", (key) => this.assign(slotOf(key), false)),
      row(
        ["Shift+1", "Shift+2", "Shift+3", "Shift+4", "Shift+5", "Shift+6", "Shift+m"],
        "… beside what the slot holds",
        (key) => this.assign(slotOf(key), true),
        { caps: ["Shift", "1", "…", "6", "M"] },
      ),
      row(["v"], "side: whole, left half, right half", () => this.#nextSide()),
      row(["n", "Shift+n"], "show the next slot, the one before", (key) => this.#nextSlot(key === "n" ? 1 : -1)),
      row(["Delete", "Backspace"], "clear the slot that is shown", () => this.clearSlot(this.slot)),
      row(["b"], "hold: the face before", () => this.setBefore(true), { up: () => this.setBefore(false) }),
      row(["a"], "take the machine's suggestion", () => this.takeMachine()),
      row(["z"], "large picture: eyes, mouth, whole face", () => this.#nextArea()),
      row(["l"], "list: eyes, mouth, all morphs", () => this.list.nextFilter()),
    ];
  }

  #nextArea() {
    this.setArea(AREAS[(AREAS.indexOf(this.shownArea) + 1) % AREAS.length]);
  }
}
