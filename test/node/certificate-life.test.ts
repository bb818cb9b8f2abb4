// Certificates while processes run, over real QUIC: members with the parts that nodes and coordinators start with.
import assert from "node:assert/strict";
import { createPrivateKey } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, describe, it } from "node:test";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { Command } from "commander";
import { ControlService, FaultDetailSchema } from "../../gen/mpcwallet/peer/v1/peer_pb.js";
import { CertificateService } from "../../gen/mpcwallet/pki/v1/pki_pb.js";
import { routePki } from "../../gen/router.js";
import { addPkiCommands } from "../../src/cli/pki.js";
import { CoordinationRevocations } from "../../src/coordinator/shared-revocations.js";
import type { Clock } from "../../src/crypto/ambient.js";
import { generateCertificateKey } from "../../src/network/identity/certificate-authority.js";
import { createCertificateRequest, MAX_REQUEST_BYTES } from "../../src/network/identity/certificate-request.js";
import { createDevelopmentPki, type DevelopmentPki } from "../../src/network/identity/development-pki.js";
import { PkiFolder } from "../../src/network/identity/pki-folder.js";
import { RenewalAuthority } from "../../src/network/identity/renewal-authority.js";
import { revocationListFromPem } from "../../src/network/identity/revocation-lists.js";
import { Roster } from "../../src/network/identity/roster.js";
import { makePrivateFolder, readPassphraseFile } from "../../src/network/identity/secret-file.js";
import { loadTlsCredentials, prepareRenewal } from "../../src/network/identity/tls-credentials.js";
import { TrustFiles } from "../../src/network/identity/trust-files.js";
import type { NetworkEvent } from "../../src/network/network-log.js";
import { PeerMesh } from "../../src/network/peer-mesh.js";
import { systemClock, systemRandom } from "../../src/node/ambient.js";
import { CertificateLife } from "../../src/node/certificate-life.js";
import { networkLog, processLog } from "../../src/node/log.js";
import { ProcessMetrics } from "../../src/node/metrics.js";
import { peerVerifier } from "../../src/node/peer-trust.js";
import { MemorySpace } from "../../src/storage/memory-coordination.js";
import type { Coordination } from "../../src/wallet/coordination.js";
import { freeUdpPorts } from "./cluster.js";

const DAY_MS = 86_400_000;
const IDS = ["node-1", "node-2", "coordinator-1", "coordinator-2"];
const HOLDS_CA = "coordinator-1";

/** Wall time that a test can set ahead; timers and the monotonic clock run as they do. */
class ShiftedClock implements Clock {
  aheadMs = 0;
  nowMs(): number {
    return systemClock.nowMs() + this.aheadMs;
  }
  monotonicMs(): number {
    return systemClock.monotonicMs();
  }
  after(delayMs: number, callback: () => void): () => void {
    return systemClock.after(delayMs, callback);
  }
}

interface Member {
  readonly nodeId: string;
  readonly mesh: PeerMesh;
  readonly life: CertificateLife;
  readonly trust: TrustFiles;
  readonly metrics: ProcessMetrics;
  readonly events: NetworkEvent[];
  close(): Promise<void>;
}

describe("certificates through their life, over QUIC", () => {
  let folder: string;
  let pki: DevelopmentPki;
  let passphrase: string;
  let roster: Roster;
  const clock = new ShiftedClock();
  const context = { clock, random: systemRandom };
  let members: Map<string, Member>;
  const log = processLog({ name: "test", level: process.env["TEST_LOG"] ?? "silent" });

  async function start(
    nodeId: string,
    options: { readonly listFile?: string; readonly coordination?: Coordination } = {},
  ): Promise<Member> {
    const own = roster.get(nodeId) ?? assert.fail(nodeId);
    const state = join(folder, "state", nodeId);
    await makePrivateFolder(state);
    const paths = { nodeId, keyPath: join(state, "tls-key.pem"), chainPath: join(state, "tls-chain.pem") };
    const metrics = new ProcessMetrics();
    const trust = await TrustFiles.load(
      {
        rootPath: pki.paths.rootCertificate,
        intermediatePath: pki.paths.intermediateCertificate,
        revocationListPaths: [options.listFile ?? join(state, "revocations.pem")],
        keepFolder: join(state, "revocations"),
        roster,
      },
      { clock, count: (outcome) => metrics.countVerdict(outcome) },
    );
    const present = await loadTlsCredentials(paths);
    const events: NetworkEvent[] = [];
    const authority =
      nodeId === HOLDS_CA
        ? await RenewalAuthority.open(
            { folder: pki.paths.folder, passphrase },
            { ...context, trust, log: networkLog(log) },
          )
        : undefined;
    const life = new CertificateLife(
      {
        nodeId,
        roster,
        trust,
        trustReloadIntervalMs: 1_000,
        own: { paths, present, retryDelaysMs: [300] },
        authority,
      },
      {
        ...context,
        log,
        countRenewal: (outcome) => metrics.countRenewal(outcome),
        ...(options.coordination === undefined ? {} : { shared: new CoordinationRevocations(options.coordination) }),
      },
    );
    const mesh = await PeerMesh.start(
      {
        nodeId,
        listen: { host: "127.0.0.1", port: own.port },
        peers: roster.peers
          .filter((peer) => peer.nodeId !== nodeId)
          .map((peer) => ({
            nodeId: peer.nodeId,
            host: peer.host,
            port: peer.port,
            ...(own.role === peer.role
              ? {}
              : { dial: own.role === "coordinator" ? ("us" as const) : ("them" as const) }),
          })),
        credentials: present,
        limits: { standby: true, connectionMaxAgeMs: 4_000 },
      },
      {
        clock,
        random: systemRandom,
        verifier: peerVerifier(trust, log),
        router: (router) => {
          router.service(ControlService, { ping: ({ payload }) => ({ payload, timeMs: 1n }) });
          routePki(router, life.handlers);
        },
        log: (event) => {
          events.push(event);
          networkLog(log.child({ nodeId }))(event);
        },
        onPeer: (peer) => life.meet(peer),
      },
    );
    life.start(mesh);
    metrics.follow({ links: () => mesh.status(), certificates: life, trust, clock });
    const member: Member = {
      nodeId,
      mesh,
      life,
      trust,
      metrics,
      events,
      async close() {
        await life.stop();
        await mesh.close();
        await metrics.close();
      },
    };
    members.set(nodeId, member);
    return member;
  }

  /** A certificate of its own for each member, and the list as it stands now. */
  async function equip(lifetimeMs: number): Promise<void> {
    const authority = new PkiFolder(pki.paths.folder, context);
    const intermediate = await authority.openIntermediate(passphrase);
    await authority.publishUnder(intermediate, 400 * DAY_MS);
    for (const nodeId of IDS) {
      const state = join(folder, "state", nodeId);
      await rm(state, { recursive: true, force: true });
      await makePrivateFolder(state);
      const paths = { nodeId, keyPath: join(state, "tls-key.pem"), chainPath: join(state, "tls-chain.pem") };
      const { requestDer, complete } = await prepareRenewal(paths);
      await complete((await authority.issueUnder(intermediate, { nodeId, requestDer, lifetimeMs })).chainPem);
      writeFileSync(join(state, "revocations.pem"), readFileSync(pki.paths.revocationList));
    }
  }

  async function eventually(
    what: string,
    holds: () => boolean | Promise<boolean>,
    timeoutMs = 30_000,
  ): Promise<number> {
    const startedMs = performance.now();
    while (!(await holds())) {
      if (performance.now() - startedMs > timeoutMs) assert.fail(`not within ${timeoutMs} ms: ${what}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    return performance.now() - startedMs;
  }

  const member = (nodeId: string): Member => members.get(nodeId) ?? assert.fail(nodeId);
  const stateOf = (at: string, peer: string) =>
    member(at)
      .mesh.status()
      .find(({ nodeId }) => nodeId === peer)?.state;
  const metricOf = async (at: string, line: string): Promise<number> => {
    const { body } = await member(at).metrics.exposition();
    const found = body.split("\n").find((each) => each.startsWith(`${line} `));
    return Number(found?.slice(line.length + 1) ?? Number.NaN);
  };
  const requestOf = async (nodeId: string) =>
    new Uint8Array(await createCertificateRequest(nodeId, await generateCertificateKey("P-256")));

  /** `mpc-wallet pki …` as an operator types it, on the folder that the coordinator's [ca] section names. */
  async function pkiCommand(...args: string[]): Promise<void> {
    const program = new Command("mpc-wallet").exitOverride();
    addPkiCommands(program, {
      ...context,
      environment: { MPC_WALLET_INTERMEDIATE_PASSPHRASE: passphrase },
      print: () => {},
    });
    await program.parseAsync(["pki", ...args, "--folder", pki.paths.folder], { from: "user" });
  }

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "mpc-wallet-life-"));
    pki = await createDevelopmentPki({ folder: join(folder, "pki"), nodeIds: IDS }, context);
    passphrase = await readPassphraseFile(pki.passphrasePath);
    const ports = await freeUdpPorts(IDS.length);
    roster = new Roster(
      pki.nodes.map(({ nodeId, identityKey }, index) => ({
        nodeId,
        role: nodeId.startsWith("node-") ? ("node" as const) : ("coordinator" as const),
        host: "127.0.0.1",
        port: ports[index] ?? 0,
        identityKey,
      })),
    );
  });
  beforeEach(async () => {
    members = new Map();
    clock.aheadMs = 0;
  });
  afterEach(async () => {
    await Promise.all([...members.values()].map((each) => each.close()));
  });
  after(() => rm(folder, { recursive: true, force: true }));

  it("everybody's certificate is renewed, live calls never fail, and the old certificates run out unnoticed", async () => {
    await equip(90 * DAY_MS);
    const firsts = new Map(IDS.map((id) => [id, readFileSync(chainPath(id), "utf8")]));
    // 61 days later all are due at once.
    clock.aheadMs = 61 * DAY_MS;
    await Promise.all(IDS.map((nodeId) => start(nodeId, { listFile: pki.paths.revocationList })));
    for (const { nodeId, mesh } of members.values())
      await mesh.ready(
        IDS.filter((id) => id !== nodeId),
        20_000,
      );
    let calls = 0;
    const failures: unknown[] = [];
    let over = false;
    const caller = async (from: string, to: string): Promise<void> => {
      const client = createClient(ControlService, member(from).mesh.transport(to));
      while (!over) {
        try {
          await client.ping({ payload: new Uint8Array(200) }, { timeoutMs: 20_000 });
          calls += 1;
        } catch (error) {
          failures.push(error);
        }
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    };
    const running = [
      caller("coordinator-1", "node-1"),
      caller("node-1", "node-2"),
      caller("node-2", "node-1"),
      caller("node-2", "coordinator-1"),
      caller("coordinator-2", "coordinator-1"),
    ];
    try {
      await eventually("all renewed", () => IDS.every((id) => readFileSync(chainPath(id), "utf8") !== firsts.get(id)));
      // Each link has an active connection and one that stands by; both are replaced by and by.
      const made = connectionCounts();
      const replaced = () =>
        connectionCounts().every(([link, count], index) => count >= (made[index]?.[1] ?? 0) + 2 && link !== "");
      await eventually("all connections replaced", replaced);
      // Every first certificate has expired now, and live peers are judged again every second.
      clock.aheadMs = 91 * DAY_MS;
      const callsBefore = calls;
      await eventually("more connections", () =>
        connectionCounts().every(([, count], index) => count >= (made[index]?.[1] ?? 0) + 4),
      );
      assert.ok(calls > callsBefore);
    } finally {
      over = true;
      await Promise.all(running);
    }
    assert.deepEqual(failures, []);
    assert.ok(calls > 100, `${calls} calls`);
    for (const id of IDS) {
      assert.ok((member(id).life.notAfterMs ?? 0) > clock.nowMs() + 50 * DAY_MS, `${id} shows a new certificate`);
      assert.equal(await metricOf(id, 'mpc_wallet_certificate_renewals_total{outcome="renewed"}'), 1);
      assert.equal(await metricOf(id, "mpc_wallet_certificate_expires_soon"), 0);
      for (const peer of IDS) if (peer !== id) assert.equal(stateOf(id, peer), "active", `${id} to ${peer}`);
    }
  });

  const chainPath = (nodeId: string): string => join(folder, "state", nodeId, "tls-chain.pem");
  const connectionCounts = (): [string, number][] =>
    [...members.values()].flatMap(({ nodeId, mesh }) =>
      mesh.status().map((link): [string, number] => [`${nodeId} ${link.nodeId}`, link.connections]),
    );

  it("refuses on the wire: another node's id, a reused key, garbage, oversize, a member without authority", async () => {
    await equip(90 * DAY_MS);
    for (const nodeId of ["node-1", "coordinator-1", "coordinator-2"]) await start(nodeId);
    await member("node-1").mesh.ready(["coordinator-1", "coordinator-2"], 10_000);
    const ask = async (requestDer: Uint8Array<ArrayBuffer>, to = HOLDS_CA): Promise<string> => {
      const client = createClient(CertificateService, member("node-1").mesh.transport(to));
      try {
        await client.renew({ requestDer }, { timeoutMs: 10_000 });
        return "granted";
      } catch (error) {
        const [detail] = ConnectError.from(error).findDetails(FaultDetailSchema);
        return `${Code[ConnectError.from(error).code]} ${detail?.code}`;
      }
    };
    assert.equal(await ask(await requestOf("node-2")), "InvalidArgument renewal-another-node");
    assert.equal(await ask(new Uint8Array(500).fill(7)), "InvalidArgument renewal-malformed");
    assert.equal(await ask(new Uint8Array(MAX_REQUEST_BYTES + 1)), "InvalidArgument renewal-oversized");
    const { privateKeyPem } = await loadTlsCredentials({
      nodeId: "node-1",
      keyPath: join(folder, "state", "node-1", "tls-key.pem"),
      chainPath: join(folder, "state", "node-1", "tls-chain.pem"),
    });
    const reused = new Uint8Array(await createCertificateRequest("node-1", createPrivateKey(privateKeyPem)));
    assert.equal(await ask(reused), "InvalidArgument renewal-key-reused");
    assert.equal(await ask(await requestOf("node-1"), "coordinator-2"), "Unavailable no-authority");
    assert.equal(await ask(await requestOf("node-1")), "granted");
    const answers: string[] = [];
    for (let n = 0; n < 8; n += 1) answers.push(await ask(new Uint8Array(3)));
    assert.equal(answers.at(-1), "Unavailable too-many-renewals");
  });

  it("'pki revoke' at one coordinator cuts the revoked node off everywhere within seconds, and it renews nothing", async () => {
    await equip(90 * DAY_MS);
    const space = new MemorySpace(systemClock);
    // Coordinator 2 knows of the revocation through coordination alone: it has no connection with coordinator 1.
    await start("coordinator-1", { listFile: pki.paths.revocationList, coordination: space.connect() });
    for (const nodeId of ["node-1", "node-2"]) await start(nodeId);
    const all = ["node-1", "node-2", "coordinator-1"];
    for (const id of all)
      await member(id).mesh.ready(
        all.filter((peer) => peer !== id),
        20_000,
      );
    const chain = [...(member("node-2").life.chainDer ?? [])];
    await pkiCommand("revoke", "--node-id", "node-2", "--reason", "key-compromise");
    const others = ["node-1", "coordinator-1"];
    const tookMs = await eventually(
      "node-2 is cut off",
      () => others.every((id) => stateOf(id, "node-2") !== "active"),
      10_000,
    );
    assert.ok(tookMs < 10_000);
    for (const id of others) {
      assert.deepEqual(member(id).trust.verifier.verify(chain, "node-2"), { ok: false, reason: "revoked" });
    }
    await assert.rejects(
      createClient(CertificateService, member("node-2").mesh.transport(HOLDS_CA)).renew(
        { requestDer: await requestOf("node-2") },
        { timeoutMs: 1_500 },
      ),
    );
    for (const id of others)
      assert.equal((await metricOf(id, 'mpc_wallet_certificate_verdicts_total{outcome="revoked"}')) > 0, true);

    const second = await start("coordinator-2", { coordination: space.connect() });
    await eventually(
      "coordination tells coordinator-2",
      () => !second.trust.verifier.verify(chain, "node-2").ok,
      10_000,
    );

    // After a restart the old file alone would let node-2 in again: the newer list was kept.
    await member("node-1").close();
    members.delete("node-1");
    const back = await start("node-1");
    assert.equal(back.trust.verifier.verify(chain, "node-2").ok, false);
  });

  it("takes no older list from a peer, none of a stranger, no flood of them, and keeps what it knows", async () => {
    await equip(90 * DAY_MS);
    await start("node-1");
    await start("node-2");
    await member("node-1").mesh.ready(["node-2"], 10_000);
    const { trust } = member("node-1");
    const old = revocationListFromPem(readFileSync(pki.paths.revocationList, "utf8"));
    const authority = new PkiFolder(pki.paths.folder, context);
    const { der, number } = await authority.publishRevocations({ passphrase });
    const numberOf = () => trust.revocations.all()[0]?.number;
    const known = numberOf();
    const client = createClient(CertificateService, member("node-2").mesh.transport("node-1"));
    const bytes = (list: Uint8Array) => new Uint8Array(list);
    const tampered = bytes(der);
    tampered[tampered.length - 1] = (tampered[tampered.length - 1] ?? 0) ^ 1;
    const other = await createDevelopmentPki({ folder: join(folder, "other"), nodeIds: [] }, context);
    const foreign = revocationListFromPem(readFileSync(other.paths.revocationList, "utf8"));
    await client.syncRevocations({ listsDer: [tampered, bytes(foreign), new Uint8Array(200_000), new Uint8Array()] });
    assert.equal(numberOf(), known);
    await client.syncRevocations({ listsDer: [bytes(der)] });
    assert.equal(numberOf(), number);
    const answer = await client.syncRevocations({ listsDer: [bytes(old)] });
    assert.equal(numberOf(), number, "no rollback");
    assert.deepEqual(
      answer.listsDer.map((list) => Buffer.from(list)),
      [Buffer.from(der)],
      "who is behind is told",
    );
    await assert.rejects(
      client.syncRevocations({ listsDer: Array.from({ length: 9 }, () => bytes(old)) }),
      (error) => error instanceof ConnectError && error.code === Code.InvalidArgument,
    );
    const flood = await Promise.allSettled(Array.from({ length: 60 }, () => client.syncRevocations({})));
    const refused = flood.filter((each) => each.status === "rejected");
    assert.ok(refused.length >= 30 && refused.length < 60, `${refused.length} of 60 refused`);
    for (const { reason } of refused as PromiseRejectedResult[])
      assert.equal(ConnectError.from(reason).code, Code.Unavailable);
  });

  it("less than 14 days: a warning and a metric, no refusal", async () => {
    await equip(13 * DAY_MS);
    for (const nodeId of ["node-1", "node-2"]) await start(nodeId);
    await member("node-1").mesh.ready(["node-2"], 10_000);
    const warnings = member("node-1").trust.verifier.verify([...(member("node-2").life.chainDer ?? [])], "node-2");
    assert.ok(warnings.ok && warnings.warnings.includes("expires-soon"));
    assert.equal(await metricOf("node-1", "mpc_wallet_certificate_expires_soon"), 1);
    const left = await metricOf("node-1", "mpc_wallet_certificate_left_seconds");
    assert.ok(left > 12.9 * 86_400 && left <= 13 * 86_400, `${left} s`);
    assert.equal(stateOf("node-1", "node-2"), "active");
  });
});
