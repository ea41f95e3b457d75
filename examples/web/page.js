// What the pages share: the line that tells the state, and the button that starts and stops a stream.

export const byId = (id) => document.getElementById(id);

export function show(state, text = state) {
  byId("status").dataset.state = state;
  byId("status").textContent = text;
}

/**
 * Let the form start a stream, and stop it.
 * @param {string} streaming the state while it runs.
 * @param {(signal: AbortSignal) => Promise<string | undefined>} run streams until the signal aborts; returns the text to show then.
 */
export function startAndStop(streaming, run) {
  const controls = byId("controls");
  const button = controls.querySelector("button");
  const start = button.textContent;
  let stop = null; // ends the stream that runs
  controls.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (stop) return stop.abort();
    stop = new AbortController();
    button.textContent = "Stop";
    show(streaming);
    try {
      show("finished", await run(stop.signal));
    } catch (error) {
      show("failed", error.message);
    }
    stop = null;
    button.textContent = start;
  });
  button.disabled = false;
  show("ready");
}

/** Show why a page could not load. */
export function notLoaded(error) {
  show("failed", `${error.message} – were the assets made, and npm's packages installed? See README.md`);
}
