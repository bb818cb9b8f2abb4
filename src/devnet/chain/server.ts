/** The chain behind its two listeners: Esplora with the control routes, and Bitcoin Core's RPC. */
import type { Clock } from "../../crypto/ambient.js";
import { Chain } from "./chain.js";
import { answerControl } from "./control.js";
import { answerCoreRpc } from "./core-rpc.js";
import { answerEsplora } from "./esplora.js";
import { Faucet } from "./faucet.js";
import type { ChainJournal } from "./journal.js";
import { serveLoopback, text } from "./loopback-http.js";
import { COINBASE_MATURITY_BLOCKS } from "./policy.js";

export interface ChainServerOptions {
  /** Esplora and control routes; 0 lets the system choose. */
  readonly port: number;
  /** Bitcoin Core RPC; 0 lets the system choose. */
  readonly rpcPort: number;
  readonly rpcUser: string;
  readonly rpcPassword: string;
  /** A fresh chain is mined up to this many mature coinbases, so that the faucet can pay. */
  readonly matureCoinbases: number;
  /** Mines a block this often; 0 mines on request only. */
  readonly blockIntervalMs: number;
  readonly feeRateSatPerKvb: number;
}

export interface ChainServerDependencies {
  readonly clock: Clock;
  readonly journal?: ChainJournal;
  /** Told about faults of our own. */
  readonly onFault: (fault: unknown) => void;
}

export interface ChainServer {
  readonly chain: Chain;
  readonly faucet: Faucet;
  readonly esploraUrl: string;
  readonly rpcUrl: string;
  close(): Promise<void>;
}

const MAX_BLOCKS_PER_REQUEST = 1_000;
const MAX_MEMPOOL_TRANSACTIONS = 10_000;
/** The largest standard transaction in hex, with room for JSON around it. */
const MAX_BODY_BYTES = 1_048_576;

/** Starts a devnet chain and listens on the loopback address. */
export async function startChainServer(
  options: ChainServerOptions,
  dependencies: ChainServerDependencies,
): Promise<ChainServer> {
  const { feeRateSatPerKvb } = options;
  const limits = { maxBlocksPerRequest: MAX_BLOCKS_PER_REQUEST, maxMempoolTransactions: MAX_MEMPOOL_TRANSACTIONS };
  const chain = new Chain({ ...limits, feeRateSatPerKvb }, dependencies);
  const faucet = new Faucet(chain);
  const wanted = options.matureCoinbases === 0 ? 0 : options.matureCoinbases + COINBASE_MATURITY_BLOCKS - 1;
  if (chain.tip.height < wanted) chain.mine(wanted - chain.tip.height, faucet.scriptPubKey);

  const listen = { maxBodyBytes: MAX_BODY_BYTES, onFault: dependencies.onFault };
  const esplora = await serveLoopback({ ...listen, port: options.port }, (request) => {
    return (
      answerControl(chain, faucet, request) ?? answerEsplora(chain, request) ?? text(404, "endpoint does not exist")
    );
  });
  const credentials = { user: options.rpcUser, password: options.rpcPassword };
  const rpc = await serveLoopback({ ...listen, port: options.rpcPort }, (request) =>
    answerCoreRpc(chain, credentials, request),
  ).catch(async (cause: unknown) => {
    await esplora.close();
    throw cause;
  });

  let cancel = (): void => undefined;
  const mineLater = (): void => {
    cancel = dependencies.clock.after(options.blockIntervalMs, () => {
      try {
        chain.mine(1, faucet.scriptPubKey);
      } catch (fault) {
        dependencies.onFault(fault); // a full disk, for one; the next interval tries again
      }
      mineLater();
    });
  };
  if (options.blockIntervalMs > 0) mineLater();

  return {
    chain,
    faucet,
    esploraUrl: esplora.url,
    rpcUrl: rpc.url,
    async close() {
      cancel();
      await Promise.all([esplora.close(), rpc.close()]);
    },
  };
}
