// Runs where the sound is: means of as many samples as make one sample of the lower rate.

class Means extends AudioWorkletProcessor {
  constructor({ processorOptions }) {
    super();
    this.share = processorOptions.rate / sampleRate; // of a sample of the lower rate
    this.sum = this.count = this.phase = 0;
  }

  process([[channel]]) {
    const means = [];
    for (const sample of channel ?? []) {
      this.sum += sample;
      this.count++;
      this.phase += this.share;
      if (this.phase >= 1) {
        means.push(this.sum / this.count);
        this.phase -= 1;
        this.sum = this.count = 0;
      }
    }
    if (means.length) this.port.postMessage(means);
    return true;
  }
}

registerProcessor("means", Means);
