// The draggable lines over a picture: chin, skull top, and the centre. Each is a slider for mouse, touch and keys.

import { clamp, el, fixed } from "./dom.js";

export const LINES = [
  { name: "top_y", label: "Skull top", short: "top", upright: false },
  { name: "chin_y", label: "Chin", short: "chin", upright: false },
  { name: "center_x", label: "Centre", short: "centre", upright: true },
];

/**
 * Handles over `picture` inside `host`. `moved(name, value, done)` is called while a line is dragged and, with `done`,
 * when it is let go; `chosen(name)` when a line gets the focus. From the side there is no centre.
 */
export class Lines {
  constructor(host, picture, { moved, chosen, side = false }) {
    Object.assign(this, { host, picture, moved, chosen });
    this.handles = new Map();
    this.bounds = null;
    for (const line of LINES) {
      if (side && line.upright) continue;
      this.handles.set(line.name, this.#handle(line, side));
    }
    picture.onresize = () => this.place();
  }

  #handle(line, side) {
    const handle = el(
      "div",
      {
        class: `line ${line.short}`,
        role: "slider",
        tabindex: side ? "-1" : "0",
        "aria-label": `${line.label}${side ? ", side view" : ""}`,
        "aria-orientation": line.upright ? "horizontal" : "vertical",
        data: { line: line.name },
      },
      el("span", { class: "grip", text: line.label, "aria-hidden": "true" }),
    );
    let offset = null; // from the pointer to the line, so that it does not jump to where it was grabbed
    const position = (event) => {
      const box = this.host.getBoundingClientRect();
      return line.upright ? event.clientX - box.left : event.clientY - box.top;
    };
    const value = (event) => {
      const place = position(event) + offset;
      return line.upright
        ? this.picture.fromX(clamp(place, 0, this.picture.width))
        : this.picture.fromY(clamp(place, 0, this.picture.height));
    };
    handle.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || !this.bounds) return;
      event.preventDefault();
      handle.setPointerCapture(event.pointerId);
      const at = line.upright ? this.picture.toX(this.bounds[line.name]) : this.picture.toY(this.bounds[line.name]);
      offset = at - position(event);
      handle.classList.add("dragged");
      this.chosen(line.name);
    });
    handle.addEventListener("pointermove", (event) => {
      if (offset !== null) this.moved(line.name, value(event), false);
    });
    const end = (event) => {
      if (offset === null) return;
      const last = event.type === "pointerup" ? value(event) : this.bounds[line.name];
      offset = null;
      handle.classList.remove("dragged");
      this.moved(line.name, last, true);
    };
    handle.addEventListener("pointerup", end);
    handle.addEventListener("pointercancel", end);
    handle.addEventListener("focus", () => this.chosen(line.name));
    this.host.append(handle);
    return handle;
  }

  /** Show these bounds (or none, for null), with the active line marked. */
  set(bounds, active) {
    this.bounds = bounds;
    this.active = active;
    this.place();
  }

  place() {
    const ready = this.bounds !== null && this.picture.view !== null && this.picture.width > 0;
    for (const [name, handle] of this.handles) {
      handle.hidden = !ready;
      if (!ready) continue;
      const value = this.bounds[name];
      const { fromX, fromY } = this.#limits();
      handle.style.transform =
        name === "center_x"
          ? `translateX(${this.picture.toX(value)}px)`
          : `translateY(${this.picture.toY(value)}px)`;
      const [low, high] = name === "center_x" ? fromX : fromY;
      handle.setAttribute("aria-valuemin", low.toFixed(3));
      handle.setAttribute("aria-valuemax", high.toFixed(3));
      handle.setAttribute("aria-valuenow", value.toFixed(3));
      handle.setAttribute("aria-valuetext", `${fixed(value)} MU`);
      handle.classList.toggle("active", name === this.active);
    }
  }

  #limits() {
    const { picture } = this;
    return {
      fromX: [picture.fromX(0), picture.fromX(picture.width)],
      fromY: [picture.fromY(picture.height), picture.fromY(0)],
    };
  }

  focus(name) {
    this.handles.get(name)?.focus({ preventScroll: true });
  }
}
