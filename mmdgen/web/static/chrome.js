// The frame of the page: tabs, progress with pace and time left, the saved mark, messages, the theme.

import { byId, percent, setShown, setText } from "./dom.js";
import { counts, on, pace, rowOf, setKind, standing, state } from "./state.js";
import { readable } from "./terms.js";

const MESSAGE_MS = 3500;
const ERROR_MS = 9000;
const THEMES = ["auto", "light", "dark"];
const THEME_NAMES = { auto: "as the system", light: "light", dark: "dark" };

/** Return a time in words: "under a minute", "12 min", "1 h 5 min". */
export function duration(minutes) {
  if (minutes < 1) return "under a minute";
  const whole = Math.round(minutes);
  if (whole < 60) return `${whole} min`;
  return `${Math.floor(whole / 60)} h ${whole % 60} min`;
}

export class Chrome {
  constructor() {
    this.timer = 0;
    for (const kind of ["head_bounds", "wink_morphs"]) {
      const tab = byId(`tab-${kind}`);
      tab.addEventListener("click", () => setKind(kind));
      tab.addEventListener("keydown", (event) => {
        if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
        event.preventDefault();
        setKind(kind === "head_bounds" ? "wink_morphs" : "head_bounds");
        byId(`tab-${state.kind}`).focus();
      });
    }
    on("kind", () => this.tabs());
    for (const event of ["rows", "kind", "filter", "pace"]) on(event, () => this.progress());
    for (const event of ["current", "model", "kind", "rows", "edited"]) on(event, () => this.title());
    on("saving", (saving) => this.saving(saving));
    on("message", ({ text, error }) => this.say(text, error));
    this.theme = this.#storedTheme();
    this.#applyTheme();
    byId("theme").addEventListener("click", () => {
      this.theme = THEMES[(THEMES.indexOf(this.theme) + 1) % THEMES.length];
      this.#applyTheme();
    });
    byId("message").addEventListener("click", () => setShown(byId("message"), false));
  }

  tabs() {
    for (const kind of ["head_bounds", "wink_morphs"]) {
      const chosen = kind === state.kind;
      byId(`tab-${kind}`).setAttribute("aria-selected", String(chosen));
      byId(`tab-${kind}`).tabIndex = chosen ? 0 : -1;
      setShown(byId(`view-${kind}`), chosen);
    }
  }

  progress() {
    if (!this.soon) this.soon = requestAnimationFrame(() => this.#progress());
  }

  #progress() {
    this.soon = 0;
    const all = counts();
    const usable = all.total - all.error;
    const left = state.filter === "unsure" || all.unsure ? all.unsure : all.sure;
    const share = (count) => `${usable ? (100 * count) / usable : 0}%`;
    byId("bar-done").style.width = share(all.done);
    byId("bar-sure").style.width = share(all.sure);
    const bar = byId("bar");
    bar.setAttribute("aria-valuemax", String(usable));
    bar.setAttribute("aria-valuenow", String(all.done));
    bar.title = `${all.done} checked or rejected by people, ${all.sure} the machine is sure about, ${all.unsure} to look at`;
    setText(byId("progress-count"), `${all.done} of ${usable} checked`);
    const rate = pace();
    const parts = [];
    if (all.unsure) parts.push(`${all.unsure} unsure left`);
    else if (all.sure) parts.push(`none unsure, ${all.sure} sure left`);
    else if (usable && !all.waiting) parts.push("all done");
    if (all.waiting) parts.push(`${all.waiting} not looked at yet`);
    if (rate && left) parts.push(`${rate < 10 ? rate.toFixed(1) : Math.round(rate)} a minute`, `${duration(left / rate)} to go`);
    setText(byId("progress-pace"), parts.join(" · "));
  }

  /** The open model's name, where it lies, and what the machine thinks of it. */
  title() {
    const row = rowOf(state.current);
    const chip = byId("machine");
    setText(byId("model-title"), row ? row.name || row.file : "No model is open");
    byId("model-title").title = row?.name ?? "";
    document.title = row ? `${row.name || row.file} · mmdgen annotate` : "mmdgen annotate";
    setText(
      byId("model-place"),
      row ? [[row.folder, row.file].filter(Boolean).join("/"), row.vertices ? `${row.vertices.toLocaleString("en")} vertices` : ""].filter(Boolean).join(" · ") : "",
    );
    byId("model-place").title = byId("model-place").textContent;
    setShown(chip, row !== undefined);
    const rejected = state.model?.rejected || (row && standing(row) === "rejected" && row.reason[state.kind]) || "";
    setShown(byId("rejected"), Boolean(rejected));
    setText(byId("rejected-reason"), rejected);
    const failed = state.failed || (row && standing(row) === "error" && !state.model ? row.reason[state.kind] : "");
    setShown(byId("failed"), Boolean(failed));
    setText(byId("failed-reason"), failed);
    if (!row) return;
    const kind = standing(row);
    const words = { unsure: "unsure", sure: "sure", waiting: "new", mine: "checked by you", other: "checked by someone else" };
    chip.className = `machine ${kind}`;
    setText(byId("machine-sure"), kind in words ? words[kind] : kind);
    const suggested = state.model?.suggested;
    const isBounds = state.kind === "head_bounds";
    const confidence = isBounds ? suggested?.bounds?.confidence : suggested?.eyes_confidence;
    let reason = (isBounds && suggested?.bounds?.reason) || row.reason[state.kind] || "";
    // how each eye was found is listed beside the slots: here only the doubt, which comes first
    if (!isBounds) reason = kind === "sure" ? "" : reason.split("; ")[0];
    let text = "";
    if (kind === "mine" || kind === "other") text = confidence ? `The machine was ${percent(confidence)} sure` : "";
    else if (kind !== "error" && kind !== "rejected")
      text = [confidence ? `Machine ${percent(confidence)} sure` : "", readable(reason)].filter(Boolean).join(": ");
    setText(byId("machine-reason"), text);
    byId("machine-reason").title = text;
  }

  saving({ waiting, count, connected, error }) {
    const mark = byId("saved");
    if (error) this.say(error, true);
    mark.dataset.count = String(count);
    mark.dataset.waiting = String(waiting);
    mark.className = waiting ? "saved waiting" : "saved";
    setText(byId("saved-text"), waiting ? (connected ? "Saving…" : `${waiting} not saved yet`) : count ? "All changes saved" : "No changes yet");
  }

  connection(lost, text = "") {
    setShown(byId("banner"), lost);
    setText(byId("banner-text"), text);
  }

  say(text, error = false) {
    const box = byId("message");
    box.className = error ? "message error" : "message";
    box.setAttribute("role", error ? "alert" : "status");
    setText(byId("message-text"), text);
    setShown(box, true);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => setShown(box, false), error ? ERROR_MS : MESSAGE_MS);
  }

  #storedTheme() {
    try {
      const stored = localStorage.getItem("theme");
      return THEMES.includes(stored) ? stored : "auto";
    } catch {
      return "auto"; // no storage in this browser: the system's choice every time
    }
  }

  #applyTheme() {
    document.documentElement.dataset.theme = this.theme;
    byId("theme").setAttribute("aria-label", `Colours: ${THEME_NAMES[this.theme]}`);
    byId("theme").title = `Colours: ${THEME_NAMES[this.theme]}`;
    byId("theme").dataset.theme = this.theme;
    try {
      localStorage.setItem("theme", this.theme);
    } catch {
      // it stays for this visit
    }
    this.onrepaint?.();
  }
}
