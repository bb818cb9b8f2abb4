import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import type {
  AbandonedStatement,
  PreparedStatement,
  SignedWalletChange,
  SwitchCertificate,
} from "../../gen/mpcwallet/consensus/v1/wallet_change_pb.js";
import { assembleSwitch } from "../../src/consensus/switch-certificate.js";
import { signWalletChange, verifyWalletChange, type WalletChangeOrder } from "../../src/consensus/wallet-change.js";
import { ChangeCalls } from "../../src/coordinator/change-calls.js";
import { ed25519PublicKey, signEd25519, verifyEd25519 } from "../../src/crypto/ed25519.js";
import type { PeerMesh } from "../../src/network/peer-mesh.js";
import { systemRandom } from "../../src/node/ambient.js";
import { decodePublicKeyPackage, keyDigest } from "../../src/protocols/key-share.js";
import type { ShareStatus } from "../../src/wallet/peer-wallet-change.js";
import { TEST_AUTHORITY } from "./cluster.js";
import { timeout } from "./hand-coordinator.js";

/** The key that a change replaces, as a coordinator knows it. */
export interface ChangeBase {
  readonly publicKeyPackage: Uint8Array;
  readonly parties: readonly string[];
  readonly epoch: number;
}

/** What a compromised coordinator can do about shares: every call of a change, with any content. */
export class HandChange {
  readonly calls: ChangeCalls;
  readonly walletId: string;
  base: ChangeBase;

  constructor(mesh: PeerMesh, walletId: string, base: ChangeBase) {
    this.calls = new ChangeCalls(mesh);
    this.walletId = walletId;
    this.base = base;
  }

  get threshold(): number {
    return decodePublicKeyPackage(this.base.publicKeyPackage).threshold;
  }

  /** A refresh, or what `order` makes of it. */
  sign(
    order: Partial<WalletChangeOrder> = {},
    signer: { readonly authority?: string; readonly seed?: Uint8Array } = {},
  ): SignedWalletChange {
    const { authority = TEST_AUTHORITY.name, seed = TEST_AUTHORITY.seed } = signer;
    return signWalletChange(
      {
        requestId: randomUUID(),
        walletId: this.walletId,
        kind: "refresh",
        baseEpoch: this.base.epoch,
        baseKeyDigest: keyDigest(decodePublicKeyPackage(this.base.publicKeyPackage)),
        threshold: this.threshold,
        parties: this.base.parties,
        changeCount: 0,
        supersedes: false,
        createdAtMs: Date.now(),
        expiresAtMs: Date.now() + 600_000,
        ...order,
      },
      { authority, sign: (message) => signEd25519(seed, message) },
    );
  }

  verified(change: SignedWalletChange) {
    const verdict = verifyWalletChange(
      change,
      {
        authorities: new Map([[TEST_AUTHORITY.name, ed25519PublicKey(TEST_AUTHORITY.seed)]]),
        nowMs: Date.now(),
        maxWindowMs: 3_600_000,
        clockSkewMs: 5_000,
      },
      verifyEd25519,
    );
    assert.ok(verdict.valid, JSON.stringify(verdict));
    return verdict.change;
  }

  status(nodeId: string): Promise<ShareStatus> {
    return this.calls.shareStatus(nodeId, this.walletId, timeout());
  }

  prepareAt(
    nodeId: string,
    change: SignedWalletChange,
    session: {
      readonly attempt?: number;
      readonly sessionId: Uint8Array;
      readonly dealers?: readonly number[];
      readonly base?: ChangeBase;
    },
  ): Promise<void> {
    const dealers = session.dealers ?? Array.from({ length: this.threshold }, (_, index) => index + 1);
    const { attempt = 1, base = this.base, sessionId } = session;
    return this.calls.prepareChange(nodeId, { change, attempt, sessionId, base, dealers }, timeout(120_000));
  }

  /** Asks all parties of the session at once: the new ones and the dealers. */
  async prepare(
    change: SignedWalletChange,
    options: { readonly attempt?: number; readonly dealers?: readonly number[] } = {},
  ): Promise<PromiseSettledResult<void>[]> {
    const { parties } = this.verified(change);
    const dealers = options.dealers ?? Array.from({ length: this.threshold }, (_, index) => index + 1);
    const dealing = dealers.map((dealer) => this.base.parties[dealer - 1] ?? "");
    const all = [...new Set([...parties, ...dealing])];
    const sessionId = systemRandom.bytes(16);
    return await Promise.allSettled(
      all.map((nodeId) => this.prepareAt(nodeId, change, { ...options, dealers, sessionId })),
    );
  }

  async statements(change: SignedWalletChange): Promise<{
    readonly statements: ReadonlyMap<string, PreparedStatement>;
    readonly publicKeyPackage: Uint8Array;
  }> {
    const statements = new Map<string, PreparedStatement>();
    let publicKeyPackage = new Uint8Array();
    for (const nodeId of this.verified(change).parties) {
      const { pending } = await this.status(nodeId);
      if (pending?.statement === undefined) continue;
      statements.set(nodeId, pending.statement);
      publicKeyPackage = Uint8Array.from(pending.publicKeyPackage);
    }
    return { statements, publicKeyPackage };
  }

  async certificate(change: SignedWalletChange): Promise<SwitchCertificate> {
    const { statements, publicKeyPackage } = await this.statements(change);
    return assembleSwitch(this.verified(change), publicKeyPackage, statements);
  }

  abandonAt(nodeId: string, change: SignedWalletChange, attempt = 1): Promise<AbandonedStatement> {
    return this.calls.abandonChange(nodeId, { change, attempt }, timeout());
  }

  dropAt(nodeId: string, change: SignedWalletChange, statement: AbandonedStatement): Promise<void> {
    return this.calls.dropChange(nodeId, { change, statement }, timeout());
  }

  switchAt(nodeId: string, certificate: SwitchCertificate): Promise<void> {
    return this.calls.switchWallet(nodeId, certificate, timeout());
  }

  /** The whole change; from then on `base` is the new key. */
  async complete(
    change: SignedWalletChange,
    options: Parameters<HandChange["prepare"]>[1] = {},
  ): Promise<SwitchCertificate> {
    for (const outcome of await this.prepare(change, options)) {
      if (outcome.status === "rejected") throw outcome.reason;
    }
    const certificate = await this.certificate(change);
    const { parties, baseEpoch } = this.verified(change);
    const everybody = new Set([...parties, ...this.base.parties]);
    for (const nodeId of everybody) await this.switchAt(nodeId, certificate);
    this.base = { publicKeyPackage: certificate.publicKeyPackage, parties, epoch: baseEpoch + 1 };
    return certificate;
  }
}
