// The live poser: a picture is dropped on the page, six sliders move it.

import { byId, el, isTyping, setShown } from "./dom.js";
import { Live } from "./poser_live.js";
import { Pose } from "./poser_pose.js";
import { PoserSocket } from "./poser_socket.js";

const MOST_BYTES = 32 * 1024 * 1024; // the server's limit
const THEMES = ["auto", "light", "dark"];
const THEME_NAMES = { auto: "as the system", light: "light", dark: "dark" };
const THEME_KEY = "mmdgen-theme";

const socket = new PoserSocket();
const pose = new Pose(byId("stage"));
const network = new Live(socket, byId("network"), "network");
const model = new Live(socket, byId("model"), "model");
let source = 0; // counts the pictures that were posed
let refused = null; // a file without a transparent background
let started = false;
let chosen = ""; // the number of the model that is shown, as in the list

function say(text, cut = false) {
  byId("message-text").textContent = text;
  setShown(byId("cut"), cut);
  setShown(byId("message"), text !== "");
}

function showAll() {
  const values = pose.shown();
  network.show(values);
  model.show(values);
}

/** Begin to pose a picture: `image` as the networks take it, of a 3D model or not. */
function begin(image, name, of3d) {
  say("");
  refused = null;
  source += 1;
  const rest = byId("rest");
  rest.width = image.width;
  rest.height = image.height;
  rest.getContext("2d").putImageData(image, 0, 0);
  byId("source-name").textContent = name;
  byId("source-name").title = name;
  document.body.dataset.picture = String(source);
  network.start(source);
  compare(of3d);
  showAll();
}

/** Show the 3D model beside the picture, or only the picture. */
function compare(on) {
  setShown(byId("model-figure"), on);
  byId("stage").classList.toggle("two", on);
  if (on) model.start(source);
  else {
    model.stop();
    byId("models").value = "";
  }
  chosen = byId("models").value;
}

async function upload(file, cut = false) {
  if (!file) return;
  if (file.size > MOST_BYTES) {
    say(`${file.name} is larger than ${MOST_BYTES >> 20} MB.`);
    return;
  }
  try {
    const answer = await socket.upload(await file.arrayBuffer(), cut);
    begin(answer.image, file.name, false);
  } catch (error) {
    const opaque = !cut && /transparent background/.test(error.message);
    refused = opaque ? file : null;
    say(opaque ? `${file.name} has no transparent background, which the networks need.` : `${file.name}: ${error.message}`, opaque);
  }
}

async function chooseModel(number) {
  const name = byId("models").selectedOptions[0]?.textContent ?? "";
  byId("models").disabled = true;
  try {
    const answer = await socket.request({ type: "choose", model: number });
    begin(answer.image, name, true);
  } catch (error) {
    byId("models").value = chosen;
    say(`${name}: ${error.message}`);
  } finally {
    byId("models").disabled = false;
  }
}

function setFollow(on) {
  byId("follow").setAttribute("aria-pressed", String(on));
}

function toggleFollow() {
  pose.follow(!pose.following);
  setFollow(pose.following);
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  byId("theme").dataset.theme = theme;
  byId("theme").title = `Colours: ${THEME_NAMES[theme]}`;
  byId("theme").setAttribute("aria-label", `Colours: ${THEME_NAMES[theme]}`);
  localStorage.setItem(THEME_KEY, theme);
}

const actions = {
  reset: () => pose.reset(),
  random: () => pose.random(),
  follow: toggleFollow,
  blink: () => pose.blink(),
  choose: () => byId("file").click(),
};
const keys = { r: "reset", " ": "random", f: "follow", b: "blink", o: "choose" };

for (const [id, act] of Object.entries(actions)) byId(id).addEventListener("click", act);
byId("welcome-choose").addEventListener("click", actions.choose);
byId("file").addEventListener("change", (event) => {
  upload(event.target.files[0]);
  event.target.value = ""; // the same file may be chosen again
});
byId("cut").addEventListener("click", () => upload(refused, true));
byId("message-close").addEventListener("click", () => say(""));
byId("models").addEventListener("change", (event) => {
  if (event.target.value === "") compare(false);
  else chooseModel(Number(event.target.value));
});
byId("theme").addEventListener("click", () => {
  setTheme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length]);
});
// What the mouse pressed does not keep the focus: the next space is not another press of the same button.
document.addEventListener("click", (event) => {
  const button = event.target instanceof Element ? event.target.closest("button") : null;
  if (event.detail > 0 && button) button.blur();
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
  if (event.key === " " && event.target instanceof HTMLButtonElement) return;
  const action = keys[event.key.toLowerCase()];
  if (!action || event.repeat) return;
  event.preventDefault();
  actions[action]();
});

let over = 0;
const holdsFile = (event) => event.dataTransfer?.types.includes("Files");
document.addEventListener("dragenter", (event) => {
  if (!holdsFile(event)) return;
  over += 1;
  setShown(byId("drop"), true);
});
document.addEventListener("dragleave", (event) => {
  if (!holdsFile(event)) return;
  over = Math.max(0, over - 1);
  setShown(byId("drop"), over > 0);
});
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault(); // or the browser would open the file instead of the page
  over = 0;
  setShown(byId("drop"), false);
  upload(event.dataTransfer?.files[0]);
});
document.addEventListener("paste", (event) => upload(event.clipboardData?.files[0]));

pose.onchange = () => showAll();
pose.onfollow = setFollow;
network.ondrawn = (milliseconds) => {
  byId("pace").textContent = `${Math.round(milliseconds)} ms a picture`;
};
for (const live of [network, model]) {
  live.onfailed = (error) => {
    if (!error.lost) say(error.message);
  };
}

function connection(text) {
  byId("banner").textContent = text;
  setShown(byId("banner"), text !== "");
}

/** Fetch what the page starts with; returns it, or null where this page may not talk to the server any more. */
async function load() {
  const response = await fetch("/api/state", { cache: "no-store" });
  if (response.status === 401) {
    connection("The server was started again: open the address that it printed.");
    return null;
  }
  if (!response.ok) throw new Error(`the server answered ${response.status}`);
  return response.json();
}

function start(state) {
  const presets = [...new Set(state.networks.map(({ preset }) => preset))].join(", ");
  byId("run").textContent = `${state.run} · ${presets} · ${state.size} × ${state.size}`;
  byId("run").title = state.networks.map(({ name, examples }) => `${name}: ${examples} examples`).join("\n");
  if (state.models.length) {
    const options = state.models.map((name, number) => el("option", { value: String(number), text: name }));
    byId("models").replaceChildren(el("option", { value: "", text: "None" }), ...options);
    setShown(byId("models"), true);
    setShown(byId("models-label"), true);
  }
}

socket.addEventListener("open", async () => {
  try {
    const state = await load();
    if (!state) return;
    connection("");
    if (!started) start(state);
    started = true;
    if (!state.picture) return;
    if (state.model !== null) byId("models").value = String(state.model);
    const answer = await socket.request({ type: "current" });
    const of3d = state.model !== null;
    if (answer.image) begin(answer.image, of3d ? state.models[state.model] : "The last picture", of3d);
  } catch {
    // the connection ends too, and is made again
  }
});
socket.addEventListener("lost", async () => {
  connection("No connection to the server. Trying again…");
  try {
    await load();
  } catch {
    // no server there at the moment
  }
});
socket.addEventListener("push", ({ detail }) => {
  if (detail.type === "error") say(detail.message);
});

setTheme(THEMES.includes(localStorage.getItem(THEME_KEY)) ? localStorage.getItem(THEME_KEY) : "auto");
socket.connect();
