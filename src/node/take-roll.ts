import type { Clock } from "../crypto/ambient.js";
import { equalBytes } from "../crypto/bytes.js";
import { InvalidInput, PeerSilent } from "../crypto/fault.js";
import { LINK_GRACE_MS } from "./session-pool.js";

interface Peer {
  /** Party index. */
  readonly id: number;
  readonly nodeId: string;
}

/** Who of a session's other signers has said that it has used up its part of the session's one-use items. */
export class TakeRoll {
  readonly #takes: readonly Uint8Array[];
  readonly #clock: Clock;
  /** Those that have not said so yet. */
  readonly #missing: Map<number, Peer>;
  readonly #lost = new Set<number>();
  #fault: InvalidInput | undefined;
  #changed = (): void => {};

  constructor(session: { readonly takes: readonly Uint8Array[]; readonly peers: readonly Peer[] }, clock: Clock) {
    this.#takes = session.takes;
    this.#missing = new Map(session.peers.map((peer) => [peer.id, peer]));
    this.#clock = clock;
  }

  /** A signer says what it has used up: the same items in the same order, or it is in another session than we are. */
  heard(party: number, itemIds: readonly Uint8Array[]): void {
    const peer = this.#missing.get(party);
    if (peer === undefined) return;
    const [own, said] = [this.#takes, itemIds];
    if (own.length === said.length && own.every((id, index) => equalBytes(id, said[index] ?? new Uint8Array()))) {
      this.#missing.delete(party);
    } else {
      const { nodeId } = peer;
      this.#fault = new InvalidInput("take-differs", `${nodeId} was told to sign with other presignatures`, { nodeId });
    }
    this.#changed();
  }

  /** The stream to a signer has ended: whatever it has not said it will not say. */
  lost(party: number): void {
    this.#lost.add(party);
    this.#changed();
  }

  /**
   * Resolves when every signer has said it.
   *
   * @throws PeerSilent `take-unconfirmed` with the signers that did not, in time or before their streams ended
   * @throws InvalidInput `take-differs`: whoever gave the order gave us another one
   */
  async complete(timeoutMs: number): Promise<void> {
    const cancel: (() => void)[] = [];
    try {
      await new Promise<void>((resolve, reject) => {
        const giveUp = (): void => {
          const silent = [...this.#missing.values()].map(({ nodeId }) => nodeId);
          reject(new PeerSilent("take-unconfirmed", "signers did not say that they used up their part", silent));
        };
        this.#changed = () => {
          if (this.#fault !== undefined) reject(this.#fault);
          else if (this.#missing.size === 0) resolve();
          else if ([...this.#missing.keys()].some((party) => this.#lost.has(party))) {
            cancel.push(this.#clock.after(LINK_GRACE_MS, giveUp));
          }
        };
        cancel.push(this.#clock.after(timeoutMs, giveUp));
        this.#changed();
      });
    } finally {
      this.#changed = () => {};
      for (const stop of cancel) stop();
    }
  }
}
