// The keys: one table that both the dispatcher and the help dialog read.

import { isTyping } from "./dom.js";

/**
 * A key is written as in `KeyboardEvent.key`, with "Shift+" or "Ctrl+" before it (Ctrl stands for Cmd too). Digits and
 * letters are also found by the physical key, so that other layouts and Caps Lock do not matter.
 */
export function nameOf(event) {
  let key = event.key;
  if (/^Digit[0-9]$|^Numpad[0-9]$/.test(event.code)) key = event.code.slice(-1);
  else if (key.length === 1 && /[a-z]/i.test(key)) key = key.toLowerCase();
  else if (key.length === 1 && /^Key[A-Z]$/.test(event.code) && !/[!-~]/.test(key)) key = event.code[3].toLowerCase();
  const isSign = key.length === 1 && !/[a-z0-9]/.test(key); // "?" already needs Shift on some layouts
  const shift = event.shiftKey && !isSign ? "Shift+" : "";
  return `${event.ctrlKey || event.metaKey ? "Ctrl+" : ""}${shift}${key}`;
}

/** Keys that elements keep for themselves while they have the focus. */
function belongsTo(element, key) {
  if (!(element instanceof HTMLElement)) return false;
  const role = element.getAttribute("role");
  const presses = key === "Enter" || key === " ";
  if (element.tagName === "INPUT" && element.type === "range") return /Arrow|Home|End/.test(key);
  if (element.tagName === "BUTTON" || element.tagName === "A") return presses || (role === "tab" && /Arrow(L|R)/.test(key));
  return element.tagName === "INPUT" && key === " ";
}

/**
 * Calls the actions of a table for what is typed. A row is {keys, act, what, group}, and, where it matters: `kind` (only
 * in that view), `when` (only while it returns true), `once` (not while the key repeats), `up` (when it is let go).
 */
export class Keys {
  constructor(rows, { kind, blocked }) {
    this.rows = rows;
    this.held = new Map(); // code of a held key -> its row
    document.addEventListener("keydown", (event) => {
      if (event.defaultPrevented || event.altKey || event.isComposing || isTyping(event.target) || blocked()) return;
      const name = nameOf(event);
      if (belongsTo(event.target, event.key)) return;
      const row = this.rows.find(
        (each) => each.keys.includes(name) && (!each.kind || each.kind === kind()) && (!each.when || each.when()),
      );
      if (!row) return;
      event.preventDefault();
      if (event.repeat && (row.once || row.up)) return;
      if (row.up) this.held.set(event.code, row);
      row.act(name);
    });
    document.addEventListener("keyup", (event) => this.#release(event.code));
    window.addEventListener("blur", () => [...this.held.keys()].forEach((code) => this.#release(code)));
  }

  #release(code) {
    const row = this.held.get(code);
    this.held.delete(code);
    row?.up();
  }
}

const SIGNS = {
  ArrowUp: "↑",
  ArrowDown: "↓",
  ArrowLeft: "←",
  ArrowRight: "→",
  Enter: "Enter",
  PageUp: "Page ↑",
  PageDown: "Page ↓",
  Delete: "Del",
  Backspace: "⌫",
  " ": "Space",
};

/** Return a key's parts as they stand on key caps. */
export function capsOf(name) {
  const parts = name === "+" ? ["+"] : name.split("+");
  return parts.map((part) => SIGNS[part] ?? (/^[a-z]$/.test(part) ? part.toUpperCase() : part));
}
