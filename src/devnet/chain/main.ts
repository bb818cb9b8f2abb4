/**
 * Process entry of the devnet chain. Prints one JSON line on standard output when it listens; everything else goes to
 * standard error. SIGTERM and SIGINT drain and exit with 0.
 *
 *   node dist/src/devnet/chain/main.js --port 0 --rpc-port 0
 */
import { parseArgs } from "node:util";
import { InvalidInput } from "../../crypto/fault.js";
import { systemClock, systemRandom } from "../../node/ambient.js";
import { NOTICE } from "./control.js";
import { FileJournal } from "./journal.js";
import { startChainServer } from "./server.js";

const USAGE = `usage: node dist/src/devnet/chain/main.js [options]
  --port N               Esplora and /devnet routes; 0 (default) lets the system choose
  --rpc-port N           Bitcoin Core JSON-RPC; 0 (default) lets the system choose
  --rpc-user NAME        default devnet
  --rpc-password TEXT    default: environment DEVNET_RPC_PASSWORD, else random and printed in the ready line
  --file PATH            keep the chain in this file; default: in memory only
  --mature-coinbases N   mine a fresh chain until the faucet has N spendable coinbases; default 20
  --block-interval-ms N  mine a block this often; 0 (default) mines on request only
  --fee-rate N           fee rate reported for every target, satoshi per 1000 virtual bytes; default 2000
`;

function whole(value: string, { name, max }: { name: string; max: number }): number {
  const number = Number(value);
  if (!/^\d{1,10}$/.test(value) || number > max) {
    throw new InvalidInput("bad-option", `--${name} must be a whole number up to ${max}`, { name });
  }
  return number;
}

function readOptions(args: readonly string[]) {
  const { values } = parseArgs({
    args: [...args],
    options: {
      port: { type: "string", default: "0" },
      "rpc-port": { type: "string", default: "0" },
      "rpc-user": { type: "string", default: "devnet" },
      "rpc-password": { type: "string" },
      file: { type: "string" },
      "mature-coinbases": { type: "string", default: "20" },
      "block-interval-ms": { type: "string", default: "0" },
      "fee-rate": { type: "string", default: "2000" },
    },
  });
  const random = Buffer.from(systemRandom.bytes(16)).toString("hex");
  return {
    file: values.file,
    server: {
      port: whole(values.port, { name: "port", max: 65_535 }),
      rpcPort: whole(values["rpc-port"], { name: "rpc-port", max: 65_535 }),
      rpcUser: values["rpc-user"],
      rpcPassword: values["rpc-password"] ?? process.env["DEVNET_RPC_PASSWORD"] ?? random,
      matureCoinbases: whole(values["mature-coinbases"], { name: "mature-coinbases", max: 1_000 }),
      blockIntervalMs: whole(values["block-interval-ms"], { name: "block-interval-ms", max: 3_600_000 }),
      feeRateSatPerKvb: whole(values["fee-rate"], { name: "fee-rate", max: 10_000_000 }),
    },
  };
}

async function main(): Promise<void> {
  let options: ReturnType<typeof readOptions>;
  try {
    options = readOptions(process.argv.slice(2));
  } catch (cause) {
    process.stderr.write(`${cause instanceof Error ? cause.message : String(cause)}\n${USAGE}`);
    process.exitCode = 2;
    return;
  }
  process.stderr.write(`${NOTICE}\n`);
  const { file } = options;
  const server = await startChainServer(options.server, {
    clock: systemClock,
    ...(file === undefined ? {} : { journal: new FileJournal(file) }),
    onFault: (fault) => console.error(fault),
  });
  const stop = (): void => {
    process.removeListener("SIGTERM", stop).removeListener("SIGINT", stop);
    void server.close();
  };
  process.on("SIGTERM", stop).on("SIGINT", stop);
  const { rpcUser, rpcPassword } = options.server;
  const { esploraUrl, rpcUrl, chain } = server;
  const ready = { event: "listening", esploraUrl, rpcUrl, rpcUser, rpcPassword, height: chain.tip.height };
  process.stdout.write(`${JSON.stringify(ready)}\n`);
}

main().catch((fault: unknown) => {
  console.error(fault);
  process.exitCode = 1;
});
