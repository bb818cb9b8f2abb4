// `npm run bench -- payment [--payments 40] [--json]`: a devnet of processes pays one after another, then many at once.
// Every figure is of whole payments through the gateway: request, votes of five nodes, FROST session, broadcast.
import { randomUUID } from "node:crypto";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { type Payment, PaymentPhase, Scheme } from "../../gen/mpcwallet/wallet/v1/wallet_pb.js";
import { loadClientProfile } from "../../src/cli/client-profile.js";
import { openGateway, paymentAuthority } from "../../src/cli/gateway-client.js";
import { signPaymentRequest } from "../../src/consensus/payment-request.js";
import { Devnet } from "../../src/devnet/devnet.js";

const RECIPIENT = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
const { values } = parseArgs({
  options: { payments: { type: "string", default: "40" }, json: { type: "boolean", default: false } },
});
const count = Math.min(500, Math.max(5, Number(values.payments)));

const sorted = (numbers: readonly number[]): number[] => [...numbers].sort((a, b) => a - b);
const quantile = (numbers: readonly number[], q: number): number => {
  const all = sorted(numbers);
  return all[Math.min(all.length - 1, Math.floor(q * all.length))] ?? Number.NaN;
};
const stepMs = (payment: Payment, step: string): number =>
  payment.timeline.filter((entry) => entry.step === step && entry.nodeId === "").at(-1)?.durationMs ?? Number.NaN;

/** Clock ticks of a process in user and system mode; Linux counts 100 a second. */
async function cpuMs(pid: number | undefined): Promise<number> {
  const stat = pid === undefined ? "" : await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return 10 * (Number(fields[11] ?? 0) + Number(fields[12] ?? 0));
}

const folder = await mkdtemp(join(tmpdir(), "mpc-wallet-bench-"));
const devnet = await Devnet.start({
  folder,
  nodes: 5,
  progress: () => {},
  onCrash: (name, why) => console.error(`${name}: ${why}`),
});
try {
  const profile = await loadClientProfile(devnet.paths.clientConfig, { environment: process.env });
  const gateway = await openGateway(profile, { environment: process.env });
  const client = gateway.wallet;
  for (let attempt = 0; attempt < 100; attempt++) {
    const health = await client.getHealth({});
    if (health.healthy && health.leader !== "") break;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  const dkgMs: number[] = [];
  let walletId = "";
  for (let round = 0; round < 5; round++) {
    const before = performance.now();
    const { wallet } = await client.createWallet({ name: `bench-${round}`, scheme: Scheme.FROST, threshold: 3 });
    dkgMs.push(performance.now() - before);
    walletId = wallet?.walletId ?? "";
  }
  // One coin a payment, so that none waits for the change of another.
  const { address } = await client.newAddress({ walletId });
  for (let coin = 0; coin < 2 * count + 5; coin++) await devnet.faucet(address?.address ?? "", 1_000_000n);
  const authority = await paymentAuthority(profile);
  const pay = async (): Promise<{ readonly payment: Payment; readonly wallMs: number }> => {
    const createdAtMs = BigInt(Date.now());
    const request = signPaymentRequest(
      {
        requestId: randomUUID(),
        walletId,
        recipients: [{ address: RECIPIENT, amountSat: 500_000n }],
        maxFeeRateSatPerKvb: 100_000n,
        metadataJson: "",
        createdAtMs,
        expiresAtMs: createdAtMs + 600_000n,
      },
      authority,
    );
    const before = performance.now();
    const { payment } = await client.sendPayment({ payment: request, waitForBroadcast: true });
    const wallMs = performance.now() - before;
    if (payment?.phase !== PaymentPhase.BROADCAST)
      throw new Error(`payment ended ${payment?.phase}: ${payment?.failure?.code}`);
    return { payment, wallMs };
  };
  for (let warm = 0; warm < 5; warm++) await pay();
  const processes = async () =>
    Promise.all(devnet.running().map(async (name) => [name, await cpuMs(devnet.pid(name))] as const));
  const cpuBefore = new Map(await processes());
  const single: { payment: Payment; wallMs: number }[] = [];
  for (let index = 0; index < count; index++) single.push(await pay());
  const before = performance.now();
  const lanes = 8;
  let left = count;
  const many: number[] = [];
  await Promise.all(
    Array.from({ length: lanes }, async () => {
      while (left-- > 0) many.push((await pay()).wallMs);
    }),
  );
  const cpu = (await processes()).map(([name, ms]) => [name, (ms - (cpuBefore.get(name) ?? 0)) / (2 * count)] as const);
  const perSecond = many.length / ((performance.now() - before) / 1000);
  gateway.close();
  const rows = {
    "key generation 3 of 5, by API call": dkgMs,
    "payment, API call to accepted broadcast": single.map(({ wallMs }) => wallMs),
    "  votes of five nodes": single.map(({ payment }) => stepMs(payment, "vote")),
    "  FROST session of three nodes": single.map(({ payment }) => stepMs(payment, "sign")),
    "  broadcast": single.map(({ payment }) => stepMs(payment, "broadcast")),
    [`payment, ${lanes} at once`]: many,
  };
  const table = Object.entries(rows).map(([name, all]) => ({
    name,
    p50Ms: quantile(all, 0.5),
    p99Ms: quantile(all, 0.99),
    runs: all.length,
  }));
  if (values.json)
    console.log(
      JSON.stringify({
        machine: { cpus: cpus().length, node: process.version },
        table,
        perSecond,
        cpuMsAPayment: Object.fromEntries(cpu),
      }),
    );
  else {
    console.log(
      `${cpus().length} cores, Node ${process.version}, five nodes, coordinator and chain as processes, FROST 3 of 5\n`,
    );
    for (const { name, p50Ms, p99Ms, runs } of table) {
      console.log(
        `${name.padEnd(44)} p50 ${p50Ms.toFixed(1).padStart(8)} ms   p99 ${p99Ms.toFixed(1).padStart(8)} ms   (${runs})`,
      );
    }
    console.log(`throughput with ${lanes} at once: ${perSecond.toFixed(1)} payments/s`);
    console.log(`CPU ms a payment: ${cpu.map(([name, ms]) => `${name} ${ms.toFixed(0)}`).join(", ")}`);
  }
} finally {
  await devnet.stop();
  await rm(folder, { recursive: true, force: true });
}
