// One stream through a network that co.export wrote: frames in, outputs out, the states in between.
import * as ort from "onnxruntime-web";

ort.env.wasm.wasmPaths = new URL("node_modules/onnxruntime-web/dist/", import.meta.url).href;
ort.env.wasm.numThreads = 1; // more would need a page that is served with headers of its own, and not be faster

const FORMAT_VERSION = 2;
const ARRAYS = { float32: Float32Array, float64: Float64Array, int64: BigInt64Array, int32: Int32Array, bool: Uint8Array };

/** A file of the server, as it is now; an answer that is no file is an error. */
export async function fetched(url) {
  const answer = await fetch(url, { cache: "no-cache" });
  if (!answer.ok) throw new Error(`${url}: ${answer.status} ${answer.statusText}`);
  return answer;
}

/** A tensor of zeros for one row; `null` in a shape is where rows are. */
function zeros({ shape, dtype }) {
  const sizes = shape.map((size) => size ?? 1);
  const count = sizes.reduce((product, size) => product * size, 1);
  return new ort.Tensor(dtype, new ARRAYS[dtype](count), sizes);
}

export class Stream {
  /** Load a network of one input with frames (B, C), and its metadata: the text that its file has under the key `continual`. */
  static async open(networkUrl, metadataUrl) {
    const about = await (await fetched(metadataUrl)).json();
    if (about.format_version !== FORMAT_VERSION) {
      throw new Error(`${metadataUrl}: format version ${about.format_version}, this page reads ${FORMAT_VERSION}`);
    }
    if (about.inputs.length !== 1 || about.inputs[0].shape.length !== 3 || about.inputs[0].time !== 2 || !about.flush) {
      throw new Error(`${networkUrl}: only networks of one input with frames (B, C), and an end (flush=True), are streamed here`);
    }
    const network = await (await fetched(networkUrl)).arrayBuffer();
    return new Stream(await ort.InferenceSession.create(network, { executionProviders: ["wasm"] }), about);
  }

  constructor(session, about) {
    Object.assign(this, { session, about });
    this.begin();
  }

  /** Begin anew: states of zeros are the beginning of a stream. */
  begin() {
    this.states = Object.fromEntries(this.about.states.map((state) => [state.name, zeros(state)]));
    this.chunk = zeros(this.about.inputs[0]);
    this.filled = -this.about.start; // so many frames of the first chunk are from before the stream
    this.steps = this.calls = 0;
  }

  /** Take a frame. Returns the outputs that it completes, often one: arrays of numbers. */
  async step(frame) {
    const size = this.about.chunk;
    for (let c = 0; c < frame.length; c++) this.chunk.data[c * size + this.filled] = frame[c];
    this.filled++;
    this.steps++;
    return this.filled < size ? [] : this.#call(0);
  }

  /** Say that the stream is over. Returns the outputs that were still to come. */
  async finish() {
    const outputs = [];
    while (this.steps > 0) {
      const found = await this.#call(this.steps);
      outputs.push(...found);
      const upTo = this.about.first + this.about.per_call * this.calls; // outputs before output 0 are never valid
      if (found.length === 0 && upTo > 0) break;
    }
    return outputs;
  }

  async #call(end) {
    const { inputs, outputs } = this.about;
    const given = { [inputs[0].name]: this.chunk, end: new ort.Tensor("int64", [end], [1]), ...this.states };
    const found = await this.session.run(given);
    for (const name of Object.keys(this.states)) this.states[name] = found[`new_${name}`];
    this.chunk.data.fill(0);
    this.filled = 0;
    this.calls++;

    const y = found[outputs[0].name];
    const [, channels, frames] = y.dims;
    const valid = [...Array(frames).keys()].filter((i) => found.valid.data[i]);
    return valid.map((i) => Array.from({ length: channels }, (_, c) => y.data[c * frames + i]));
  }
}
