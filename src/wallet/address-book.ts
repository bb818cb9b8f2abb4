import { Bug } from "../crypto/fault.js";
import type { Coordination } from "./coordination.js";

/**
 * Next indices of receiving and change addresses, counted between coordinators so that no two payments share a change
 * address. An index of a payment that was never signed is used again, which keeps scans short.
 */
export class AddressBook {
  readonly #coordination: Coordination;
  readonly #returned = new Map<string, number[]>();

  constructor(dependencies: { readonly coordination: Coordination }) {
    this.#coordination = dependencies.coordination;
  }

  /** Number of indices given out so far, that is the next one. */
  async nextIndex(walletId: string, change: boolean): Promise<number> {
    return Number(await this.#coordination.add(counterName(walletId, change), 0n));
  }

  async advance(walletId: string, change: boolean): Promise<number> {
    const next = await this.#coordination.add(counterName(walletId, change), 1n);
    if (next < 1n) throw new Bug("an address counter went backwards");
    return Number(next) - 1;
  }

  /** For a payment's change. */
  async take(walletId: string): Promise<number> {
    return this.#returned.get(walletId)?.pop() ?? (await this.advance(walletId, true));
  }

  giveBack(walletId: string, index: number): void {
    const returned = this.#returned.get(walletId) ?? [];
    returned.push(index);
    this.#returned.set(walletId, returned);
  }
}

const counterName = (walletId: string, change: boolean): string => `/wallet-index/${walletId}/${change ? 1 : 0}`;
