/**
 * Which approvers sign. Proven culprits never; among the others those with the fewest unexplained failures, then the
 * fastest voters. Silence and accusations without proof only order the choice: they exclude nobody, or a liar could
 * stop honest nodes by accusing them. An accuser is put back as far as the accused, for the same reason.
 */
export class SignerChoice {
  readonly #excluded = new Set<string>();
  readonly #setbacks = new Map<string, number>();

  exclude(nodeId: string): void {
    this.#excluded.add(nodeId);
  }

  setBack(nodeId: string): void {
    this.#setbacks.set(nodeId, (this.#setbacks.get(nodeId) ?? 0) + 1);
  }

  get culprits(): readonly string[] {
    return [...this.#excluded];
  }

  /** `threshold` of the approvers, or undefined when too few are left. `approvers` come fastest first. */
  choose(approvers: readonly string[], threshold: number): readonly string[] | undefined {
    const able = this.inOrder(approvers);
    return able.length < threshold ? undefined : able.slice(0, threshold);
  }

  /** The approvers that may sign, those that should be asked first in front. */
  inOrder(approvers: readonly string[]): readonly string[] {
    const setbacks = (nodeId: string): number => this.#setbacks.get(nodeId) ?? 0;
    return approvers
      .filter((nodeId) => !this.#excluded.has(nodeId))
      .map((nodeId, speed) => ({ nodeId, speed }))
      .sort((a, b) => setbacks(a.nodeId) - setbacks(b.nodeId) || a.speed - b.speed)
      .map(({ nodeId }) => nodeId);
  }
}
