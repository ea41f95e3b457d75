// Draws the last seconds of a stream: what came in, and what came out, each output below its sample.

const SECONDS = 3;
const LEAST = 3; // standard deviations to each side

/** Draw on a canvas. Inputs and outputs are lists of numbers; the newest input is as far right as it has come. */
export function draw(canvas, { inputs, outputs }, { rate, delay }) {
  const scale = window.devicePixelRatio;
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * scale)) canvas.width = Math.round(width * scale);
  if (canvas.height !== Math.round(height * scale)) canvas.height = Math.round(height * scale);
  const pen = canvas.getContext("2d");
  const color = (name) => getComputedStyle(canvas).getPropertyValue(name);
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);

  const shown = Math.round(SECONDS * rate);
  const from = Math.max(0, inputs.length - shown);
  const most = inputs.slice(from).reduce((size, x) => Math.max(size, Math.abs(x)), LEAST);
  const x = (step) => ((step - from) / shown) * width;
  const y = (value) => height * (0.5 - (0.45 * value) / most);

  pen.fillStyle = color("--late");
  pen.fillRect(x(outputs.length), 0, x(inputs.length) - x(outputs.length), height);
  line(inputs, "--input", 1);
  line(outputs, "--output", 2);
  pen.font = "14px system-ui, sans-serif";
  write("in", "--input", 20);
  write(`out, ${delay} steps later`, "--output", 40);

  function line(values, name, thickness) {
    pen.beginPath();
    for (let step = from; step < values.length; step++) pen.lineTo(x(step), y(values[step]));
    pen.strokeStyle = color(name);
    pen.lineWidth = thickness;
    pen.stroke();
  }

  function write(text, name, at) {
    pen.fillStyle = color(name);
    pen.fillText(text, 10, at);
  }
}
