// The view of head bounds: front and side with the lines, the framing in the dataset, and poses to check it with.

import { byId, clamp, el, fixed, setText } from "./dom.js";
import { LINES, Lines } from "./lines.js";
import { drawBounds, drawBox, drawMachine, drawRuler } from "./overlay.js";
import { Picture, extentOf } from "./picture.js";
import { emit, state } from "./state.js";

const KIND = "head_bounds";
const POSES = [
  { name: "head_x", label: "Head up and down" },
  { name: "head_y", label: "Head left and right" },
  { name: "neck_z", label: "Neck sideways" },
];
const FULL_TURN_DEG = 15; // what a pose of 1 is
const LEAST_HEIGHT = 0.05; // MU between chin and skull top
const MOST_ZOOM = 10;
const STRAIGHT = { head_x: 0, head_y: 0, neck_z: 0 };
const MOVING_ROOM = 1.3; // of the framing's height: what is drawn while a line is moved
const MARGIN = 0.06; // in front of the face from the side, of the picture's width

export class BoundsView {
  constructor(socket, saver, ahead) {
    this.saver = saver;
    this.ahead = ahead;
    this.active = "chin_y";
    this.zoom = 1;
    this.sideMiddle = null; // z in the middle of the side view, once a picture has shown where the head is
    this.middle = null; // of the front view while zoomed
    this.pose = STRAIGHT;
    const over = (side) => (context, picture) => {
      const suggested = state.model?.suggested?.bounds;
      if (suggested) drawMachine(context, picture, suggested, side ? null : suggested.center_x);
      if (!side) drawRuler(context, picture);
    };
    this.front = new Picture(socket, ahead, byId("front"), "front", { paint: over(false) });
    this.side = new Picture(socket, ahead, byId("side"), "side", { paint: over(true) });
    this.framing = new Picture(socket, ahead, byId("framing"), "framing", { paint: drawBox });
    const moved = (name, value, done) => this.set(name, value, done ? "save" : "drag");
    const chosen = (name) => this.choose(name);
    this.lines = new Lines(byId("front-stage"), this.front, { moved, chosen });
    this.sideLines = new Lines(byId("side-stage"), this.side, { moved, chosen, side: true });
    this.side.onpicture = () => this.#placeSide();
    this.front.onresize = this.side.onresize = () => this.look();
    byId("front-stage").addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    this.#sliders();
    this.#values();
  }

  #sliders() {
    this.sliders = new Map();
    for (const { name, label } of POSES) {
      const input = el("input", { type: "range", min: -1, max: 1, step: 0.02, value: 0, id: `pose-${name}` });
      const out = el("output", { for: input.id, text: "0°" });
      input.addEventListener("input", () => this.turn({ ...this.pose, [name]: Number(input.value) }, true));
      input.addEventListener("dblclick", () => this.turn({ ...this.pose, [name]: 0 }));
      this.sliders.set(name, { input, out });
      byId("poses").append(el("div", { class: "pose" }, el("label", { for: input.id, text: label }), out, input));
    }
  }

  #values() {
    this.cells = new Map();
    for (const [name, label] of [...LINES.map((line) => [line.name, line.label]), ["height", "Height"]]) {
      const value = el("td", { class: "number" });
      const against = el("td", { class: "number quiet" });
      this.cells.set(name, { value, against });
      byId("values").append(
        el("tr", { data: { line: name } }, el("th", { scope: "row", text: label }), value, against),
      );
    }
  }

  open() {
    this.zoom = 1;
    this.middle = this.sideMiddle = null;
    this.straighten();
    if (!state.model) {
      for (const picture of [this.front, this.side, this.framing]) picture.clear();
      this.lines.set(null);
      this.sideLines.set(null);
      return;
    }
    this.look(true); // a small picture at once, the sharp one after it
    this.refresh(true);
  }

  /** Set the views of front and side: the same scale and heights, so that lines run across both. */
  look(live = false) {
    const { model } = state;
    if (!model || !this.front.width || !this.side.width) return;
    const front = this.#frontWish(state.current, model, this.middle ?? model.front.center, this.zoom);
    this.front.show(front, live);
    this.side.show(this.#sideWish(state.current, model, front, this.sideMiddle), live);
    this.lines.place();
    this.sideLines.place();
  }

  #frontWish(id, model, center = model.front.center, zoom = 1) {
    return { model: id, pose: STRAIGHT, terms: [], view: { from: "front", center, height: model.front.height / zoom } };
  }

  /** What the side shows beside `front`; `middle` (z) is null as long as nobody knows where the head is. */
  #sideWish(id, model, front, middle) {
    const scale = Math.min(this.front.height, 1.25 * this.front.width) / front.view.height;
    const height = Math.min(this.side.height, 1.25 * this.side.width) / scale;
    const view = { from: "side", center: [middle ?? model.side.center[0], front.view.center[1]], height };
    const cover = middle === null ? model.side.height : 0; // all of the head, to find its place
    return { model: id, pose: STRAIGHT, terms: [], view, cover };
  }

  /** Return the middle (z) of the side view: the head's or, where it is too deep for that, so that its face, which looks
   * left, is seen. `wide` and `image` are a picture that shows all of it. */
  #middleOf(model, wish, wide, image) {
    const found = extentOf(wide, image, model.bounds.chin_y, model.bounds.top_y);
    const [near, far] = found ?? [model.side.center[0], model.side.center[0]];
    const room = (this.side.width * wish.view.height) / Math.min(this.side.height, 1.25 * this.side.width);
    const isWhole = far - near <= (1 - 2 * MARGIN) * room;
    return isWhole ? (near + far) / 2 : near + (0.5 - MARGIN) * room;
  }

  #placeSide() {
    if (this.sideMiddle !== null || !state.model) return;
    const { wish, view, image } = this.side.drawn;
    this.sideMiddle = this.#middleOf(state.model, wish, view, image);
    this.look(true);
  }

  #frameWish(id, { chin_y: chin, top_y: top, center_x: center }, pose, room) {
    const view = { from: "front", center: [center, (chin + top) / 2], height: 2 * (top - chin) };
    return { model: id, view, pose, terms: [], room };
  }

  /** Draw what `open` will show of a model, as long as `wanted()` holds. */
  async prepare(id, model, wanted) {
    if (!this.front.width || !this.side.width) return;
    const front = this.#frontWish(id, model);
    const side = this.#sideWish(id, model, front, null);
    await this.ahead.draw(this.front.request(front), wanted);
    await this.ahead.draw(this.framing.request(this.#frameWish(id, model.bounds, STRAIGHT)), wanted);
    const request = this.side.request(side);
    const image = await this.ahead.draw(request, wanted);
    if (!image || !wanted()) return;
    const middle = this.#middleOf(model, side, request.view, image);
    await this.ahead.draw(this.side.request(this.#sideWish(id, model, front, middle)), wanted);
  }

  refresh(live = false) {
    const { bounds, suggested } = state.model;
    this.lines.set(bounds, this.active);
    this.sideLines.set(bounds, this.active);
    this.frame(live);
    const height = (each) => each.top_y - each.chin_y;
    for (const [name, { value, against }] of this.cells) {
      const now = name === "height" ? height(bounds) : bounds[name];
      setText(value, fixed(now, 3));
      if (!suggested?.bounds) {
        setText(against, "");
        continue;
      }
      const off = now - (name === "height" ? height(suggested.bounds) : suggested.bounds[name]);
      setText(against, Math.abs(off) < 0.0005 ? "same" : `${off > 0 ? "+" : ""}${fixed(off, 3)}`);
    }
    for (const row of byId("values").children) row.classList.toggle("active", row.dataset.line === this.active);
  }

  /** Show the framing. Where a line is moved it shows a part of one picture after another, drawn with room around. */
  frame(live = false, room = MOVING_ROOM) {
    this.framing.show(this.#frameWish(state.current, state.model.bounds, this.pose, room), live);
  }

  turn(pose, live = false) {
    this.straighten(pose);
    if (state.model) this.frame(live, 1);
  }

  /** Set the sliders without a picture. */
  straighten(pose = STRAIGHT) {
    this.pose = pose;
    for (const [name, { input, out }] of this.sliders) {
      input.value = String(pose[name]);
      const text = `${fixed(FULL_TURN_DEG * pose[name], 1)}°`;
      setText(out, text);
      input.setAttribute("aria-valuetext", text);
    }
  }

  choose(name) {
    if (this.active === name) return;
    this.active = name;
    if (state.model) this.refresh();
  }

  /** Move a line. `how`: "drag" only shows it, "save" stores it, "soon" stores it after a quiet time (keys). */
  set(name, value, how) {
    if (!state.model) return; // the next model is not here yet
    const { bounds } = state.model;
    let put = value;
    if (name === "chin_y") put = Math.min(value, bounds.top_y - LEAST_HEIGHT);
    if (name === "top_y") put = Math.max(value, bounds.chin_y + LEAST_HEIGHT);
    if (bounds[name] !== put) {
      bounds[name] = put;
      bounds.source = "person";
      this.changed = true;
      this.refresh(how !== "save");
    } else if (how === "save") this.frame();
    if (how !== "drag" && this.changed) this.#save(how === "soon");
  }

  #save(soon = false) {
    this.changed = false;
    const { chin_y, top_y, center_x } = state.model.bounds;
    this.saver.save(state.current, KIND, { chin_y, top_y, center_x }, soon);
    emit("edited");
  }

  /** Move by pixels of the front picture. */
  nudge(name, pixels) {
    if (!state.model || !this.front.width) return;
    if (name !== "center_x") this.choose(name);
    this.set(name, state.model.bounds[name] + pixels / this.front.scale, "soon");
  }

  takeMachine() {
    const suggested = state.model?.suggested?.bounds;
    if (!suggested) return emit("message", { text: "The machine has no suggestion for this model." });
    const { chin_y, top_y, center_x } = suggested;
    Object.assign(state.model.bounds, { chin_y, top_y, center_x, source: "person" });
    this.refresh();
    this.#save();
  }

  #wheel(event) {
    if (!state.model) return;
    event.preventDefault();
    const box = event.currentTarget.getBoundingClientRect();
    const at = [this.front.fromX(event.clientX - box.left), this.front.fromY(event.clientY - box.top)];
    this.zoomBy(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), at);
  }

  /** Zoom, keeping the point `at` (MU) in place; without one, the active line comes to the middle. */
  zoomBy(factor, at = null) {
    const { model } = state;
    if (!model) return;
    const old = this.zoom;
    this.zoom = clamp(old * factor, 1, MOST_ZOOM);
    const now = this.middle ?? model.front.center;
    const { bounds } = model;
    const line = this.active === "center_x" ? (bounds.chin_y + bounds.top_y) / 2 : bounds[this.active];
    const share = old / this.zoom;
    this.middle = at ? at.map((value, i) => value + (now[i] - value) * share) : [bounds.center_x, line];
    if (this.zoom === 1) this.middle = null;
    this.look(true);
  }

  reset() {
    this.zoom = 1;
    this.middle = null;
    this.turn(STRAIGHT);
    this.look();
  }

  repaint() {
    for (const picture of [this.front, this.side, this.framing]) picture.redraw();
  }

  keys() {
    const row = (keys, what, act, more = {}) => ({ keys, what, act, kind: KIND, group: "Head bounds", ...more });
    return [
      row(["ArrowUp", "ArrowDown"], "move the chosen line by 1 pixel", (key) => this.#vertical(key, 1)),
      row(["Shift+ArrowUp", "Shift+ArrowDown"], "… by 10 pixels", (key) => this.#vertical(key, 10)),
      row(["ArrowLeft", "ArrowRight"], "move the centre by 1 pixel", (key) => this.#across(key, 1)),
      row(["Shift+ArrowLeft", "Shift+ArrowRight"], "… by 10 pixels", (key) => this.#across(key, 10)),
      row(["c"], "choose the chin", () => this.pick("chin_y")),
      row(["t"], "choose the skull top", () => this.pick("top_y")),
      row(["Tab"], "choose the next line", () => this.#tab(), { when: () => this.#tabs() }),
      row(["a"], "take the machine's values", () => this.takeMachine()),
      row(["+", "-"], "zoom (also the mouse wheel)", (key) => this.zoomBy(key === "+" ? 1.4 : 1 / 1.4)),
      row(["0"], "whole head, head straight", () => this.reset()),
    ];
  }

  pick(name) {
    this.choose(name);
    this.lines.focus(name);
  }

  #vertical(key, pixels) {
    const name = this.active === "center_x" ? "chin_y" : this.active;
    this.nudge(name, key.endsWith("Up") ? pixels : -pixels);
  }

  #across(key, pixels) {
    this.nudge("center_x", key.endsWith("Right") ? pixels : -pixels);
  }

  // Tab leads from the page to the lines and from line to line; elsewhere and after the last it is the browser's own.
  #tabs() {
    const here = document.activeElement;
    return here === document.body || ["chin_y", "top_y"].includes(here?.dataset.line);
  }

  #tab() {
    const here = document.activeElement?.dataset?.line;
    this.pick(here === "chin_y" ? "top_y" : here === "top_y" ? "center_x" : "chin_y");
  }
}
