// The page: a source, the network, a picture.
import { draw } from "./plot.js";
import { microphone, recording } from "./sources.js";
import { Stream, fetched } from "./stream.js";

/** What the stream has been given so far, and what has come. */
export const trace = { inputs: [], outputs: [] };

const controls = document.querySelector("#controls");
const button = controls.querySelector("button");
const byId = (id) => document.getElementById(id);
let stop = null; // ends what is streaming

function show(state, text = state) {
  byId("status").dataset.state = state;
  byId("status").textContent = text;
}

async function play(stream, source) {
  trace.inputs = [];
  trace.outputs = [];
  stream.begin();
  const began = performance.now();
  let busy = 0;
  for await (const samples of source) {
    for (const sample of samples) {
      const before = performance.now();
      const outputs = await stream.step([sample]);
      busy += performance.now() - before;
      trace.inputs.push(sample);
      trace.outputs.push(...outputs.map(([value]) => value));
    }
    if (stream.steps === 0) continue;
    byId("steps").textContent = stream.steps.toLocaleString("en");
    byId("speed").textContent = ((1000 * stream.steps) / (performance.now() - began)).toFixed(0);
    byId("time").textContent = `${((1000 * busy) / stream.steps).toFixed(0)} µs`;
  }
  trace.outputs.push(...(await stream.finish()).map(([value]) => value));
}

async function main() {
  const stream = await Stream.open("assets/denoiser.onnx", "assets/denoiser.json");
  const recorded = await (await fetched("assets/recording.json")).json();
  const { delay, rate } = stream.about;
  byId("delay").textContent = `${delay} steps = ${((1000 * delay) / rate).toFixed(0)} ms`;

  const sources = {
    recording: (signal) => recording(recorded, signal),
    microphone: (signal) => microphone(rate, signal),
  };
  controls.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (stop) return stop.abort();
    stop = new AbortController();
    button.textContent = "Stop";
    show("streaming");
    try {
      await play(stream, sources[controls.elements.source.value](stop.signal));
      show("finished", `finished: ${trace.inputs.length} samples in, ${trace.outputs.length} out`);
    } catch (error) {
      show("failed", error.message);
    }
    stop = null;
    button.textContent = "Start";
  });

  requestAnimationFrame(function frame() {
    draw(byId("plot"), trace, stream.about);
    requestAnimationFrame(frame);
  });
  button.disabled = false;
  show("ready");
}

main().catch((error) => show("failed", `${error.message} – were the assets made, and npm's packages installed? See README.md`));
