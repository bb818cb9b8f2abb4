import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import {
  type ApprovalCertificate,
  type Ballot,
  type PaymentProposal,
  PaymentProposalSchema,
  type SignedPaymentRequest,
} from "../../gen/mpcwallet/consensus/v1/consensus_pb.js";
import { assembleCertificate } from "../../src/consensus/approval-certificate.js";
import { type RequestedOutput, signPaymentRequest } from "../../src/consensus/payment-request.js";
import { DEFAULT_POLICY } from "../../src/consensus/policy.js";
import type { PeerCalls } from "../../src/coordinator/peer-calls.js";
import { signEd25519 } from "../../src/crypto/ed25519.js";
import { PeerSilent } from "../../src/crypto/fault.js";
import { scriptHash } from "../../src/devnet/chain/coins.js";
import { type ChainServer, startChainServer } from "../../src/devnet/chain/server.js";
import { systemClock, systemRandom } from "../../src/node/ambient.js";
import { Account } from "../../src/wallet/account.js";
import type { SigningAnswer, SigningOrder } from "../../src/wallet/peer-signing.js";
import { decodeProposedTransaction } from "../../src/wallet/proposed-transaction.js";
import { type BuiltTransaction, buildTransaction, type OwnOutput } from "../../src/wallet/transaction-builder.js";
import { finalizeTransaction } from "../../src/wallet/transaction-finalizer.js";
import { SLOWNESS, TEST_AUTHORITY } from "./cluster.js";

/** The devnet's chain server on free ports. */
export function startTestChain(): Promise<ChainServer> {
  return startChainServer(
    {
      port: 0,
      rpcPort: 0,
      rpcUser: "u",
      rpcPassword: "p",
      matureCoinbases: 20,
      blockIntervalMs: 0,
      feeRateSatPerKvb: 2_000,
    },
    { clock: systemClock, onFault: (fault) => assert.fail(String(fault)) },
  );
}

/** Addresses of nobody in these tests. */
export const RECIPIENT = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
export const THIEF = "bcrt1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qzf4jry";
export const timeout = (ms = 20_000): AbortSignal => AbortSignal.timeout(ms * SLOWNESS);

export interface PaymentParts {
  readonly recipients: readonly RequestedOutput[];
  readonly coins: readonly OwnOutput[];
  readonly changeIndex: number;
  readonly feeRateSatPerKvb: bigint;
}

/** A proposal with the votes that it got. */
export interface Voted {
  readonly proposal: PaymentProposal;
  readonly ballots: readonly Ballot[];
  readonly certificate: ApprovalCertificate;
}

/** What a compromised coordinator can do: everything a coordinator does, step by step, with any content. */
export class HandCoordinator {
  readonly calls: PeerCalls;
  readonly server: ChainServer;
  readonly parties: readonly string[];
  readonly walletId: string;
  readonly account: Account;
  readonly coins: readonly OwnOutput[];
  readonly publicKeyPackage: Uint8Array;

  private constructor(parts: {
    calls: PeerCalls;
    server: ChainServer;
    parties: readonly string[];
    account: Account;
    coins: readonly OwnOutput[];
    publicKeyPackage: Uint8Array;
  }) {
    this.calls = parts.calls;
    this.server = parts.server;
    this.parties = parts.parties;
    this.account = parts.account;
    this.walletId = parts.account.walletId;
    this.coins = parts.coins;
    this.publicKeyPackage = parts.publicKeyPackage;
  }

  /** Has a wallet, 3 of n unless told otherwise, made and gives it confirmed coins of a million satoshi each. */
  static async open(
    parts: { readonly calls: PeerCalls; readonly server: ChainServer; readonly parties: readonly string[] },
    wallet: {
      readonly walletId: string;
      readonly coins: number;
      readonly scheme?: "frost" | "cggmp24";
      readonly threshold?: number;
    },
  ): Promise<HandCoordinator> {
    const { calls, server, parties } = parts;
    const { walletId, scheme = "frost", threshold = 3 } = wallet;
    const order = {
      sessionId: systemRandom.bytes(16),
      walletId,
      name: walletId,
      scheme,
      threshold,
      parties,
      network: "regtest" as const,
    };
    const keys = await Promise.all(parties.map((nodeId) => calls.generate(nodeId, order, timeout())));
    const [key] = keys;
    assert.ok(key !== undefined);
    const { groupKey, chainCode, publicKeyPackage } = key;
    const account = new Account({ walletId, scheme, network: "regtest", groupKey, chainCode });
    const coins: OwnOutput[] = [];
    for (let index = 0; index < wallet.coins; index++) {
      const path = { change: false, index };
      const { scriptPubKey } = account.derive(path);
      const txid = server.faucet.pay(scriptPubKey, 1_000_000n);
      server.chain.mine(1, server.faucet.scriptPubKey);
      const raw = server.chain.unspent(scriptHash(scriptPubKey), { withMempool: false });
      const vout = raw.find((coin) => coin.txid === txid)?.vout;
      assert.ok(vout !== undefined);
      coins.push({ txid, vout, valueSat: 1_000_000n, path, confirmedHeight: server.chain.tip.height });
    }
    return new HandCoordinator({ calls, server, parties, account, coins, publicKeyPackage });
  }

  /** The same wallet held by other nodes. */
  heldBy(parties: readonly string[]): HandCoordinator {
    const { calls, server, account, coins, publicKeyPackage } = this;
    return new HandCoordinator({ calls, server, parties, account, coins, publicKeyPackage });
  }

  request(
    change: {
      readonly requestId?: string;
      readonly recipients?: readonly RequestedOutput[];
      readonly createdAtMs?: number;
      readonly expiresAtMs?: number;
      readonly authority?: string;
      readonly seed?: Uint8Array;
    } = {},
  ): SignedPaymentRequest {
    return signPaymentRequest(
      {
        requestId: change.requestId ?? randomUUID(),
        walletId: this.walletId,
        recipients: change.recipients ?? [{ address: RECIPIENT, amountSat: 300_000n }],
        maxFeeRateSatPerKvb: 50_000n,
        metadataJson: "",
        createdAtMs: BigInt(change.createdAtMs ?? Date.now()),
        expiresAtMs: BigInt(change.expiresAtMs ?? Date.now() + 1_800_000),
      },
      {
        authority: change.authority ?? TEST_AUTHORITY.name,
        sign: (message) => signEd25519(change.seed ?? TEST_AUTHORITY.seed, message),
      },
    );
  }

  build(parts: Partial<PaymentParts> = {}): BuiltTransaction {
    return buildTransaction(
      {
        account: this.account,
        recipients: [{ address: RECIPIENT, amountSat: 300_000n }],
        mark: undefined,
        coins: this.coins.slice(0, 1),
        feeRateSatPerKvb: 2_000n,
        longTermFeeRateSatPerKvb: 10_000n,
        maxInputs: 10,
        changeIndex: 0,
        tipHeight: this.server.chain.tip.height,
        ...parts,
      },
      systemRandom,
    );
  }

  propose(
    request: SignedPaymentRequest,
    psbt: Uint8Array,
    change: { readonly expiresAtMs?: number; readonly policyVersion?: bigint } = {},
  ): PaymentProposal {
    return create(PaymentProposalSchema, {
      request,
      psbt,
      policyVersion: change.policyVersion ?? DEFAULT_POLICY.version,
      expiresAtMs: BigInt(change.expiresAtMs ?? Date.now() + 50_000),
    });
  }

  /** Asks every party; in their order. */
  async vote(proposal: PaymentProposal): Promise<Voted> {
    const ballots = await Promise.all(this.parties.map((nodeId) => this.calls.vote(nodeId, proposal, timeout())));
    return { proposal, ballots, certificate: assembleCertificate(ballots) };
  }

  order({ proposal, certificate }: Voted, signers: readonly number[] = [1, 2, 3]): SigningOrder {
    return { sessionId: systemRandom.bytes(16), proposal, certificate, signers, presignatureIds: [] };
  }

  /** Asks all signers of the order at once. */
  sign(order: SigningOrder): Promise<PromiseSettledResult<SigningAnswer>[]> {
    return Promise.allSettled(
      order.signers.map((index) => this.calls.sign(this.parties[index - 1] ?? "", order, timeout())),
    );
  }

  /** Signs and brings the transaction into the chain, whose interpreter must accept it. Returns the txid. */
  async pay(voted: Voted, signers: readonly number[] = [1, 2, 3], coins = this.coins.slice(0, 1)): Promise<string> {
    const outcomes = await this.sign(this.order(voted, signers));
    const [first] = outcomes.filter(({ status }) => status === "fulfilled");
    if (first?.status !== "fulfilled") {
      // That somebody was silent says least.
      const reasons = outcomes.flatMap((outcome) => (outcome.status === "rejected" ? [outcome.reason as unknown] : []));
      throw reasons.find((reason) => !(reason instanceof PeerSilent)) ?? reasons[0] ?? new Error("no signer");
    }
    const keys = coins.map(({ path }) => this.account.derive(path));
    const proposed = decodeProposedTransaction(voted.proposal.psbt);
    if (proposed === undefined) throw new Error("an own proposal decodes");
    const { bytes, txid } = finalizeTransaction(proposed, first.value.signatures, keys);
    const response = await fetch(`${this.server.esploraUrl}/tx`, {
      method: "POST",
      body: Buffer.from(bytes).toString("hex"),
    });
    assert.equal(response.status, 200, await response.clone().text());
    return txid;
  }
}
