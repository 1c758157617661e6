// The connection to the server: numbered requests with promised answers, pictures as binary messages, and reconnection.

const FIRST_RETRY_MS = 400;
const LAST_RETRY_MS = 4000;
const PICTURE_HEADER = 8; // u32 request, u16 width, u16 height

/** Why a request has no answer: the connection ended (`lost`) or the server refused it. */
export class RequestError extends Error {
  constructor(message, lost = false) {
    super(message);
    this.lost = lost;
  }
}

/** Dispatches `open`, `lost`, and a `push` event (with `detail`) for each message that answers nothing. */
export class Socket extends EventTarget {
  constructor() {
    super();
    this.next = 1;
    this.waiting = new Map(); // request number -> {resolve, reject}
    this.retry = FIRST_RETRY_MS;
    this.web = null;
  }

  get connected() {
    return this.web !== null && this.web.readyState === WebSocket.OPEN;
  }

  connect() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const web = new WebSocket(`${scheme}://${location.host}/ws`);
    web.binaryType = "arraybuffer";
    this.web = web;
    web.addEventListener("open", () => {
      this.retry = FIRST_RETRY_MS;
      this.dispatchEvent(new Event("open"));
    });
    web.addEventListener("message", (event) => {
      if (typeof event.data === "string") this.#text(event.data);
      else this.#picture(event.data);
    });
    web.addEventListener("close", () => this.#lost());
  }

  /** Send a message and promise its answer; rejects with a `RequestError`. A superseded picture is null. */
  request(message) {
    if (!this.connected) return Promise.reject(new RequestError("There is no connection to the server.", true));
    const request = this.next++;
    return new Promise((resolve, reject) => {
      this.waiting.set(request, { resolve, reject });
      this.web.send(JSON.stringify({ ...message, request }));
    });
  }

  /** Send a hint that nothing depends on. */
  hint(message) {
    if (this.connected) this.web.send(JSON.stringify({ ...message, request: this.next++ }));
  }

  #text(data) {
    const message = JSON.parse(data);
    const waiting = this.waiting.get(message.request);
    if (!waiting) {
      this.dispatchEvent(new CustomEvent("push", { detail: message }));
      return;
    }
    this.waiting.delete(message.request);
    if (message.type === "error") waiting.reject(new RequestError(message.message));
    else waiting.resolve(message.type === "superseded" ? null : message);
  }

  #picture(buffer) {
    const header = new DataView(buffer);
    const request = header.getUint32(0, true);
    const waiting = this.waiting.get(request);
    if (!waiting) return;
    this.waiting.delete(request);
    const [width, height] = [header.getUint16(4, true), header.getUint16(6, true)];
    const pixels = new Uint8ClampedArray(buffer, PICTURE_HEADER, width * height * 4);
    waiting.resolve({ request, image: new ImageData(pixels, width, height) });
  }

  #lost() {
    const waiting = [...this.waiting.values()];
    this.waiting.clear();
    for (const { reject } of waiting) reject(new RequestError("The connection to the server was lost.", true));
    this.dispatchEvent(new Event("lost"));
    setTimeout(() => this.connect(), this.retry);
    this.retry = Math.min(2 * this.retry, LAST_RETRY_MS);
  }
}
