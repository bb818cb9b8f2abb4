import { PreparationPhase, type WalletPreparation } from "../../gen/mpcwallet/wallet/v1/wallet_pb.js";
import type { GatewayClient } from "./gateway-client.js";

/** How far a wallet is that is being made, in one line. */
export function preparationLine({ phase, nodes }: WalletPreparation): string {
  const done = nodes.reduce((sum, node) => sum + node.done, 0);
  const of = nodes.reduce((sum, node) => sum + node.of, 0);
  const each = nodes.map(({ nodeId, done, of }) => `${nodeId} ${done}/${of}`).join(", ");
  switch (phase) {
    case PreparationPhase.PRIMES: {
      const tested = nodes.reduce((sum, node) => sum + node.tested, 0);
      return `primes ${bar(done, of)} ${each}; ${tested} candidates tested`;
    }
    case PreparationPhase.AUXILIARY_INFO:
      return `proofs of the moduli ${bar(done, of)} steps done: ${each}`;
    case PreparationPhase.KEY:
    case PreparationPhase.UNSPECIFIED:
      return "the nodes generate the key";
  }
}

/** Twenty characters wide. */
export function bar(done: number, of: number): string {
  const filled = of === 0 ? 0 : Math.min(20, Math.floor((20 * done) / of));
  return `[${"#".repeat(filled)}${"-".repeat(20 - filled)}]`;
}

/**
 * Runs the creation of the wallet `name` and says every `intervalMs` how far it is, when there is something new to say.
 * What keeps the gateway from answering is the creation's own business to report.
 */
export async function toldWhileMade<T>(
  client: Pick<GatewayClient["wallet"], "getHealth">,
  { name, intervalMs, tell }: { readonly name: string; readonly intervalMs: number; tell(line: string): void },
  create: () => Promise<T>,
): Promise<T> {
  let last = "";
  let asking = false;
  const timer = setInterval(() => {
    if (asking) return;
    asking = true;
    client
      .getHealth({})
      .then(({ preparations }) => {
        const own = preparations.find((preparation) => preparation.name === name);
        const line = own === undefined ? "" : preparationLine(own);
        if (line !== "" && line !== last) tell(line);
        last = line;
      })
      .catch(() => undefined)
      .finally(() => {
        asking = false;
      });
  }, intervalMs);
  try {
    return await create();
  } finally {
    clearInterval(timer);
  }
}
