import type { Evidence } from "../../gen/mpcwallet/session/v1/session_pb.js";
import type { Observation } from "../consensus/byzantine-detector.js";
import { PeerFault } from "../crypto/fault.js";
import type { GeneratedKey, KeyGeneration, KeyGenerationOrder } from "../wallet/key-generation.js";
import { judgeKeyGeneration } from "./evidence-judge.js";

/** Key generation whose failures are judged: a culprit is named only on evidence that holds. */
export class JudgedKeyGeneration implements KeyGeneration {
  readonly #nodes: KeyGeneration;
  readonly #roster: () => ReadonlyMap<string, Uint8Array>;
  readonly #observe: (observation: Observation) => void;

  constructor(parts: {
    readonly nodes: KeyGeneration;
    /** Every node with its Ed25519 identity key. */
    readonly roster: () => ReadonlyMap<string, Uint8Array>;
    readonly observe: (observation: Observation) => void;
  }) {
    this.#nodes = parts.nodes;
    this.#roster = parts.roster;
    this.#observe = parts.observe;
  }

  async generate(nodeId: string, order: KeyGenerationOrder, signal: AbortSignal): Promise<GeneratedKey> {
    try {
      return await this.#nodes.generate(nodeId, order, signal);
    } catch (error) {
      if (error instanceof PeerFault) this.#judge(order, error as PeerFault<Evidence>);
      throw error;
    }
  }

  #judge(order: KeyGenerationOrder, fault: PeerFault<Evidence>): void {
    for (const { nodeId, check, evidence } of judgeKeyGeneration(order, this.#roster(), fault.evidence)) {
      this.#observe({ type: "session-evidence", nodeId, check, evidence, upheld: true });
    }
  }
}
