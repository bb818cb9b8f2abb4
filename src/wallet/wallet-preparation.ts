import type { Clock } from "../crypto/ambient.js";
import { BoundedCalls } from "./bounded-calls.js";
import type { PeerPresigning, PresigningProgress } from "./peer-presigning.js";
import type { NodePreparation, PreparationPhase, PreparationView } from "./wallet-application.js";

/** Primes of one set. */
const PRIMES = 4;
/** Between two questions to one node. */
const POLL_MS = 500;
const CALL_TIMEOUT_MS = 2_000;

interface Preparation {
  readonly walletId: string;
  readonly name: string;
  readonly parties: readonly string[];
  phase: PreparationPhase;
  readonly nodes: Map<string, NodePreparation>;
}

/** Asks the nodes of wallets that are being made how far they are, twice a second, for people who wait. */
export class WalletPreparations {
  readonly #ask: PeerPresigning["progress"];
  readonly #clock: Clock;
  readonly #running = new Set<Preparation>();

  constructor(dependencies: { readonly ask: PeerPresigning["progress"]; readonly clock: Clock }) {
    this.#ask = dependencies.ask;
    this.#clock = dependencies.clock;
  }

  get running(): readonly PreparationView[] {
    return [...this.#running].map(({ walletId, name, phase, parties, nodes }) => ({
      walletId,
      name,
      phase,
      nodes: parties.flatMap((nodeId) => nodes.get(nodeId) ?? []),
    }));
  }

  /** Follows a wallet from its key generation on. Nobody is asked before it comes to primes, nor after `end`. */
  follow(wallet: { readonly walletId: string; readonly name: string; readonly parties: readonly string[] }) {
    const { walletId, name, parties } = wallet;
    const preparation: Preparation = { walletId, name, parties, phase: "key", nodes: new Map() };
    this.#running.add(preparation);
    const stop = new AbortController();
    const calls = new BoundedCalls({ timeoutMs: CALL_TIMEOUT_MS }, { clock: this.#clock, stop: stop.signal });
    return {
      enter: (phase: Exclude<PreparationPhase, "key">): void => {
        const begins = preparation.phase === "key";
        preparation.phase = phase;
        preparation.nodes.clear();
        if (begins) for (const nodeId of parties) void this.#poll(preparation, nodeId, { calls, stop: stop.signal });
      },
      end: (): void => {
        stop.abort();
        this.#running.delete(preparation);
      },
    };
  }

  async #poll(
    preparation: Preparation,
    nodeId: string,
    { calls, stop }: { readonly calls: BoundedCalls; readonly stop: AbortSignal },
  ): Promise<void> {
    while (!stop.aborted) {
      const { phase } = preparation;
      try {
        const progress = await calls.make((signal) => this.#ask(nodeId, signal));
        const state = stateIn(phase, progress, { nodeId, walletId: preparation.walletId });
        if (preparation.phase === phase && !stop.aborted) preparation.nodes.set(nodeId, state);
      } catch {
        // A node that does not answer keeps what it said last; the ceremony itself tells whether it is lost.
      }
      await new Promise<void>((resolve) => void this.#clock.after(POLL_MS, resolve));
    }
  }
}

function stateIn(
  phase: PreparationPhase,
  { primes, auxInfo }: PresigningProgress,
  { nodeId, walletId }: { readonly nodeId: string; readonly walletId: string },
): NodePreparation {
  if (phase === "auxiliary-info") {
    const own = auxInfo.find((running) => running.walletId === walletId);
    return { nodeId, done: own?.step ?? 0, of: own?.steps ?? 0, tested: 0 };
  }
  return { nodeId, done: primes.ready > 0 ? PRIMES : primes.found, of: PRIMES, tested: primes.tested };
}
