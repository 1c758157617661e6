// A list that only makes the rows in sight, so that thousands of models or morphs cost nothing.

import { el } from "./dom.js";

const EXTRA = 4; // rows beyond both edges

/** `fill(element, item, index)` writes an item into a row's element; `pick(item)` is called for a clicked one. */
export class VirtualList {
  constructor(host, { rowHeight, make, fill, pick, idOf }) {
    Object.assign(this, { host, rowHeight, make, fill, idOf });
    this.items = [];
    this.current = -1;
    this.rows = [];
    this.space = el("div", { class: "space", role: "presentation" });
    host.append(this.space);
    host.addEventListener("scroll", () => this.#wake(), { passive: true });
    new ResizeObserver(() => this.#wake()).observe(host);
    host.addEventListener("click", (event) => {
      const row = event.target.closest("[role=option]");
      const item = row && this.items[Number(row.dataset.index)];
      if (item) pick(item);
    });
  }

  set(items, current) {
    this.items = items;
    this.current = current;
    this.space.style.height = `${items.length * this.rowHeight}px`;
    this.#wake();
  }

  /** Bring the current row into sight, with some rows around it. */
  reveal() {
    if (this.current < 0) return;
    const { host, rowHeight } = this;
    const top = this.current * rowHeight;
    const margin = Math.min(2 * rowHeight, host.clientHeight / 3);
    if (top - margin < host.scrollTop) host.scrollTop = top - margin;
    else if (top + rowHeight + margin > host.scrollTop + host.clientHeight)
      host.scrollTop = top + rowHeight + margin - host.clientHeight;
  }

  #wake() {
    if (!this.frame) this.frame = requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    this.frame = 0;
    const first = Math.max(0, Math.floor(this.host.scrollTop / this.rowHeight) - EXTRA);
    const last = Math.min(
      this.items.length,
      Math.ceil((this.host.scrollTop + this.host.clientHeight) / this.rowHeight) + EXTRA,
    );
    while (this.rows.length < last - first) {
      const row = this.make();
      row.setAttribute("role", "option");
      this.rows.push(row);
      this.space.append(row);
    }
    this.rows.forEach((row, place) => {
      const index = first + place;
      row.hidden = index >= last;
      if (row.hidden) {
        row.removeAttribute("id");
        return;
      }
      row.style.transform = `translateY(${index * this.rowHeight}px)`;
      row.dataset.index = String(index);
      row.id = `${this.host.id}-${this.idOf(this.items[index])}`;
      row.setAttribute("aria-setsize", String(this.items.length));
      row.setAttribute("aria-posinset", String(index + 1));
      row.setAttribute("aria-selected", String(index === this.current));
      this.fill(row, this.items[index], index);
    });
    const current = this.items[this.current];
    if (current && this.current >= first && this.current < last)
      this.host.setAttribute("aria-activedescendant", `${this.host.id}-${this.idOf(current)}`);
    else this.host.removeAttribute("aria-activedescendant");
  }
}
