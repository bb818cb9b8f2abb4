/** What the unanswered requests of each peer hold here, over all its connections, within one limit for each peer. */
export class RequestMemory {
  readonly #limitBytes: number;
  readonly #onRefusal: (peer: string) => void;
  readonly #peers = new Map<string, { bytes: number; refused: boolean }>();

  /** @param onRefusal called once for each time that a peer comes to its limit, not for each byte beyond it */
  constructor(limitBytes: number, onRefusal: (peer: string) => void) {
    this.#limitBytes = limitBytes;
    this.#onRefusal = onRefusal;
  }

  heldBy(peer: string): number {
    return this.#peers.get(peer)?.bytes ?? 0;
  }

  /** False when the peer would hold more than it may; then nothing was taken. */
  take(peer: string, bytes: number): boolean {
    const held = this.#peers.get(peer);
    const sum = (held?.bytes ?? 0) + bytes;
    if (sum > this.#limitBytes) {
      if (held?.refused !== true) this.#onRefusal(peer);
      if (held !== undefined) held.refused = true;
      return false;
    }
    if (held === undefined) this.#peers.set(peer, { bytes, refused: false });
    else held.bytes = sum;
    return true;
  }

  giveBack(peer: string, bytes: number): void {
    const held = this.#peers.get(peer);
    if (held === undefined) return;
    held.bytes -= bytes;
    if (held.bytes <= this.#limitBytes / 2) held.refused = false;
    if (held.bytes <= 0) this.#peers.delete(peer);
  }
}
