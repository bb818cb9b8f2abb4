import { equalBytes } from "../crypto/bytes.js";
import type { SharedRevocations } from "../node/revocation-spread.js";
import type { Coordination } from "../wallet/coordination.js";

const PREFIX = "revocations/";
/** More than any firm has authorities; what else stands there is not ours. */
const MAX_LISTS = 32;

/**
 * Revocation lists in coordination, one for each authority, so that coordinators learn them from each other also while
 * they are not connected. Nothing there is believed: whoever reads a list judges its signature and its number.
 */
export class CoordinationRevocations implements SharedRevocations {
  readonly #coordination: Pick<Coordination, "list" | "put">;
  #found: ReadonlyMap<string, Uint8Array> = new Map();

  constructor(coordination: Pick<Coordination, "list" | "put">) {
    this.#coordination = coordination;
  }

  async read(): Promise<readonly Uint8Array[]> {
    this.#found = await this.#coordination.list(PREFIX);
    return [...this.#found.values()].slice(0, MAX_LISTS);
  }

  /** Called after `read`, with lists that are not older than what was found. */
  async write({ issuer, der }: { readonly issuer: string; readonly der: Uint8Array }): Promise<void> {
    const key = `${PREFIX}${issuer}`;
    const found = this.#found.get(key);
    if (found !== undefined && equalBytes(found, der)) return;
    await this.#coordination.put(key, der);
  }
}
