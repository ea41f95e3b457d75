// Where samples come from: async generators of the samples that have come since the last ones.

const PAUSE = 10; // ms between two looks at what has come

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

/** What the microphone hears, at the rate of the network, and scaled to the size of what it was trained on. */
export async function* microphone(rate, signal) {
  const audio = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  const media = await navigator.mediaDevices.getUserMedia({ audio });
  const context = new AudioContext();
  try {
    await context.audioWorklet.addModule(new URL("microphone-worklet.js", import.meta.url));
    const means = new AudioWorkletNode(context, "means", { numberOfOutputs: 0, processorOptions: { rate } });
    const heard = [];
    means.port.onmessage = ({ data }) => heard.push(...data);
    context.createMediaStreamSource(media).connect(means);
    await context.resume();
    const scaled = scaler(rate);
    while (!signal.aborted) {
      await pause();
      yield heard.splice(0).map(scaled);
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
