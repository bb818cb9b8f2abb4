import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { InvalidInput } from "../../../src/crypto/fault.js";
import { CertificateRegister, MAX_REGISTER_ENTRIES } from "../../../src/network/identity/certificate-register.js";
import { DAY_MS, NOW_MS } from "./forged-chain.js";

const isCode = (code: string) => (error: unknown) => error instanceof InvalidInput && error.code === code;
const folder = mkdtempSync(join(tmpdir(), "mpc-wallet-register-"));
after(() => rmSync(folder, { recursive: true, force: true }));

const [ROOT, INTERMEDIATE] = ["aa".repeat(32), "bb".repeat(32)];

/** Golden: lines that were written must be readable for ever. */
const GOLDEN = `{"kind":"intermediate","atMs":1780315200000,"serialNumber":"41","issuer":"${ROOT}","notBeforeMs":1780315200000,"notAfterMs":1843387200000}
{"kind":"list","atMs":1780315200000,"issuer":"${INTERMEDIATE}","number":1}
{"kind":"issued","atMs":1780315200000,"serialNumber":"42","issuer":"${INTERMEDIATE}","nodeId":"node-1","notBeforeMs":1780314900000,"notAfterMs":1788091200000}
{"kind":"issued","atMs":1780315200000,"serialNumber":"43","issuer":"${INTERMEDIATE}","nodeId":"node-2","notBeforeMs":1780314900000,"notAfterMs":1788091200000}
{"kind":"revoked","atMs":1780401600000,"serialNumber":"42","issuer":"${INTERMEDIATE}","reason":"key-compromise"}
{"kind":"revoked","atMs":1780488000000,"serialNumber":"42","issuer":"${INTERMEDIATE}","reason":"superseded"}
{"kind":"revoked","atMs":1780488000000,"serialNumber":"41","issuer":"${ROOT}","reason":"key-compromise"}
{"kind":"list","atMs":1780401600000,"issuer":"${INTERMEDIATE}","number":2}
`;

describe("certificate register", () => {
  it("golden file: states, first revocation, list numbers by issuer", async () => {
    const path = join(folder, "golden.jsonl");
    writeFileSync(path, GOLDEN);
    const register = await CertificateRegister.open(path);
    assert.deepEqual(
      register.issued.map(({ nodeId, revoked }) => [nodeId, revoked?.reason]),
      [
        ["node-1", "key-compromise"],
        ["node-2", undefined],
      ],
    );
    const revoked = { serialNumber: "42", revokedAtMs: NOW_MS + DAY_MS, reason: "key-compromise" };
    assert.deepEqual(register.revocationsOf(INTERMEDIATE, NOW_MS), [revoked]);
    assert.equal(register.revocationsOf(ROOT, NOW_MS)[0]?.serialNumber, "41");
    assert.deepEqual([register.nextListNumber(INTERMEDIATE), register.nextListNumber(ROOT)], [3, 1]);
    // Thirty days after its certificate expired, a revocation leaves the list.
    const endMs = 1788091200000 + 30 * DAY_MS;
    assert.equal(register.revocationsOf(INTERMEDIATE, endMs).length, 1);
    assert.equal(register.revocationsOf(INTERMEDIATE, endMs + 1).length, 0);
  });

  it("writes what it reads, and starts empty", async () => {
    const path = join(folder, "new.jsonl");
    const register = await CertificateRegister.open(path);
    assert.deepEqual(register.issued, []);
    await register.append({ kind: "list", atMs: NOW_MS, issuer: ROOT, number: 1 });
    assert.equal(readFileSync(path, "utf8"), `{"kind":"list","atMs":${NOW_MS},"issuer":"${ROOT}","number":1}\n`);
    assert.equal((await CertificateRegister.open(path)).nextListNumber(ROOT), 2);
  });

  it("holds its limit of entries, and refuses one more in the file or by hand", async () => {
    const path = join(folder, "full.jsonl");
    const line = `{"kind":"list","atMs":1,"issuer":"${ROOT}","number":1}\n`;
    writeFileSync(path, line.repeat(MAX_REGISTER_ENTRIES));
    const register = await CertificateRegister.open(path);
    const entry = { kind: "list", atMs: 1, issuer: ROOT, number: 1 } as const;
    await assert.rejects(register.append(entry), isCode("register-full"));
    writeFileSync(path, line.repeat(MAX_REGISTER_ENTRIES + 1));
    await assert.rejects(CertificateRegister.open(path), isCode("bad-register"));
  });

  it("names the line that is not one of ours", async () => {
    const path = join(folder, "bad.jsonl");
    const good = `{"kind":"list","atMs":1,"issuer":"${ROOT}","number":1}\n`;
    for (const bad of ["{", "[]", "null", good.replace("list", "other"), good.replace('"number":1', '"number":0')]) {
      writeFileSync(path, good + bad);
      await assert.rejects(
        CertificateRegister.open(path),
        (error) => isCode("bad-register")(error) && /line 2/.test(String(error)),
      );
    }
  });
});
