// The page of `continual serve`: what the server does, and one stream of this browser.
import { Stream } from "/continual.js";

const $ = (id) => document.getElementById(id);
const token = new URLSearchParams(location.search).get("token");
const get = async (path) => (await fetch(path, token ? { headers: { Authorization: `Bearer ${token}` } } : {})).json();

// ---- the server ----------------------------------------------------------------------------------------------------------

let before = null;
async function look() {
  const now = { ...(await get("/v1/live")), at: performance.now() };
  $("open").textContent = `${now.open} of ${now.capacity}`;
  $("parked").textContent = now.parked;
  $("refused").textContent = now.refused;
  $("p50").textContent = (1000 * now.p50).toFixed(1);
  $("p99").textContent = (1000 * now.p99).toFixed(1);
  if (before) $("rate").textContent = Math.round((1000 * (now.frames - before.frames)) / (now.at - before.at)).toLocaleString("en");
  before = now;
}

// ---- the plot ------------------------------------------------------------------------------------------------------------

const WIDTH = 400, inputs = [], outputs = [];
function plot() {
  const canvas = $("plot"), pen = canvas.getContext("2d"), style = getComputedStyle(document.documentElement);
  pen.clearRect(0, 0, canvas.width, canvas.height);
  for (const [values, color] of [[inputs, "--line"], [outputs, "--out"]]) {
    const shown = values.slice(-WIDTH), low = Math.min(...shown), span = Math.max(...shown) - low || 1;
    pen.strokeStyle = style.getPropertyValue(color);
    pen.lineWidth = 3;
    pen.beginPath();
    shown.forEach((v, i) => pen.lineTo((i / WIDTH) * canvas.width, canvas.height * (0.95 - (0.9 * (v - low)) / span)));
    pen.stroke();
  }
  requestAnimationFrame(plot);
}

// ---- sources: each calls `give` with the numbers of one frame ------------------------------------------------------------

function waves(size, rate, give) {
  let t = 0;
  const timer = setInterval(() => {
    give(Float64Array.from({ length: size }, (_, i) => Math.sin(t / (7 + (i % 23))) + 0.2 * Math.random()));
    t += 1;
  }, 1000 / Math.min(rate || 50, 100));
  return () => clearInterval(timer);
}

async function microphone(size, rate, give) {
  const media = await navigator.mediaDevices.getUserMedia({ audio: true });
  const audio = new AudioContext(), analyser = audio.createAnalyser();
  audio.createMediaStreamSource(media).connect(analyser);
  analyser.fftSize = 2 ** Math.max(5, Math.min(15, Math.ceil(Math.log2(2 * size))));
  const found = new Float32Array(size === 1 ? analyser.fftSize : analyser.frequencyBinCount);
  const timer = setInterval(() => {
    if (size === 1) analyser.getFloatTimeDomainData(found); else analyser.getFloatFrequencyData(found);
    give(Float64Array.from({ length: size }, (_, i) => (size === 1 ? found[found.length - 1] : (Math.max(-120, found[i]) + 60) / 30)));
  }, 1000 / Math.min(rate || 50, 100));
  return () => { clearInterval(timer); media.getTracks().forEach((t) => t.stop()); audio.close(); };
}

async function camera(size, rate, give, shape) {
  const media = await navigator.mediaDevices.getUserMedia({ video: true }), video = document.createElement("video");
  video.srcObject = media;
  await video.play();
  const [channels, height, width] = shape.length === 3 ? shape : [1, 1, size];
  const canvas = new OffscreenCanvas(width, height), pen = canvas.getContext("2d", { willReadFrequently: true });
  const timer = setInterval(() => {
    pen.drawImage(video, 0, 0, width, height);
    const { data } = pen.getImageData(0, 0, width, height), area = width * height;
    give(Float64Array.from({ length: size }, (_, i) => data[4 * (i % area) + Math.min(2, Math.floor(i / area) % channels)] / 127.5 - 1));
  }, 1000 / Math.min(rate || 15, 30));
  return () => { clearInterval(timer); media.getTracks().forEach((t) => t.stop()); };
}

const SOURCES = { waves, microphone, camera };

// ---- the stream ----------------------------------------------------------------------------------------------------------

let stop = null;
$("start").onclick = async () => {
  $("start").disabled = true;
  try {
    const url = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/v1/stream`;
    const stream = await Stream.open(url, { token, patience: 5 });
    stream.onstate = (text) => ($("state").textContent = text);
    stream.onoutput = (seq, [y], count) => {
      for (let i = 0; i < count; i++) outputs.push(Number(y[i * stream.outputs[0].size]));
      $("state").textContent = `output ${seq + count - 1} of stream ${stream.token.slice(0, 8)}…`;
    };
    const [first, ...rest] = stream.inputs, others = rest.map((s) => new s.Array(s.size));
    const last = await SOURCES[$("source").value](first.size, stream.facts.rate, (frame) => {
      inputs.push(frame[0]);
      if (!stream.unsent.length && stream.underWay < stream.credit) stream.send([first.Array.from(frame), ...others]).catch(() => {});
    }, first.shape);
    $("stop").disabled = false;
    stop = async () => {
      last();
      $("stop").disabled = true;
      await stream.finish();
      $("state").textContent = `ended after ${stream.next} frames and ${outputs.length} outputs`;
    };
    await stream.done;
  } catch (error) {
    $("state").textContent = error.message;
  }
  stop = null;
  $("start").disabled = false;
};
$("stop").onclick = () => stop && stop();

const model = await get("/v1/model");
const shapes = model.shape.map((s, i) => `${model.dtype[i]} (${s.join(", ")})`).join(", ");
$("network").textContent = model.network;
$("facts").textContent = `frames ${shapes}; delay ${model.delay}, receptive field ${model.receptive_field}, stride ${model.stride}`;
plot();
for (;;) {
  await look().catch(() => ($("open").textContent = "no server"));
  await new Promise((resolve) => setTimeout(resolve, 500));
}
