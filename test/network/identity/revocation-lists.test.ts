import assert from "node:assert/strict";
import { before, describe, it } from "node:test";
import fc from "fast-check";
import { InvalidInput } from "../../../src/crypto/fault.js";
import {
  nameOf,
  type SigningAuthority,
  spkiOf,
  webCryptoSigner,
} from "../../../src/network/identity/certificate-authority.js";
import { encodeDerInteger } from "../../../src/network/identity/der.js";
import {
  createRevocationList,
  type ListRefusal,
  MAX_REVOCATION_LIST_BYTES,
  MAX_REVOCATIONS,
  type Revocation,
  RevocationLists,
  revocationListFromPem,
  revocationListToPem,
} from "../../../src/network/identity/revocation-lists.js";
import { x509 } from "../../../src/network/identity/x509-library.js";
import { context, DAY_MS, type Hierarchy, makeHierarchy, NOW_MS } from "./forged-chain.js";

const revocation = (serialNumber: string): Revocation => ({
  serialNumber,
  revokedAtMs: NOW_MS - DAY_MS,
  reason: "key-compromise",
});

let hierarchy: Hierarchy;
let issuer: SigningAuthority;

before(async () => {
  hierarchy = await makeHierarchy();
  issuer = hierarchy.intermediate;
});

const makeLists = () =>
  new RevocationLists({ authorities: [hierarchy.root.certificate, hierarchy.intermediate.certificate] });

const makeList = (number: number, revocations: readonly Revocation[] = [], by: SigningAuthority = issuer) =>
  createRevocationList({ issuer: by, number, revocations }, context);

/** A list that our own code would never sign. */
async function forgeList(
  extensions: x509.Extension[],
  changes: {
    readonly thisUpdateMs?: number;
    readonly nextUpdate?: false;
    readonly entryExtensions?: x509.Extension[];
  } = {},
): Promise<Uint8Array> {
  const signer = await webCryptoSigner(issuer.privateKey);
  const list = await x509.X509CrlGenerator.create({
    issuer: nameOf(issuer.certificate),
    thisUpdate: new Date(changes.thisUpdateMs ?? NOW_MS),
    ...(changes.nextUpdate === false ? {} : { nextUpdate: new Date(NOW_MS + DAY_MS) }),
    entries: [{ serialNumber: "41aa", revocationDate: new Date(NOW_MS), extensions: changes.entryExtensions ?? [] }],
    extensions,
    signingAlgorithm: signer.algorithm,
    signingKey: signer.key,
  });
  return new Uint8Array(list.rawData);
}

const numbered = (number: number) => new x509.Extension("2.5.29.20", false, new Uint8Array(encodeDerInteger(number)));

function assertRefused(lists: RevocationLists, der: Uint8Array, reason: ListRefusal): void {
  assert.deepEqual(lists.accept(der, NOW_MS), { ok: false, reason });
}

describe("revocation lists", () => {
  it("know the revoked, and only those, of each issuer", async () => {
    const lists = makeLists();
    const { certificate } = issuer;
    assert.equal(lists.statusOf(certificate, "41aa", NOW_MS).state, "unknown");
    assert.deepEqual(lists.accept(await makeList(7, [revocation("41aa"), revocation("42bb")]), NOW_MS), {
      ok: true,
      number: 7,
    });
    assert.equal(lists.statusOf(certificate, "41aa", NOW_MS).state, "revoked");
    assert.equal(lists.statusOf(certificate, "42bb", NOW_MS).state, "revoked");
    assert.equal(lists.statusOf(certificate, "43cc", NOW_MS).state, "good");
    assert.equal(lists.statusOf(hierarchy.root.certificate, "41aa", NOW_MS).state, "unknown");
    assert.equal(lists.newest(certificate)?.number, 7);
  });

  it("refuse a rollback and another list of the same number; take the same list twice", async () => {
    const lists = makeLists();
    const second = await makeList(2, [revocation("41aa")]);
    assert.equal(lists.accept(second, NOW_MS).ok, true);
    assert.equal(lists.accept(second, NOW_MS).ok, true);
    assertRefused(lists, await makeList(1), "rollback");
    assertRefused(lists, await makeList(2), "rollback");
    assert.equal(lists.statusOf(issuer.certificate, "41aa", NOW_MS).state, "revoked");
    assert.equal(lists.accept(await makeList(3), NOW_MS).ok, true);
    assert.equal(lists.statusOf(issuer.certificate, "41aa", NOW_MS).state, "good");
  });

  it("refuse a list signed by another key, by a stranger, or by a node", async () => {
    const twin = await makeHierarchy("test");
    const other = await makeHierarchy("other");
    assertRefused(makeLists(), await makeList(1, [], twin.intermediate), "unknown-issuer");
    assertRefused(makeLists(), await makeList(1, [], other.intermediate), "unknown-issuer");
    // Our name, our key identifier, another key.
    const claimed = { certificate: issuer.certificate, privateKey: twin.intermediate.privateKey };
    const signer = await webCryptoSigner(claimed.privateKey);
    const forged = await x509.X509CrlGenerator.create({
      issuer: nameOf(issuer.certificate),
      thisUpdate: new Date(NOW_MS),
      nextUpdate: new Date(NOW_MS + DAY_MS),
      extensions: [await x509.AuthorityKeyIdentifierExtension.create(spkiOf(issuer.privateKey)), numbered(1)],
      signingAlgorithm: signer.algorithm,
      signingKey: signer.key,
    });
    assertRefused(makeLists(), new Uint8Array(forged.rawData), "bad-signature");
  });

  it("refuse lists that are partial, unnumbered, endless or from the future", async () => {
    const lists = makeLists();
    const delta = new x509.Extension("2.5.29.27", true, new Uint8Array(encodeDerInteger(1)));
    const point = new x509.Extension("2.5.29.28", true, Buffer.from("3000", "hex"));
    const negative = new x509.Extension("2.5.29.20", false, Buffer.from("0201ff", "hex"));
    const otherIssuer = new x509.Extension("2.5.29.29", true, Buffer.from("3000", "hex"));
    assertRefused(lists, await forgeList([numbered(1), delta]), "unknown-critical-extension");
    assertRefused(lists, await forgeList([numbered(1), point]), "unknown-critical-extension");
    assertRefused(
      lists,
      await forgeList([numbered(1)], { entryExtensions: [otherIssuer] }),
      "unknown-critical-extension",
    );
    assertRefused(lists, await forgeList([]), "malformed");
    assertRefused(lists, await forgeList([negative]), "malformed");
    assertRefused(lists, await forgeList([numbered(1), numbered(2)]), "malformed");
    assertRefused(lists, await forgeList([numbered(1)], { nextUpdate: false }), "malformed");
    assertRefused(lists, await forgeList([numbered(1)], { thisUpdateMs: NOW_MS + DAY_MS }), "not-yet-valid");
    assert.equal(lists.accept(await forgeList([numbered(1)]), NOW_MS).ok, true);
  });

  it("hold the largest list, refuse one more entry and larger bytes", async () => {
    const serials = Array.from({ length: MAX_REVOCATIONS }, (_, index) => revocation((0x410000 + index).toString(16)));
    const largest = await makeList(1, serials);
    assert.ok(largest.length < MAX_REVOCATION_LIST_BYTES);
    const lists = makeLists();
    assert.equal(lists.accept(largest, NOW_MS).ok, true);
    assert.equal(
      lists.statusOf(issuer.certificate, (0x410000 + MAX_REVOCATIONS - 1).toString(16), NOW_MS).state,
      "revoked",
    );
    await assert.rejects(
      makeList(2, [...serials, revocation("60")]),
      (error) => error instanceof InvalidInput && error.code === "too-many-revocations",
    );
    assertRefused(lists, new Uint8Array(MAX_REVOCATION_LIST_BYTES + 1), "oversized");
  });

  it("are total, and stay as they were after a refusal", async () => {
    const lists = makeLists();
    const good = await makeList(5, [revocation("41aa")]);
    assert.equal(lists.accept(good, NOW_MS).ok, true);
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), (der) => {
        assert.equal(lists.accept(der, NOW_MS).ok, false);
      }),
    );
    for (let bit = 0; bit < good.length * 8; bit += 1) {
      const bent = new Uint8Array(good);
      bent[bit >> 3] = (bent[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      assert.equal(lists.accept(bent, NOW_MS).ok, false, `bit ${bit}`);
    }
    for (let length = 0; length < good.length; length += 5) assertRefused(lists, good.subarray(0, length), "malformed");
    assert.equal(lists.statusOf(issuer.certificate, "41aa", NOW_MS).state, "revoked");
  });

  it("travel as PEM", async () => {
    const der = await makeList(1);
    const pem = revocationListToPem(der);
    assert.match(pem, /^-----BEGIN X509 CRL-----\n[\s\S]+-----END X509 CRL-----\n$/);
    assert.deepEqual(revocationListFromPem(pem), der);
    assert.throws(
      () => revocationListFromPem("nothing"),
      (error) => error instanceof InvalidInput && error.code === "bad-revocation-list-file",
    );
  });
});
