import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { WalletChangeRecordSchema } from "../../gen/mpcwallet/consensus/v1/record_pb.js";
import type { SignedWalletChange } from "../../gen/mpcwallet/consensus/v1/wallet_change_pb.js";
import { changeDigest } from "../consensus/wallet-change.js";
import type { Clock } from "../crypto/ambient.js";
import { equalBytes } from "../crypto/bytes.js";
import { Bug, Unavailable } from "../crypto/fault.js";
import type { Coordination } from "./coordination.js";

/** How far the newest change of a wallet is, as the leading coordinator last knew. */
export interface ChangeRecord {
  readonly signed: SignedWalletChange;
  readonly state: "running" | "switched" | "abandoned";
  readonly attempt: number;
  /** Why it was abandoned, or why the last try failed. */
  readonly code: string;
  readonly message: string;
  readonly changedAtMs: number;
}

type Unstamped = Omit<ChangeRecord, "changedAtMs">;

const RECORDS = "/wallet-changes/";

/** The newest change of each wallet, in the coordinators' store. */
export class WalletChangeRecords {
  readonly #coordination: Coordination;
  readonly #clock: Clock;
  readonly #turns = new Map<string, Promise<unknown>>();

  constructor(dependencies: { readonly coordination: Coordination; readonly clock: Clock }) {
    this.#coordination = dependencies.coordination;
    this.#clock = dependencies.clock;
  }

  async get(walletId: string): Promise<ChangeRecord | undefined> {
    const bytes = await this.#coordination.get(RECORDS + walletId);
    if (bytes === undefined) return undefined;
    const { change, state, attempt, code, message, changedAtMs } = fromBinary(WalletChangeRecordSchema, bytes);
    if (change === undefined || (state !== "running" && state !== "switched" && state !== "abandoned")) {
      throw new Bug("a stored change does not decode", { walletId });
    }
    return { signed: change, state, attempt, code, message, changedAtMs: Number(changedAtMs) };
  }

  /** Within a turn of the wallet. @throws Unavailable `not-leading` */
  async put(walletId: string, change: Unstamped): Promise<ChangeRecord> {
    const record = { ...change, changedAtMs: Math.floor(this.#clock.nowMs()) };
    const { signed, changedAtMs, ...rest } = record;
    const message = create(WalletChangeRecordSchema, { ...rest, change: signed, changedAtMs: BigInt(changedAtMs) });
    const bytes = toBinary(WalletChangeRecordSchema, message);
    if (await this.#coordination.put(RECORDS + walletId, bytes)) return record;
    throw new Unavailable("not-leading", "another coordinator leads now");
  }

  /** How far an order is, unless another has taken its place meanwhile: then undefined, and nothing is written. */
  advance(walletId: string, change: Unstamped): Promise<ChangeRecord | undefined> {
    return this.turn(walletId, async () => {
      const known = await this.get(walletId);
      const isOther = known !== undefined && !equalBytes(changeDigest(known.signed), changeDigest(change.signed));
      return isOther ? undefined : await this.put(walletId, change);
    });
  }

  /** One reader and writer of a wallet's record at a time. */
  turn<T>(walletId: string, work: () => Promise<T>): Promise<T> {
    const before = this.#turns.get(walletId) ?? Promise.resolve();
    const turn = before.catch(() => undefined).then(work);
    this.#turns.set(walletId, turn);
    return turn;
  }
}
