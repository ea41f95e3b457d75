// The page: a source, the network, a picture.
import { byId, notLoaded, startAndStop } from "./page.js";
import { draw } from "./plot.js";
import { microphone, recording } from "./sources.js";
import { Stream, fetched } from "./stream.js";

/** The inputs and the outputs of the stream so far. */
export const trace = { inputs: [], outputs: [] };

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
  requestAnimationFrame(function frame() {
    draw(byId("plot"), trace, stream.about);
    requestAnimationFrame(frame);
  });
  startAndStop("streaming", async (signal) => {
    await play(stream, sources[byId("controls").elements.source.value](signal));
    return `finished: ${trace.inputs.length} samples in, ${trace.outputs.length} out`;
  });
}

main().catch(notLoaded);
