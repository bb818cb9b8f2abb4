// A node in its own process that kills itself, as kill -9 does, at a step of a change of shares that the test names.
import { fileURLToPath } from "node:url";
import { systemClock, systemRandom } from "../../src/node/ambient.js";
import { EsploraChainSource } from "../../src/storage/chain/esplora.js";
import type { KeyStore } from "../../src/storage/key-store.js";
import type { OneUseLedger } from "../../src/storage/one-use-ledger.js";
import { shareWrite } from "./share-write.js";
import { startTestNode, type TestNodeSetup } from "./test-node.js";

export const DYING_NODE = fileURLToPath(import.meta.url);
/** Argument of the process; tests import this file, too. */
export const DYING_NODE_FLAG = "--dying-node";

/** Steps at which a node may die. "soon after" is when its answer has left. */
export const STEPS = [
  "before prepared write",
  "after prepared write",
  "soon after prepared write",
  "before switch write",
  "after switch write",
  "before burn",
  "after burn",
] as const;
export type Step = (typeof STEPS)[number];

export interface DyingNodeSetup extends TestNodeSetup {
  readonly chainUrl: string;
}

export type DyingNodeOrder = { readonly setup: DyingNodeSetup } | { readonly dieAt: Step };

let dieAt: Step | undefined;

const reach = (step: Step): void => {
  if (dieAt === step) process.kill(process.pid, "SIGKILL");
};

function watch({ store, ledger }: { readonly store: KeyStore; readonly ledger: OneUseLedger }): void {
  const [update, burn] = [store.updateHeld.bind(store), ledger.burnAll.bind(ledger)];
  store.updateHeld = async (walletId, edit) => {
    const before = store.held(walletId);
    const kind = shareWrite(before, edit(before));
    if (kind !== undefined) reach(`before ${kind} write`);
    const held = await update(walletId, edit);
    if (kind !== undefined) reach(`after ${kind} write`);
    if (kind === "prepared") setTimeout(() => reach("soon after prepared write"), 150);
    return held;
  };
  ledger.burnAll = async (scope, reason) => {
    reach("before burn");
    const burned = await burn(scope, reason);
    reach("after burn");
    return burned;
  };
}

function obey(order: DyingNodeOrder): void {
  if ("dieAt" in order) {
    dieAt = order.dieAt;
    return;
  }
  const { setup } = order;
  const chain = new EsploraChainSource({ url: setup.chainUrl }, { clock: systemClock, random: systemRandom });
  startTestNode(setup, { chain, tamper: watch }).then(
    () => process.send?.({ ready: true }),
    (error: unknown) => {
      process.send?.({ failed: String(error) });
      process.exit(1);
    },
  );
}

if (process.argv.includes(DYING_NODE_FLAG)) process.on("message", obey);
