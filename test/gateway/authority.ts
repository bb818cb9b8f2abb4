import { createPublicKey, generateKeyPairSync, randomUUID, sign, verify } from "node:crypto";
import type { SignedPaymentRequest } from "../../gen/mpcwallet/consensus/v1/consensus_pb.js";
import { signPaymentRequest } from "../../src/consensus/payment-request.js";

const SPKI_HEAD = Buffer.from("302a300506032b6570032100", "hex");

/** Ed25519 by Node's own crypto. */
export function ed25519Verify(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean {
  const key = createPublicKey({ key: Buffer.concat([SPKI_HEAD, publicKey]), format: "der", type: "spki" });
  return verify(null, message, key, signature);
}

/** A payment authority with a fresh key. */
export function authority(name = "treasury") {
  const { privateKey, publicKey } = generateKeyPairSync("ed25519");
  const raw = new Uint8Array(publicKey.export({ format: "der", type: "spki" }).subarray(SPKI_HEAD.length));
  const signer = { authority: name, sign: (message: Uint8Array) => new Uint8Array(sign(null, message, privateKey)) };
  return {
    name,
    publicKey: raw,
    privateKeyPem: privateKey.export({ format: "pem", type: "pkcs8" }).toString(),
    signer,
  };
}

/** A signed request for one payment of 1000 satoshi. */
export function signedRequest(
  { signer }: ReturnType<typeof authority>,
  { requestId = randomUUID(), walletId = "w-treasury" }: { requestId?: string; walletId?: string } = {},
): SignedPaymentRequest {
  const nowMs = BigInt(Date.now());
  return signPaymentRequest(
    {
      requestId,
      walletId,
      recipients: [{ address: "bcrt1qrecipient", amountSat: 1000n }],
      maxFeeRateSatPerKvb: 5000n,
      metadataJson: '{"invoice":7}',
      createdAtMs: nowMs,
      expiresAtMs: nowMs + 600_000n,
    },
    signer,
  );
}
