// Loaded into every process of a crash test with `node --import`: writes the wire log, kills the process at a named step
// when the test asked for it, and lets a coordinator attack. The product knows nothing of it.
import { createHash } from "node:crypto";
import { existsSync, openSync, readFileSync, unlinkSync, writeSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { isMainThread } from "node:worker_threads";
import { fromBinary } from "@bufbuild/protobuf";
import { PresignatureSchema } from "../../gen/mpcwallet/cggmp24/v1/presign_pb.js";
import { NonceCommitmentsSchema, PreparedNoncesSchema } from "../../gen/mpcwallet/frost/v1/frost_pb.js";
import { EnvelopeSchema } from "../../gen/mpcwallet/session/v1/session_pb.js";
import { PeerCalls } from "../../src/coordinator/peer-calls.js";
import { profiles } from "../../src/crypto/security-profile.js";
import { PrimePool } from "../../src/node/prime-pool.js";
import type { SessionJob, SessionSeat } from "../../src/node/session-job.js";
import { SessionLanes } from "../../src/node/session-lanes.js";
import { type OneUseItem, OneUseLedger } from "../../src/storage/one-use-ledger.js";
import { SecretBytes } from "../../src/storage/secret-bytes.js";
import type { SigningOrder } from "../../src/wallet/peer-signing.js";
import { testPrimes } from "../fixtures/parties.js";
import type { WireLine } from "./wire-log.js";

/** Steps of a node at which it can be killed. */
export const KILL_POINTS = ["before-take", "after-take", "before-send", "after-send"] as const;
export type KillPoint = (typeof KILL_POINTS)[number];

const folder = process.env["CRASH_TEST_FOLDER"];
const configuration = process.argv[process.argv.indexOf("--config") + 1];
if (isMainThread && folder !== undefined && configuration !== undefined && process.argv.includes("start")) {
  instrument(folder, basename(dirname(configuration)));
}

function instrument(logs: string, name: string): void {
  // Appended by one synchronous write a line: what a process did before it was killed is in the file.
  const file = openSync(join(logs, `${name}.jsonl`), "a", 0o600);
  const log = (line: WireLine): void => void writeSync(file, `${JSON.stringify(line)}\n`);
  const order = join(logs, `${name}.kill`);
  const killAt = (point: KillPoint): void => {
    if (!existsSync(order) || readFileSync(order, "utf8").trim() !== point) return;
    unlinkSync(order);
    log({ type: "kill", at: name, point });
    process.kill(process.pid, "SIGKILL");
  };
  useTestPrimes(name);
  if (process.env["CRASH_TEST_FORGETFUL"] !== undefined) forgetUses();
  logSessions(name, { log, killAt });
  killAroundTake(killAt);
  if (process.argv.includes("coordinator")) attackWithUsedPresignatures(log);
}

/** Safe primes take minutes; the test's are public. */
function useTestPrimes(name: string): void {
  const profile = profiles.find((candidate) => candidate.name === "security112");
  if (profile === undefined) throw new Error("no profile security112");
  PrimePool.prototype.prepare = async () => {};
  PrimePool.prototype.take = async () => testPrimes(profile, Number(name.replace("node-", "")));
}

function killAroundTake(killAt: (point: KillPoint) => void): void {
  const { take } = OneUseLedger.prototype;
  OneUseLedger.prototype.take = async function (...parameters) {
    killAt("before-take");
    const taken = await take.apply(this, parameters);
    killAt("after-take");
    return taken;
  };
}

/** The check's own test: a ledger that hands out again what was taken. */
function forgetUses(): void {
  const { take, items } = OneUseLedger.prototype;
  const taken = new Map<string, OneUseItem>();
  OneUseLedger.prototype.take = async function (filter, holder) {
    const item = await take.call(this, filter, holder);
    const known = taken.get(filter.id ?? "");
    if (item !== undefined) taken.set(item.id, { ...item, secret: copyOf(item.secret) });
    return item ?? (known === undefined ? undefined : { ...known, secret: copyOf(known.secret) });
  };
  OneUseLedger.prototype.items = function (filter = {}) {
    const known = taken.get(filter.id ?? "");
    return known === undefined ? items.call(this, filter) : [known];
  };
}

const copyOf = (secret: SecretBytes): SecretBytes => SecretBytes.adopt(Uint8Array.from(secret.reveal()));

function logSessions(
  name: string,
  { log, killAt }: { readonly log: (line: WireLine) => void; readonly killAt: (point: KillPoint) => void },
): void {
  const { run } = SessionLanes.prototype;
  SessionLanes.prototype.run = function (job, seat, wire) {
    const facts = signingFacts(job);
    if (facts === undefined) return run.call(this, job, seat, wire);
    const note = (direction: "sent" | "received", bytes: Uint8Array): string => {
      const line = lineOf({ at: name, direction }, bytes, { seat, ...facts });
      if (line !== undefined) log(line);
      return line?.type === "envelope" ? line.round : "";
    };
    const handle = run.call(this, job, seat, {
      send: (to, bytes) => {
        const isShare = note("sent", bytes) === "shares";
        if (isShare) killAt("before-send");
        wire.send(to, bytes);
        // Late enough for the bytes to leave, mostly.
        if (isShare) setTimeout(() => killAt("after-send"), Math.random() * 10);
      },
    });
    return {
      ...handle,
      receive: (bytes) => {
        note("received", bytes);
        handle.receive(bytes);
      },
    };
  };
}

interface SigningFacts {
  readonly uses: readonly string[];
  readonly messages: readonly string[];
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

/** What a signing session signs, and with which presignatures or nonces; undefined for other sessions. */
function signingFacts(job: SessionJob): SigningFacts | undefined {
  switch (job.kind) {
    case "frost-sign":
      return {
        uses: job.items.flatMap(({ nonces }) =>
          nonces === undefined ? [] : [hex(fromBinary(PreparedNoncesSchema, nonces).id)],
        ),
        messages: job.items.map(({ message }) => hex(message)),
      };
    case "cggmp24-sign":
      return {
        uses: job.items.map(({ presignature }) => hex(fromBinary(PresignatureSchema, presignature).id)),
        messages: job.items.map(({ message }) => hex(message)),
      };
    default:
      return undefined;
  }
}

/** Bytes that are no envelope, or of a stranger, say nothing. */
function lineOf(
  where: { readonly at: string; readonly direction: "sent" | "received" },
  bytes: Uint8Array,
  { seat, uses, messages }: SigningFacts & { readonly seat: SessionSeat },
): WireLine | undefined {
  try {
    const { ssid, round, sender, content } = fromBinary(EnvelopeSchema, bytes);
    const nodeId = seat.parties.find(({ id }) => id === sender)?.nodeId;
    if (nodeId === undefined || content.case !== "payload") return undefined;
    const announced =
      round === "nonces"
        ? fromBinary(NonceCommitmentsSchema, content.value).commitments.map(({ hiding }) => hex(hiding?.sec1 ?? bytes))
        : [];
    return {
      type: "envelope",
      ...where,
      ssid: hex(ssid),
      round,
      sender: nodeId,
      payload: createHash("sha256").update(content.value).digest("hex"),
      uses: [...uses, ...announced],
      messages: [...messages],
    };
  } catch {
    return undefined;
  }
}

/**
 * A coordinator that tries to have every presignature used twice: with each new payment it first asks the signers to
 * sign it with presignatures of an earlier order. Those that died before they took theirs may well do so.
 */
function attackWithUsedPresignatures(log: (line: WireLine) => void): void {
  const { sign } = PeerCalls.prototype;
  const earlier: SigningOrder[] = [];
  const attacks = new Map<string, SigningOrder | undefined>();
  PeerCalls.prototype.sign = async function (nodeId, order, signal) {
    const session = hex(order.sessionId);
    if (!attacks.has(session)) {
      const sessionId = createHash("sha256").update(order.sessionId).digest().subarray(0, 16);
      const fitting = earlier.filter(({ presignatureIds }) => presignatureIds.length === order.presignatureIds.length);
      const same = fitting.filter(({ signers }) => signers.join() === order.signers.join());
      const from = same.length > 0 ? same : fitting;
      const again = from[Math.floor(Math.random() * from.length)];
      attacks.set(session, again && { ...order, sessionId, presignatureIds: again.presignatureIds });
      if (order.presignatureIds.length > 0) earlier.unshift(order);
    }
    const attack = attacks.get(session);
    if (attack !== undefined) {
      await sign.call(this, nodeId, attack, AbortSignal.timeout(1_000)).then(
        () => log({ type: "attack", node: nodeId, outcome: "accepted" }),
        (error: unknown) => {
          const code = error instanceof Error && "code" in error ? String(error.code) : "unexpected";
          log({ type: "attack", node: nodeId, outcome: code });
        },
      );
    }
    return await sign.call(this, nodeId, order, signal);
  };
}
