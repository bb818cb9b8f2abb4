const MAX_SAMPLES = 128;

/** The last 128 measurements. */
export class SampleWindow {
  readonly #samples: number[] = [];
  #next = 0;

  add(value: number): void {
    this.#samples[this.#next] = value;
    this.#next = (this.#next + 1) % MAX_SAMPLES;
  }

  /** @param fraction 0 to 1; undefined without a sample */
  percentile(fraction: number): number | undefined {
    const sorted = [...this.#samples].sort((a, b) => a - b);
    return sorted[Math.min(sorted.length - 1, Math.floor(fraction * sorted.length))];
  }

  /** Undefined without a sample. */
  mean(): number | undefined {
    const count = this.#samples.length;
    return count === 0 ? undefined : this.#samples.reduce((sum, value) => sum + value, 0) / count;
  }
}
