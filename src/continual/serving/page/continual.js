// A stream on a server of `continual serve`, by the protocol continual.v1. It reconnects, resumes and obeys the credit by itself.
//
//   const stream = await Stream.open("ws://127.0.0.1:8800/v1/stream");
//   stream.onoutput = (seq, outputs, count) => …;  // outputs: a typed array (count × values) for each output
//   await stream.send([frame]);                    // a typed array for each input: one frame or several
//   await stream.finish();                         // resolves after the last output

const ARRAYS = { float32: Float32Array, float64: Float64Array, int64: BigInt64Array, int32: Int32Array, int16: Int16Array,
                 int8: Int8Array, uint8: Uint8Array, bool: Uint8Array };
const DATA = 1, REPLAYED = 1, END = 2, GAP = 4, HEADER = 16;
const PASSING = ["full", "draining", "idle", "slow_reader"];

function specs(found) {
  return found.shape.map((shape, i) => ({
    shape, dtype: found.dtype[i], Array: ARRAYS[found.dtype[i]], size: shape.reduce((a, b) => a * b, 1),
  }));
}

// Messages [seq, arrays, count] of frames, but not those from `first` up to `next`.
function without(kept, first, next, sizes) {
  const found = [], cut = (arrays, from, to) => arrays.map((x, i) => x.subarray(from * sizes[i], to * sizes[i]));
  for (const [seq, arrays, count] of kept) {
    const [before, after] = [first, next].map((n) => Math.min(count, Math.max(0, n - seq)));
    if (before) found.push([seq, cut(arrays, 0, before), before]);
    if (after < count) found.push([seq + after, cut(arrays, after, count), count - after]);
  }
  return found;
}

export class Stream {
  static async open(url, { token = null, patience = 60 } = {}) {
    const stream = new Stream(url, token, patience);
    await stream._connect();
    return stream;
  }

  constructor(url, token, patience) {
    this.url = url; this.auth = token; this.patience = patience;
    this.onoutput = () => {}; this.onstate = () => {};
    this.token = null; this.have = -1; this.resumed = -1;
    this.kept = []; this.unsent = [];  // [seq, arrays, count] since the checkpoint to go on from, and what is not sent of them
    this.saved = [];                   // the frames that checkpoints go on with
    this.next = 0; this.at = 0; this.high = 0;
    this.sent = []; this.underWay = 0; // [last frame, count] of messages that are not answered, and their frames
    this.finished = false; this.told = false; this.over = false;
    this.waiting = [];
    this.done = new Promise((resolve, reject) => { this._resolve = resolve; this._reject = reject; });
    this.done.catch(() => {});
  }

  async send(inputs) {
    if (this.finished || this.over) throw new Error("the stream takes no more frames");
    const count = inputs[0].length / this.inputs[0].size;
    inputs.forEach((x, i) => {
      if (!(x instanceof this.inputs[i].Array) || x.length !== count * this.inputs[i].size || !Number.isInteger(count))
        throw new Error(`input ${i} takes frames ${this.inputs[i].dtype} (${this.inputs[i].shape})`);
    });
    const piece = [this.next, inputs.map((x) => x.slice()), count];
    this.kept.push(piece);
    this.unsent.push(piece);
    this.next += count;
    const end = this.next;
    this._transmit();
    while (this.unsent.length && this.unsent[0][0] < end && !this.over) await new Promise((resolve) => this.waiting.push(resolve));
  }

  finish() {
    this.finished = true;
    this._transmit();
    return this.done;
  }

  close() {
    this.over = true;
    this._say(JSON.stringify({ type: "close", token: this.token }));
    if (this.socket) this.socket.close();
    this._resolve();
  }

  _say(message) {
    if (this.socket && this.socket.readyState === WebSocket.OPEN) this.socket.send(message);
  }

  _without(kept, first, next) { return without(kept, first, next, this.inputs.map(({ size }) => size)); }

  _transmit() {
    while (this.socket && this.unsent.length && this.underWay < this.credit) {
      const room = this.credit - this.underWay, head = this.unsent.shift();
      const [[seq, parts, count], ...rest] = [...this._without([head], head[0] + room, Infinity), ...this._without([head], 0, head[0] + room)];
      this.unsent.unshift(...rest);
      const message = new Uint8Array(HEADER + parts.reduce((n, p) => n + p.byteLength, 0)), view = new DataView(message.buffer);
      view.setUint8(0, DATA);
      view.setUint8(1, (seq < this.high ? REPLAYED : 0) | (seq > this.at ? GAP : 0));
      view.setUint32(4, count, true);
      view.setBigUint64(8, BigInt(seq), true);
      let offset = HEADER;
      for (const p of parts) {
        message.set(new Uint8Array(p.buffer, p.byteOffset, p.byteLength), offset);
        offset += p.byteLength;
      }
      this._say(message);
      this.at = seq + count;
      this.high = Math.max(this.high, this.at);
      this.sent.push([this.at - 1, count]);
      this.underWay += count;
    }
    if (this.socket && this.finished && !this.unsent.length && !this.told) {
      this.told = true;
      this._say(JSON.stringify({ type: "finish" }));
    }
    for (const resolve of this.waiting.splice(0)) resolve();
  }

  async _connect() {
    const until = Date.now() + 1000 * this.patience;
    for (let wait = 50; ; wait = Math.min(2 * wait, 2000)) {
      try {
        return await this._once();
      } catch (error) {
        if (error.code && !PASSING.includes(error.code)) { this._fail(error); throw error; }
        if (Date.now() > until) { this._fail(error); throw error; }
        this.onstate("waiting: " + error.message);
        await new Promise((resolve) => setTimeout(resolve, wait * (0.5 + Math.random() / 2)));
      }
    }
  }

  _once() {
    return new Promise((resolve, reject) => {
      const url = this.auth ? `${this.url}?token=${encodeURIComponent(this.auth)}` : this.url;
      const socket = new WebSocket(url, ["continual.v1"]);
      let opened = false;
      socket.binaryType = "arraybuffer";
      socket.onopen = () =>
        socket.send(JSON.stringify(this.token ? { type: "resume", token: this.token, have: this.have } : { type: "open" }));
      socket.onclose = () => {
        if (!opened) return reject(new Error("the server does not answer"));
        this.socket = null;
        if (!this.over) this._connect().catch(() => {});
      };
      socket.onmessage = ({ data }) => {
        if (typeof data !== "string") return this._data(data);
        const message = JSON.parse(data);
        if (opened) return this._told(message);
        if (message.type !== "opened") {
          socket.onclose = null;
          socket.close();
          return reject(Object.assign(new Error(message.message || message.type), { code: message.code }));
        }
        opened = true;
        this._adopt(message, socket);
        resolve();
      };
    });
  }

  _adopt(message, socket) {
    if (!this.token) { this.inputs = specs(message); this.outputs = specs(message.outputs); }
    this.token = message.token; this.credit = message.credit; this.facts = message; this.resumed += 1;
    this.at = message.next; this.sent = []; this.underWay = 0; this.saved = []; this.told = false;
    this.unsent = this._without(this.kept, 0, message.next);
    this.socket = socket;
    this.onstate("open");
    this._transmit();
  }

  _data(buffer) {
    const view = new DataView(buffer), flags = view.getUint8(1);
    let count = view.getUint32(4, true), seq = Number(view.getBigUint64(8, true)), offset = HEADER, skip = 0;
    if (flags & END) {
      skip = Math.max(0, this.have + 1 - seq);
      this.have = Math.max(this.have, seq + count - 1);
    } else if (this.sent.length) {
      const [last, frames] = this.sent.shift();
      this.have = Math.max(this.have, last);
      this.underWay -= frames;
      this._forget();
      this._transmit();
    }
    if (count <= skip) return;
    const outputs = this.outputs.map(({ Array: Kind, size }) => {
      const bytes = count * size * Kind.BYTES_PER_ELEMENT, part = new Kind(buffer.slice(offset, offset + bytes));
      offset += bytes;
      return part.subarray(skip * size);
    });
    this.onoutput(seq + skip, outputs, count - skip);
  }

  _forget() {                          // frames before the last checkpoint all of whose answers have come
    const next = Math.max(-1, ...this.saved.filter((n) => n <= this.have + 1));
    this.saved = this.saved.filter((n) => n > next);
    while (this.kept.length && this.kept[0][0] + this.kept[0][2] <= next) this.kept.shift();
  }

  _told(message) {
    if (message.type === "checkpoint") {
      this.saved.push(message.next);
      this._forget();
    } else if (message.type === "dropped") {
      this.kept = this._without(this.kept, message.first, message.next);
    } else if (message.type === "moved") {
      this.url = message.url || this.url;
    } else if (message.type === "ended") {
      this.over = true;
      this._say(JSON.stringify({ type: "close", token: this.token }));
      this._resolve();
      this.onstate("ended");
    } else if (message.type === "error" && !PASSING.includes(message.code)) {
      this._fail(Object.assign(new Error(message.message), { code: message.code }));
    }
  }

  _fail(error) {
    this.over = true;
    this.onstate("refused: " + error.message);
    this._reject(error);
    for (const resolve of this.waiting.splice(0)) resolve();
  }
}
