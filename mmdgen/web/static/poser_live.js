// A canvas that shows the newest pose. One picture is asked for at a time; what changes meanwhile is asked for next.

export class Live {
  /** `of`: "network" or "model". `ondrawn(milliseconds)` after each picture, `onfailed(error)` instead of one. */
  constructor(socket, canvas, of) {
    Object.assign(this, { socket, canvas, of });
    this.context = canvas.getContext("2d");
    this.values = null;
    this.asking = false;
    this.wanted = false;
    this.on = false;
    this.source = 0; // counts the pictures that were posed: answers for an older one are not shown
  }

  /** Show or stop showing; `source` numbers the picture that is posed. */
  start(source) {
    this.on = true;
    this.source = source;
    this.canvas.classList.add("stale");
  }

  stop() {
    this.on = false;
  }

  show(values) {
    this.values = { ...values };
    if (!this.on) return;
    this.wanted = true;
    if (!this.asking) this.#ask();
  }

  async #ask() {
    this.asking = true;
    while (this.wanted && this.on) {
      this.wanted = false;
      const source = this.source;
      const began = performance.now();
      try {
        const answer = await this.socket.request({ type: "pose", of: this.of, values: this.values });
        if (!answer || source !== this.source) {
          this.wanted = true;
          continue;
        }
        this.canvas.width = answer.image.width;
        this.canvas.height = answer.image.height;
        this.context.putImageData(answer.image, 0, 0);
        this.canvas.classList.remove("stale");
        this.canvas.dataset.drawn = String(Number(this.canvas.dataset.drawn ?? 0) + 1);
        this.ondrawn?.(performance.now() - began);
      } catch (error) {
        if (source === this.source) this.onfailed?.(error);
      }
    }
    this.asking = false;
    this.canvas.dataset.settled = this.canvas.dataset.drawn ?? "0";
  }
}
