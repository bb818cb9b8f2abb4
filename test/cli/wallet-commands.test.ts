import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { chmod, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { after, before, describe, it } from "node:test";
import { authority } from "../gateway/authority.js";
import { certificates, type RunningGateway, runningGateway } from "../gateway/gateway-fixture.js";

const MAIN = resolve("dist/src/cli/main.js");

interface Ran {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

describe("mpc-wallet: a wallet's user", () => {
  let running: RunningGateway;
  let folder: string;
  let profile: string;
  const treasury = authority();

  before(async () => {
    running = await runningGateway();
    running.application.authorities.set(treasury.name, treasury.publicKey);
    folder = await mkdtemp(join(tmpdir(), "mpc-wallet-cli-"));
    profile = join(folder, "client.toml");
    await writeFile(join(folder, "ca.pem"), running.caPem);
    await writeFile(join(folder, "token"), `${await running.token()}\n`, { mode: 0o600 });
    await writeFile(join(folder, "authority.pem"), treasury.privateKeyPem, { mode: 0o600 });
    await writeProfile(profile, {});
  });
  after(async () => {
    await running.gateway.drain({ graceMs: 200 });
    await rm(folder, { recursive: true });
  });

  function writeProfile(file: string, changes: Record<string, string>): Promise<void> {
    const { url, caFile, tokenFile, name, keyFile } = {
      url: running.url,
      caFile: "ca.pem",
      tokenFile: "token",
      name: treasury.name,
      keyFile: "authority.pem",
      ...changes,
    };
    const text = `[gateway]
url = "${url}"
caFile = "${caFile}"
tokenFile = "${tokenFile}"
[authority]
name = "${name}"
keyFile = "${keyFile}"
`;
    return writeFile(file, text);
  }

  function mpcWallet(args: readonly string[], environment: Record<string, string> = {}): Promise<Ran> {
    const child = spawn(process.execPath, [MAIN, ...args], {
      cwd: folder,
      env: { ...process.env, MPC_WALLET_CONFIG: profile, MPC_WALLET_TOKEN: "", ...environment },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let out = "";
    let err = "";
    child.stdout.on("data", (chunk) => {
      out += chunk;
    });
    child.stderr.on("data", (chunk) => {
      err += chunk;
    });
    return new Promise((done) => child.once("close", (code) => done({ code, out, err })));
  }

  /** Moves the payment named in what the command says, as its ceremony would. */
  async function pays(
    args: readonly string[],
    phases: readonly ("broadcast" | "confirmed" | "rejected")[],
  ): Promise<Ran> {
    const newestPayment = async () =>
      (await running.application.payments({ walletId: "w-main", limit: 1, before: "" })).payments[0];
    const before = await newestPayment();
    const ran = mpcWallet(args);
    const seen = new Set<string>();
    let stop = false;
    void ran.finally(() => {
      stop = true;
    });
    while (!stop) {
      await new Promise((done) => setTimeout(done, 25));
      const newest = await newestPayment();
      const phase = phases[seen.size];
      if (newest === undefined || newest.paymentId === before?.paymentId || phase === undefined) continue;
      seen.add(phase);
      const failure = { code: "rejected-by-votes", message: "the nodes rejected it", culprits: [] };
      running.application.move(newest.paymentId, {
        phase,
        txid: "cd".repeat(32),
        feeSat: 141n,
        ...(phase === "confirmed" ? { confirmedHeight: 101, confirmations: 1 } : {}),
        ...(phase === "rejected" ? { failure } : {}),
        timeline: [{ step: "sign", nodeId: "", startedAtMs: 1, durationMs: 12.34, outcome: "ok" }],
      });
    }
    return ran;
  }

  it("creates, lists and shows wallets", async () => {
    const none = await mpcWallet(["balance"]);
    assert.equal(none.code, 1);
    assert.match(none.err, /there is no wallet yet; make one with 'mpc-wallet wallet create/);
    const created = await mpcWallet([
      "wallet",
      "create",
      "--name",
      "main",
      "--scheme",
      "cggmp24",
      "--threshold",
      "2",
      "--nodes",
      "node-1,node-2",
      "--json",
    ]);
    assert.equal(created.code, 0, created.err);
    assert.equal(JSON.parse(created.out).walletId, "w-main");
    assert.deepEqual(JSON.parse(created.out).parties, ["node-1", "node-2"]);
    const list = await mpcWallet(["wallet", "list"]);
    assert.match(list.out, /^WALLET +NAME +SCHEME +SIGNERS\nw-main +main +cggmp24 +2 of 2\n$/);
    const shown = await mpcWallet(["wallet", "show", "--wallet", "main"]);
    assert.match(shown.out, /network +regtest\n/);
    const again = await mpcWallet(["wallet", "create", "--name", "main"]);
    assert.equal(again.code, 1);
    assert.match(again.err, /a wallet has this name \(choose another --name\)/);
  });

  it("answers balance, address, utxos, pool and health, for people and as JSON", async () => {
    assert.match((await mpcWallet(["balance"])).out, /confirmed +20999999\.97690000 BTC/);
    assert.equal(JSON.parse((await mpcWallet(["--json", "balance"])).out).confirmedSat, "2099999997690000");
    assert.match((await mpcWallet(["address", "--wallet", "main"])).out, /^bcrt1q[0-9a-f]{38}\n$/);
    assert.match((await mpcWallet(["wallet", "utxos"])).out, /(ab){32}:3 +0\.00003000 BTC +6/);
    assert.match((await mpcWallet(["pool", "status"])).out, /available +97 of 100/);
    const nodes = [{ nodeId: "node-1", done: 3, of: 4, tested: 640 }];
    running.application.preparations = [{ walletId: "w", name: "next", phase: "primes", nodes }];
    const health = await mpcWallet(["health"]);
    running.application.preparations = [];
    assert.equal(health.code, 0);
    assert.match(health.out, /^healthy/);
    assert.match(health.out, /making wallet next: primes \[#{15}-{5}\] node-1 3\/4; 640 candidates tested/);
    running.application.healthy = false;
    const ill = await mpcWallet(["health"]);
    running.application.healthy = true;
    assert.equal(ill.code, 1);
    assert.match(ill.out, /chain +FAILED/);
  });

  it("sends: signs with the authority's key and waits for the broadcast", async () => {
    const sent = await pays(
      ["send", "bcrt1qshop", "--amount-btc", "0.00012345", "--metadata", '{"order":1}'],
      ["broadcast"],
    );
    assert.equal(sent.code, 0, sent.err);
    assert.match(sent.err, /payment [0-9a-f-]{36} is recorded\nbroadcast: (cd){32}\n/);
    assert.match(sent.out, /to +bcrt1qshop +0\.00012345 BTC\n/);
    assert.match(sent.out, /sign +12\.3 ms +ok/);
  });

  it("sends and waits for the confirmation; --json prints one object", async () => {
    const args = ["send", "--to", "bcrt1qshop", "--amount-sat", "1000", "--wallet", "main", "--wait", "--json"];
    const sent = await pays(args, ["broadcast", "confirmed"]);
    assert.equal(sent.code, 0, sent.err);
    const payment = JSON.parse(sent.out);
    assert.equal(payment.phase, "PAYMENT_PHASE_CONFIRMED");
    assert.equal(payment.recipients[0].amountSat, "1000");
    assert.match(sent.err, /confirmed in block 101/);
  });

  it("a rejected payment is a failure that says why", async () => {
    const sent = await pays(["send", "bcrt1qshop", "--amount-sat", "1000"], ["rejected"]);
    assert.equal(sent.code, 1);
    assert.match(sent.out, /reason +the nodes rejected it \(rejected-by-votes\)/);
  });

  it("the same request id is paid once; votes, history and show know the payment", async () => {
    const requestId = "11111111-2222-4333-8444-555555555555";
    const sent = await mpcWallet([
      "send",
      "bcrt1qshop",
      "--amount-sat",
      "1000",
      "--no-wait",
      "--request-id",
      requestId,
    ]);
    assert.equal(sent.code, 0, sent.err);
    const again = await mpcWallet([
      "send",
      "bcrt1qshop",
      "--amount-sat",
      "2000",
      "--no-wait",
      "--request-id",
      requestId,
    ]);
    assert.equal(again.code, 1);
    assert.match(again.err, /another request has this id/);
    assert.match((await mpcWallet(["wallet", "votes", requestId])).out, /node-2 +reject +2\.0 ms +fee-rate-too-high/);
    assert.match(
      (await mpcWallet(["history", "--limit", "1"])).out,
      new RegExp(`${requestId} +created +0\\.00001000 BTC`),
    );
    assert.match((await mpcWallet(["payment", "show", requestId])).out, /phase +created/);
    const slow = await mpcWallet(["payment", "watch", requestId, "--timeout", "1"]);
    assert.equal(slow.code, 1);
    assert.match(slow.err, /still created after 1 s/);
  });

  it("refreshes and reshares: shows the terms, signs the order, follows it until the switch", async () => {
    const unasked = await mpcWallet(["wallet", "refresh", "main"]);
    assert.equal(unasked.code, 2);
    assert.match(unasked.err, /nobody can be asked here; look at the terms and say --yes/);
    assert.match((await mpcWallet(["wallet", "change", "main"])).err, /were never refreshed or reshared/);

    const recorded = await mpcWallet(["wallet", "refresh", "main", "--yes", "--no-wait", "--json"]);
    assert.equal(recorded.code, 0, recorded.err);
    assert.equal(JSON.parse(recorded.out).state, "WALLET_CHANGE_STATE_RUNNING");
    assert.match((await mpcWallet(["wallet", "show", "--wallet", "main"])).out, /change +running: the old shares sign/);
    running.application.moveChange("w-main", { state: "switched", owing: ["node-2"] });
    assert.match((await mpcWallet(["wallet", "change", "main"])).out, /not told yet +node-2\n/);

    const reshare = ["wallet", "reshare", "main", "--threshold", "2", "--nodes", "node-1,node-2,node-3", "--yes"];
    const following = mpcWallet(reshare);
    await until(async () => (await running.application.walletChange("w-main")).change?.kind === "reshare");
    running.application.moveChange("w-main", { step: "waiting for nodes that do not answer", waitingFor: ["node-3"] });
    await new Promise((done) => setTimeout(done, 1_200));
    running.application.moveChange("w-main", { state: "switched", step: "", waitingFor: [] });
    const done = await following;
    assert.equal(done.code, 0, done.err);
    assert.match(done.err, /waiting for nodes that do not answer: node-3\n/);
    assert.match(done.out, /state +switched: the new shares sign\nsigners +2 of 3\n/);

    const failing = mpcWallet([...reshare, "--json"]);
    await until(async () => (await running.application.walletChange("w-main")).change?.state === "running");
    running.application.moveChange("w-main", {
      state: "abandoned",
      code: "nodes-silent",
      message: "node-3 did not answer",
    });
    const failed = await failing;
    assert.equal(failed.code, 1);
    assert.equal(JSON.parse(failed.out).error.code, "change-abandoned");
    assert.match(failed.err, /node-3 did not answer \(nodes-silent\) \(the old shares sign as before; /);
  });

  async function until(reached: () => Promise<boolean>): Promise<void> {
    for (let wait = 0; !(await reached()); wait++) {
      assert.ok(wait < 2_000, "it never came so far");
      await new Promise((done) => setTimeout(done, 10));
    }
  }

  it("wrong usage ends with 2 and one line", async () => {
    const wrong: [string[], RegExp][] = [
      [["sennd"], /unknown command 'sennd'/],
      [["send", "a"], /say how much/],
      [["send", "--amount-sat", "1"], /give one address/],
      [["send", "a", "--to", "b", "--amount-sat", "1"], /give one address/],
      [["send", "a", "--amount-sat", "1", "--amount-btc", "1"], /cannot be used with/],
      [["send", "a", "--amount-btc", "1.123456789"], /looks like 0\.015/],
      [["send", "a", "--amount-btc", "1e2"], /looks like 0\.015/],
      [["send", "a", "--amount-btc", "-1"], /looks like 0\.015|option/],
      [["send", "a", "--amount-sat", "1_000"], /whole number/],
      [["send", "a", "--amount-sat", "0"], /1 satoshi to 21 million/],
      [["send", "a", "--amount-sat", "1", "--metadata", "{"], /--metadata must be JSON/],
      [["send", "a", "--amount-sat", "1", "--request-id", "X"], /lower-case UUID/],
      [["send", "a", "--amount-sat", "1", "--max-fee-rate", "0"], /fee rate/],
      [["wallet", "create", "--name", "x", "--scheme", "rsa"], /choices/],
      [["wallet", "create", "--name", "x", "--threshold", "two"], /whole number/],
      [["wallet", "reshare", "main", "--threshold", "2"], /--nodes/],
      [["wallet", "reshare", "main", "--threshold", "1", "--nodes", "node-1,node-2"], /must be 2 to 2/],
      [["wallet", "reshare", "main", "--threshold", "3", "--nodes", "node-1,node-2"], /must be 2 to 2/],
      [["wallet", "reshare", "main", "--threshold", "2", "--nodes", "node-1,node-1"], /names 'node-1' twice/],
      [["wallet", "reshare", "main", "--threshold", "2", "--nodes", "node-1,,node-2"], /is a list such as/],
    ];
    for (const [args, expected] of wrong) {
      const { code, err, out } = await mpcWallet(args);
      assert.equal(code, 2, `${args.join(" ")}: ${err}`);
      assert.match(err, expected);
      assert.equal(err.trim().split("\n").length, 1, err);
      assert.equal(out, "");
    }
    assert.equal((await mpcWallet(["--help"])).code, 0);
    assert.match((await mpcWallet(["--version"])).out, /^\d+\.\d+\.\d+\n$/);
  });

  it("failures say what to do next and never show a secret", async () => {
    const other = join(folder, "other.toml");
    const use = { MPC_WALLET_CONFIG: other };
    const stranger = authority();
    await writeFile(join(folder, "stranger.pem"), stranger.privateKeyPem, { mode: 0o600 });
    await writeFile(join(folder, "other-ca.pem"), (await certificates()).caPem);
    const expired = await running.token({ expiresInS: -60 });
    const reader = await running.token({ scope: "wallet:read" });
    const send = ["send", "a", "--amount-sat", "1", "--no-wait"];
    const cases: [Record<string, string>, string[], Record<string, string>, RegExp][] = [
      [{ url: "https://localhost:1" }, ["health"], {}, /ECONNREFUSED.*health/],
      [{ caFile: "other-ca.pem" }, ["health"], {}, /not signed by the authority in gateway\.caFile/],
      [{ caFile: "absent.pem" }, ["health"], {}, /cannot read the certificate authority/],
      [
        { url: running.url.replace("localhost", "localhost.localdomain") },
        ["health"],
        {},
        /another host name|ENOTFOUND/,
      ],
      [{ tokenFile: "absent" }, ["health"], {}, /cannot read the token/],
      [{}, ["health"], { MPC_WALLET_TOKEN: expired }, /expired.*get a new token/],
      [{}, send, { MPC_WALLET_TOKEN: reader }, /does not have the scope 'payment:send'/],
      [{ keyFile: "stranger.pem" }, send, {}, /did not sign this request.*authority\.keyFile/],
      [{ name: "nobody" }, send, {}, /no such payment authority.*authority\.name/],
      [{ keyFile: "ca.pem" }, send, {}, /other users can read|not an Ed25519 private key/],
      [{}, ["balance", "--wallet", "nope"], {}, /there is no wallet 'nope'.*wallet list/],
      [{}, ["payment", "show", "nope"], {}, /no such payment.*history/],
      [{}, ["payment", "show", "../x"], {}, /paymentId|payment_id/],
    ];
    for (const [changes, args, environment, expected] of cases) {
      await writeProfile(other, changes);
      const { code, err, out } = await mpcWallet(args, { ...use, ...environment });
      assert.equal(code, 1, `${args.join(" ")}: ${err}`);
      assert.match(err, expected);
      for (const secret of [expired, reader, stranger.privateKeyPem]) assert.ok(!`${out}${err}`.includes(secret));
    }
    const json = await mpcWallet(["balance", "--wallet", "nope", "--json"]);
    assert.equal(JSON.parse(json.out).error.code, "wallet-unknown");
  });

  it("a token or key that others can read is refused", { skip: process.platform === "win32" }, async () => {
    await chmod(join(folder, "token"), 0o644);
    const { code, err } = await mpcWallet(["health"]);
    await chmod(join(folder, "token"), 0o600);
    assert.equal(code, 1);
    assert.match(err, /other users can read the token; run: chmod 600/);
  });

  it("profiles that are missing or wrong say so", async () => {
    const absent = await mpcWallet(["health", "--config", "absent.toml"]);
    assert.match(absent.err, /absent\.toml: there is no such file/);
    const none = await mpcWallet(["health"], { MPC_WALLET_CONFIG: join(folder, "x.toml") });
    assert.equal(none.code, 1);
    const bad = join(folder, "bad.toml");
    await writeFile(bad, '[gateway]\nurl = "http://localhost:1"\ntokenfile = "x"\n');
    const { err } = await mpcWallet(["--config", bad, "health"]);
    assert.match(err, /gateway\.url/);
    assert.match(err, /unknown key 'tokenfile'; allowed are url, caFile, tokenFile/);
  });

  it("makes authorities and token keys, and tokens that the gateway takes", async () => {
    const made = await mpcWallet(["authority", "key", "--name", "ops", "--out", "ops.pem"]);
    assert.match(made.out, /^\[\[security\.authorities\]\]\nname = "ops"\npublicKey = "[0-9a-f]{64}"\n$/);
    const overwrite = await mpcWallet(["authority", "key", "--name", "ops", "--out", "ops.pem"]);
    assert.match(overwrite.err, /ops\.pem is there already/);
    assert.equal((await mpcWallet(["token", "key", "--out", "idp.pem"])).code, 0);
    const issue = [
      "token",
      "issue",
      "--key",
      "idp.pem",
      "--subject",
      "bob",
      "--scope",
      "wallet:read",
      "--audience",
      "mpc-wallet-test",
    ];
    const issued = await mpcWallet([...issue, "--out", "bob.token"]);
    assert.equal(issued.code, 0, issued.err);
    const token = (await readFile(join(folder, "bob.token"), "utf8")).trim();
    assert.ok(!issued.out.includes(token));
    const { verificationKeys } = await import("../../src/gateway/authentication.js");
    const keys = await verificationKeys(await readFile(join(folder, "idp.pub.pem"), "utf8"), "idp.pub.pem");
    const old = await verificationKeys(running.issuer.publicKeyPem, "issuer.pem");
    running.gateway.replaceKeys([...old, ...keys]);
    assert.equal((await mpcWallet(["health"], { MPC_WALLET_TOKEN: token })).code, 0);
    running.gateway.replaceKeys(old);
  });
});
