// The connection of the poser's page: that of the annotators, and files as binary messages.

import { RequestError, Socket } from "./socket.js";

const UPLOAD_HEADER = 5; // u32 request, u8 cut

export class PoserSocket extends Socket {
  /** Send a file's bytes; promises the picture as the networks take it. `cut`: make the background transparent. */
  upload(bytes, cut) {
    if (!this.connected) return Promise.reject(new RequestError("There is no connection to the server.", true));
    const request = this.next++;
    const message = new Uint8Array(UPLOAD_HEADER + bytes.byteLength);
    const header = new DataView(message.buffer);
    header.setUint32(0, request, true);
    header.setUint8(4, cut ? 1 : 0);
    message.set(new Uint8Array(bytes), UPLOAD_HEADER);
    return new Promise((resolve, reject) => {
      this.waiting.set(request, { resolve, reject });
      this.web.send(message);
    });
  }
}
