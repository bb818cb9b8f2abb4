import type { Outpoint } from "./chain-source.js";
import type { Coordination, Lease } from "./coordination.js";
import { outpointName } from "./proposed-transaction.js";

/**
 * Coins that running payments have taken, so that two payments never choose the same one. Each coin is a lock: between
 * coordinators one wins, and the locks of one that crashed expire by themselves. Within this process a set answers
 * without asking anybody.
 */

export interface Reservation {
  readonly paymentId: string;
  readonly outpoints: readonly string[];
  release(): Promise<void>;
}

export interface ReservationOptions {
  readonly lockTtlMs: number;
}

export class UtxoReservations {
  readonly #options: ReservationOptions;
  readonly #coordination: Coordination;
  /** "txid:vout" to the payment that holds it in this process. */
  readonly #held = new Map<string, string>();

  constructor(options: ReservationOptions, dependencies: { readonly coordination: Coordination }) {
    this.#options = options;
    this.#coordination = dependencies.coordination;
  }

  isReserved(outpoint: Outpoint): boolean {
    return this.#held.has(outpointName(outpoint));
  }

  /** All of the coins or none. Returns those that somebody else holds, when there are any. */
  async reserve(
    paymentId: string,
    outpoints: readonly Outpoint[],
  ): Promise<{ readonly reservation: Reservation } | { readonly taken: ReadonlySet<string> }> {
    const names = outpoints.map(outpointName);
    const here = names.filter((name) => this.#held.has(name));
    if (here.length > 0) return { taken: new Set(here) };
    for (const name of names) this.#held.set(name, paymentId);
    const locks = await Promise.allSettled(
      names.map((name) => this.#coordination.tryLock(`/locks/utxos/${name}`, this.#options.lockTtlMs)),
    );
    const leases: Lease[] = [];
    const taken = new Set<string>();
    for (const [index, lock] of locks.entries()) {
      if (lock.status === "fulfilled" && lock.value !== undefined) leases.push(lock.value);
      else taken.add(names[index] ?? "");
    }
    const release = async (): Promise<void> => {
      for (const name of names) if (this.#held.get(name) === paymentId) this.#held.delete(name);
      await Promise.allSettled(leases.map((lease) => lease.release()));
    };
    if (taken.size === 0) return { reservation: { paymentId, outpoints: names, release } };
    await release();
    const failed = locks.find((lock) => lock.status === "rejected");
    if (failed !== undefined) throw failed.reason;
    return { taken };
  }
}
