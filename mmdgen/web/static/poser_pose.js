// The six values: sliders, reset, random, following the pointer, blinking.

import { byId, clamp, el, fixed } from "./dom.js";

// `flipped`: +1 is image left, so the slider grows to the left and the head goes where it is pulled.
export const PARAMETERS = [
  { name: "head_x", label: "Head up and down", low: -1, high: 1, rest: 0, ends: ["down", "up"] },
  { name: "head_y", label: "Head left and right", low: -1, high: 1, rest: 0, ends: ["image left", "image right"], flipped: true },
  { name: "neck_z", label: "Neck leans", low: -1, high: 1, rest: 0, ends: ["image left", "image right"], flipped: true },
  { name: "left_eye", label: "Left eye (image right)", low: 0, high: 1, rest: 0, ends: ["open", "closed"] },
  { name: "right_eye", label: "Right eye (image left)", low: 0, high: 1, rest: 0, ends: ["open", "closed"] },
  { name: "mouth", label: "Mouth", low: 0, high: 1, rest: 1, ends: ["closed", "open"] },
];
const STEP = 0.01;
const GLIDE_MS = 260; // random and reset move there
const BLINK_MS = 240;
const FOLLOW_MS = 90; // how fast the head follows: after this time the rest of the way is a third
const LEAN = 0.25; // of the turn, so that a turned head also leans a little

function smooth(share) {
  return share * share * (3 - 2 * share);
}

/** Holds the pose. `onchange(values)` is called whenever what is shown changes. */
export class Pose {
  constructor(stage) {
    this.stage = stage;
    this.values = Object.fromEntries(PARAMETERS.map(({ name, rest }) => [name, rest]));
    this.rows = new Map();
    for (const parameter of PARAMETERS) byId("sliders").append(this.#slider(parameter));
    this.glide = null; // {from, to, began}
    this.blinking = 0;
    this.pointer = null; // where the head looks: x, y in [-1, 1]
    this.following = false;
    this.before = 0;
    this.frame = 0;
    stage.addEventListener("pointermove", (event) => this.#pointed(event));
    stage.addEventListener("pointerleave", () => this.#aim(0, 0));
    stage.addEventListener("click", (event) => {
      if (this.following && !(event.target instanceof Element && event.target.closest("button"))) this.blink();
    });
  }

  reset() {
    this.#glideTo(Object.fromEntries(PARAMETERS.map(({ name, rest }) => [name, rest])));
  }

  random() {
    this.#glideTo(Object.fromEntries(PARAMETERS.map(({ name, low, high }) => [name, low + Math.random() * (high - low)])));
  }

  blink() {
    this.blinking = performance.now();
    this.#wake();
  }

  follow(on) {
    this.following = on;
    this.pointer = null;
    this.stage.classList.toggle("following", on);
    if (on) this.glide = null;
  }

  /** The values as they are to be shown: a blink closes the eyes over whatever the sliders say. */
  shown() {
    const share = this.blinking ? (performance.now() - this.blinking) / BLINK_MS : 1;
    const lid = share < 1 ? Math.sin(Math.PI * share) : 0;
    const { left_eye: left, right_eye: right } = this.values;
    return { ...this.values, left_eye: Math.max(left, lid), right_eye: Math.max(right, lid) };
  }

  #slider({ name, label, low, high, rest, ends, flipped }) {
    const [from, to] = flipped ? [ends[1], ends[0]] : ends;
    const spoken = `${label}, from ${from} to ${to}`;
    const input = el("input", { type: "range", id: name, min: low, max: high, step: STEP, value: rest, class: flipped && "flipped", "aria-label": spoken });
    const number = el("output", { class: "number quiet", for: name, "aria-live": "off", text: fixed(rest) });
    input.addEventListener("input", () => {
      this.glide = null;
      if (this.following && ["head_x", "head_y", "neck_z"].includes(name)) this.pointer = null;
      this.#set(name, Number(input.value));
      this.onchange(this.shown());
    });
    input.addEventListener("dblclick", () => {
      this.#set(name, rest);
      this.onchange(this.shown());
    });
    this.rows.set(name, { input, number });
    return el(
      "div",
      {},
      el("div", { class: "slider-head" }, el("label", { for: name, text: label }), number),
      el("div", { class: "slider-line" }, el("span", { text: ends[0] }), input, el("span", { text: ends[1] })),
    );
  }

  #set(name, value) {
    this.values[name] = value;
    const { input, number } = this.rows.get(name);
    input.value = String(value);
    number.textContent = fixed(value);
  }

  #glideTo(to) {
    this.follow(false);
    this.onfollow?.(false);
    this.glide = { from: { ...this.values }, to, began: performance.now() };
    this.#wake();
  }

  #pointed(event) {
    if (!this.following) return;
    const box = this.stage.getBoundingClientRect();
    const reach = Math.min(box.width, box.height) / 2;
    this.#aim((event.clientX - box.left - box.width / 2) / reach, (event.clientY - box.top - box.height / 2) / reach);
  }

  #aim(x, y) {
    if (!this.following) return;
    this.pointer = { x: clamp(x, -1, 1), y: clamp(y, -1, 1) };
    this.#wake();
  }

  #wake() {
    if (this.frame) return;
    this.before = performance.now();
    this.frame = requestAnimationFrame((now) => this.#step(now));
  }

  #step(now) {
    this.frame = 0;
    let more = false;
    if (this.glide) {
      const share = clamp((now - this.glide.began) / GLIDE_MS, 0, 1);
      const { from, to } = this.glide;
      for (const { name } of PARAMETERS) this.#set(name, from[name] + (to[name] - from[name]) * smooth(share));
      more = share < 1;
      if (!more) this.glide = null;
    }
    if (this.following && this.pointer) {
      const part = 1 - Math.exp(-Math.max(0, now - this.before) / FOLLOW_MS);
      const { x, y } = this.pointer;
      const aim = { head_x: -y, head_y: -x, neck_z: -LEAN * x };
      for (const [name, value] of Object.entries(aim)) {
        const way = value - this.values[name];
        this.#set(name, Math.abs(way) < STEP / 4 ? value : this.values[name] + way * part);
        more ||= Math.abs(way) >= STEP / 4;
      }
    }
    if (this.blinking) {
      if (now - this.blinking < BLINK_MS) more = true;
      else this.blinking = 0;
    }
    this.before = now;
    this.onchange(this.shown());
    if (more) this.frame = requestAnimationFrame((next) => this.#step(next));
  }
}
