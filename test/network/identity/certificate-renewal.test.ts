import assert from "node:assert/strict";
import { copyFileSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, describe, it } from "node:test";
import { Unavailable } from "../../../src/crypto/fault.js";
import { parseCertificatesPem } from "../../../src/network/identity/certificate.js";
import type { SigningAuthority } from "../../../src/network/identity/certificate-authority.js";
import { CertificateRenewal, type RenewalSource } from "../../../src/network/identity/certificate-renewal.js";
import { createDevelopmentPki, type DevelopmentPki } from "../../../src/network/identity/development-pki.js";
import { PkiFolder } from "../../../src/network/identity/pki-folder.js";
import { makePrivateFolder, readPassphraseFile } from "../../../src/network/identity/secret-file.js";
import {
  loadTlsCredentials,
  prepareRenewal,
  type TlsCredentialPaths,
  type TlsCredentials,
} from "../../../src/network/identity/tls-credentials.js";
import { TrustFiles } from "../../../src/network/identity/trust-files.js";
import type { NetworkEvent } from "../../../src/network/network-log.js";
import { ManualClock } from "../../storage/manual-clock.js";
import { DAY_MS, testRandom } from "./forged-chain.js";

const HOUR_MS = DAY_MS / 24;
const MINUTE_MS = 60_000;
const scratch = mkdtempSync(join(tmpdir(), "mpc-wallet-renewal-"));
after(() => rmSync(scratch, { recursive: true, force: true }));

/** Knows how many timers wait, so that a test can tell that work in real time, on files and keys, is over. */
class WatchedClock extends ManualClock {
  waiting = 0;

  override after(delayMs: number, callback: () => void): () => void {
    let over = false;
    const end = (): void => {
      if (!over) this.waiting -= 1;
      over = true;
    };
    this.waiting += 1;
    const cancel = super.after(delayMs, () => {
      end();
      callback();
    });
    return () => {
      end();
      cancel();
    };
  }
}

let run = 0;
let clock: WatchedClock;
let pki: DevelopmentPki;
let authority: PkiFolder;
let intermediate: SigningAuthority;
let paths: TlsCredentialPaths;
let first: TlsCredentials;
let renewal: CertificateRenewal;
let events: NetworkEvent[];
let installed: TlsCredentials[];
let outcomes: string[];
/** Times at which the first source was asked. */
let askedMs: number[];

/** Takes what is asked and answers as the test says. */
let sources: RenewalSource[];

const grant: RenewalSource["renew"] = async (requestDer) => {
  const { chainPem } = await authority.issueUnder(intermediate, { nodeId: "node-1", requestDer });
  return parseCertificatesPem(chainPem).map(({ der }) => der);
};
const deny: RenewalSource["renew"] = async () => {
  askedMs.push(clock.nowMs());
  throw new Unavailable("no-authority", "holds no intermediate");
};
const named = (event: string) => events.filter((each) => each.event === event);

/** Moves time once the renewal waits for it, and lets it act. */
async function pass(ms: number): Promise<void> {
  await idle();
  await clock.advance(ms);
  await idle();
}

/** The renewal waits for its next look: nothing of it runs. */
async function idle(): Promise<void> {
  for (let n = 0; n < 20_000 && clock.waiting === 0; n += 1) await new Promise((resolve) => setTimeout(resolve, 1));
  assert.equal(clock.waiting, 1);
}

async function eventually(holds: () => boolean): Promise<void> {
  for (let n = 0; n < 500 && !holds(); n += 1) await pass(0);
  assert.ok(holds());
}

before(async () => {
  clock = new WatchedClock();
  const context = { clock, random: testRandom };
  pki = await createDevelopmentPki({ folder: join(scratch, "pki"), nodeIds: [] }, context);
  authority = new PkiFolder(pki.paths.folder, context);
  intermediate = await authority.openIntermediate(await readPassphraseFile(pki.passphrasePath));
});

beforeEach(async () => {
  run += 1;
  const folder = join(scratch, String(run));
  await makePrivateFolder(folder);
  paths = { nodeId: "node-1", keyPath: join(folder, "key.pem"), chainPath: join(folder, "chain.pem") };
  const { requestDer, complete } = await prepareRenewal(paths);
  first = await complete((await authority.issueUnder(intermediate, { nodeId: "node-1", requestDer })).chainPem);
  await authority.publishUnder(intermediate);
  const trust = await TrustFiles.load(
    {
      rootPath: pki.paths.rootCertificate,
      intermediatePath: pki.paths.intermediateCertificate,
      revocationListPaths: [pki.paths.revocationList],
      roster: new Set(["node-1", "node-2"]),
    },
    { clock },
  );
  events = [];
  installed = [];
  outcomes = [];
  askedMs = [];
  sources = [{ name: "coordinator-1", renew: grant }];
  renewal = new CertificateRenewal(
    { paths, present: first },
    {
      clock,
      random: testRandom,
      verify: (chain, nodeId) => trust.verifier.verify(chain, nodeId),
      sources: () => sources,
      install: (credentials) => installed.push(credentials),
      log: (event) => events.push(event),
      count: (outcome) => outcomes.push(outcome),
    },
  );
  /** The list lives for 30 days; a process that runs takes new ones over. */
  refreshList = async () => {
    trust.offer((await authority.publishUnder(intermediate)).der);
  };
});
afterEach(() => renewal.stop());
let refreshList: () => Promise<void>;

/** To a day of the first certificate's life. */
async function goTo(day: number): Promise<void> {
  const targetMs = first.leaf.notBeforeMs + day * DAY_MS;
  clock.freeze(targetMs - clock.nowMs());
  await refreshList();
}

describe("renewal of one's own certificate", () => {
  it("happens after two thirds of its life, over a fresh key, on disk before it is shown", async () => {
    renewal.start();
    await pass(HOUR_MS);
    assert.deepEqual([installed.length, outcomes], [0, []]);
    await goTo(59.9);
    await pass(HOUR_MS);
    assert.equal(installed.length, 0, "not before two thirds");
    await goTo(60.1);
    await pass(HOUR_MS);
    await eventually(() => installed.length === 1);
    const [next] = installed;
    assert.ok(next);
    assert.notEqual(next.privateKeyPem, first.privateKeyPem);
    assert.ok(next.leaf.notAfterMs > first.leaf.notAfterMs);
    assert.deepEqual(await loadTlsCredentials(paths), next);
    assert.deepEqual([renewal.certificate.fingerprint, outcomes], [next.leaf.fingerprint, ["renewed"]]);
    await pass(HOUR_MS * 48);
    assert.equal(installed.length, 1, "the new one is fresh");
  });

  it("asks the next source when one does not serve, and does not install what the peers' verifier refuses", async () => {
    const other = await createDevelopmentPki(
      { folder: join(scratch, `${run}-other`), nodeIds: ["node-1"] },
      { clock, random: testRandom },
    );
    const foreign = await readFileSync(other.nodes[0]?.tlsChainPath ?? "", "utf8");
    await goTo(61);
    sources = [
      { name: "down", renew: deny },
      { name: "of-another-authority", renew: async () => parseCertificatesPem(foreign).map(({ der }) => der) },
      { name: "empty", renew: async () => [] },
      {
        name: "what-we-have",
        renew: async () => parseCertificatesPem(first.certificateChainPem).map(({ der }) => der),
      },
      { name: "coordinator-4", renew: grant },
    ];
    renewal.start();
    await eventually(() => installed.length === 1);
    assert.deepEqual(outcomes, ["not-granted", "refused-by-us", "refused-by-us", "refused-by-us", "renewed"]);
    assert.deepEqual(
      named("renewal-refused-by-us").map(({ facts }) => [facts["from"], facts["reason"]]),
      [
        ["of-another-authority", "wrong-authority"],
        ["empty", "no-certificate"],
        ["what-we-have", "not-longer"],
      ],
    );
  });

  it("does not install a certificate over another key than its own", async () => {
    await goTo(61);
    const stranger = await prepareRenewal({
      ...paths,
      keyPath: `${paths.keyPath}-x`,
      chainPath: `${paths.chainPath}-x`,
    });
    sources = [{ name: "mixes-keys-up", renew: () => grant(stranger.requestDer) }];
    renewal.start();
    await eventually(() => named("renewal-broken").length > 0);
    assert.equal(installed.length, 0);
    assert.deepEqual(await loadTlsCredentials(paths), first);
  });

  it("is tried again with growing, jittered waits up to an hour", async () => {
    await goTo(61);
    sources = [{ name: "down", renew: deny }];
    renewal.start();
    await eventually(() => askedMs.length === 1);
    for (let minute = 0; minute < 360; minute += 1) await pass(MINUTE_MS);
    const waits = askedMs.slice(1).map((at, index) => (at - (askedMs[index] ?? 0)) / MINUTE_MS);
    const expected = [1, 2, 4, 8, 16, 32, 60, 60];
    assert.ok(waits.length >= 7 && waits.length <= 11, `${waits.length} attempts in six hours`);
    for (const [index, wait] of waits.entries()) {
      const nominal = expected[Math.min(index, expected.length - 1)] ?? 60;
      // Time moves in steps of a minute here; no wait is longer than the interval at which files are looked at.
      assert.ok(wait >= nominal * 0.74 - 1 && wait <= Math.min(nominal * 1.26, 60) + 1, `wait ${index}: ${wait} min`);
    }
    sources = [{ name: "back", renew: grant }];
    await pass(HOUR_MS);
    await eventually(() => installed.length === 1);
  });

  it("warns once a day when less than 14 days are left; the certificate stays in use", async () => {
    sources = [{ name: "down", renew: deny }];
    await goTo(75.9);
    renewal.start();
    await eventually(() => askedMs.length >= 1);
    assert.equal(named("own-certificate-urgent").length, 0);
    await goTo(76.5);
    await pass(2 * HOUR_MS);
    await eventually(() => named("own-certificate-urgent").length === 1);
    await pass(6 * HOUR_MS);
    assert.equal(named("own-certificate-urgent").length, 1);
    assert.deepEqual(
      named("own-certificate-urgent").map(({ level, facts }) => [level, facts["daysLeft"]]),
      [["warn", 13]],
    );
    await goTo(78);
    await pass(2 * HOUR_MS);
    await eventually(() => named("own-certificate-urgent").length === 2);
    await goTo(91);
    await pass(2 * HOUR_MS);
    await eventually(() => named("own-certificate-expired").length === 1);
    assert.equal(named("own-certificate-expired")[0]?.level, "error");
    assert.equal(renewal.certificate.fingerprint, first.leaf.fingerprint);
  });

  it("takes over a pair that an operator has put in place, also after expiry; a half or foreign one changes nothing", async () => {
    sources = [{ name: "down", renew: deny }];
    await goTo(91);
    renewal.start();
    await eventually(() => named("own-certificate-expired").length === 1);
    const stray = { nodeId: "node-1", keyPath: `${paths.keyPath}-new`, chainPath: `${paths.chainPath}-new` };
    const made = await prepareRenewal(stray);
    const issued = await authority.issueUnder(intermediate, { nodeId: "node-1", requestDer: made.requestDer });
    await made.complete(issued.chainPem);
    copyFileSync(stray.chainPath, paths.chainPath);
    await pass(2 * HOUR_MS);
    await eventually(() => named("certificate-files-unusable").length > 0);
    assert.equal(installed.length, 0);
    copyFileSync(stray.keyPath, paths.keyPath);
    await pass(2 * HOUR_MS);
    await eventually(() => installed.length === 1);
    assert.equal(renewal.certificate.serialNumber, issued.leaf.serialNumber);
  });
});
