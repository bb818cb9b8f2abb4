import { toBinary } from "@bufbuild/protobuf";
import {
  type Ballot,
  type PaymentProposal,
  SignedPaymentRequestSchema,
} from "../../gen/mpcwallet/consensus/v1/consensus_pb.js";
import type { Observation } from "../../src/consensus/byzantine-detector.js";
import { DEFAULT_POLICY, type PaymentPolicy } from "../../src/consensus/policy.js";
import { MemoryVoteStore } from "../../src/consensus/vote-ledger.js";
import type { Clock } from "../../src/crypto/ambient.js";
import { Unavailable } from "../../src/crypto/fault.js";
import type { AuditEvent, AuditTrail } from "../../src/wallet/audit-trail.js";
import { PaymentGuard } from "../../src/wallet/payment-guard.js";
import { CoordinatedPaymentStore } from "../../src/wallet/payment-store.js";
import type { SigningAnswer, SigningOrder } from "../../src/wallet/peer-signing.js";
import type { PeerWalletChange } from "../../src/wallet/peer-wallet-change.js";
import { DEFAULT_SERVICE, WalletService, type WalletServiceDependencies } from "../../src/wallet/wallet-service.js";
import { rosterOf, type SampleNode, sampleNodes, verifySample } from "../consensus/electorate.js";
import { SampleChain } from "./sample-chain.js";
import { SampleCoordination } from "./sample-coordination.js";
import { AUTHORITY, type RequestChanges, signedRequest } from "./sample-payment.js";
import { CHAIN_CODE, sampleAccount, seededRandom, signWithSecret } from "./sample-wallet.js";

/** A firm in one process: n nodes with their own guards, one coordinator, a chain. Signing needs no protocol here. */

export const testClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  after: (delayMs, callback) => {
    const timer = setTimeout(callback, delayMs);
    return () => clearTimeout(timer);
  },
};

export class SampleTrail implements AuditTrail {
  readonly events: AuditEvent[] = [];
  async append(events: readonly AuditEvent[]): Promise<void> {
    this.events.push(...events);
  }
  async read(): Promise<readonly never[]> {
    return [];
  }
  async verify() {
    return { entries: BigInt(this.events.length), firstBroken: undefined };
  }
}

/** What a test may change about one node's answers. */
export interface Behaviour {
  vote?: (proposal: PaymentProposal, honest: () => Promise<Ballot>, signal: AbortSignal) => Promise<Ballot>;
  sign?: (order: SigningOrder, honest: () => Promise<SigningAnswer>, signal: AbortSignal) => Promise<SigningAnswer>;
}

export interface FirmOptions {
  readonly nodes?: number;
  readonly threshold?: number;
  readonly scheme?: "frost" | "cggmp24";
  readonly policy?: PaymentPolicy;
  readonly seed?: string;
}

const refuse = () => Promise.reject(new Unavailable("nodes-silent", "no node of this firm changes shares"));
const nobodyChanges: PeerWalletChange = {
  shareStatus: refuse,
  checkChange: refuse,
  prepareChange: refuse,
  abandonChange: refuse,
  dropChange: refuse,
  switchWallet: refuse,
};

export class SampleFirm {
  readonly nodes: readonly SampleNode[];
  readonly chain = new SampleChain();
  readonly coordination = new SampleCoordination();
  readonly trail = new SampleTrail();
  readonly guards = new Map<string, PaymentGuard>();
  readonly behaviour = new Map<string, Behaviour>();
  readonly observations: Observation[] = [];
  readonly errors: unknown[] = [];
  readonly orders: SigningOrder[] = [];
  readonly banned = new Set<string>();
  readonly threshold: number;
  readonly scheme: "frost" | "cggmp24";
  policy: PaymentPolicy;
  service: WalletService;
  walletId = "";
  readonly #seed: string;

  constructor(options: FirmOptions = {}) {
    this.nodes = sampleNodes(options.nodes ?? 5);
    this.threshold = options.threshold ?? 3;
    this.scheme = options.scheme ?? "frost";
    this.policy = options.policy ?? DEFAULT_POLICY;
    this.#seed = options.seed ?? "firm";
    for (const node of this.nodes) this.guards.set(node.nodeId, this.guard(node, new MemoryVoteStore()));
    this.service = this.newService("first");
  }

  account() {
    return sampleAccount(this.scheme, "regtest", this.walletId);
  }

  guard(node: SampleNode, votes: MemoryVoteStore): PaymentGuard {
    const options = {
      nodeId: node.nodeId,
      authorities: new Map([["treasury", AUTHORITY.publicKey]]),
      maxRequestWindowMs: 3_600_000,
      clockSkewMs: 5_000,
      changeGap: 20,
    };
    return new PaymentGuard(options, {
      wallet: (walletId) =>
        walletId === this.walletId
          ? { account: this.account(), threshold: this.threshold, roster: rosterOf(this.nodes) }
          : undefined,
      policy: () => this.policy,
      banned: () => this.banned,
      chain: this.chain,
      votes,
      sign: node.sign,
      verify: verifySample,
      clock: testClock,
    });
  }

  newService(
    name: string,
    changes: Partial<WalletServiceDependencies> = {},
    limits: { readonly paymentsMax?: number; readonly watchersMax?: number } = {},
  ): WalletService {
    const options = {
      ...DEFAULT_SERVICE,
      network: "regtest" as const,
      authorities: new Map([["treasury", AUTHORITY.publicKey]]),
      utxoMaxAgeMs: 0,
      ...limits,
      ceremony: {
        ...DEFAULT_SERVICE.ceremony,
        voteTimeoutMs: 400,
        signTimeoutMs: 300,
        signGraceMs: 20,
        broadcastRetryMs: 5,
        deadlineMs: 3_000,
      },
      confirmationPollMs: 10,
    };
    return new WalletService(options, {
      voting: {
        vote: (nodeId, proposal, signal) => {
          const honest = () => this.#guardOf(nodeId).vote(proposal);
          return this.behaviour.get(nodeId)?.vote?.(proposal, honest, signal) ?? honest();
        },
        notify: async () => undefined,
      },
      signing: {
        sign: (nodeId, order, signal) => {
          const honest = () => this.#sign(nodeId, order);
          return this.behaviour.get(nodeId)?.sign?.(order, honest, signal) ?? honest();
        },
      },
      keyGeneration: {
        generate: async () => {
          const { groupKey } = sampleAccount(this.scheme);
          return {
            groupKey,
            chainCode: CHAIN_CODE,
            keyDigest: new Uint8Array(32).fill(9),
            publicKeyPackage: new Uint8Array(0),
          };
        },
      },
      presigning: {
        prepareAuxInfo: async () => undefined,
        progress: async () => ({ primes: { ready: 1, found: 0, tested: 0 }, auxInfo: [] }),
        generateAuxInfo: async () => new Uint8Array(32).fill(8),
      },
      presignatures: {
        reserve: async ({ wallet, count, willing }) => ({
          walletId: wallet.walletId,
          signers: willing()
            .slice(0, wallet.threshold)
            .map((nodeId) => wallet.parties.indexOf(nodeId) + 1)
            .sort((left, right) => left - right),
          ids: Array.from({ length: count }, (_, index) => new Uint8Array(32).fill(index)),
        }),
        settle: () => undefined,
      },
      shareChanges: nobodyChanges,
      onWallet: () => undefined,
      onSwitched: () => undefined,
      pools: { status: async (walletId) => ({ walletId, available: 1, inUse: 0, failed: 0, target: 2, minimum: 1 }) },
      probes: [],
      roster: () => rosterOf(this.nodes),
      leader: () => "coordinator-1",
      chain: this.chain,
      audit: this.trail,
      coordination: this.coordination,
      store: new CoordinatedPaymentStore({ coordination: this.coordination }),
      clock: testClock,
      random: seededRandom(`${this.#seed}/${name}`),
      verify: verifySample,
      policy: () => this.policy,
      banned: () => this.banned,
      judge: ({ evidence }) =>
        evidence.flatMap((item) =>
          isProof(item) ? [{ nodeId: item.nodeId, check: "share", evidence: new Uint8Array(1) }] : [],
        ),
      observe: (observation) => this.observations.push(observation),
      onError: (error) => this.errors.push(error),
      ...changes,
    });
  }

  #guardOf(nodeId: string): PaymentGuard {
    const guard = this.guards.get(nodeId);
    if (guard === undefined) throw new Error(`no node ${nodeId}`);
    return guard;
  }

  async #sign(nodeId: string, order: SigningOrder): Promise<SigningAnswer> {
    this.orders.push(order);
    const payment = await this.#guardOf(nodeId).authorize(order.proposal, order.certificate);
    return { signatures: payment.sighashes.map(signWithSecret), evidence: [] };
  }

  /** Creates the wallet and gives it coins. */
  async open(values: readonly bigint[] = [400_000n, 300_000n]): Promise<this> {
    const view = await this.service.createWallet({
      name: "treasury",
      scheme: this.scheme,
      threshold: this.threshold,
      parties: [],
    });
    this.walletId = view.walletId;
    for (const valueSat of values) {
      const { scriptPubKey } = await this.service.newAddress(this.walletId);
      this.chain.fund(scriptPubKey, valueSat);
    }
    return this;
  }

  request(changes: RequestChanges = {}): Uint8Array {
    const nowMs = Date.now();
    const signed = signedRequest({
      walletId: this.walletId,
      createdAtMs: BigInt(nowMs - 100),
      expiresAtMs: BigInt(nowMs + 600_000),
      ...changes,
    });
    return toBinary(SignedPaymentRequestSchema, signed);
  }
}

/** Evidence that the sample judge believes. */
export const proofAgainst = (nodeId: string): object => ({ proof: true, nodeId });
const isProof = (item: unknown): item is { nodeId: string } =>
  typeof item === "object" && item !== null && "proof" in item;
