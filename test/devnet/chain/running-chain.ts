/** A devnet chain server on the loopback address, for the length of a test suite. */
import { after, before } from "node:test";
import { type ChainServer, startChainServer } from "../../../src/devnet/chain/server.js";
import { systemClock } from "../../../src/node/ambient.js";

export const RPC = { user: "devnet", password: "pass:word" };

/** Starts a server before the suite and closes it after; the returned function gives it. Faults of its own fail the suite. */
export function runningChain(): () => ChainServer {
  let server: ChainServer | undefined;
  const faults: unknown[] = [];
  before(async () => {
    server = await startChainServer(
      {
        port: 0,
        rpcPort: 0,
        rpcUser: RPC.user,
        rpcPassword: RPC.password,
        matureCoinbases: 20,
        blockIntervalMs: 0,
        feeRateSatPerKvb: 2_345,
      },
      { clock: systemClock, onFault: (fault) => faults.push(fault) },
    );
  });
  after(async () => {
    await server?.close();
    if (faults.length > 0) throw new AggregateError(faults, "the server met faults of its own");
  });
  return () => {
    if (server === undefined) throw new Error("the server has not started");
    return server;
  };
}
