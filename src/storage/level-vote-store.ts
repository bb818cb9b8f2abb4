import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { ClassicLevel } from "classic-level";
import { type Ballot, BallotSchema } from "../../gen/mpcwallet/consensus/v1/consensus_pb.js";
import { ApprovedRequestSchema } from "../../gen/mpcwallet/storage/v1/votes_pb.js";
import { decodeBan, encodeBan } from "../consensus/ban-record.js";
import {
  type ApprovedRequest,
  type Ban,
  type BanStore,
  isForgettable,
  type VoteRecord,
  type VoteStore,
} from "../consensus/vote-ledger.js";
import { Unavailable } from "../crypto/fault.js";

/**
 * A node's own votes in an embedded LevelDB. A record is one synced batch, so a ballot that left the node is found again
 * after a crash, together with the approval that limits what the node may approve next. Nothing in it is secret.
 */
export class LevelVoteStore implements VoteStore, BanStore {
  readonly #database: ClassicLevel<string, Uint8Array>;
  /** What daily limits count, by wallet and request; a copy of what is on disk. */
  readonly #spending = new Map<string, Map<string, Spending>>();

  private constructor(database: ClassicLevel<string, Uint8Array>) {
    this.#database = database;
  }

  /** @throws Unavailable `votes-unreadable` when the folder cannot be opened, for example because a process holds it */
  static async open(folder: string): Promise<LevelVoteStore> {
    const database = new ClassicLevel<string, Uint8Array>(folder, { valueEncoding: "view" });
    try {
      await database.open();
    } catch (cause) {
      throw new Unavailable("votes-unreadable", "the folder of the node's votes cannot be opened", { folder }, cause);
    }
    const store = new LevelVoteStore(database);
    for await (const bytes of database.values(range("request/"))) store.#count(decodeApproved(bytes));
    return store;
  }

  async ballot(proposalDigest: Uint8Array): Promise<Ballot | undefined> {
    const bytes = await this.#get(ballotKey(proposalDigest));
    return bytes === undefined ? undefined : fromBinary(BallotSchema, bytes);
  }

  async approvedRequest(requestId: string): Promise<ApprovedRequest | undefined> {
    const bytes = await this.#get(`request/${requestId}`);
    return bytes === undefined ? undefined : decodeApproved(bytes);
  }

  async spentSince(query: { walletId: string; sinceMs: number; withoutRequestId: string }) {
    let amountSat = 0n;
    let payments = 0;
    for (const [requestId, spending] of this.#spending.get(query.walletId) ?? []) {
      if (requestId === query.withoutRequestId || spending.approvedAtMs <= query.sinceMs) continue;
      amountSat += spending.amountSat;
      payments += 1;
    }
    return { amountSat, payments };
  }

  async highestChangeIndex(walletId: string): Promise<number> {
    const bytes = await this.#get(`change/${walletId}`);
    return bytes === undefined ? -1 : Buffer.from(bytes).readUInt32BE();
  }

  /** Change up to this index is known to be the wallet's, for example to a node that joins it. Never goes back. */
  async raiseChangeIndex(walletId: string, index: number): Promise<void> {
    if (index <= (await this.highestChangeIndex(walletId))) return;
    try {
      await this.#database.put(`change/${walletId}`, uint32(index), { sync: true });
    } catch (cause) {
      throw new Unavailable("vote-not-recorded", "the change index could not be made durable", { walletId }, cause);
    }
  }

  async record({ ballot, approved }: VoteRecord): Promise<void> {
    const batch = this.#database.batch().put(ballotKey(ballot.proposalDigest), toBinary(BallotSchema, ballot));
    if (approved !== undefined) {
      batch.put(`request/${approved.requestId}`, encodeApproved(approved));
      const highest = Math.max(await this.highestChangeIndex(approved.walletId), approved.changeIndex);
      if (highest >= 0) batch.put(`change/${approved.walletId}`, uint32(highest));
    }
    try {
      await batch.write({ sync: true });
    } catch (cause) {
      throw new Unavailable("vote-not-recorded", "the vote could not be made durable and does not leave", {}, cause);
    }
    if (approved !== undefined) this.#count(approved);
  }

  async bans(): Promise<readonly Ban[]> {
    const found: Ban[] = [];
    for await (const bytes of this.#database.values(range("ban/"))) {
      found.push(decodeBan(bytes));
    }
    return found;
  }

  async ban(ban: Ban): Promise<void> {
    const { nodeId } = ban;
    const key = `ban/${nodeId}`;
    if ((await this.#get(key)) !== undefined) return;
    try {
      await this.#database.put(key, encodeBan(ban), { sync: true });
    } catch (cause) {
      throw new Unavailable("ban-not-recorded", "the ban could not be made durable", { nodeId }, cause);
    }
  }

  async lift(nodeId: string): Promise<Ban | undefined> {
    const ban = (await this.bans()).find((each) => each.nodeId === nodeId);
    if (ban === undefined) return undefined;
    try {
      await this.#database.del(`ban/${nodeId}`, { sync: true });
    } catch (cause) {
      throw new Unavailable("ban-not-lifted", "the ban could not be taken back durably", { nodeId }, cause);
    }
    return ban;
  }

  async prune(nowMs: number): Promise<void> {
    const batch = this.#database.batch();
    for await (const [key, bytes] of this.#database.iterator(range("request/"))) {
      const entry = decodeApproved(bytes);
      if (!isForgettable(entry, nowMs)) continue;
      batch.del(key);
      this.#spending.get(entry.walletId)?.delete(entry.requestId);
    }
    for await (const [key, bytes] of this.#database.iterator(range("ballot/"))) {
      if (fromBinary(BallotSchema, bytes).expiresAtMs <= BigInt(nowMs)) batch.del(key);
    }
    await batch.write({ sync: true });
  }

  async close(): Promise<void> {
    await this.#database.close();
  }

  #count({ walletId, requestId, approvedAtMs, amountSat }: ApprovedRequest): void {
    const wallet = this.#spending.get(walletId) ?? new Map<string, Spending>();
    this.#spending.set(walletId, wallet.set(requestId, { approvedAtMs, amountSat }));
  }

  async #get(key: string): Promise<Uint8Array | undefined> {
    return await this.#database.get(key);
  }
}

interface Spending {
  readonly approvedAtMs: number;
  readonly amountSat: bigint;
}

const ballotKey = (digest: Uint8Array): string => `ballot/${Buffer.from(digest).toString("hex")}`;
const range = (prefix: string) => ({ gte: prefix, lt: `${prefix}\uffff` });

function uint32(value: number): Uint8Array {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function encodeApproved(entry: ApprovedRequest): Uint8Array {
  return toBinary(
    ApprovedRequestSchema,
    create(ApprovedRequestSchema, {
      requestId: entry.requestId,
      walletId: entry.walletId,
      amountSat: entry.amountSat,
      approvedAtMs: BigInt(entry.approvedAtMs),
      expiresAtMs: BigInt(entry.expiresAtMs),
      transactions: entry.transactions.map(({ txid, outpoints }) => ({ txid, outpoints: [...outpoints] })),
      changeCount: entry.changeIndex + 1,
    }),
  );
}

function decodeApproved(bytes: Uint8Array): ApprovedRequest {
  const entry = fromBinary(ApprovedRequestSchema, bytes);
  return {
    requestId: entry.requestId,
    walletId: entry.walletId,
    amountSat: entry.amountSat,
    approvedAtMs: Number(entry.approvedAtMs),
    expiresAtMs: Number(entry.expiresAtMs),
    transactions: entry.transactions.map(({ txid, outpoints }) => ({ txid, outpoints })),
    changeIndex: entry.changeCount - 1,
  };
}
