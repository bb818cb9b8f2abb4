// Audit entries a second in PGlite and, when MPC_WALLET_BENCH_POSTGRES_URL names one, in that PostgreSQL (its tables
// are created, rows are appended). `npm run bench -- audit [rows]`.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { AuditDatabase } from "../../src/storage/audit-database.js";
import { DatabaseAuditTrail } from "../../src/storage/database-audit-trail.js";
import { realClock } from "../storage/manual-clock.js";

const rows = Math.min(200_000, Number(process.argv[2] ?? 10_000));
const url = process.env["MPC_WALLET_BENCH_POSTGRES_URL"];

const event = (index: number) => ({
  kind: "ballot",
  walletId: "treasury",
  subject: `request-${index}`,
  payload: { verdict: "approve", voter: `node-${index % 5}`, durationMs: 3.25, digest: "ab".repeat(32) },
});

async function measure(name: string, database: AuditDatabase): Promise<void> {
  await database.migrate();
  const trail = new DatabaseAuditTrail({}, { database, clock: realClock });
  await trail.append([event(0)]);

  const single: number[] = [];
  for (let index = 0; index < 100; index++) {
    const startMs = performance.now();
    await trail.append([event(index)]);
    single.push(performance.now() - startMs);
  }
  single.sort((left, right) => left - right);

  const startMs = performance.now();
  // Two hundred callers that each wait for their entry, as payments do.
  let sent = 0;
  const caller = async () => {
    while (sent < rows) await trail.append([event(sent++)]);
  };
  await Promise.all(Array.from({ length: 200 }, caller));
  const appendMs = performance.now() - startMs;

  const verifyStartMs = performance.now();
  const { entries, firstBroken } = await trail.verify();
  const verifyMs = performance.now() - verifyStartMs;
  if (firstBroken !== undefined) throw new Error(`broken at ${firstBroken}`);
  console.log(
    `${name}: ${Math.round((rows / appendMs) * 1000)} rows/s appended and awaited, one alone ` +
      `${single[50]?.toFixed(2)} ms median, ${Math.round((Number(entries) / verifyMs) * 1000)} rows/s verified`,
  );
  await trail.close();
  await database.close();
}

const folder = mkdtempSync(join(tmpdir(), "mpc-wallet-bench-"));
await measure("PGlite on disk", await AuditDatabase.embedded({ folder }));
rmSync(folder, { recursive: true });
if (url === undefined) console.log("PostgreSQL: not measured, MPC_WALLET_BENCH_POSTGRES_URL is not set");
else await measure("PostgreSQL", AuditDatabase.postgres({ url }));
