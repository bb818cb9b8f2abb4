import type { HandlerContext } from "@connectrpc/connect";
import type { LedgerBurn, LedgerStatement } from "../../gen/mpcwallet/witness/v1/witness_pb.js";
import type { WitnessHandlers } from "../../gen/router.js";
import { InvalidInput } from "../crypto/fault.js";
import { peerNodeId } from "../network/call-context.js";
import { faultToWire } from "../network/fault-wire.js";
import type { Roster } from "../network/identity/roster.js";
import { mayFollow } from "../storage/ledger-position.js";
import { isStatementOf, positionOf } from "./ledger-statement.js";

/** Where a member keeps what nodes said of their ledgers. `save` resolves when it is durable. */
export interface PositionStore {
  /** What the next statement is compared with. */
  load(nodeId: string): Promise<LedgerStatement | undefined>;
  /** What a node that was started is told. */
  recall(nodeId: string): Promise<LedgerStatement | undefined>;
  save(statement: LedgerStatement): Promise<void>;
}

export interface PositionMemoryParts {
  readonly roster: Roster;
  readonly store: PositionStore;
  /** A node has burned its pool and says so. Resolves when it is noted durably. */
  readonly onBurn: (nodeId: string, burn: LedgerBurn) => Promise<void>;
  /** Hears of an error that is not for the caller. */
  readonly report: (error: unknown) => void;
}

/** The witness's side: remembers the furthest statement of each node, and serves it to that node again. */
export function positionMemory(parts: PositionMemoryParts): WitnessHandlers {
  const { roster, store } = parts;
  /** Tail of each node's calls: its statements are judged one after another. */
  const tails = new Map<string, Promise<unknown>>();
  const serve = async <T>(
    context: HandlerContext,
    work: (caller: { readonly nodeId: string; readonly identityKey: Uint8Array }) => Promise<T>,
  ): Promise<T> => {
    try {
      const caller = roster.get(context.values.get(peerNodeId));
      if (caller?.role !== "node") throw new InvalidInput("not-allowed", "only a node has a ledger");
      const result = (tails.get(caller.nodeId) ?? Promise.resolve()).then(() => work(caller));
      tails.set(
        caller.nodeId,
        result.catch(() => undefined),
      );
      return await result;
    } catch (error) {
      throw faultToWire(error, parts.report);
    }
  };
  return {
    witness: {
      announce: ({ statement, burn }, context) =>
        serve(context, async ({ nodeId, identityKey }) => {
          if (statement === undefined || !isStatementOf(nodeId, identityKey, statement)) {
            throw new InvalidInput("statement-forged", "a node speaks of its own ledger, and signs what it says");
          }
          if (burn !== undefined) await parts.onBurn(nodeId, burn);
          const known = await store.load(nodeId);
          if (known !== undefined && !mayFollow(positionOf(statement), positionOf(known))) return { furthest: known };
          await store.save(statement);
          return { furthest: statement };
        }),
      recall: (_, context) =>
        serve(context, async ({ nodeId }) => {
          const furthest = await store.recall(nodeId);
          return furthest === undefined ? {} : { furthest };
        }),
    },
  };
}
