import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { type SwitchCertificate, SwitchCertificateSchema } from "../../gen/mpcwallet/consensus/v1/wallet_change_pb.js";
import type { Clock } from "../crypto/ambient.js";
import { InvalidInput } from "../crypto/fault.js";
import type { BoundedCalls } from "./bounded-calls.js";
import type { Coordination } from "./coordination.js";
import type { PeerWalletChange } from "./peer-wallet-change.js";

/**
 * Switch certificates on their way to nodes. What a node is owed is written before it is told, and stays until it has
 * confirmed: whoever does not hear of a switch now is told later, whatever becomes of this coordinator.
 */

export interface SwitchDeliveryDependencies {
  readonly peers: Pick<PeerWalletChange, "switchWallet">;
  readonly coordination: Coordination;
  readonly calls: BoundedCalls;
  readonly clock: Clock;
  readonly onError: (error: unknown, walletId: string) => void;
}

/** A certificate that a node has not confirmed yet. */
export interface OwedSwitch {
  readonly key: string;
  readonly nodeId: string;
  readonly bytes: Uint8Array;
}

/** By wallet, epoch and node. */
const OWED = "/wallet-switches/";
const REDELIVER_MS = 5_000;

/** Answers of a node for which a certificate comes too late to matter. */
const PAST: ReadonlySet<string> = new Set(["not-a-party"]);

export class SwitchDelivery {
  readonly #parts: SwitchDeliveryDependencies;
  #isClosed = false;
  #cancel = (): void => {};
  #delivering: Promise<void> | undefined;

  constructor(dependencies: SwitchDeliveryDependencies) {
    this.#parts = dependencies;
  }

  /** Writes down that these nodes are to have the certificate. */
  async owe(
    nodes: readonly string[],
    { walletId, epoch }: { readonly walletId: string; readonly epoch: number },
    certificate: SwitchCertificate,
  ): Promise<readonly OwedSwitch[]> {
    const bytes = toBinary(SwitchCertificateSchema, certificate);
    const owed = nodes.map((nodeId) => ({ key: owedKey(walletId, epoch, nodeId), nodeId, bytes }));
    for (const { key } of owed) await this.#parts.coordination.put(key, bytes);
    return owed;
  }

  /** Delivers all that is owed after this delay, and again until nothing is. */
  begin(delayMs: number): void {
    if (this.#isClosed) return;
    this.#cancel();
    this.#cancel = this.#parts.clock.after(delayMs, () => {
      this.#delivering = this.#deliverAll()
        .then((left) => {
          if (left > 0) this.begin(REDELIVER_MS);
        })
        .catch((error: unknown) => {
          this.#parts.onError(error, "");
          this.begin(REDELIVER_MS);
        });
    });
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#cancel();
    await this.#delivering;
  }

  /** Node ids that have not confirmed a switch of the wallet. */
  async owing(walletId: string): Promise<readonly string[]> {
    const keys = [...(await this.#parts.coordination.list(`${OWED}${walletId}/`)).keys()];
    return [...new Set(keys.map(nodeOf))].sort();
  }

  /** @returns how many are left */
  async #deliverAll(): Promise<number> {
    const owed = await this.#parts.coordination.list(OWED);
    const items = [...owed].map(([key, bytes]) => ({ key, bytes, nodeId: nodeOf(key) }));
    // Older epochs first: a node that missed two switches needs them in their order.
    items.sort((a, b) => (a.key < b.key ? -1 : 1));
    return items.length - (await this.deliver(items));
  }

  /** Tells every node what it is owed, in this order. @returns how many were confirmed */
  async deliver(items: readonly OwedSwitch[]): Promise<number> {
    const byNode = new Map<string, readonly OwedSwitch[]>();
    for (const item of items) byNode.set(item.nodeId, [...(byNode.get(item.nodeId) ?? []), item]);
    const confirmed = await Promise.all([...byNode.values()].map((mine) => this.#deliverInOrder(mine)));
    return confirmed.reduce((sum, count) => sum + count, 0);
  }

  async #deliverInOrder(items: readonly OwedSwitch[]): Promise<number> {
    const { peers, coordination, calls } = this.#parts;
    let confirmed = 0;
    for (const { key, nodeId, bytes } of items) {
      const certificate = fromBinary(SwitchCertificateSchema, bytes);
      const isDone = await calls
        .make((signal) => peers.switchWallet(nodeId, certificate, signal))
        .then(
          () => true,
          // A node that never held a share, or holds a later one, has nothing to do with it.
          (error: unknown) => error instanceof InvalidInput && PAST.has(error.code),
        );
      if (!isDone) return confirmed;
      await coordination.delete(key);
      confirmed++;
    }
    return confirmed;
  }
}

const nodeOf = (key: string): string => key.slice(key.lastIndexOf("/") + 1);

const owedKey = (walletId: string, epoch: number, nodeId: string): string =>
  `${OWED}${walletId}/${String(epoch).padStart(10, "0")}/${nodeId}`;
