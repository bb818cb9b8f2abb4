import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { BanRecordSchema } from "../../gen/mpcwallet/consensus/v1/record_pb.js";
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
    return [...stored.values()].map((bytes) => {
      const { nodeId, kind, detail, bannedAtMs, evidence } = fromBinary(BanRecordSchema, bytes);
      return { nodeId, kind, detail, bannedAtMs: Number(bannedAtMs), evidence };
    });
  }

  /** No lease: what is proved stays proved, whoever leads. */
  async ban({ nodeId, kind, detail, bannedAtMs, evidence }: Ban): Promise<void> {
    const record = { nodeId, kind, detail, bannedAtMs: BigInt(Math.floor(bannedAtMs)), evidence: [...evidence] };
    await this.#coordination.put(BANS + nodeId, toBinary(BanRecordSchema, create(BanRecordSchema, record)));
  }

  async lift(nodeId: string): Promise<Ban | undefined> {
    const ban = (await this.bans()).find((each) => each.nodeId === nodeId);
    if (ban !== undefined) await this.#coordination.delete(BANS + nodeId);
    return ban;
  }
}
