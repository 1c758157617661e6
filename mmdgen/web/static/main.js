// Where it starts: the parts are made, wired to each other and to the keys, and the first model is opened.

import { Actions } from "./actions.js";
import { Ahead } from "./ahead.js";
import { BoundsView } from "./bounds.js";
import { Chrome } from "./chrome.js";
import { HelpDialog, RejectDialog } from "./dialogs.js";
import { byId, setShown } from "./dom.js";
import { Keys } from "./keys.js";
import { ModelList } from "./models.js";
import { forgetColours } from "./overlay.js";
import { Saver } from "./saving.js";
import { Socket } from "./socket.js";
import { FILTERS, KINDS, emit, on, setFilter, setKind, setRows, state, updateRow } from "./state.js";
import { WinksView } from "./winks.js";

const socket = new Socket();
const saver = new Saver(socket);
const ahead = new Ahead(socket);
const chrome = new Chrome();
const actions = new Actions(socket, saver);
const models = new ModelList(actions);
const views = { head_bounds: new BoundsView(socket, saver, ahead), wink_morphs: new WinksView(socket, saver, ahead) };
const reject = new RejectDialog({
  reject: (reason) => actions.reject(reason),
  unreject: () => actions.unreject(),
});

actions.onahead = (id, model, wanted) => views[state.kind].prepare(id, model, wanted);
on("row", (row) => ahead.drop(row.id));

function cycleFilter(by) {
  setFilter(FILTERS[(FILTERS.indexOf(state.filter) + by + FILTERS.length) % FILTERS.length]);
}

const everywhere = (keys, what, act, more = {}) => ({ keys, what, act, group: "Everywhere", ...more });
const rows = [
  everywhere(["Enter"], "accept what is shown and go on", () => actions.accept(), { once: true }),
  everywhere(["s"], "skip for now", () => actions.skip(), { once: true }),
  everywhere(["r"], "reject with a reason, or take that back", () => reject.open()),
  everywhere(["u", "Ctrl+z"], "undo", () => actions.turnBack("undo")),
  everywhere(["Shift+u", "Ctrl+Shift+z", "Ctrl+y"], "redo", () => actions.turnBack("redo")),
  everywhere(["PageDown", ">"], "the next model of the list", () => actions.step(1)),
  everywhere(["PageUp", "<"], "the model before", () => actions.step(-1)),
  everywhere(["f", "Shift+f"], "filter: all, unsure, rejected, mine", (key) => cycleFilter(key === "f" ? 1 : -1)),
  everywhere(["/"], "search by name or folder", () => byId("search").focus()),
  everywhere(["k"], "head bounds or wink morphs", () => setKind(KINDS[1 - KINDS.indexOf(state.kind)])),
  everywhere(["?"], "these keys", () => help.open()),
  ...views.head_bounds.keys(),
  ...views.wink_morphs.keys(),
];
const help = new HelpDialog(rows);
new Keys(rows, {
  kind: () => state.kind,
  blocked: () => document.querySelector("dialog[open]") !== null,
});

for (const [id, act] of [
  ["accept", () => actions.accept()],
  ["skip", () => actions.skip()],
  ["reject", () => reject.open()],
  ["undo", () => actions.turnBack("undo")],
  ["redo", () => actions.turnBack("redo")],
  ["take", () => views[state.kind].takeMachine()],
  ["help", () => help.open()],
  ["unreject", () => actions.unreject()],
])
  byId(id).addEventListener("click", act);

// What the mouse pressed does not keep the focus: the next Enter accepts instead of pressing the button again.
document.addEventListener("click", (event) => {
  const button = event.target instanceof Element ? event.target.closest("button") : null;
  if (event.detail > 0 && button && !button.closest("dialog")) button.blur();
});
document.addEventListener("pointerup", (event) => {
  if (event.target instanceof HTMLInputElement && event.target.type === "range") event.target.blur();
});

function showModel() {
  setShown(byId("stage-off"), !state.model);
  document.body.dataset.model = state.model ? state.current : "";
  views[state.kind].open();
}

on("current", () => {
  document.body.dataset.model = "";
  if (!state.model) byId("views").classList.add("opening");
});
on("model", () => {
  byId("views").classList.remove("opening");
  showModel();
});
on("kind", () => {
  if (state.current) history.replaceState(null, "", `#${state.kind}/${state.current}`);
  showModel();
});
chrome.onrepaint = () => {
  forgetColours();
  Object.values(views).forEach((view) => view.repaint());
};
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => chrome.onrepaint());
addEventListener("hashchange", () => {
  const [kind, id] = location.hash.slice(1).split("/");
  setKind(kind);
  if (id) actions.open(id);
});
addEventListener("beforeunload", (event) => {
  saver.flush();
  if (saver.waiting) event.preventDefault(); // something is not stored yet: the browser asks
});

/** Fetch the rows; returns whether this page may talk to the server at all. */
async function load() {
  const response = await fetch("/api/state", { cache: "no-store" });
  if (response.status === 401) {
    chrome.connection(true, "The server was started again: open the address that it printed.");
    return false;
  }
  if (!response.ok) throw new Error(`the server answered ${response.status}`);
  const answer = await response.json();
  state.annotator = answer.annotator;
  byId("annotator").textContent = answer.annotator;
  setRows(answer.models);
  return true;
}

let wasLost = false;
socket.addEventListener("open", async () => {
  try {
    if (!(await load())) return;
  } catch {
    return; // the connection ends too, and is made again
  }
  chrome.connection(false);
  if (!state.current) actions.start(location.hash.slice(1).split("/")[1]);
  else if (wasLost && !saver.waiting) actions.open(state.current, { again: true });
  wasLost = false;
});
socket.addEventListener("lost", async () => {
  wasLost = true;
  chrome.connection(true, "No connection to the server. Trying again…");
  try {
    await load();
  } catch {
    // no server there at the moment
  }
});
socket.addEventListener("push", ({ detail }) => {
  if (detail.type === "row") updateRow(detail.row);
  else if (detail.type === "error") emit("message", { text: detail.message, error: true });
});

setKind(location.hash.slice(1).split("/")[0]);
chrome.tabs();
models.refresh();
socket.connect();
