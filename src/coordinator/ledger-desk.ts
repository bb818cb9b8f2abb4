import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { type LedgerStatement, LedgerStatementSchema } from "../../gen/mpcwallet/witness/v1/witness_pb.js";
import type { WitnessHandlers } from "../../gen/router.js";
import type { Roster } from "../network/identity/roster.js";
import { positionOf } from "../node/ledger-statement.js";
import type { Logger } from "../node/log.js";
import { positionMemory } from "../node/position-memory.js";
import { mayFollow } from "../storage/ledger-position.js";
import type { AuditTrail } from "../wallet/audit-trail.js";
import type { Coordination } from "../wallet/coordination.js";

const LEDGERS = "/ledgers/";

/**
 * The coordinators' part in remembering where nodes' ledgers stand: in their shared store, so that nodes that are
 * restored together are found out although they forgot each other's places, too. Each coordinator writes its own key,
 * and all are read, so that two that write at once do not overwrite each other.
 */
export function ledgerDesk(
  nodeId: string,
  parts: {
    readonly roster: Roster;
    readonly coordination: Coordination;
    readonly audit: AuditTrail;
    readonly log: Logger;
    /** What is known of the pools is out of date. */
    readonly onBurn: () => void;
  },
): WitnessHandlers {
  const { roster, coordination, audit, log } = parts;
  const written = new Map<string, LedgerStatement>();
  const everywhere = async (node: string): Promise<LedgerStatement | undefined> => {
    const found = [...(await coordination.list(`${LEDGERS}${node}/`)).values()];
    return found
      .map((bytes) => fromBinary(LedgerStatementSchema, bytes))
      .reduce<LedgerStatement | undefined>(later, undefined);
  };
  return positionMemory({
    roster,
    store: {
      // A statement that another coordinator has noted meanwhile is found when the node asks after its next start.
      load: async (node) => written.get(node) ?? (await everywhere(node)),
      recall: everywhere,
      save: async (statement) => {
        await coordination.put(`${LEDGERS}${statement.nodeId}/${nodeId}`, toBinary(LedgerStatementSchema, statement));
        written.set(statement.nodeId, statement);
      },
    },
    onBurn: async (node, { items, reason, atMs }) => {
      log.error({ event: "pool-burned", node, items, reason }, "a node burned its presignatures");
      await audit.append([
        { kind: "pool-burned", walletId: "", subject: node, payload: { items, reason, atMs: atMs.toString() } },
      ]);
      parts.onBurn();
    },
    report: (error) => log.error({ error }, "a handler failed"),
  });
}

/** The later one, whichever ledger it is of. */
function later(known: LedgerStatement | undefined, next: LedgerStatement): LedgerStatement {
  return known === undefined || mayFollow(positionOf(next), positionOf(known)) ? next : known;
}
