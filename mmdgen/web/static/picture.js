// A canvas that shows what the server draws. The newest wish wins: at most two draws are under way, the next is asked for
// when one is answered, and a picture older than the one on show is dropped. While something is dragged, pictures are
// small and have one sample a pixel; where only the view moves, the picture that is there is moved, and none is asked for.

const MOST_PIXELS = 1024; // the server's limit
const MOST_FLYING = 2; // draws of one canvas under way: one is drawn while the other travels
const LIVE_MS = 24; // what a picture may take while something is dragged; its size follows from that
const LIVE_PIXELS = [192, 448]; // least and most of that size
const SHARP_AFTER_MS = 140; // then the picture is drawn again at full size
const COARSEST = 0.4; // of full size: what a picture that is moved instead of drawn again must have left
const RETRY_MS = 250;
const FOLLOW = 0.3; // how fast the measured speed follows

let speed = LIVE_MS / 320 ** 2; // milliseconds per pixel of the last small pictures, all canvases together
let lastAnswer = 0;
let liveNow = 320;

/** Learn from a picture's time; one that waited for others took the time since their answer. */
function learn(size, sent) {
  const now = performance.now();
  speed += FOLLOW * (Math.min(now - sent, now - lastAnswer) / size ** 2 - speed);
}

/** Return how large a picture may be; it stays as it is for small changes, since the server redraws only boxes then. */
function liveSize() {
  const fitting = Math.sqrt(LIVE_MS / speed);
  if (fitting < 0.8 * liveNow || fitting > 1.3 * liveNow)
    liveNow = Math.min(LIVE_PIXELS[1], Math.max(LIVE_PIXELS[0], 32 * Math.round(fitting / 32)));
  return liveNow;
}

const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);

/** Return what a picture of `view` shows between two heights as [least, most] across, in MU, or null for nothing. */
export function extentOf({ center, height }, image, low, high) {
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

/**
 * A view is {from: "front"|"side", center: [across, y], height}, in MU; `height` is that of a square picture.
 * A wish is {model, view, pose, terms}, and `cover` where at least so many MU are to be drawn, `room` where small pictures
 * are to show so many times the view, because it is about to move, and `fit` ("whole" shows all of the view's square,
 * "width" makes the square as wide as the canvas and cuts above and below).
 */
export class Picture {
  /**
   * `slot` names the picture to the server; `fit` is that of wishes without one. `paint(context, picture)` draws over it after every
   * change. `onpicture` is called with each new picture before it is painted, `ondrawn` after that, `onfailed` with an
   * error, `onresize` after a change of size. `ahead` holds the pictures that need not be drawn.
   */
  constructor(socket, ahead, canvas, slot, { fit = "whole", paint = null } = {}) {
    Object.assign(this, { socket, ahead, canvas, slot, fit, paint });
    this.context = canvas.getContext("2d");
    this.buffer = document.createElement("canvas"); // the newest picture as it came
    this.drawn = null; // {asked, key, wish, view, image} of the picture in the buffer
    this.wish = null;
    this.view = null;
    this.asked = 0;
    this.frame = 0;
    this.sharpen = 0;
    this.flight = { count: 0 }; // of the draws for one model
    this.width = this.height = 0; // CSS pixels
    new ResizeObserver(() => this.#resized()).observe(canvas);
  }

  /** Wish for a picture. `live` while the person drags: a smaller picture at once, the full one when it is quiet. */
  show(wish, live = false) {
    if (this.wish?.model !== wish.model) this.flight = { count: 0 }; // a model that takes long holds up no other
    if (!this.wish || this.wish.model !== wish.model || !same(this.wish.view, wish.view)) this.changed = true;
    this.wish = wish;
    this.view = wish.view;
    this.fit = wish.fit ?? this.fit;
    this.live = live;
    clearTimeout(this.sharpen);
    if (this.#known()) return;
    this.canvas.classList.toggle("stale", this.drawn?.wish.model !== wish.model);
    if (live) this.sharpen = setTimeout(() => this.show(this.wish), SHARP_AFTER_MS);
    this.needed = true;
    this.#wake();
  }

  clear() {
    this.wish = this.drawn = this.view = null;
    clearTimeout(this.sharpen);
    this.redraw();
  }

  /** Paint again without a new picture: what lies over it changed. */
  redraw() {
    this.changed = true;
    this.#wake();
  }

  /** Return the draw request for a wish; `quick` for a small picture with one sample a pixel. */
  request({ model, view, pose, terms, cover, room, fit }, quick = false) {
    const scale = this.#scaleOf(view, fit ?? this.fit);
    // a square that covers the canvas, also where the canvas is wider or higher than the view
    const side = Math.max(this.width, this.height, (cover ?? 0) * scale) * (quick ? (room ?? 1) : 1);
    const size = Math.round(
      Math.min(quick ? liveSize() : MOST_PIXELS, Math.max(16, side * (window.devicePixelRatio || 1))),
    );
    const wide = { from: view.from, center: view.center, height: side / scale };
    return { type: "draw", model, view: wide, size, pose, terms, ...(quick ? { quick } : {}) };
  }

  #scaleOf(view, fit) {
    return (fit === "width" ? this.width : Math.min(this.height, 1.25 * this.width)) / view.height;
  }

  /** CSS pixels per MU. */
  get scale() {
    return this.#scaleOf(this.view, this.fit);
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

  #resized() {
    const box = this.canvas.getBoundingClientRect();
    if (box.width === this.width && box.height === this.height) return;
    [this.width, this.height] = [box.width, box.height];
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.max(1, Math.round(box.width * ratio));
    this.canvas.height = Math.max(1, Math.round(box.height * ratio));
    this.onresize?.();
    if (this.wish) this.show(this.wish, this.live);
    this.#paint(); // at once: a resized canvas is empty
  }

  #wake() {
    if (!this.frame) this.frame = requestAnimationFrame(() => this.#tick());
  }

  #tick() {
    this.frame = 0;
    if (this.changed) this.#paint();
    this.#ask();
  }

  /** Show the wished picture in full if it is there already. */
  #known() {
    if (!this.width || !this.height) return false;
    const request = this.request(this.wish);
    const key = this.ahead.key(request);
    const isShown = this.drawn?.key === key;
    const image = isShown ? this.drawn.image : this.ahead.get(key);
    if (!image) return false;
    this.needed = false;
    if (isShown) {
      this.drawn.asked = ++this.asked; // what is still under way is older
      this.#wake();
    } else this.#take(++this.asked, key, this.wish, request.view, image);
    queueMicrotask(() => this.ondrawn?.()); // whoever wished has things to do first
    return true;
  }

  /** Whether the picture on show only has to be moved to be, roughly, what is wished. */
  #covers() {
    const { drawn, wish } = this;
    if (drawn?.wish.model !== wish.model || drawn.view.from !== wish.view.from) return false;
    if (!same(drawn.wish.pose, wish.pose) || !same(drawn.wish.terms, wish.terms)) return false;
    const { scale } = this;
    const left = (side, i) => drawn.view.height / 2 - Math.abs(drawn.view.center[i] - wish.view.center[i]) - side / 2 / scale;
    const room = Math.min(left(this.width, 0), left(this.height, 1)) * scale; // CSS pixels that are drawn and not seen
    const pixels = drawn.image.width / (drawn.view.height * scale * (window.devicePixelRatio || 1));
    return room > -1 && pixels >= COARSEST;
  }

  async #ask() {
    const { wish, flight, live } = this;
    if (!this.needed || !wish || !this.width || !this.height) return;
    if (live) this.ahead.disturb();
    if (live && this.#covers()) {
      this.needed = false;
      return;
    }
    if (flight.count >= MOST_FLYING) return; // asked for when one is answered
    this.needed = false;
    flight.count += 1;
    this.ahead.flying += 1;
    const request = this.request(wish, live);
    const key = this.ahead.key(request);
    const asked = ++this.asked;
    const sent = performance.now();
    try {
      const answer = await this.socket.request({ ...request, slot: this.slot }).finally(() => {
        flight.count -= 1;
        this.ahead.flying -= 1;
      });
      if (answer) {
        if (live) learn(request.size, sent);
        else this.ahead.keep(key, answer.image);
        lastAnswer = performance.now();
        const isNewer = this.drawn?.wish.model !== wish.model || this.drawn.asked < asked;
        if (this.wish?.model === wish.model && isNewer) {
          this.#take(asked, key, wish, request.view, answer.image);
          this.ondrawn?.();
        }
      }
      if (this.flight === flight) this.#ask();
    } catch (error) {
      if (this.wish?.model !== wish.model) return;
      this.canvas.classList.add("failed");
      this.onfailed?.(error);
      if (error.lost)
        setTimeout(() => {
          this.needed = true;
          this.#wake();
        }, RETRY_MS);
      else this.#ask();
    }
  }

  #take(asked, key, wish, view, image) {
    this.drawn = { asked, key, wish, view, image };
    if (this.buffer.width !== image.width || this.buffer.height !== image.height)
      [this.buffer.width, this.buffer.height] = [image.width, image.height];
    this.buffer.getContext("2d").putImageData(image, 0, 0);
    this.canvas.classList.remove("stale", "failed");
    this.canvas.dataset.model = wish.model;
    this.canvas.dataset.drawn = String(asked);
    this.onpicture?.();
    if (this.live) this.redraw(); // once a frame, however many come
    else this.#paint();
  }

  #paint() {
    this.changed = false;
    const { context, canvas } = this;
    const ratio = window.devicePixelRatio || 1;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (!this.view || !this.width) return;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    if (this.drawn && this.drawn.wish.model === this.wish?.model) {
      const { center, height } = this.drawn.view;
      const side = height * this.scale;
      context.imageSmoothingQuality = this.live ? "low" : "high";
      context.drawImage(this.buffer, this.toX(center[0]) - side / 2, this.toY(center[1]) - side / 2, side, side);
    }
    this.paint?.(context, this);
  }
}
