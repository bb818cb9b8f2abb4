import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { PaymentRequestSchema, SignedPaymentRequestSchema } from "../../gen/mpcwallet/consensus/v1/consensus_pb.js";
import {
  METADATA_MAX_BYTES,
  MONEY_MAX_SAT,
  parseSignedPaymentRequest,
  RECIPIENTS_MAX,
  REQUEST_MAX_BYTES,
  type RequestRefusalCode,
  type RequestRules,
  requestDigest,
  verifyPaymentRequest,
} from "../../src/consensus/payment-request.js";
import { AUTHORITY, NOW_MS, OUTSIDE, type RequestChanges, RULES, signedRequest } from "../wallet/sample-payment.js";
import { sampleNode, verifySample } from "./electorate.js";

function codeOf(signed: ReturnType<typeof signedRequest>, rules: RequestRules = RULES): RequestRefusalCode | "valid" {
  const verdict = verifyPaymentRequest(signed, rules, verifySample);
  return verdict.valid ? "valid" : verdict.refusal.code;
}

const recipient = (amountSat: bigint, address = OUTSIDE) => ({ address, amountSat });
const NOW = BigInt(NOW_MS);

describe("payment request", () => {
  it("a signed request within all bounds is valid and keeps its content", () => {
    const signed = signedRequest({ metadataJson: '{"a":1}' });
    const verdict = verifyPaymentRequest(signed, RULES, verifySample);
    assert.ok(verdict.valid);
    assert.deepEqual(verdict.request.recipients, [recipient(150_000n)]);
    assert.equal(verdict.request.metadataJson, '{"a":1}');
    assert.deepEqual(verdict.request.digest, requestDigest(signed));
  });

  const refusals: [RequestRefusalCode, RequestChanges][] = [
    ["request-id-invalid", { requestId: "" }],
    ["request-id-invalid", { requestId: "0B1E8D0A-6F0D-4F6E-9D1C-3B5D2A1C4E7F" }],
    ["wallet-id-invalid", { walletId: "" }],
    ["wallet-id-invalid", { walletId: "x".repeat(65) }],
    ["wallet-id-invalid", { walletId: "a b" }],
    ["recipients-missing", { recipients: [] }],
    ["too-many-recipients", { recipients: Array.from({ length: RECIPIENTS_MAX + 1 }, () => recipient(1_000n)) }],
    ["address-malformed", { recipients: [recipient(1_000n, "")] }],
    ["address-malformed", { recipients: [recipient(1_000n, "bc1q\u0000")] }],
    ["address-malformed", { recipients: [recipient(1_000n, "b".repeat(101))] }],
    ["amount-out-of-range", { recipients: [recipient(0n)] }],
    ["amount-out-of-range", { recipients: [recipient(MONEY_MAX_SAT + 1n)] }],
    ["amount-out-of-range", { recipients: [recipient(MONEY_MAX_SAT), recipient(1n)] }],
    ["max-fee-rate-out-of-range", { maxFeeRateSatPerKvb: 0n }],
    ["max-fee-rate-out-of-range", { maxFeeRateSatPerKvb: 100_000_001n }],
    ["metadata-too-large", { metadataJson: JSON.stringify("x".repeat(METADATA_MAX_BYTES - 1)) }],
    ["metadata-not-json", { metadataJson: "{" }],
    ["window-invalid", { createdAtMs: NOW, expiresAtMs: NOW }],
    ["window-invalid", { expiresAtMs: 2n ** 63n }],
    ["window-too-long", { createdAtMs: NOW - 1n, expiresAtMs: NOW + 3_600_000n }],
    ["request-from-future", { createdAtMs: NOW + 5_001n }],
    ["request-expired", { createdAtMs: NOW - 2_000n, expiresAtMs: NOW }],
  ];
  for (const [code, changes] of refusals) {
    it(`refuses ${code}: ${JSON.stringify(changes, (_, v: unknown) => (typeof v === "bigint" ? v.toString() : v)).slice(0, 60)}`, () => {
      assert.equal(codeOf(signedRequest(changes)), code);
    });
  }

  it("takes everything exactly at its limit", () => {
    const atLimit: RequestChanges[] = [
      { recipients: Array.from({ length: RECIPIENTS_MAX }, () => recipient(1n)) },
      { recipients: [recipient(MONEY_MAX_SAT)] },
      { metadataJson: JSON.stringify("x".repeat(METADATA_MAX_BYTES - 2)) },
      { createdAtMs: NOW + 5_000n },
      { createdAtMs: NOW, expiresAtMs: NOW + 3_600_000n },
      { createdAtMs: NOW - 1n, expiresAtMs: NOW + 1n },
      { maxFeeRateSatPerKvb: 100_000_000n },
    ];
    for (const changes of atLimit) assert.equal(codeOf(signedRequest(changes)), "valid");
  });

  it("refuses another authority, another key and any changed byte", () => {
    const signed = signedRequest();
    assert.equal(codeOf({ ...signed, authority: "nobody" }), "authority-unknown");
    assert.equal(codeOf({ ...signed, authority: "x".repeat(100_000) }), "authority-unknown");
    const other = { ...RULES, authorities: new Map([["treasury", sampleNode("thief").publicKey]]) };
    assert.equal(codeOf(signed, other), "request-forged");
    assert.equal(codeOf({ ...signed, signature: signed.signature.slice(1) }), "request-forged");
    for (let place = 0; place < signed.request.length; place++) {
      const request = signed.request.map((byte, index) => (index === place ? byte ^ 1 : byte));
      assert.equal(codeOf({ ...signed, request }), "request-forged");
    }
  });

  it("two authorities with one key cannot be confused: the name is signed", () => {
    const rules = {
      ...RULES,
      authorities: new Map([
        ["treasury", AUTHORITY.publicKey],
        ["payroll", AUTHORITY.publicKey],
      ]),
    };
    const signed = signedRequest({}, "treasury");
    assert.equal(codeOf({ ...signed, authority: "payroll" }, rules), "request-forged");
  });

  it("a signature over the bare bytes is no signature over the request", () => {
    const signed = signedRequest();
    assert.equal(codeOf({ ...signed, signature: AUTHORITY.sign(signed.request) }), "request-forged");
  });

  it("refuses fields that this version does not know, because they could change the meaning", () => {
    const signed = signedRequest();
    const unknown = Uint8Array.from([...signed.request, 0xf8, 0x07, 0x01]);
    const resigned = { ...signed, request: unknown };
    const signature = AUTHORITY.sign(requestDigest(resigned));
    assert.equal(codeOf({ ...resigned, signature }), "request-malformed");
  });

  it("refuses signed rubbish and oversize before parsing it", () => {
    const sign = (request: Uint8Array) => {
      const signed = create(SignedPaymentRequestSchema, { request, authority: "treasury" });
      return { ...signed, signature: AUTHORITY.sign(requestDigest(signed)) };
    };
    assert.equal(codeOf(sign(new Uint8Array(50).fill(0xff))), "request-malformed");
    assert.equal(codeOf(sign(new Uint8Array(REQUEST_MAX_BYTES + 1))), "request-too-large");
    assert.equal(parseSignedPaymentRequest(new Uint8Array(10_000_000)), undefined);
  });

  it("is total for hostile bytes", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
        const signed = parseSignedPaymentRequest(bytes);
        if (signed !== undefined) assert.notEqual(codeOf(signed), "valid");
      }),
      { numRuns: 300 },
    );
  });

  it("works with a clock that answers fractions", () => {
    assert.equal(codeOf(signedRequest(), { ...RULES, nowMs: NOW_MS + 0.25, clockSkewMs: 0.5 }), "valid");
  });

  it("survives its wire form", () => {
    const signed = signedRequest();
    const again = parseSignedPaymentRequest(toBinary(SignedPaymentRequestSchema, signed));
    assert.ok(again);
    assert.equal(codeOf(again), "valid");
    assert.equal(fromBinary(PaymentRequestSchema, again.request).walletId, "wallet-1");
  });
});
