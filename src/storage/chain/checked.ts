import type { Clock } from "../../crypto/ambient.js";
import { InvalidInput, Unavailable } from "../../crypto/fault.js";
import type {
  ChainSource,
  FoundOutput,
  Outpoint,
  TransactionStatus,
  UnspentOutput,
} from "../../wallet/chain-source.js";

export interface CheckedOptions {
  /** Tips further apart than this are a disagreement. */
  readonly maxTipSkewBlocks: number;
  /** Comparisons before a disagreement is reported: a block or a spend may arrive between two answers. */
  readonly comparisons: number;
  readonly pauseMs: number;
  /** Refuses to answer about outputs while one source is down, instead of believing the other one alone. */
  readonly requireBoth: boolean;
}

export const DEFAULT_CHECKED_OPTIONS: CheckedOptions = {
  maxTipSkewBlocks: 2,
  comparisons: 3,
  pauseMs: 300,
  requireBoth: false,
};

export interface CheckedDependencies {
  readonly clock: Clock;
  readonly primary: ChainSource;
  /** Fallback and second opinion. */
  readonly secondary: ChainSource;
}

type Aspect = "value" | "script" | "spentness" | "block" | "tip";

class Disagreement extends Unavailable {
  constructor(aspect: Aspect, facts: { readonly [name: string]: string | number }) {
    super("chain-sources-disagree", `the chain sources disagree on ${aspect}`, { aspect, ...facts });
  }
}

const NOT_KNOWN: TransactionStatus = { known: false, confirmedHeight: 0, blockHash: "" };

function silent(first: unknown, second: unknown): Unavailable {
  const codes = [first, second].map((fault) => (fault instanceof Unavailable ? fault.code : "unknown"));
  const cause = new AggregateError([first, second]);
  return new Unavailable("chain-sources-unavailable", "no chain source answers", { codes }, cause);
}

function compare(claimed: FoundOutput, seen: FoundOutput, { txid, vout }: Outpoint): void {
  if (claimed.valueSat !== seen.valueSat) throw new Disagreement("value", { txid, vout });
  if (!Buffer.from(claimed.scriptPubKey).equals(seen.scriptPubKey)) throw new Disagreement("script", { txid, vout });
}

/**
 * Esplora first, Bitcoin Core as fallback; while both answer, outputs are compared. What is compared with the chain is
 * what a lie could make the wallet lose: value, script and spentness of outputs, and the block of a transaction. Where an
 * honest race explains a difference, the more careful answer is given: unconfirmed rather than confirmed.
 *
 * An output that the first source hides is not found by this: hiding denies service, it does not lose money.
 */
export class CheckedChainSource implements ChainSource {
  readonly #options: CheckedOptions;
  readonly #clock: Clock;
  readonly #primary: ChainSource;
  readonly #secondary: ChainSource;

  constructor(options: CheckedOptions, dependencies: CheckedDependencies) {
    this.#options = options;
    this.#clock = dependencies.clock;
    this.#primary = dependencies.primary;
    this.#secondary = dependencies.secondary;
  }

  /** Asks the second source when the first one does not answer. */
  async #either<Answer>(ask: (source: ChainSource) => Promise<Answer>): Promise<Answer> {
    try {
      return await ask(this.#primary);
    } catch (first) {
      return this.#instead(first, ask);
    }
  }

  /** Asks the second source after the first one failed. */
  async #instead<Answer>(first: unknown, ask: (source: ChainSource) => Promise<Answer>): Promise<Answer> {
    if (!(first instanceof Unavailable)) throw first;
    try {
      return await ask(this.#secondary);
    } catch (second) {
      if (!(second instanceof Unavailable)) throw second;
      throw silent(first, second);
    }
  }

  /** Both answers; undefined for a source that does not answer while the other one does. */
  async #both<Answer>(
    ask: (source: ChainSource) => Promise<Answer>,
  ): Promise<readonly [Answer | undefined, Answer | undefined]> {
    const [first, second] = await Promise.allSettled([ask(this.#primary), ask(this.#secondary)]);
    for (const outcome of [first, second]) {
      if (outcome.status === "rejected" && !(outcome.reason instanceof Unavailable)) throw outcome.reason;
    }
    if (first.status === "rejected" && second.status === "rejected") throw silent(first.reason, second.reason);
    return [
      first.status === "fulfilled" ? first.value : undefined,
      second.status === "fulfilled" ? second.value : undefined,
    ];
  }

  /** Repeats a comparison until the sources agree. */
  async #agree<Answer>(compareOnce: () => Promise<Answer>): Promise<Answer> {
    for (let comparison = 1; ; comparison++) {
      try {
        return await compareOnce();
      } catch (fault) {
        if (!(fault instanceof Disagreement) || comparison >= this.#options.comparisons) throw fault;
        await new Promise<void>((resolve) => this.#clock.after(this.#options.pauseMs, resolve));
      }
    }
  }

  #alone(what: string): void {
    if (!this.#options.requireBoth) return;
    throw new Unavailable("chain-source-alone", `${what}: one chain source does not answer, both are required`);
  }

  tipHeight(): Promise<number> {
    return this.#agree(async () => {
      const [primary, secondary] = await this.#both((source) => source.tipHeight());
      const heights = [primary, secondary].filter((height) => height !== undefined);
      const [lowest, highest] = [Math.min(...heights), Math.max(...heights)];
      if (highest - lowest > this.#options.maxTipSkewBlocks) throw new Disagreement("tip", { lowest, highest });
      return lowest;
    });
  }

  unspentOutputs(scriptPubKey: Uint8Array): Promise<readonly UnspentOutput[]> {
    return this.#agree(async () => {
      let claimed: readonly UnspentOutput[];
      try {
        claimed = await this.#primary.unspentOutputs(scriptPubKey);
      } catch (fault) {
        if (fault instanceof Unavailable) this.#alone("unspent outputs");
        return this.#instead(fault, (source) => source.unspentOutputs(scriptPubKey));
      }
      const seen = await this.#secondOpinion(claimed);
      return seen === undefined ? claimed : this.#confirmedByBoth(claimed, seen);
    });
  }

  async #secondOpinion(claimed: readonly Outpoint[]): Promise<readonly (FoundOutput | undefined)[] | undefined> {
    try {
      return await this.#secondary.findUnspent(claimed);
    } catch (fault) {
      if (!(fault instanceof Unavailable)) throw fault;
      this.#alone("unspent outputs");
      return undefined;
    }
  }

  #confirmedByBoth(
    claimed: readonly UnspentOutput[],
    seen: readonly (FoundOutput | undefined)[],
  ): readonly UnspentOutput[] {
    return claimed.flatMap((output, index) => {
      const other = seen[index];
      if (other === undefined) {
        // Mempools differ honestly, and anybody may pay us with a transaction that only one of them takes.
        if (output.confirmedHeight === 0) return [];
        throw new Disagreement("spentness", { txid: output.txid, vout: output.vout });
      }
      compare(output, other, output);
      return [{ ...output, confirmedHeight: other.confirmedHeight === 0 ? 0 : output.confirmedHeight }];
    });
  }

  findUnspent(outpoints: readonly Outpoint[]): Promise<readonly (FoundOutput | undefined)[]> {
    return this.#agree(async () => {
      const [primary, secondary] = await this.#both((source) => source.findUnspent(outpoints));
      if (primary === undefined || secondary === undefined) {
        this.#alone("outputs");
        return primary ?? secondary ?? [];
      }
      return outpoints.map((outpoint, index) => {
        const [one, other] = [primary[index], secondary[index]];
        if (one === undefined && other === undefined) return undefined;
        if (one === undefined || other === undefined) {
          if ((one ?? other)?.confirmedHeight === 0) return undefined;
          throw new Disagreement("spentness", { txid: outpoint.txid, vout: outpoint.vout });
        }
        compare(one, other, outpoint);
        return other.confirmedHeight === 0 ? other : one;
      });
    });
  }

  transactionStatus(txid: string): Promise<TransactionStatus> {
    return this.#agree(async () => {
      const [primary, secondary] = await this.#both((source) => source.transactionStatus(txid));
      // Without -txindex, Core does not know transactions in blocks: its "unknown" proves nothing.
      if (primary === undefined || secondary === undefined) return primary ?? secondary ?? NOT_KNOWN;
      if (!primary.known || !secondary.known) return primary.known ? primary : secondary;
      if (primary.confirmedHeight === 0 || secondary.confirmedHeight === 0) {
        return { known: true, confirmedHeight: 0, blockHash: "" };
      }
      if (primary.blockHash !== secondary.blockHash) throw new Disagreement("block", { txid });
      return primary;
    });
  }

  async transaction(txid: string): Promise<Uint8Array | undefined> {
    // Its txid authenticates a transaction: the first one that is found is the right one.
    const found = await this.#either((source) => source.transaction(txid));
    if (found !== undefined) return found;
    try {
      return await this.#secondary.transaction(txid);
    } catch (fault) {
      if (fault instanceof Unavailable) return undefined;
      throw fault;
    }
  }

  feeRateSatPerKvb(targetBlocks: number): Promise<number> {
    return this.#either((source) => source.feeRateSatPerKvb(targetBlocks));
  }

  /** One source that takes the transaction is enough; a refusal counts when no source takes it. */
  async broadcast(transaction: Uint8Array): Promise<string> {
    try {
      return await this.#primary.broadcast(transaction);
    } catch (first) {
      if (!(first instanceof Unavailable) && !(first instanceof InvalidInput)) throw first;
      try {
        return await this.#secondary.broadcast(transaction);
      } catch (second) {
        if (second instanceof InvalidInput) throw second;
        throw first;
      }
    }
  }
}
