// Loaded into every process of a crash test with `node --import`: writes the wire log, kills the process at a named step
// when the test asked for it, and lets a coordinator attack. The product knows nothing of it.
import { createHash } from "node:crypto";
import { openSync, readFileSync, rmSync, writeSync } from "node:fs";
import { createRequire, syncBuiltinESMExports } from "node:module";
import { basename, dirname, join } from "node:path";
import { isMainThread } from "node:worker_threads";
import { fromBinary } from "@bufbuild/protobuf";
import { PresignatureSchema } from "../../gen/mpcwallet/cggmp24/v1/presign_pb.js";
import { NonceCommitmentsSchema, PreparedNoncesSchema } from "../../gen/mpcwallet/frost/v1/frost_pb.js";
import { EnvelopeSchema } from "../../gen/mpcwallet/session/v1/session_pb.js";
import { PeerCalls } from "../../src/coordinator/peer-calls.js";
import { profiles } from "../../src/crypto/security-profile.js";
import { PrimePool } from "../../src/node/prime-pool.js";
import type { SessionJob, SessionSeat, SigningJob } from "../../src/node/session-job.js";
import { SessionLanes } from "../../src/node/session-lanes.js";
import { ShareChanges } from "../../src/node/share-changes.js";
import { decodeKeyShare, keyDigest } from "../../src/protocols/key-share.js";
import { eraseHeld, type HeldWallet, KeyStore } from "../../src/storage/key-store.js";
import { type OneUseItem, OneUseLedger } from "../../src/storage/one-use-ledger.js";
import { SecretBytes } from "../../src/storage/secret-bytes.js";
import type { SigningOrder } from "../../src/wallet/peer-signing.js";
import { testPrimes } from "../fixtures/parties.js";
import { shareWrite } from "../node/share-write.js";
import { noteKept, QUICK_HASH } from "./shares-kept.js";
import type { WireLine } from "./wire-log.js";

/** Steps of signing at which a node can be killed. */
export const SIGNING_POINTS = ["before-take", "after-take", "before-send", "after-send"] as const;

/** Steps of a change of shares, in their order. A share is staged when it is on disk beside the one that signs. */
export const CHANGE_POINTS = [
  "before-stage",
  "after-stage",
  "after-statement",
  "before-certificate",
  "after-certificate",
  "before-switch-write",
  "after-switch-write",
] as const;

export const KILL_POINTS = [...SIGNING_POINTS, ...CHANGE_POINTS] as const;
export type KillPoint = (typeof KILL_POINTS)[number];

type KillAt = (point: KillPoint) => void;

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
  const killAt: KillAt = (point) => {
    if (contentOf(order) !== point) return;
    rmSync(order, { force: true });
    log({ type: "kill", at: name, point });
    process.kill(process.pid, "SIGKILL");
  };
  useTestPrimes(name);
  if (process.env["CRASH_TEST_FORGETFUL"] !== undefined) forgetUses();
  logSessions(name, { log, killAt });
  killAroundTake(killAt);
  killAroundChange(killAt, (walletId, held) => noteKept(logs, { nodeId: name, walletId }, held));
  if (process.argv.includes("coordinator")) attackWithUsedPresignatures(log);
}

/** Empty when there is none; who gave the order may take it back at any moment. */
function contentOf(file: string): string {
  try {
    return readFileSync(file, "utf8").trim();
  } catch {
    return "";
  }
}

/** Safe primes take minutes; the test's are public. */
function useTestPrimes(name: string): void {
  const profile = profiles.find((candidate) => candidate.name === "security112");
  if (profile === undefined) throw new Error("no profile security112");
  PrimePool.prototype.prepare = async () => {};
  PrimePool.prototype.take = async () => testPrimes(profile, Number(name.replace("node-", "")));
}

function killAroundTake(killAt: KillAt): void {
  const { take } = OneUseLedger.prototype;
  OneUseLedger.prototype.take = async function (...parameters) {
    killAt("before-take");
    const taken = await take.apply(this, parameters);
    killAt("after-take");
    return taken;
  };
}

/** @param note hears what is on disk after every write and when a state is opened */
function killAroundChange(killAt: KillAt, note: (walletId: string, held: HeldWallet) => void): void {
  const { prepare, switch: switchUpon } = ShareChanges.prototype;
  ShareChanges.prototype.prepare = async function (request) {
    const answer = await prepare.call(this, request);
    // Late enough for the statement to leave, mostly.
    setTimeout(() => killAt("after-statement"), Math.random() * 10);
    return answer;
  };
  ShareChanges.prototype.switch = async function (certificate) {
    killAt("before-certificate");
    return await switchUpon.call(this, certificate);
  };
  const noteCopy = (store: KeyStore, walletId: string): void => {
    const held = store.held(walletId);
    note(walletId, held);
    eraseHeld(held);
  };
  let isSwitching = false;
  const { updateHeld, putWallet } = KeyStore.prototype;
  KeyStore.prototype.updateHeld = async function (walletId, edit) {
    const write: { kind?: ReturnType<typeof shareWrite> } = {};
    const held = await updateHeld.call(this, walletId, (before) => {
      const after = edit(before);
      write.kind = shareWrite(before, after);
      if (write.kind === "prepared") killAt("before-stage");
      // The certificate, and this node's place in the change, have been checked; the write is the next thing.
      if (write.kind === "switch") killAt("after-certificate");
      isSwitching = write.kind === "switch";
      return after;
    });
    isSwitching = false;
    if (write.kind === "prepared") killAt("after-stage");
    if (write.kind === "switch") killAt("after-switch-write");
    note(walletId, held);
    return held;
  };
  KeyStore.prototype.putWallet = async function (wallet) {
    await putWallet.call(this, wallet);
    noteCopy(this, wallet.walletId);
  };
  const { open, create } = KeyStore;
  KeyStore.create = (options, dependencies) => create.call(KeyStore, { ...options, cost: QUICK_HASH }, dependencies);
  KeyStore.open = async (options, dependencies) => {
    const store = await open.call(KeyStore, { ...options, cost: QUICK_HASH }, dependencies);
    for (const walletId of store.heldIds()) noteCopy(store, walletId);
    return store;
  };
  // The new file is whole beside the old one, which is still in place.
  beforeRename((path) => {
    if (isSwitching && basename(path) === "state.json") killAt("before-switch-write");
  });
}

function beforeRename(hear: (path: string) => void): void {
  const files = createRequire(import.meta.url)("node:fs/promises") as typeof import("node:fs/promises");
  const { rename } = files;
  const heard: typeof rename = async (from, to) => {
    hear(String(to));
    await rename(from, to);
  };
  Object.assign(files, { rename: heard });
  syncBuiltinESMExports();
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
  { log, killAt }: { readonly log: (line: WireLine) => void; readonly killAt: KillAt },
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
  /** Digest of the key whose share signs. */
  readonly key: string;
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
        ...ofShare(job),
      };
    case "cggmp24-sign":
      return {
        uses: job.items.map(({ presignature }) => hex(fromBinary(PresignatureSchema, presignature).id)),
        ...ofShare(job),
      };
    default:
      return undefined;
  }
}

const ofShare = ({ keyShare, items }: SigningJob) => ({
  messages: items.map(({ message }) => hex(message)),
  key: hex(keyDigest(decodeKeyShare(keyShare))),
});

/** Bytes that are no envelope, or of a stranger, say nothing. */
function lineOf(
  where: { readonly at: string; readonly direction: "sent" | "received" },
  bytes: Uint8Array,
  { seat, uses, messages, key }: SigningFacts & { readonly seat: SessionSeat },
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
      key,
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
