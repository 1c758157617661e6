// A canvas that shows what the server draws. The newest wish wins: one draw is asked for per animation frame, under a
// slot so that the server leaves out stale ones, and a picture older than the one on show is dropped.

const MOST_PIXELS = 1024; // the server's limit
const LIVE_MS = 32; // what a picture may take while something is dragged; its size follows from that
const LIVE_PIXELS = [160, 448]; // least and most of that size
const SHARP_AFTER_MS = 140; // then the picture is drawn again at full size
const RETRY_MS = 250;
const FOLLOW = 0.3; // how fast the measured speed follows

let speed = LIVE_MS / 320 ** 2; // milliseconds per pixel of the last pictures, all canvases together
let lastAnswer = 0;

/** Learn from a picture's time; one that waited for others took the time since their answer. */
function learn(size, sent) {
  const now = performance.now();
  speed += FOLLOW * (Math.min(now - sent, now - lastAnswer) / size ** 2 - speed);
  lastAnswer = now;
}

function liveSize() {
  const fitting = 16 * Math.round(Math.sqrt(LIVE_MS / speed) / 16);
  return Math.min(LIVE_PIXELS[1], Math.max(LIVE_PIXELS[0], fitting));
}

/**
 * A view is {from: "front"|"side", center: [across, y], height}, in MU; `height` is that of a square picture.
 * A wish is {model, view, pose, terms}, and `cover` where at least so many MU are to be drawn.
 */
export class Picture {
  /**
   * `slot` names the picture to the server. `fit`: "whole" shows all of the view's square, "width" makes the square as
   * wide as the canvas and cuts above and below. `paint(context, picture)` draws over it after every change. `onpicture` is called with each new picture before it is
   * painted, `ondrawn` after that, `onfailed` with an error, `onresize` after a change of size.
   */
  constructor(socket, canvas, slot, { fit = "whole", paint = null } = {}) {
    Object.assign(this, { socket, canvas, slot, fit, paint });
    this.context = canvas.getContext("2d");
    this.buffer = document.createElement("canvas"); // the newest picture as it came
    this.drawn = null; // {asked, model, view, image} of the picture in the buffer
    this.wish = null; // {model, view, pose, terms}
    this.view = null;
    this.asked = 0;
    this.frame = 0;
    this.sharpen = 0;
    this.width = this.height = 0; // CSS pixels
    new ResizeObserver(() => this.#resized()).observe(canvas);
  }

  /** Wish for a picture. `live` while the person drags: a smaller picture at once, the full one when it is quiet. */
  show(wish, live = false) {
    this.wish = wish;
    this.view = wish.view;
    this.live = live;
    this.canvas.classList.toggle("stale", this.drawn?.model !== wish.model);
    clearTimeout(this.sharpen);
    if (live) this.sharpen = setTimeout(() => this.show(this.wish), SHARP_AFTER_MS);
    this.#wake(true);
  }

  clear() {
    this.wish = this.drawn = this.view = null;
    clearTimeout(this.sharpen);
    this.redraw();
  }

  /** Paint again without a new picture: what lies over it changed. */
  redraw() {
    this.#wake(false);
  }

  /** CSS pixels per MU. */
  get scale() {
    const side = this.fit === "width" ? this.width : Math.min(this.height, 1.25 * this.width);
    return side / this.view.height;
  }

  toX(across) {
    return this.width / 2 + (across - this.view.center[0]) * this.scale;
  }

  toY(y) {
    return this.height / 2 - (y - this.view.center[1]) * this.scale;
  }

  fromX(x) {
    return this.view.center[0] + (x - this.width / 2) / this.scale;
  }

  fromY(y) {
    return this.view.center[1] - (y - this.height / 2) / this.scale;
  }

  /** Return what the picture shows between two heights as [least, most] across, in MU, or null for nothing. */
  extent(low, high) {
    const { view, image } = this.drawn;
    const { center, height } = view;
    const size = image.width;
    const unit = height / size;
    const row = (y) => Math.min(size, Math.max(0, Math.round((center[1] + height / 2 - y) / unit)));
    const [top, bottom] = [row(high), row(low)];
    if (bottom <= top) return null;
    let [least, most] = [size, -1];
    for (let at = top * size; at < bottom * size; at++) {
      if (image.data[4 * at + 3] < 128) continue;
      least = Math.min(least, at % size);
      most = Math.max(most, at % size);
    }
    return most < 0 ? null : [least, most + 1].map((column) => center[0] - height / 2 + column * unit);
  }

  #resized() {
    const box = this.canvas.getBoundingClientRect();
    if (box.width === this.width && box.height === this.height) return;
    [this.width, this.height] = [box.width, box.height];
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.max(1, Math.round(box.width * ratio));
    this.canvas.height = Math.max(1, Math.round(box.height * ratio));
    this.onresize?.();
    if (this.wish) this.#wake(true);
    this.#paint(); // at once: a resized canvas is empty
  }

  #wake(draw) {
    this.needed = this.needed || draw;
    if (!this.frame) this.frame = requestAnimationFrame(() => this.#tick());
  }

  #tick() {
    this.frame = 0;
    this.#paint();
    if (!this.needed || !this.wish || !this.width || !this.height) return;
    this.needed = false;
    this.#ask();
  }

  async #ask() {
    const { model, view, pose, terms, cover } = this.wish;
    // a square that covers the canvas, also where the canvas is wider or higher than the view
    const side = Math.max(this.width, this.height, (cover ?? 0) * this.scale);
    const most = this.live ? liveSize() : MOST_PIXELS;
    const size = Math.round(Math.min(most, Math.max(16, side * (window.devicePixelRatio || 1))));
    const asked = ++this.asked;
    const sent = performance.now();
    const wide = { from: view.from, center: view.center, height: side / this.scale };
    try {
      const answer = await this.socket.request({ type: "draw", model, view: wide, size, pose, terms, slot: this.slot });
      if (!answer) return;
      learn(size, sent);
      const old = this.drawn;
      if (this.wish?.model !== model || (old && old.model === model && old.asked > asked)) return;
      this.drawn = { asked, model, view: wide, image: answer.image };
      this.buffer.width = answer.image.width;
      this.buffer.height = answer.image.height;
      this.buffer.getContext("2d").putImageData(answer.image, 0, 0);
      this.canvas.classList.remove("stale", "failed");
      this.canvas.dataset.model = model;
      this.canvas.dataset.drawn = String(asked);
      this.onpicture?.();
      this.#paint();
      this.ondrawn?.();
    } catch (error) {
      if (this.wish?.model !== model) return;
      this.canvas.classList.add("failed");
      this.onfailed?.(error);
      if (error.lost) setTimeout(() => this.wish && this.#wake(true), RETRY_MS);
    }
  }

  #paint() {
    const { context, canvas } = this;
    const ratio = window.devicePixelRatio || 1;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (!this.view || !this.width) return;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    if (this.drawn && this.drawn.model === this.wish?.model) {
      const { center, height } = this.drawn.view;
      const side = height * this.scale;
      context.imageSmoothingQuality = "high";
      context.drawImage(this.buffer, this.toX(center[0]) - side / 2, this.toY(center[1]) - side / 2, side, side);
    }
    this.paint?.(context, this);
  }
}
