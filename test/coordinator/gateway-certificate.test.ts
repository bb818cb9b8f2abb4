import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { type ClientHttp2Session, connect as connectHttp2 } from "node:http2";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { pino } from "pino";
import { GatewayCertificate } from "../../src/coordinator/gateway-certificate.js";
import { systemClock } from "../../src/node/ambient.js";
import { certificates, type RunningGateway, runningGateway } from "../gateway/gateway-fixture.js";
import { http } from "../gateway/http-request.js";

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));
const INTERVAL_MS = 20;

describe("the gateway's certificate", () => {
  let running: RunningGateway;
  let folder: string;
  let watch: GatewayCertificate;
  let session: ClientHttp2Session;
  const lines: { readonly event: string }[] = [];
  const paths = () => ({ certificate: join(folder, "chain.pem"), key: join(folder, "key.pem") });
  const count = (event: string) => lines.filter((line) => line.event === event).length;

  before(async () => {
    running = await runningGateway();
    folder = mkdtempSync(join(tmpdir(), "mpc-wallet-gateway-"));
    const { certificatePem, privateKeyPem } = running.tls;
    writeFileSync(paths().certificate, certificatePem);
    writeFileSync(paths().key, privateKeyPem);
    watch = new GatewayCertificate(
      { intervalMs: INTERVAL_MS, shown: running.tls },
      {
        clock: systemClock,
        log: pino({ level: "debug" }, { write: (line: string) => void lines.push(JSON.parse(line)) }),
        gateway: running.gateway,
        read: async () => ({
          certificatePem: await readFile(paths().certificate, "utf8"),
          privateKeyPem: await readFile(paths().key, "utf8"),
        }),
      },
    );
    watch.start();
    session = connectHttp2(running.url, { ca: running.caPem });
    session.on("error", () => {});
    await new Promise((resolve) => session.once("connect", resolve));
  });

  after(async () => {
    session.destroy();
    await watch.stop();
    await running.gateway.drain({ graceMs: 100 });
    rmSync(folder, { recursive: true, force: true });
  });

  /** Whether a new connection is shown a certificate of this root. */
  const shows = async (caPem: string): Promise<boolean> => {
    try {
      return (await http({ url: running.url, caPem }, "/healthz")).status === 200;
    } catch {
      return false;
    }
  };

  /** The connection from before any renewal still answers. */
  const oldConnectionLives = async (): Promise<void> => {
    const stream = session.request({ ":path": "/healthz" });
    const status = await new Promise((resolve) => stream.once("response", (headers) => resolve(headers[":status"])));
    assert.equal(status, 200);
  };

  async function until(holds: () => Promise<boolean> | boolean): Promise<boolean> {
    for (let tries = 0; tries < 500; tries++) {
      if (await holds()) return true;
      await pause(10);
    }
    return false;
  }

  it("stays as it is while the files do", async () => {
    await pause(5 * INTERVAL_MS);
    assert.deepEqual(lines, []);
    assert.ok(await shows(running.caPem));
  });

  it("is replaced when its files are renewed; connections and their calls go on", async () => {
    const next = await certificates();
    writeFileSync(paths().certificate, next.certificatePem);
    // The certificate is there, its key is not: the old pair is shown, and that is said once.
    assert.ok(await until(() => count("gateway-certificate-unusable") === 1));
    await pause(5 * INTERVAL_MS);
    assert.equal(count("gateway-certificate-unusable"), 1);
    assert.ok(await shows(running.caPem));
    writeFileSync(paths().key, next.privateKeyPem);
    assert.ok(await until(() => shows(next.caPem)));
    assert.equal(await shows(running.caPem), false);
    assert.equal(count("gateway-certificate"), 1);
    await oldConnectionLives();
  });

  it("is replaced again and again", async () => {
    for (let round = 0; round < 3; round++) {
      const next = await certificates();
      writeFileSync(paths().key, next.privateKeyPem);
      writeFileSync(paths().certificate, next.certificatePem);
      assert.ok(await until(() => shows(next.caPem)), `round ${round}`);
    }
    await oldConnectionLives();
  });

  it("stays when its files are damaged or gone, and is replaced once they are whole again", async () => {
    const good = { certificate: readFileSync(paths().certificate), key: readFileSync(paths().key) };
    const seen = count("gateway-certificate-unusable");
    const current = lines.filter(({ event }) => event === "gateway-certificate").length;
    writeFileSync(paths().certificate, "not a certificate");
    assert.ok(await until(() => count("gateway-certificate-unusable") === seen + 1));
    rmSync(paths().key);
    assert.ok(await until(() => count("gateway-certificate-unusable") === seen + 2));
    await oldConnectionLives();
    writeFileSync(paths().key, good.key);
    writeFileSync(paths().certificate, good.certificate);
    await pause(5 * INTERVAL_MS);
    assert.equal(count("gateway-certificate"), current, "what is shown already is not replaced");
    const next = await certificates();
    writeFileSync(paths().certificate, next.certificatePem);
    writeFileSync(paths().key, next.privateKeyPem);
    assert.ok(await until(() => shows(next.caPem)));
    await oldConnectionLives();
  });

  it("is looked at no more once it is stopped", async () => {
    await watch.stop();
    const next = await certificates();
    writeFileSync(paths().certificate, next.certificatePem);
    writeFileSync(paths().key, next.privateKeyPem);
    await pause(5 * INTERVAL_MS);
    assert.equal(await shows(next.caPem), false);
  });
});
