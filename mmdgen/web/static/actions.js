// What a person can do with models: go to one, accept, skip, reject, undo. Views and keys call these.

import {
  decided,
  emit,
  neighbour,
  on,
  rowOf,
  setKind,
  started,
  state,
  upcoming,
  updateRow,
  visibleRows,
} from "./state.js";

const AHEAD = 4; // models that the server loads ahead
const AHEAD_AFTER_MS = 120; // once the pictures of the current model had their turn

export class Actions {
  constructor(socket, saver) {
    this.socket = socket;
    this.saver = saver;
    this.opened = new Map(); // answers to `open` asked for ahead: id -> answer
    this.onahead = null; // draws a model that comes next: (id, answer to `open`, whether it is still wanted)
    on("row", (row) => this.opened.delete(row.id));
  }

  /** Show a model. What was asked for ahead is there at once. */
  async open(id, { again = false } = {}) {
    if (!id || (id === state.current && !again)) return;
    started();
    this.saver.flush();
    state.current = id;
    state.failed = "";
    history.replaceState(null, "", `#${state.kind}/${id}`);
    const ahead = this.opened.get(id);
    this.opened.delete(id);
    state.model = ahead ?? null;
    emit("current");
    if (ahead) {
      this.#shown(id);
      return;
    }
    try {
      const answer = await this.socket.request({ type: "open", model: id });
      if (answer.row) updateRow(answer.row);
      if (state.current !== id) return;
      state.model = answer;
      this.#shown(id);
    } catch (error) {
      if (state.current !== id || error.lost) return; // after a reconnection it is opened again
      state.failed = error.message;
      emit("model");
      this.#ahead(id);
    }
  }

  #shown(id) {
    emit("model");
    this.#ahead(id);
  }

  #ahead(id) {
    clearTimeout(this.timer);
    this.timer = setTimeout(async () => {
      if (state.current !== id) return;
      const next = upcoming(AHEAD);
      const beside = neighbour(1);
      if (beside && !next.includes(beside)) next.push(beside);
      if (next.length) this.socket.hint({ type: "prefetch", models: next });
      for (const wanted of [next[0], beside]) {
        if (!wanted || state.current !== id) continue;
        try {
          const answer = this.opened.get(wanted) ?? (await this.socket.request({ type: "open", model: wanted }));
          if (this.opened.size > AHEAD) this.opened.clear();
          if (wanted === state.current) continue;
          this.opened.set(wanted, answer);
          await this.onahead?.(wanted, answer, () => state.current === id);
        } catch {
          // it is told when the model is opened
        }
      }
    }, AHEAD_AFTER_MS);
  }

  /** Go on to the next model that waits for a person; where there is none, say so and stay. */
  goOn() {
    const [next] = upcoming(1);
    if (next) {
      this.open(next);
      return;
    }
    const all = state.filter === "all" && !state.search;
    emit("message", {
      text: all
        ? "That was the last one: nothing waits for you here."
        : "Nothing else here waits for you. Choose another filter to go on.",
    });
  }

  step(by) {
    const id = neighbour(by);
    if (id) this.open(id);
    else emit("message", { text: by > 0 ? "This is the last model of the list." : "This is the first model of the list." });
  }

  accept() {
    const { current: model, kind } = state;
    if (!model || !state.model || state.model.rejected) {
      if (state.model?.rejected) emit("message", { text: "This model is rejected. Take that back first (R)." });
      return;
    }
    if (rowOf(model)?.status[kind] === "error") {
      emit("message", { text: "The machine found nothing to accept here. Set it yourself, skip it (S) or reject it (R)." });
      return;
    }
    this.saver.flush();
    // shown at once; the server's answer brings the true row
    this.#mark(model, { [kind]: "mine" });
    this.saver.send({ type: "accept", model, kind }).then((answer) => answer ?? this.#refused(model));
    decided();
    this.goOn();
  }

  skip() {
    if (!state.current) return;
    state.skipped.add(state.current);
    decided();
    this.goOn();
  }

  reject(reason) {
    const model = state.current;
    if (!model) return;
    this.#mark(model, { head_bounds: "rejected", wink_morphs: "rejected" });
    this.saver.send({ type: "reject", model, reason }).then((answer) => answer ?? this.#refused(model));
    decided();
    this.goOn();
  }

  async unreject() {
    const model = state.current;
    const answer = await this.saver.send({ type: "unreject", model });
    if (answer && state.current === model) this.open(model, { again: true });
  }

  #mark(id, status) {
    const row = rowOf(id);
    if (!row) return;
    this.before ??= new Map();
    this.before.set(id, row);
    updateRow({ ...row, status: { ...row.status, ...status } });
  }

  #refused(id) {
    const row = this.before?.get(id);
    if (row) updateRow(row);
  }

  async turnBack(type) {
    this.saver.flush();
    const answer = await this.saver.send({ type });
    if (!answer) return;
    if (answer.type === "nothing") {
      emit("message", { text: type === "undo" ? "There is nothing to undo." : "There is nothing to redo." });
      return;
    }
    this.opened.delete(answer.model);
    if (answer.kind && answer.kind !== state.kind) setKind(answer.kind);
    await this.open(answer.model, { again: true });
    emit("message", { text: `${type === "undo" ? "Undone" : "Done again"}: ${answer.row?.name ?? "the last change"}.` });
  }

  /** Open the model of the address, else the first that waits for a person, else the first. */
  start(wanted) {
    const first = wanted && rowOf(wanted) ? wanted : (upcoming(1)[0] ?? visibleRows()[0]?.id ?? "");
    if (first) this.open(first, { again: true });
    else emit("model");
  }
}
