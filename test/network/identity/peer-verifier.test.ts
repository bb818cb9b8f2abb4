import assert from "node:assert/strict";
import { generateKeyPairSync, type KeyObject, X509Certificate } from "node:crypto";
import { before, describe, it } from "node:test";
import fc from "fast-check";
import { InvalidInput } from "../../../src/crypto/fault.js";
import { MAX_CERTIFICATE_BYTES } from "../../../src/network/identity/certificate.js";
import { generateCertificateKey, spkiOf } from "../../../src/network/identity/certificate-authority.js";
import {
  EXPIRY_WARNING_MS,
  PeerIdentityVerifier,
  type PeerVerdict,
  type RefusalReason,
} from "../../../src/network/identity/peer-verifier.js";
import {
  createRevocationList,
  RevocationLists,
  STALE_GRACE_MS,
} from "../../../src/network/identity/revocation-lists.js";
import { x509 } from "../../../src/network/identity/x509-library.js";
import {
  authorityExtensions,
  context,
  DAY_MS,
  forge,
  type Hierarchy,
  issueTo,
  leafExtensions,
  MovableClock,
  makeHierarchy,
  NOW_MS,
  nameFor,
  parsed,
} from "./forged-chain.js";

const MEMBERS = new Set(["node-1", "node-2", "node-3"]);
const INTERMEDIATE = nameFor("test intermediate");
const ROOT = nameFor("test root");

let hierarchy: Hierarchy;
let other: Hierarchy;
let goodLeaf: Uint8Array;
let goodChain: readonly Uint8Array[];

before(async () => {
  [hierarchy, other] = await Promise.all([makeHierarchy(), makeHierarchy("other")]);
  goodLeaf = (await issueTo("node-1", hierarchy.intermediate)).leaf.der;
  goodChain = [goodLeaf, hierarchy.intermediate.certificate.der];
});

async function listFor(
  { root, intermediate }: Hierarchy,
  revoked: readonly string[] = [],
  number = 1,
): Promise<RevocationLists> {
  const lists = new RevocationLists({ authorities: [root.certificate, intermediate.certificate] });
  const revocations = revoked.map((serialNumber) => ({
    serialNumber,
    revokedAtMs: NOW_MS,
    reason: "key-compromise" as const,
  }));
  const der = await createRevocationList({ issuer: intermediate, number, revocations }, context);
  assert.deepEqual(lists.accept(der, NOW_MS), { ok: true, number });
  return lists;
}

async function makeVerifier(
  options: {
    readonly clock?: MovableClock;
    readonly knowsIntermediate?: boolean;
    readonly revocations?: RevocationLists;
    readonly count?: (outcome: "accepted" | RefusalReason) => void;
  } = {},
): Promise<PeerIdentityVerifier> {
  return new PeerIdentityVerifier(
    {
      roots: [hierarchy.root.certificate.der],
      intermediates: options.knowsIntermediate === true ? [hierarchy.intermediate.certificate.der] : [],
      roster: MEMBERS,
      revocations: options.revocations ?? (await listFor(hierarchy)),
    },
    { clock: options.clock ?? new MovableClock(), ...(options.count === undefined ? {} : { count: options.count }) },
  );
}

function assertRefused(verdict: PeerVerdict, reason: RefusalReason): void {
  assert.deepEqual(verdict, { ok: false, reason });
}

/** A leaf signed by the good intermediate, wrong in the given way. */
async function badLeaf(
  extensions: x509.Extension[],
  subject = nameFor("node-1"),
  times: { readonly notBeforeMs?: number; readonly notAfterMs?: number } = {},
): Promise<readonly Uint8Array[]> {
  const holder = await generateCertificateKey("P-256");
  const signer = hierarchy.intermediate.privateKey;
  const leaf = await forge({ subject, issuer: INTERMEDIATE, holder, signer, extensions, ...times });
  return [leaf, hierarchy.intermediate.certificate.der];
}

describe("a peer that was accepted before", () => {
  it("is accepted again, and refused once its leaf is another, expired or revoked", async () => {
    const clock = new MovableClock();
    const revocations = await listFor(hierarchy);
    const verifier = await makeVerifier({ clock, revocations });
    for (let round = 0; round < 3; round++) assert.equal(verifier.verify(goodChain, "node-1").ok, true);
    assertRefused(verifier.verify(goodChain, "node-2"), "unexpected-node");
    const changed = Uint8Array.from(goodLeaf);
    changed[changed.length - 1] = (changed.at(-1) ?? 0) ^ 1; // of the signature
    assertRefused(verifier.verify([changed, hierarchy.intermediate.certificate.der], "node-1"), "bad-signature");
    clock.timeMs = NOW_MS + 91 * DAY_MS;
    assertRefused(verifier.verify(goodChain, "node-1"), "expired");
    clock.timeMs = NOW_MS;
    assert.equal(verifier.verify(goodChain, "node-1").ok, true);
    const { serialNumber } = parsed(goodLeaf);
    const entry = { serialNumber, revokedAtMs: NOW_MS, reason: "key-compromise" as const };
    const list = await createRevocationList(
      { issuer: hierarchy.intermediate, number: 2, revocations: [entry] },
      context,
    );
    assert.equal(revocations.accept(list, NOW_MS).ok, true);
    assertRefused(verifier.verify(goodChain, "node-1"), "revoked");
  });

  it("is refused below an intermediate that was revoked since", async () => {
    const revocations = await listFor(hierarchy);
    const verifier = await makeVerifier({ revocations });
    for (let round = 0; round < 2; round++) assert.equal(verifier.verify(goodChain, "node-1").ok, true);
    const { serialNumber } = hierarchy.intermediate.certificate;
    const entry = { serialNumber, revokedAtMs: NOW_MS, reason: "key-compromise" as const };
    const list = await createRevocationList({ issuer: hierarchy.root, number: 1, revocations: [entry] }, context);
    assert.equal(revocations.accept(list, NOW_MS).ok, true);
    assertRefused(verifier.verify(goodChain, "node-1"), "revoked");
  });

  it("costs no signature while it is one of the last 64, and one again after that", async () => {
    const nodeIds = Array.from({ length: 65 }, (_, index) => `member-${index}`);
    const { root, intermediate } = hierarchy;
    const issue = async (nodeId: string) => (await issueTo(nodeId, intermediate)).leaf.der;
    const leaves = await Promise.all(nodeIds.map(issue));
    const stranger = await issue("stranger");
    const verifier = new PeerIdentityVerifier(
      {
        roots: [root.certificate.der],
        intermediates: [intermediate.certificate.der],
        roster: new Set(nodeIds),
        revocations: await listFor(hierarchy),
      },
      { clock: new MovableClock() },
    );
    const { verify } = X509Certificate.prototype;
    let signatures = 0;
    X509Certificate.prototype.verify = function (key: KeyObject): boolean {
      signatures += 1;
      return verify.call(this, key);
    };
    /** Signatures that one verdict took. */
    const costOf = (index: number): number => {
      signatures = 0;
      const chain = [leaves[index] ?? new Uint8Array(), intermediate.certificate.der];
      assert.equal(verifier.verify(chain, nodeIds[index]).ok, true);
      return signatures;
    };
    try {
      for (let index = 0; index < 64; index++) assert.equal(costOf(index), 1);
      for (let index = 0; index < 64; index++) assert.equal(costOf(index), 0);
      // Who is refused takes nobody's place.
      for (let round = 1; round <= 2; round++) {
        signatures = 0;
        const chain = [stranger, intermediate.certificate.der];
        assertRefused(verifier.verify(chain, undefined), "not-in-roster");
        assert.equal(signatures, 1, `round ${round}`);
      }
      assert.deepEqual([costOf(0), costOf(63)], [0, 0]);
      assert.equal(costOf(64), 1);
      assert.equal(costOf(0), 1, "forgotten, with the link to its issuer");
      assert.deepEqual([costOf(0), costOf(63), costOf(64)], [0, 0, 0]);
    } finally {
      X509Certificate.prototype.verify = verify;
    }
  });
});

describe("peer verifier accepts", () => {
  it("a member's chain, with and without the root, with and without the expected id", async () => {
    const verifier = await makeVerifier();
    const withRoot = [...goodChain, hierarchy.root.certificate.der];
    for (const chain of [goodChain, withRoot]) {
      for (const expected of ["node-1", undefined]) {
        const verdict = verifier.verify(chain, expected);
        assert.deepEqual(verdict, { ok: true, nodeId: "node-1", notAfterMs: NOW_MS + 90 * DAY_MS, warnings: [] });
      }
    }
  });

  it("a leaf alone when the intermediate is configured", async () => {
    assert.equal((await makeVerifier({ knowsIntermediate: true })).verify([goodLeaf], "node-1").ok, true);
  });

  it("a forged leaf that is wrong in nothing: the forgeries below differ by their one fault", async () => {
    assert.equal((await makeVerifier()).verify(await badLeaf(leafExtensions("node-1")), "node-1").ok, true);
  });

  it("P-384 node keys", async () => {
    const { leaf } = await issueTo("node-2", hierarchy.intermediate, { curve: "P-384" });
    const verdict = (await makeVerifier()).verify([leaf.der, hierarchy.intermediate.certificate.der], "node-2");
    assert.equal(verdict.ok, true);
  });

  it("an organisation's own RSA root above our kind of intermediate; not one of 2,048 bits", async () => {
    for (const [modulusLength, usable] of [
      [3072, true],
      [2048, false],
    ] as const) {
      const algorithm = {
        name: "RSASSA-PKCS1-v1_5",
        modulusLength,
        publicExponent: Buffer.of(1, 0, 1),
        hash: "SHA-256",
      };
      const keys = await crypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
      const issuing = { signingKey: keys.privateKey, signingAlgorithm: algorithm, issuer: nameFor("rsa") };
      const times = { notBefore: new Date(NOW_MS - DAY_MS), notAfter: new Date(NOW_MS + DAY_MS) };
      const extensions = authorityExtensions();
      const make = async (subject: x509.JsonName, publicKey: typeof keys.publicKey | Uint8Array) => {
        const made = await x509.X509CertificateGenerator.create({
          ...issuing,
          ...times,
          subject,
          publicKey,
          extensions,
        });
        return new Uint8Array(made.rawData);
      };
      const root = await make(nameFor("rsa"), keys.publicKey);
      const holder = await generateCertificateKey("P-384");
      const der = await make(nameFor("below rsa"), spkiOf(holder));
      const intermediate = { certificate: parsed(der), privateKey: holder };
      const revocations = await listFor({ root: intermediate, intermediate });
      const { leaf } = await issueTo("node-1", intermediate);
      const build = () =>
        new PeerIdentityVerifier({ roots: [root], roster: MEMBERS, revocations }, { clock: new MovableClock() });
      if (usable) assert.equal(build().verify([leaf.der, der], "node-1").ok, true);
      else assert.throws(build, (error) => error instanceof InvalidInput && error.code === "bad-trust-anchor");
    }
  });

  it("with a warning in the last 14 days, up to the last millisecond", async () => {
    const clock = new MovableClock();
    const endMs = parsed(goodLeaf).notAfterMs;
    const list = await createRevocationList(
      { issuer: hierarchy.intermediate, number: 2, revocations: [], lifetimeMs: 200 * DAY_MS },
      context,
    );
    const lists = new RevocationLists({ authorities: [hierarchy.intermediate.certificate] });
    lists.accept(list, NOW_MS);
    const longListed = await makeVerifier({ clock, revocations: lists });
    const warningsAt = (timeMs: number) => {
      clock.timeMs = timeMs;
      const verdict = longListed.verify(goodChain, "node-1");
      return verdict.ok ? verdict.warnings : verdict.reason;
    };
    assert.deepEqual(warningsAt(endMs - EXPIRY_WARNING_MS), []);
    assert.deepEqual(warningsAt(endMs - EXPIRY_WARNING_MS + 1), ["expires-soon"]);
    assert.deepEqual(warningsAt(endMs), ["expires-soon"]);
    assert.equal(warningsAt(endMs + 1), "expired");
  });
});

describe("peer verifier refuses, by time", () => {
  it("an expired leaf and a leaf that is not valid yet", async () => {
    const verifier = await makeVerifier();
    const expired = await badLeaf(leafExtensions("node-1"), nameFor("node-1"), { notAfterMs: NOW_MS - 1000 });
    const early = await badLeaf(leafExtensions("node-1"), nameFor("node-1"), { notBeforeMs: NOW_MS + 1000 });
    assertRefused(verifier.verify(expired, "node-1"), "expired");
    assertRefused(verifier.verify(early, "node-1"), "not-yet-valid");
  });

  it("a good leaf below an expired intermediate", async () => {
    const holder = await generateCertificateKey("P-384");
    const extensions = authorityExtensions({ pathLength: 0 });
    const times = { notBeforeMs: NOW_MS - 9 * DAY_MS, notAfterMs: NOW_MS - DAY_MS };
    const signer = hierarchy.root.privateKey;
    const old = await forge({ subject: nameFor("old"), issuer: ROOT, holder, signer, extensions, ...times });
    const leaf = await forge({
      subject: nameFor("node-1"),
      issuer: nameFor("old"),
      holder: await generateCertificateKey("P-256"),
      signer: holder,
      extensions: leafExtensions("node-1"),
    });
    assertRefused((await makeVerifier()).verify([leaf, old], "node-1"), "expired");
  });
});

describe("peer verifier refuses, by chain", () => {
  it("no certificate", async () => {
    assertRefused((await makeVerifier()).verify([], "node-1"), "no-certificate");
  });

  it("more certificates than a chain has, and certificates larger than one can be", async () => {
    const verifier = await makeVerifier();
    assertRefused(verifier.verify(Array(5).fill(goodLeaf), "node-1"), "too-many-certificates");
    assertRefused(verifier.verify([new Uint8Array(MAX_CERTIFICATE_BYTES + 1)], "node-1"), "oversized");
    assertRefused(verifier.verify([new Uint8Array(MAX_CERTIFICATE_BYTES)], "node-1"), "malformed");
  });

  it("another authority's chain", async () => {
    const { leaf } = await issueTo("node-1", other.intermediate);
    const verifier = await makeVerifier();
    const chain = [leaf.der, other.intermediate.certificate.der];
    assertRefused(verifier.verify(chain, "node-1"), "wrong-authority");
    assertRefused(verifier.verify([...chain, other.root.certificate.der], "node-1"), "wrong-authority");
  });

  it("another authority's chain under our names: the signature decides", async () => {
    const twin = await makeHierarchy("test");
    const { leaf } = await issueTo("node-1", twin.intermediate);
    const verifier = await makeVerifier();
    assertRefused(verifier.verify([leaf.der, twin.intermediate.certificate.der], "node-1"), "wrong-authority");
    // Without key identifiers only the name is left to match, and it does.
    const rogue = await generateCertificateKey("P-384");
    const extensions = authorityExtensions({ pathLength: 0 });
    const intermediate = await forge({ subject: nameFor("r"), issuer: ROOT, holder: rogue, signer: rogue, extensions });
    const holder = await generateCertificateKey("P-256");
    const below = await forge({
      subject: nameFor("node-1"),
      issuer: nameFor("r"),
      holder,
      signer: rogue,
      extensions: leafExtensions("node-1"),
    });
    assertRefused(verifier.verify([below, intermediate], "node-1"), "bad-signature");
  });

  it("a leaf whose intermediate is missing", async () => {
    assertRefused((await makeVerifier()).verify([goodLeaf], "node-1"), "missing-intermediate");
  });

  it("a chain out of order, or with a stranger in it", async () => {
    const verifier = await makeVerifier();
    const [leaf, intermediate] = [goodLeaf, hierarchy.intermediate.certificate.der];
    assertRefused(verifier.verify([leaf, hierarchy.root.certificate.der, intermediate], "node-1"), "out-of-order");
    assertRefused(verifier.verify([leaf, intermediate, other.root.certificate.der], "node-1"), "out-of-order");
    assertRefused(verifier.verify([intermediate, leaf], "node-1"), "out-of-order");
  });

  it("self-signed certificates, the root itself, and the intermediate as a peer", async () => {
    const verifier = await makeVerifier();
    const holder = await generateCertificateKey("P-256");
    const subject = nameFor("node-1");
    const extensions = leafExtensions("node-1");
    const own = await forge({ subject, issuer: subject, holder, signer: holder, extensions });
    assertRefused(verifier.verify([own], "node-1"), "self-signed");
    assertRefused(verifier.verify([hierarchy.root.certificate.der], "node-1"), "self-signed");
    assertRefused(verifier.verify([hierarchy.intermediate.certificate.der], "node-1"), "wrong-key-usage");
  });

  it("a changed byte in the signature", async () => {
    const verifier = await makeVerifier();
    const bent = new Uint8Array(goodLeaf);
    bent[bent.length - 1] = (bent.at(-1) ?? 0) ^ 1;
    assertRefused(verifier.verify([bent, hierarchy.intermediate.certificate.der], "node-1"), "bad-signature");
  });

  it("a node that signs for another node", async () => {
    const { leaf, privateKey } = await issueTo("node-2", hierarchy.intermediate);
    const fake = await forge({
      subject: nameFor("node-1"),
      issuer: nameFor("node-2"),
      holder: await generateCertificateKey("P-256"),
      signer: privateKey,
      extensions: leafExtensions("node-1"),
    });
    const chain = [fake, leaf.der, hierarchy.intermediate.certificate.der];
    // The path length of the intermediate forbids the step already; a node is no authority either.
    assertRefused((await makeVerifier()).verify(chain, "node-1"), "path-length-exceeded");
  });

  it("a node that signs for another node below an authority of unlimited depth", async () => {
    const deep = await generateCertificateKey("P-384");
    const intermediate = await forge({
      subject: nameFor("deep"),
      issuer: ROOT,
      holder: deep,
      signer: hierarchy.root.privateKey,
      extensions: authorityExtensions(),
    });
    const node = await generateCertificateKey("P-256");
    const nodeLeaf = await forge({
      subject: nameFor("node-2"),
      issuer: nameFor("deep"),
      holder: node,
      signer: deep,
      extensions: leafExtensions("node-2"),
    });
    const fake = await forge({
      subject: nameFor("node-1"),
      issuer: nameFor("node-2"),
      holder: await generateCertificateKey("P-256"),
      signer: node,
      extensions: leafExtensions("node-1"),
    });
    assertRefused((await makeVerifier()).verify([fake, nodeLeaf, intermediate], "node-1"), "not-an-authority");
  });

  it("an intermediate without the authority flag, or without the right to sign certificates", async () => {
    const verifier = await makeVerifier();
    const cases: readonly (readonly [x509.Extension[], RefusalReason])[] = [
      [authorityExtensions({ authority: false }), "not-an-authority"],
      [authorityExtensions({ keyUsage: x509.KeyUsageFlags.cRLSign }), "wrong-key-usage"],
      [[new x509.BasicConstraintsExtension(true, 0, true)], "wrong-key-usage"],
      [[], "not-an-authority"],
    ];
    for (const [extensions, reason] of cases) {
      const holder = await generateCertificateKey("P-384");
      const signer = hierarchy.root.privateKey;
      const weak = await forge({ subject: nameFor("weak"), issuer: ROOT, holder, signer, extensions });
      const leaf = await forge({
        subject: nameFor("node-1"),
        issuer: nameFor("weak"),
        holder: await generateCertificateKey("P-256"),
        signer: holder,
        extensions: leafExtensions("node-1"),
      });
      assertRefused(verifier.verify([leaf, weak], "node-1"), reason);
    }
  });

  it("an authority below an intermediate of path length 0", async () => {
    const below = await generateCertificateKey("P-384");
    const authority = await forge({
      subject: nameFor("below"),
      issuer: INTERMEDIATE,
      holder: below,
      signer: hierarchy.intermediate.privateKey,
      extensions: authorityExtensions(),
    });
    const leaf = await forge({
      subject: nameFor("node-1"),
      issuer: nameFor("below"),
      holder: await generateCertificateKey("P-256"),
      signer: below,
      extensions: leafExtensions("node-1"),
    });
    const chain = [leaf, authority, hierarchy.intermediate.certificate.der];
    assertRefused((await makeVerifier()).verify(chain, "node-1"), "path-length-exceeded");
  });

  it("keys that we do not use", async () => {
    const { privateKey } = generateKeyPairSync("ec", { namedCurve: "secp256k1" });
    const leaf = await forge({
      subject: nameFor("node-1"),
      issuer: INTERMEDIATE,
      holder: privateKey,
      signer: hierarchy.intermediate.privateKey,
      extensions: leafExtensions("node-1"),
    });
    const chain = [leaf, hierarchy.intermediate.certificate.der];
    assertRefused((await makeVerifier()).verify(chain, "node-1"), "unacceptable-algorithm");
  });

  it("critical extensions whose meaning it does not apply", async () => {
    const nameConstraints = new x509.Extension("2.5.29.30", true, Buffer.from("3000", "hex"));
    const chain = await badLeaf(leafExtensions("node-1", { more: [nameConstraints] }));
    assertRefused((await makeVerifier()).verify(chain, "node-1"), "unknown-critical-extension");
  });

  it("the same extension twice", async () => {
    const again = new x509.SubjectAlternativeNameExtension([{ type: "dns", value: "node-2" }]);
    const chain = await badLeaf(leafExtensions("node-1", { more: [again] }));
    assertRefused((await makeVerifier()).verify(chain, "node-1"), "malformed");
  });
});

describe("peer verifier refuses, by purpose and name", () => {
  it("a leaf for one side only, for anything, or for something else", async () => {
    const verifier = await makeVerifier();
    const { serverAuth, clientAuth, codeSigning } = x509.ExtendedKeyUsage;
    for (const usages of [[serverAuth], [clientAuth], [codeSigning], ["2.5.29.37.0"], []]) {
      const chain = await badLeaf(leafExtensions("node-1", { usages }));
      assertRefused(verifier.verify(chain, "node-1"), "wrong-extended-key-usage");
    }
    const without = leafExtensions("node-1").filter(({ type }) => type !== "2.5.29.37");
    assertRefused(verifier.verify(await badLeaf(without), "node-1"), "wrong-extended-key-usage");
  });

  it("a leaf that may sign certificates, is an authority, or may not sign handshakes", async () => {
    const verifier = await makeVerifier();
    const { digitalSignature, keyCertSign, keyAgreement } = x509.KeyUsageFlags;
    const cases = [
      leafExtensions("node-1", { keyUsage: digitalSignature | keyCertSign }),
      leafExtensions("node-1", { keyUsage: keyAgreement }),
      leafExtensions("node-1", { authority: true }),
      leafExtensions("node-1").filter(({ type }) => type !== "2.5.29.15"),
    ];
    for (const extensions of cases) {
      assertRefused(verifier.verify(await badLeaf(extensions), "node-1"), "wrong-key-usage");
    }
  });

  it("names that are not exactly one node id, twice", async () => {
    const verifier = await makeVerifier();
    const dns = (value: string) => ({ type: "dns" as const, value });
    const cases: readonly (readonly [x509.JsonName, x509.JsonGeneralName[]])[] = [
      [nameFor("node-1"), [dns("node-2")]],
      [nameFor("node-2"), [dns("node-1")]],
      [nameFor("node-1"), [dns("node-1"), dns("node-2")]],
      [nameFor("node-1"), [dns("node-1"), { type: "ip", value: "127.0.0.1" }]],
      [nameFor("node-1"), [{ type: "email", value: "node-1" }]],
      [nameFor("*"), [dns("*")]],
      [nameFor("*.mpc"), [dns("*.mpc")]],
      [nameFor("node-1.mpc"), [dns("node-1.mpc")]],
      [nameFor("Node-1"), [dns("Node-1")]],
      [nameFor("node-1 "), [dns("node-1")]],
      [nameFor("node-1\0"), [dns("node-1\0")]],
      [[{ CN: ["node-1"] }, { CN: ["node-2"] }], [dns("node-1")]],
      [[{ O: ["node-1"] }], [dns("node-1")]],
    ];
    for (const [subject, names] of cases) {
      const verdict = verifier.verify(await badLeaf(leafExtensions("", { names }), subject), "node-1");
      assertRefused(verdict, "name-mismatch");
    }
    const without = leafExtensions("node-1").filter(({ type }) => type !== "2.5.29.17");
    assertRefused(verifier.verify(await badLeaf(without), "node-1"), "name-mismatch");
  });

  it("a good certificate of a node that is not in the roster, or not the one that was dialled", async () => {
    const verifier = await makeVerifier();
    const { leaf } = await issueTo("node-9", hierarchy.intermediate);
    const stranger = [leaf.der, hierarchy.intermediate.certificate.der];
    assertRefused(verifier.verify(stranger, "node-9"), "not-in-roster");
    assertRefused(verifier.verify(stranger, undefined), "not-in-roster");
    assertRefused(verifier.verify(goodChain, "node-2"), "unexpected-node");
    assertRefused(verifier.verify(goodChain, ""), "unexpected-node");
  });
});

describe("peer verifier refuses, by revocation", () => {
  it("a revoked leaf, and only that one", async () => {
    const { leaf } = await issueTo("node-2", hierarchy.intermediate);
    const verifier = await makeVerifier({ revocations: await listFor(hierarchy, [parsed(goodLeaf).serialNumber]) });
    assertRefused(verifier.verify(goodChain, "node-1"), "revoked");
    assert.equal(verifier.verify([leaf.der, hierarchy.intermediate.certificate.der], "node-2").ok, true);
  });

  it("a leaf that is revoked while the verifier runs", async () => {
    const revocations = await listFor(hierarchy);
    const verifier = await makeVerifier({ revocations });
    assert.equal(verifier.verify(goodChain, "node-1").ok, true);
    const revoked = { serialNumber: parsed(goodLeaf).serialNumber, revokedAtMs: NOW_MS, reason: "superseded" as const };
    const next = { issuer: hierarchy.intermediate, number: 2, revocations: [revoked] };
    assert.equal(revocations.accept(await createRevocationList(next, context), NOW_MS).ok, true);
    assertRefused(verifier.verify(goodChain, "node-1"), "revoked");
  });

  it("everything below a revoked intermediate", async () => {
    const revocations = await listFor(hierarchy);
    const { serialNumber } = hierarchy.intermediate.certificate;
    const entry = { serialNumber, revokedAtMs: NOW_MS, reason: "key-compromise" as const };
    const der = await createRevocationList({ issuer: hierarchy.root, number: 1, revocations: [entry] }, context);
    assert.equal(revocations.accept(der, NOW_MS).ok, true);
    assertRefused((await makeVerifier({ revocations })).verify(goodChain, "node-1"), "revoked");
  });

  it("every leaf when there is no list: a deleted file must not un-revoke", async () => {
    const revocations = new RevocationLists({ authorities: [hierarchy.intermediate.certificate] });
    assertRefused((await makeVerifier({ revocations })).verify(goodChain, "node-1"), "revocation-unknown");
  });

  it("every leaf when the list is overdue beyond the grace; before that it warns", async () => {
    const clock = new MovableClock();
    const verifier = await makeVerifier({ clock });
    const overdueMs = NOW_MS + 30 * DAY_MS;
    const at = (timeMs: number) => {
      clock.timeMs = timeMs;
      const verdict = verifier.verify(goodChain, "node-1");
      return verdict.ok ? verdict.warnings : verdict.reason;
    };
    assert.deepEqual(at(overdueMs), []);
    assert.deepEqual(at(overdueMs + 1), ["revocation-list-stale"]);
    assert.deepEqual(at(overdueMs + STALE_GRACE_MS), ["revocation-list-stale"]);
    assert.equal(at(overdueMs + STALE_GRACE_MS + 1), "revocation-stale");
  });
});

describe("peer verifier is total", () => {
  it("garbage in any place gets a verdict", async () => {
    const verifier = await makeVerifier();
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 600 }), { maxLength: 6 }), (chain) => {
        assert.equal(verifier.verify(chain, undefined).ok, false);
      }),
      { numRuns: 500 },
    );
  });

  it("a truncated certificate, and bytes after one, are malformed", async () => {
    const verifier = await makeVerifier();
    const intermediate = hierarchy.intermediate.certificate.der;
    for (let length = 0; length < goodLeaf.length; length += 7) {
      assertRefused(verifier.verify([goodLeaf.subarray(0, length), intermediate], "node-1"), "malformed");
    }
    assertRefused(verifier.verify([Buffer.concat([goodLeaf, Buffer.of(0)]), intermediate], "node-1"), "malformed");
  });

  it("a certificate with any byte changed is never accepted", async () => {
    const verifier = await makeVerifier();
    const intermediate = hierarchy.intermediate.certificate.der;
    const reasons = new Set<string>();
    fc.assert(
      fc.property(fc.nat(goodLeaf.length - 1), fc.integer({ min: 1, max: 255 }), fc.boolean(), (at, mask, inLeaf) => {
        const chain = [new Uint8Array(goodLeaf), new Uint8Array(intermediate)];
        const target = chain[inLeaf ? 0 : 1] ?? new Uint8Array();
        target[at % target.length] = (target[at % target.length] ?? 0) ^ mask;
        const verdict = verifier.verify(chain, "node-1");
        assert.equal(verdict.ok, false);
        if (!verdict.ok) reasons.add(verdict.reason);
      }),
      { numRuns: 1500 },
    );
    assert.ok(reasons.has("bad-signature") && reasons.has("malformed"));
    assert.ok(!reasons.has("verifier-failed"));
  });

  it("a failing counter, roster or clock keeps the peer out and throws nothing", async () => {
    const counting = await makeVerifier({
      count: () => {
        throw new Error("metrics are down");
      },
    });
    assert.equal(counting.verify(goodChain, "node-1").ok, true);
    const failing = new PeerIdentityVerifier(
      {
        roots: [hierarchy.root.certificate.der],
        roster: {
          has: () => {
            throw new Error("roster is gone");
          },
        },
        revocations: await listFor(hierarchy),
      },
      { clock: new MovableClock() },
    );
    assertRefused(failing.verify(goodChain, "node-1"), "verifier-failed");
  });

  it("each verdict is counted by its reason", async () => {
    const counts: string[] = [];
    const verifier = await makeVerifier({ count: (outcome) => counts.push(outcome) });
    verifier.verify(goodChain, "node-1");
    verifier.verify(goodChain, "node-2");
    verifier.verify([], undefined);
    assert.deepEqual(counts, ["accepted", "unexpected-node", "no-certificate"]);
  });

  it("unusable roots are refused when it is made", async () => {
    const revocations = await listFor(hierarchy);
    const make = (roots: readonly Uint8Array[]) => () =>
      new PeerIdentityVerifier({ roots, roster: MEMBERS, revocations }, { clock: new MovableClock() });
    for (const roots of [[], [goodLeaf], [new Uint8Array(9)], [hierarchy.intermediate.certificate.der]]) {
      assert.throws(make(roots), (error) => error instanceof InvalidInput && error.code === "bad-trust-anchor");
    }
  });
});
