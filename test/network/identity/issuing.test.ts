import assert from "node:assert/strict";
import { createHash, createPrivateKey } from "node:crypto";
import { before, describe, it } from "node:test";
import fc from "fast-check";
import { InvalidInput } from "../../../src/crypto/fault.js";
import {
  BACKDATE_MS,
  createIntermediate,
  generateCertificateKey,
  INTERMEDIATE_LIFETIME_MS,
  issueNodeCertificate,
  NODE_LIFETIME_MS,
  ROOT_LIFETIME_MS,
  signingAuthority,
  spkiOf,
  webCryptoSigner,
} from "../../../src/network/identity/certificate-authority.js";
import {
  createCertificateRequest,
  MAX_REQUEST_BYTES,
  requestFromPem,
  requestToPem,
  verifyCertificateRequest,
} from "../../../src/network/identity/certificate-request.js";
import { decryptPrivateKey, encryptPrivateKey } from "../../../src/network/identity/encrypted-key.js";
import { judgeRenewal, keyDigestOf, renewAtMs, renewalState } from "../../../src/network/identity/renewal.js";
import { x509 } from "../../../src/network/identity/x509-library.js";
import {
  context,
  DAY_MS,
  type Hierarchy,
  issueTo,
  MovableClock,
  makeHierarchy,
  NOW_MS,
  nameFor,
  testRandom,
} from "./forged-chain.js";

const isCode = (code: string) => (error: unknown) => error instanceof InvalidInput && error.code === code;
const { keyCertSign, cRLSign, digitalSignature } = x509.KeyUsageFlags;

let hierarchy: Hierarchy;
before(async () => {
  hierarchy = await makeHierarchy();
});

describe("certificates", () => {
  it("root: P-384, ten years, may sign certificates and lists", () => {
    const { certificate } = hierarchy.root;
    assert.equal(certificate.native.publicKey.asymmetricKeyDetails?.namedCurve, "secp384r1");
    assert.deepEqual(
      [certificate.isAuthority, certificate.pathLength, certificate.keyUsage],
      [true, undefined, keyCertSign | cRLSign],
    );
    assert.equal(certificate.notAfterMs, NOW_MS + ROOT_LIFETIME_MS);
    assert.equal(certificate.subjectKeyId, certificate.authorityKeyId);
  });

  it("intermediate: P-384, two years, path length 0, linked by key identifiers", () => {
    const { certificate } = hierarchy.intermediate;
    assert.equal(certificate.native.publicKey.asymmetricKeyDetails?.namedCurve, "secp384r1");
    assert.deepEqual([certificate.isAuthority, certificate.pathLength], [true, 0]);
    assert.equal(certificate.notAfterMs, NOW_MS + INTERMEDIATE_LIFETIME_MS);
    assert.equal(certificate.authorityKeyId, hierarchy.root.certificate.subjectKeyId);
    assert.equal(certificate.native.checkIssued(hierarchy.root.certificate.native), true);
  });

  it("node: P-256, 90 days, one id in both names, both sides of TLS and nothing else", async () => {
    const { leaf } = await issueTo("node-1", hierarchy.intermediate);
    assert.equal(leaf.native.publicKey.asymmetricKeyDetails?.namedCurve, "prime256v1");
    assert.deepEqual([leaf.notBeforeMs, leaf.notAfterMs], [NOW_MS - BACKDATE_MS + 0, NOW_MS + NODE_LIFETIME_MS]);
    assert.deepEqual([leaf.commonNames, leaf.alternativeNames], [["node-1"], [{ type: "dns", value: "node-1" }]]);
    assert.deepEqual([leaf.isAuthority, leaf.keyUsage], [false, digitalSignature]);
    assert.deepEqual(leaf.extendedKeyUsage, [x509.ExtendedKeyUsage.serverAuth, x509.ExtendedKeyUsage.clientAuth]);
  });

  it("serial numbers have 16 random bytes and never repeat", async () => {
    const leaves = await Promise.all(Array.from({ length: 8 }, () => issueTo("node-1", hierarchy.intermediate)));
    const serials = leaves.map(({ leaf }) => leaf.serialNumber);
    assert.equal(new Set(serials).size, serials.length);
    for (const serial of serials) assert.match(serial, /^[4-7][0-9a-f]{31}$/);
  });

  it("never outlive the one that signs them, and are not signed by an expired one", async () => {
    const privateKey = await generateCertificateKey("P-384");
    const short = await createIntermediate(
      { commonName: "short", root: hierarchy.root, privateKey, lifetimeMs: 10 * DAY_MS },
      context,
    );
    const { leaf } = await issueTo("node-1", short);
    assert.equal(leaf.notAfterMs, NOW_MS + 10 * DAY_MS);
    const later = { clock: new MovableClock(NOW_MS + 11 * DAY_MS), random: testRandom };
    await assert.rejects(issueTo("node-1", short, { issuing: later }), isCode("authority-expired"));
  });

  it("authorities need their own key and the authority flag", async () => {
    const { leaf, privateKey } = await issueTo("node-1", hierarchy.intermediate);
    const { certificate } = hierarchy.root;
    assert.throws(() => signingAuthority(certificate, privateKey), isCode("key-does-not-match-certificate"));
    assert.throws(() => signingAuthority(leaf, privateKey), isCode("not-an-authority"));
  });
});

describe("certificate requests", () => {
  it("round trip, also as PEM", async () => {
    for (const curve of ["P-256", "P-384"] as const) {
      const key = await generateCertificateKey(curve);
      const der = await createCertificateRequest("node-1", key);
      assert.ok(der.length < MAX_REQUEST_BYTES / 4);
      const verified = verifyCertificateRequest(requestFromPem(requestToPem(der)));
      assert.deepEqual(verified, { ok: true, request: { nodeId: "node-1", publicKey: spkiOf(key) } });
    }
    assert.throws(() => requestFromPem("-----BEGIN nothing"), isCode("bad-request-file"));
  });

  it("a bad signature, garbage and truncation are refused; nothing throws", async () => {
    const der = await createCertificateRequest("node-1", await generateCertificateKey("P-256"));
    const bent = new Uint8Array(der);
    bent[bent.length - 1] = (bent.at(-1) ?? 0) ^ 1;
    assert.deepEqual(verifyCertificateRequest(bent), { ok: false, reason: "bad-signature" });
    // Every bit, the unsigned envelope included: one request has one encoding.
    for (let bit = 0; bit < der.length * 8; bit += 1) {
      const changed = new Uint8Array(der);
      changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      assert.equal(verifyCertificateRequest(changed).ok, false, `bit ${bit}`);
    }
    fc.assert(fc.property(fc.uint8Array({ maxLength: 500 }), (bytes) => !verifyCertificateRequest(bytes).ok));
    for (let length = 0; length < der.length; length += 3) {
      assert.deepEqual(verifyCertificateRequest(der.subarray(0, length)), { ok: false, reason: "malformed" });
    }
    assert.deepEqual(verifyCertificateRequest(new Uint8Array(MAX_REQUEST_BYTES + 1)), {
      ok: false,
      reason: "oversized",
    });
  });

  it("names that are not one node id, and keys that are not P-256 or P-384, are refused", async () => {
    const key = await generateCertificateKey("P-256");
    await assert.rejects(createCertificateRequest("Node 1", key), isCode("bad-node-id"));
    const make = async (name: x509.JsonName, names: x509.JsonGeneralName[]) => {
      const signer = await webCryptoSigner(key);
      const publicKey = await crypto.subtle.importKey("spki", spkiOf(key), signer.algorithm, true, ["verify"]);
      const request = await x509.Pkcs10CertificateRequestGenerator.create({
        name,
        extensions: [new x509.SubjectAlternativeNameExtension(names)],
        signingAlgorithm: signer.algorithm,
        keys: { privateKey: signer.key, publicKey },
      });
      return verifyCertificateRequest(new Uint8Array(request.rawData));
    };
    const refused = { ok: false, reason: "bad-node-id" };
    assert.deepEqual(await make(nameFor("*"), [{ type: "dns", value: "*" }]), refused);
    assert.deepEqual(await make(nameFor("node-1"), [{ type: "dns", value: "node-2" }]), refused);
    assert.deepEqual(await make(nameFor("node-1"), [{ type: "ip", value: "10.0.0.1" }]), refused);
    assert.deepEqual(await make([{ CN: ["node-1"] }, { CN: ["node-2"] }], [{ type: "dns", value: "node-1" }]), refused);
    assert.equal((await make(nameFor("node-1"), [{ type: "dns", value: "node-1" }])).ok, true);

    const algorithm = { name: "ECDSA", namedCurve: "P-521", hash: "SHA-512" };
    const pair = (await crypto.subtle.generateKey(algorithm, true, ["sign", "verify"])) as {
      readonly privateKey: unknown;
      readonly publicKey: unknown;
    };
    const large = await x509.Pkcs10CertificateRequestGenerator.create({
      name: nameFor("node-1"),
      signingAlgorithm: algorithm,
      keys: pair,
    });
    const verdict = verifyCertificateRequest(new Uint8Array(large.rawData));
    assert.deepEqual(verdict, { ok: false, reason: "unacceptable-key" });
  });

  it("what a request asks for beyond its id is not granted", async () => {
    const key = await generateCertificateKey("P-256");
    const signer = await webCryptoSigner(key);
    const publicKey = await crypto.subtle.importKey("spki", spkiOf(key), signer.algorithm, true, ["verify"]);
    const greedy = await x509.Pkcs10CertificateRequestGenerator.create({
      name: nameFor("node-1"),
      extensions: [new x509.BasicConstraintsExtension(true, 5, true), new x509.KeyUsagesExtension(keyCertSign, true)],
      signingAlgorithm: signer.algorithm,
      keys: { privateKey: signer.key, publicKey },
    });
    const verified = verifyCertificateRequest(new Uint8Array(greedy.rawData));
    assert.ok(verified.ok);
    const { request } = verified;
    const certificate = await issueNodeCertificate({ intermediate: hierarchy.intermediate, request }, context);
    assert.deepEqual([certificate.isAuthority, certificate.keyUsage], [false, digitalSignature]);
  });
});

describe("renewal", () => {
  it("is due after two thirds of life, urgent in the last 14 days", () => {
    const life = { notBeforeMs: NOW_MS, notAfterMs: NOW_MS + 90 * DAY_MS };
    assert.equal(renewAtMs(life), NOW_MS + 60 * DAY_MS);
    assert.equal(renewalState(life, NOW_MS), "fresh");
    assert.equal(renewalState(life, NOW_MS + 60 * DAY_MS - 1), "fresh");
    assert.equal(renewalState(life, NOW_MS + 60 * DAY_MS), "due");
    assert.equal(renewalState(life, NOW_MS + 76 * DAY_MS), "due");
    assert.equal(renewalState(life, NOW_MS + 76 * DAY_MS + 1), "urgent");
    assert.equal(renewalState(life, NOW_MS + 90 * DAY_MS), "urgent");
    assert.equal(renewalState(life, NOW_MS + 90 * DAY_MS + 1), "expired");
  });

  it("is granted to the authenticated node only, and over a key that never had a certificate", async () => {
    const old = await issueTo("node-1", hierarchy.intermediate);
    const key = await generateCertificateKey("P-256");
    const requestDer = await createCertificateRequest("node-1", key);
    const judge = (nodeId: string, request: Uint8Array, known: readonly string[] = []) =>
      judgeRenewal({
        present: old.leaf,
        nodeId,
        requestDer: request,
        hasCertified: (digest) => known.includes(digest),
      });
    const granted = judge("node-1", requestDer);
    assert.ok(granted.ok);
    assert.deepEqual(granted.request, { nodeId: "node-1", publicKey: spkiOf(key) });
    assert.deepEqual(judge("node-2", requestDer), { ok: false, reason: "another-node" });
    const foreign = await createCertificateRequest("node-2", key);
    assert.deepEqual(judge("node-1", foreign), { ok: false, reason: "another-node" });
    assert.deepEqual(judge("node-2", foreign), { ok: false, reason: "another-node" });
    const again = await createCertificateRequest("node-1", old.privateKey);
    assert.deepEqual(judge("node-1", again), { ok: false, reason: "key-reused" });
    const known = [keyDigestOf(spkiOf(key))];
    assert.deepEqual(judge("node-1", requestDer, known), { ok: false, reason: "key-reused" });
    assert.deepEqual(judge("node-1", new Uint8Array(9)), { ok: false, reason: "malformed" });
  });
});

describe("encrypted keys", () => {
  it("open under their passphrase only, and say nothing else", async () => {
    const key = await generateCertificateKey("P-384");
    const pem = await encryptPrivateKey(key, "correct horse battery", testRandom);
    assert.match(pem, /^-----BEGIN ENCRYPTED PRIVATE KEY-----/);
    assert.ok(decryptPrivateKey(pem, "correct horse battery").equals(key));
    for (const wrong of ["", "correct horse batterz"]) {
      assert.throws(() => decryptPrivateKey(pem, wrong), isCode("wrong-passphrase"));
    }
    assert.throws(() => decryptPrivateKey("no key", "correct horse battery"), isCode("wrong-passphrase"));
    await assert.rejects(encryptPrivateKey(key, "elevenchars", testRandom), isCode("short-passphrase"));
  });

  it("golden file: what an earlier version wrote still opens", () => {
    const opened = decryptPrivateKey(GOLDEN_PEM, "golden passphrase");
    const digest = createHash("sha256")
      .update(opened.export({ type: "pkcs8", format: "der" }))
      .digest("hex");
    assert.equal(digest, GOLDEN_DIGEST);
    assert.equal(createPrivateKey({ key: GOLDEN_PEM, passphrase: "golden passphrase" }).asymmetricKeyType, "ec");
  });
});

const GOLDEN_PEM = `-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSsGAQQB2kcECzAcBBAAAQIDBAUGBwgJCgsM
DQ4PAgJAAAIBCAIBBTAdBglghkgBZQMEASoEEBAREhMUFRYXGBkaGxwdHh8EgZB7
2eTc7+/kyCcDAvAZaCBFZNhjjTIoh+RCpfMMxkf7k+bQ0HbcwBZW2U7UaNysVb9/
HlxgtxYOGsNfMFcaLVNd649PX6A1Fv6NFhuNC8SxA48HNtzQGnT13GtEbXEV8xnI
LidR1YCPA0DwNbH1SVsY7JWYbDt5L+XJFE9XnAljxYK5P9S6JdIW69Zb58z6F3I=
-----END ENCRYPTED PRIVATE KEY-----
`;
const GOLDEN_DIGEST = "a5fa88bd9bf24cefc101c2760cbfd4b1e71f3299ec6843d66547e16a02f161f7";
