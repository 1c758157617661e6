// What the page knows: the rows of all models, the filter, which model is open, and the pace of the work.

export const KINDS = ["head_bounds", "wink_morphs"];
export const SURE = 0.8; // as mmdgen/annotate/records.py: at or above this the machine is sure
export const FILTERS = ["all", "unsure", "rejected", "mine"];
const LONGEST_GAP_S = 60; // a longer gap between two decisions is a break and counts as this much
const SORT_AFTER_MS = 1500; // findings come in one by one at the first start
const PACE_OVER = 30; // decisions that the pace is measured over

const listeners = new Map();

/** Call `heard` whenever `name` is emitted: `rows`, `row`, `kind`, `filter`, `current`, `model`, `saving`, `pace`. */
export function on(name, heard) {
  listeners.set(name, [...(listeners.get(name) ?? []), heard]);
}

export function emit(name, detail) {
  for (const heard of listeners.get(name) ?? []) heard(detail);
}

export const state = {
  annotator: "",
  rows: [],
  places: new Map(), // model id -> index in rows
  kind: KINDS[0],
  filter: "all",
  search: "",
  current: "", // id of the model that is shown or being opened
  model: null, // the server's answer to `open`, with the person's changes
  failed: "", // why the current model could not be opened
  skipped: new Set(),
};

let shown = null; // the visible rows, until something changes
let counted = null;
let sorting = 0; // timer

function forget() {
  shown = null;
  counted = null;
}

/** Set all rows, in the order of the current kind: least certain first, then what is not looked at yet, then the unusable. */
export function setRows(rows) {
  const key = (row) => (row.usable === false ? 3 : row.vertices ? row.confidence[state.kind] : 2);
  state.rows = [...rows].sort((a, b) => key(a) - key(b) || (a.id < b.id ? -1 : 1));
  state.places = new Map(state.rows.map((row, index) => [row.id, index]));
  forget();
  emit("rows");
}

/** Put in a row that the server sent. Its place stays, unless the machine found out something about it. */
export function updateRow(row) {
  const place = state.places.get(row.id);
  const old = state.rows[place];
  const isAuto = ["auto", "error"].includes(row.status[state.kind]);
  if (!old || (isAuto && old.confidence[state.kind] !== row.confidence[state.kind]))
    sorting ||= setTimeout(() => {
      sorting = 0;
      setRows(state.rows);
    }, SORT_AFTER_MS);
  if (place === undefined) {
    state.places.set(row.id, state.rows.length);
    state.rows.push(row);
  } else {
    state.rows[place] = row;
  }
  forget();
  emit("row", row);
  emit("rows");
}

export function rowOf(id) {
  return state.rows[state.places.get(id)];
}

export function setKind(kind) {
  if (!KINDS.includes(kind) || kind === state.kind) return;
  state.kind = kind;
  state.skipped.clear();
  setRows(state.rows);
  emit("kind");
}

export function setFilter(filter) {
  if (!FILTERS.includes(filter)) return;
  state.filter = filter;
  forget();
  emit("filter");
}

export function setSearch(text) {
  state.search = text;
  forget();
  emit("filter");
}

/**
 * Return one word for how a row stands in the current kind: unsure, sure, waiting, mine, other, rejected or error. Where the
 * machine found nothing in a model that can be drawn, a person is needed: that is unsure too.
 */
export function standing(row, kind = state.kind) {
  const status = row.status[kind];
  if (status === "error") return row.usable === false ? "error" : "unsure";
  if (status !== "auto") return status;
  if (!row.vertices) return "waiting"; // the machine has not looked at it yet
  return row.confidence[kind] >= SURE ? "sure" : "unsure";
}

export function matches(row, filter) {
  return filter === "all" || standing(row) === filter;
}

/** Return the rows that filter and search leave, in order. */
export function visibleRows() {
  if (shown) return shown;
  const wanted = state.search.normalize("NFKC").toLowerCase().split(/\s+/).filter(Boolean);
  shown = state.rows.filter((row) => {
    if (!matches(row, state.filter)) return false;
    if (!wanted.length) return true;
    const text = `${row.name} ${row.file} ${row.folder} ${row.id}`.normalize("NFKC").toLowerCase();
    return wanted.every((word) => text.includes(word));
  });
  return shown;
}

/** Return how many rows stand how, and how many each filter leaves. */
export function counts() {
  if (counted) return counted;
  counted = { total: state.rows.length, unsure: 0, sure: 0, waiting: 0, mine: 0, other: 0, rejected: 0, error: 0 };
  for (const row of state.rows) counted[standing(row)] += 1;
  counted.all = counted.total;
  counted.done = counted.mine + counted.other + counted.rejected;
  return counted;
}

/** Whether a row still waits for a person. */
export function isOpen(row) {
  return ["unsure", "sure", "waiting"].includes(standing(row));
}

/** Return the id of the visible row `step` places from the current one, or "". */
export function neighbour(step) {
  const rows = visibleRows();
  const place = rows.findIndex((row) => row.id === state.current);
  if (place >= 0) return rows[place + step]?.id ?? "";
  // the current model is not in the list (it left the filter): go on from its place in the whole order
  const here = state.places.get(state.current) ?? 0;
  const after = rows.findIndex((row) => state.places.get(row.id) > here);
  const from = after < 0 ? rows.length : after;
  return rows[step > 0 ? from + step - 1 : from + step]?.id ?? "";
}

/** Return up to `count` ids of rows that wait for a person: after the current place, then around from the start. */
export function upcoming(count = 1) {
  const rows = visibleRows();
  const here = state.places.get(state.current) ?? -1;
  let start = rows.findIndex((row) => state.places.get(row.id) > here);
  if (start < 0) start = rows.length;
  const found = [];
  for (let step = 0; step < rows.length && found.length < count; step++) {
    const row = rows[(start + step) % rows.length];
    if (row.id !== state.current && isOpen(row) && !state.skipped.has(row.id)) found.push(row.id);
  }
  return found;
}

const decisions = []; // times in seconds at which a person decided about a model
let resting = 0; // the time of the first action, from which the first decision is measured

/** Note that the person decided about a model now. */
export function decided(now = performance.now() / 1000) {
  decisions.push(now);
  if (decisions.length > PACE_OVER + 1) decisions.shift();
  emit("pace");
}

export function started(now = performance.now() / 1000) {
  if (!resting) resting = now;
}

/** Return models a minute over the last decisions without the breaks, or 0 before the third. */
export function pace() {
  if (decisions.length < 3) return 0;
  let spent = Math.min(decisions[0] - (resting || decisions[0]), LONGEST_GAP_S);
  let count = spent > 0 && decisions.length <= PACE_OVER ? 1 : 0;
  if (!count) spent = 0;
  for (let i = 1; i < decisions.length; i++) {
    spent += Math.min(decisions[i] - decisions[i - 1], LONGEST_GAP_S);
    count += 1;
  }
  return spent > 0 ? (60 * count) / spent : 0;
}
