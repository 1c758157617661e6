// Pictures kept by their exact request: those of the models that come next, drawn while nothing else is, and those seen.

const MOST_BYTES = 96 << 20; // of pixels
const QUIET_MS = 250; // what comes next waits until nothing was dragged for that long
const POLL_MS = 40; // how often it is asked whether all that is shown is drawn
const SLOT = "ahead";

export class Ahead {
  constructor(socket) {
    this.socket = socket;
    this.images = new Map(); // key -> ImageData, the one used last at the end
    this.bytes = 0;
    this.turns = new Map(); // model -> how often what was drawn of it became doubtful
    this.disturbed = 0;
    this.flying = 0; // draws of what is shown under way
  }

  /** Return what two requests for the same pixels have in common. */
  key(request) {
    return JSON.stringify([this.turns.get(request.model) ?? 0, request]);
  }

  get(key) {
    const image = this.images.get(key);
    if (!image) return null;
    this.images.delete(key);
    this.images.set(key, image);
    return image;
  }

  keep(key, image) {
    if (this.images.has(key)) return;
    this.images.set(key, image);
    this.bytes += image.data.length;
    for (const [oldest, { data }] of this.images) {
      if (this.bytes <= MOST_BYTES) break;
      this.images.delete(oldest);
      this.bytes -= data.length;
    }
  }

  /** Forget what was drawn of a model: it may look different now (where its face is divided, say). */
  drop(model) {
    this.turns.set(model, (this.turns.get(model) ?? 0) + 1);
  }

  /** Something is being dragged: its pictures come first. */
  disturb() {
    this.disturbed = performance.now();
  }

  /** Promise the picture of a request, or null where there is none or `wanted()` no longer holds. */
  async draw(request, wanted) {
    const key = this.key(request);
    const known = this.get(key);
    if (known) return known;
    for (let rest = 1; rest > 0; ) {
      rest = Math.max(this.flying ? POLL_MS : 0, this.disturbed + QUIET_MS - performance.now());
      if (rest > 0) await new Promise((resolve) => setTimeout(resolve, rest));
      if (!wanted()) return null;
    }
    try {
      const answer = await this.socket.request({ ...request, slot: SLOT });
      if (answer) this.keep(key, answer.image);
      return answer?.image ?? null;
    } catch {
      return null; // it is told when the picture is asked for
    }
  }
}
