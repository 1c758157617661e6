// Autosave: every change goes to the server in order, one at a time; what a lost connection kept is sent again.

import { emit, rowOf, state, updateRow } from "./state.js";

const QUIET_MS = 300; // key repeats within this time are one step of undo

/** Sends what the person did. Emits `saving` with {waiting, count, connected, error} whenever that changes. */
export class Saver {
  constructor(socket) {
    this.socket = socket;
    this.queue = [];
    this.busy = false;
    this.timer = 0;
    this.pending = null; // a change that may still grow: {model, kind, value}
    this.count = 0; // answered messages since the page was opened
    socket.addEventListener("open", () => this.#run());
    socket.addEventListener("lost", () => this.#tell());
  }

  get waiting() {
    return this.queue.length + (this.pending ? 1 : 0);
  }

  /** Save the value of one kind; with `soon`, after a short quiet time so that a run of key presses is one step. */
  save(model, kind, value, soon = false) {
    if (this.pending && (this.pending.model !== model || this.pending.kind !== kind)) this.flush();
    this.pending = { type: "save", model, kind, value };
    clearTimeout(this.timer);
    if (soon) this.timer = setTimeout(() => this.flush(), QUIET_MS);
    else this.flush();
    this.#tell();
  }

  /** Send what waits for its quiet time now. */
  flush() {
    clearTimeout(this.timer);
    if (!this.pending) return;
    const pending = this.pending;
    this.pending = null;
    this.send(pending);
  }

  /** Queue a message that changes something; promises the answer, or null where the server refused it. */
  send(message) {
    this.flush();
    return new Promise((resolve) => {
      this.queue.push({ message, resolve });
      this.#tell();
      this.#run();
    });
  }

  async #run() {
    if (this.busy) return;
    this.busy = true;
    while (this.queue.length && this.socket.connected) {
      const { message, resolve } = this.queue[0];
      try {
        const answer = await this.socket.request(message);
        this.queue.shift();
        this.count += 1;
        if (answer?.row) updateRow(answer.row);
        this.#tell();
        resolve(answer);
      } catch (error) {
        // steps of undo are not repeated: whether they were taken is not known
        if (error.lost && !["undo", "redo"].includes(message.type)) break;
        this.queue.shift();
        const name = rowOf(message.model ?? state.current)?.name ?? "";
        this.#tell(name ? `Not saved: ${name}: ${error.message}` : error.message);
        resolve(null);
      }
    }
    this.busy = false;
    this.#tell();
  }

  #tell(error = "") {
    emit("saving", { waiting: this.waiting, count: this.count, connected: this.socket.connected, error });
  }
}
