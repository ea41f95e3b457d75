// Where samples come from: async generators of the samples that have come since the last ones.

const PAUSE = 10; // ms between two looks at what has come
const LOWEST = 8000; // samples a second that every browser gives; for fewer the worklet takes means

const pause = () => new Promise((resolve) => setTimeout(resolve, PAUSE));

/** A recording, as fast as it was made. */
export async function* recording({ samples, rate }, signal) {
  const began = performance.now();
  for (let sent = 0; sent < samples.length && !signal.aborted; ) {
    await pause();
    const due = Math.floor(((performance.now() - began) / 1000) * rate);
    yield samples.slice(sent, due);
    sent = Math.min(due, samples.length);
  }
}

/** What the microphone hears, at the rate of the network: as it is, or scaled to the size of what the network was trained on. */
export async function* microphone(rate, signal, prepare = scaler(rate)) {
  const audio = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  const media = await navigator.mediaDevices.getUserMedia({ audio });
  const context = new AudioContext(rate < LOWEST ? {} : { sampleRate: rate });
  try {
    await context.audioWorklet.addModule(new URL("microphone-worklet.js", import.meta.url));
    const means = new AudioWorkletNode(context, "means", { numberOfOutputs: 0, processorOptions: { rate } });
    const heard = [];
    means.port.onmessage = ({ data }) => heard.push(...data);
    context.createMediaStreamSource(media).connect(means);
    await context.resume();
    while (!signal.aborted) {
      await pause();
      yield heard.splice(0).map(prepare);
    }
  } finally {
    for (const track of media.getTracks()) track.stop();
    await context.close();
  }
}

/** Samples in standard deviations of the last second or so. */
function scaler(rate) {
  let seen = 0;
  let variance = 0;
  return (sample) => {
    seen++;
    variance += (sample * sample - variance) / Math.min(seen, rate);
    return sample / Math.sqrt(variance + 1e-12);
  };
}
