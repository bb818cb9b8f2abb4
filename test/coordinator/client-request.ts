import { randomUUID } from "node:crypto";
import { toBinary } from "@bufbuild/protobuf";
import { SignedPaymentRequestSchema } from "../../gen/mpcwallet/consensus/v1/consensus_pb.js";
import { signPaymentRequest } from "../../src/consensus/payment-request.js";
import { signEd25519 } from "../../src/crypto/ed25519.js";
import { TEST_AUTHORITY } from "../node/cluster.js";

const LIFETIME_MS = 1_800_000;

/** A new payment request of the test authority, serialized as clients send it. */
export function clientRequest(payment: {
  readonly walletId: string;
  readonly address: string;
  readonly amountSat: bigint;
}): Uint8Array {
  const { walletId, address, amountSat } = payment;
  return toBinary(
    SignedPaymentRequestSchema,
    signPaymentRequest(
      {
        requestId: randomUUID(),
        walletId,
        recipients: [{ address, amountSat }],
        maxFeeRateSatPerKvb: 50_000n,
        metadataJson: "",
        createdAtMs: BigInt(Date.now()),
        expiresAtMs: BigInt(Date.now() + LIFETIME_MS),
      },
      { authority: TEST_AUTHORITY.name, sign: (message) => signEd25519(TEST_AUTHORITY.seed, message) },
    ),
  );
}
