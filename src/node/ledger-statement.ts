import { create } from "@bufbuild/protobuf";
import { type LedgerStatement, LedgerStatementSchema } from "../../gen/mpcwallet/witness/v1/witness_pb.js";
import { verifyEd25519 } from "../crypto/ed25519.js";
import { hashTuple } from "../crypto/transcript.js";
import type { LedgerPosition } from "../storage/ledger-position.js";

/**
 * What a node says about its own ledger. Whoever remembers it can show it to the node again, and can hide it, but cannot
 * make up another: a peer that lies about a ledger gets nobody to burn a pool.
 */

const DOMAIN = "ledger/statement";
const LINEAGE_BYTES = 16;
/** A ledger comes nowhere near it, and can always go on beyond it. */
const PLACE_MAX = 1n << 62n;

export function signStatement(
  nodeId: string,
  position: LedgerPosition,
  sign: (message: Uint8Array) => Uint8Array,
): LedgerStatement {
  const lineage = new Uint8Array(Buffer.from(position.lineage, "hex"));
  const { epoch, sequence } = position;
  const statement = create(LedgerStatementSchema, { nodeId, lineage, epoch, sequence });
  statement.signature = sign(signedBytes(statement));
  return statement;
}

/** Whether the node with this identity key said it. Total. */
export function isStatementOf(nodeId: string, identityKey: Uint8Array, statement: LedgerStatement): boolean {
  const { lineage, epoch, sequence, signature } = statement;
  return (
    statement.nodeId === nodeId &&
    lineage.length === LINEAGE_BYTES &&
    epoch <= PLACE_MAX &&
    sequence <= PLACE_MAX &&
    verifyEd25519(identityKey, signedBytes(statement), signature)
  );
}

export function positionOf({ lineage, epoch, sequence }: LedgerStatement): LedgerPosition {
  return { lineage: Buffer.from(lineage).toString("hex"), epoch, sequence };
}

function signedBytes({ nodeId, lineage, epoch, sequence }: LedgerStatement): Uint8Array {
  return hashTuple(DOMAIN, [nodeId, lineage, epoch, sequence]);
}
