// The two dialogs: why a model is rejected, and the keys.

import { byId, cap, el, setShown } from "./dom.js";
import { capsOf } from "./keys.js";
import { state } from "./state.js";

const REASONS = [
  "not a person: no human face",
  "the face is hidden (mask, helmet, visor)",
  "only a part: no head, or an accessory",
  "textures are missing or wrong",
  "the shape is broken",
  "more than one character in the file",
  "the eyes cannot be closed",
  "not suitable for a dataset",
];

/** `reject(reason)` and `unreject()` do what was chosen. */
export class RejectDialog {
  constructor({ reject, unreject }) {
    this.dialog = byId("reject-dialog");
    this.text = byId("reject-text");
    const finish = (reason) => {
      this.dialog.close();
      reject(reason);
    };
    REASONS.forEach((reason, index) => {
      const button = el("button", { type: "button", on: { click: () => finish(reason) } }, cap(String(index + 1)), el("span", { text: reason }));
      byId("reject-reasons").append(el("li", {}, button));
    });
    byId("reject-back").addEventListener("click", () => {
      this.dialog.close();
      unreject();
    });
    byId("reject-cancel").addEventListener("click", () => this.dialog.close());
    byId("reject-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const reason = this.text.value.trim();
      if (reason) finish(reason);
      else this.text.focus();
    });
    this.dialog.addEventListener("keydown", (event) => {
      if (event.target === this.text || event.ctrlKey || event.altKey || event.metaKey) return;
      const digit = /^(?:Digit|Numpad)([0-9])$/.exec(event.code)?.[1];
      if (digit === undefined) return;
      event.preventDefault();
      if (digit === "0" && state.model?.rejected) byId("reject-back").click();
      else if (REASONS[digit - 1]) finish(REASONS[digit - 1]);
    });
  }

  open() {
    if (!state.current) return;
    this.text.value = "";
    setShown(byId("reject-back"), Boolean(state.model?.rejected));
    this.dialog.showModal();
    byId("reject-reasons").querySelector("button").focus();
  }
}

export class HelpDialog {
  constructor(rows) {
    this.dialog = byId("help-dialog");
    const groups = new Map();
    for (const row of rows) groups.set(row.group, [...(groups.get(row.group) ?? []), row]);
    for (const [name, members] of groups) {
      const list = el("dl");
      for (const row of members) {
        const keys = el("dt");
        const shown = row.caps ? [row.caps] : row.keys.slice(0, 7).map(capsOf);
        shown.forEach((caps, index) => {
          if (index) keys.append(" ");
          keys.append(el("span", { class: "chord" }, ...caps.map((key) => cap(key))));
        });
        list.append(el("div", {}, keys, el("dd", { text: row.what })));
      }
      byId("help-groups").append(el("section", {}, el("h3", { text: name }), list));
    }
    byId("help-close").addEventListener("click", () => this.dialog.close());
    this.dialog.addEventListener("click", (event) => {
      if (event.target === this.dialog) this.dialog.close(); // beside the box
    });
    this.dialog.addEventListener("keydown", (event) => {
      if (event.key !== "?") return;
      event.preventDefault();
      this.dialog.close();
    });
  }

  open() {
    this.dialog.showModal();
  }
}
