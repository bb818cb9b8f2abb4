import { toBinary } from "@bufbuild/protobuf";
import { type Evidence, EvidenceSchema } from "../../gen/mpcwallet/session/v1/session_pb.js";
import { type DetectorState, newDetector, type Observation, observe } from "../consensus/byzantine-detector.js";
import type { Ban, BanStore } from "../consensus/vote-ledger.js";
import type { Clock } from "../crypto/ambient.js";
import { verifyEd25519 } from "../crypto/ed25519.js";
import type { PeerFault } from "../crypto/fault.js";
import type { Logger } from "./log.js";
import type { SessionSeat } from "./session-job.js";

export interface BanRegisterDependencies {
  readonly store: BanStore;
  readonly clock: Clock;
  readonly log: Logger;
}

/**
 * Whom this node has seen break the rules, with proof. The ballot of a banned node counts for nothing in a certificate
 * here. Bans are durable and are for people to lift: a node that was caught once has a key that somebody else may hold.
 */
export class BanRegister {
  readonly #parts: BanRegisterDependencies;
  #state: DetectorState;

  private constructor(state: DetectorState, dependencies: BanRegisterDependencies) {
    this.#state = state;
    this.#parts = dependencies;
  }

  /** @param roster every node with its Ed25519 identity key; only its members can be banned */
  static async open(
    roster: ReadonlyMap<string, Uint8Array>,
    dependencies: BanRegisterDependencies,
  ): Promise<BanRegister> {
    const known = (await dependencies.store.bans()).map(({ nodeId }) => nodeId).filter((nodeId) => roster.has(nodeId));
    return new BanRegister(newDetector(roster, new Set(known)), dependencies);
  }

  get banned(): ReadonlySet<string> {
    return this.#state.banned;
  }

  /**
   * Takes what a session of this node proved: the session ran every check itself, so nothing is judged again here.
   * The ban holds at once and is durable when this resolves. Never rejects.
   */
  async accuse(fault: PeerFault<Evidence>, seat: SessionSeat): Promise<void> {
    for (const item of fault.evidence) {
      const nodeId = seat.parties.find(({ id }) => id === item.accused)?.nodeId;
      if (nodeId === undefined) continue;
      const evidence = toBinary(EvidenceSchema, item);
      await this.#observe({ type: "session-evidence", nodeId, check: item.check, evidence, upheld: true });
    }
  }

  async #observe(observation: Observation): Promise<void> {
    const { store, clock, log } = this.#parts;
    const { state, decisions } = observe(this.#state, observation, clock.nowMs(), verifyEd25519);
    this.#state = state;
    for (const decision of decisions) {
      if (decision.type !== "ban") continue;
      const { nodeId, violation, beyondTolerance } = decision;
      const { kind, detail, atMs, evidence } = violation;
      log.error({ event: "node-banned", nodeId, kind, detail, beyondTolerance }, "a peer is banned");
      const ban: Ban = { nodeId, kind, detail, bannedAtMs: Math.floor(atMs), evidence };
      await store.ban(ban).catch((error: unknown) => log.error({ err: error, nodeId }, "a ban is not durable"));
    }
  }
}
