import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { BanRecordSchema } from "../../gen/mpcwallet/consensus/v1/record_pb.js";
import type { Ban } from "./vote-ledger.js";

/** A ban as stores keep it. */
export function encodeBan({ nodeId, kind, detail, bannedAtMs, evidence }: Ban): Uint8Array {
  const record = { nodeId, kind, detail, bannedAtMs: BigInt(Math.floor(bannedAtMs)), evidence: [...evidence] };
  return toBinary(BanRecordSchema, create(BanRecordSchema, record));
}

/** The inverse of `encodeBan`; throws for what is no such record. */
export function decodeBan(bytes: Uint8Array): Ban {
  const { nodeId, kind, detail, bannedAtMs, evidence } = fromBinary(BanRecordSchema, bytes);
  return { nodeId, kind, detail, bannedAtMs: Number(bannedAtMs), evidence };
}
