/** A map whose keys are also in order, so that those with a prefix are found without looking at all of them. */
export class OrderedMap<Value> {
  readonly #values = new Map<string, Value>();
  readonly #sorted: string[] = [];

  get size(): number {
    return this.#values.size;
  }

  has(key: string): boolean {
    return this.#values.has(key);
  }

  get(key: string): Value | undefined {
    return this.#values.get(key);
  }

  set(key: string, value: Value): void {
    if (!this.#values.has(key)) this.#sorted.splice(this.#place(key), 0, key);
    this.#values.set(key, value);
  }

  delete(key: string): void {
    if (this.#values.delete(key)) this.#sorted.splice(this.#place(key), 1);
  }

  /** Keys in order of their UTF-16 code units. */
  withPrefix(prefix: string): readonly string[] {
    const first = this.#place(prefix);
    let end = first;
    while (this.#sorted[end]?.startsWith(prefix) === true) end += 1;
    return this.#sorted.slice(first, end);
  }

  /** First place whose key is not below. */
  #place(key: string): number {
    let [low, high] = [0, this.#sorted.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#sorted[middle] ?? "") < key) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
