// The page of the key word spotter: samples of the microphone in, the probabilities of words out.
import { byId, notLoaded, startAndStop } from "./page.js";
import { microphone } from "./sources.js";
import { Stream, fetched } from "./stream.js";

const THRESHOLD = 0.6; // of a probability
const SILENCE = 0.5; // seconds below it, after which a word is a new one
const KEPT = 10; // words that are shown
const TRACED = 20; // seconds

/** The first inputs and outputs of the stream, and the last words: for tests, and for the console. */
export const trace = { inputs: [], outputs: [], heard: [] };

/** A bar for each word. Returns what sets them. */
function bars(words) {
  const meters = words.map((word) => {
    const label = document.createElement("label");
    const meter = Object.assign(document.createElement("meter"), { min: 0, max: 1, high: THRESHOLD });
    label.append(word, meter);
    byId("words").append(label);
    return meter;
  });
  return (probabilities) => meters.forEach((meter, i) => (meter.value = probabilities[i]));
}

/** Takes the probabilities after each call; returns the number of a word when it begins to be heard, else 0. Word 0 is "nothing". */
export function listener(rate) {
  let latest = -Infinity;
  return (probabilities, sample) => {
    const word = 1 + probabilities.slice(1).reduce((best, p, i, all) => (p > all[best] ? i : best), 0);
    if (probabilities[word] <= THRESHOLD) return 0;
    const begins = sample - latest > SILENCE * rate;
    latest = sample;
    return begins ? word : 0;
  };
}

async function listen(stream, draw, signal) {
  Object.assign(trace, { inputs: [], outputs: [], heard: [] });
  stream.begin();
  const { rate, words } = stream.about;
  const hear = listener(rate);
  let busy = 0;
  for await (const samples of microphone(rate, signal, (sample) => sample)) {
    for (const sample of samples) {
      const before = performance.now();
      const outputs = await stream.step([sample]); // computes with the last sample of a chunk
      busy += performance.now() - before;
      const early = stream.steps <= TRACED * rate;
      if (early) trace.inputs.push(sample);
      for (const probabilities of outputs) {
        if (early) trace.outputs.push(probabilities);
        draw(probabilities);
        const word = hear(probabilities, stream.steps);
        if (word) trace.heard = [...trace.heard, words[word]].slice(-KEPT);
      }
    }
    byId("heard").textContent = trace.heard.join(", ") || "–";
    byId("seconds").textContent = `${(stream.steps / rate).toFixed(1)} s`;
    if (stream.calls) byId("time").textContent = `${(busy / stream.calls).toFixed(2)} ms for ${((1000 * stream.about.chunk) / rate).toFixed(0)} ms`;
  }
}

async function main() {
  const stream = await Stream.open("assets/keywords.onnx", "assets/keywords.json");
  const draw = bars(stream.about.words);
  startAndStop("listening", (signal) => listen(stream, draw, signal));
}

main().catch(notLoaded);
