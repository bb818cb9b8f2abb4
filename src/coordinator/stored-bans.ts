import { decodeBan, encodeBan } from "../consensus/ban-record.js";
import type { Ban, BanStore } from "../consensus/vote-ledger.js";
import type { Coordination } from "../wallet/coordination.js";

const BANS = "/bans/";

/** The bans of the coordinators, in the store that they share: a restart or another leader knows them. */
export class StoredBans implements BanStore {
  readonly #coordination: Coordination;

  constructor(coordination: Coordination) {
    this.#coordination = coordination;
  }

  async bans(): Promise<readonly Ban[]> {
    const stored = await this.#coordination.list(BANS);
    return [...stored.values()].map(decodeBan);
  }

  /** No lease: what is proved stays proved, whoever leads. */
  async ban(ban: Ban): Promise<void> {
    const key = BANS + ban.nodeId;
    if ((await this.#coordination.get(key)) === undefined) await this.#coordination.put(key, encodeBan(ban));
  }

  async lift(nodeId: string): Promise<Ban | undefined> {
    const ban = (await this.bans()).find((each) => each.nodeId === nodeId);
    if (ban !== undefined) await this.#coordination.delete(BANS + nodeId);
    return ban;
  }
}
