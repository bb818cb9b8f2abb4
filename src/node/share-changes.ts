import type {
  AbandonedStatement,
  PreparedStatement,
  SignedWalletChange,
  SwitchCertificate,
} from "../../gen/mpcwallet/consensus/v1/wallet_change_pb.js";
import type {
  CheckWalletChangeRequest,
  PrepareWalletChangeRequest,
  WalletChangeBase,
} from "../../gen/mpcwallet/peer/v1/peer_pb.js";
import type { RequestRules } from "../consensus/payment-request.js";
import { refused } from "../consensus/refusal.js";
import type { SignMessage, VerifySignature } from "../consensus/signature.js";
import { signAbandoned, signPrepared, verifyAbandoned, verifySwitch } from "../consensus/switch-certificate.js";
import {
  ATTEMPTS_MAX,
  isExpired,
  parseSignedWalletChange,
  readWalletChange,
  type VerifiedWalletChange,
  verifyWalletChange,
} from "../consensus/wallet-change.js";
import type { Clock } from "../crypto/ambient.js";
import { equalBytes } from "../crypto/bytes.js";
import { Bug, InvalidInput, Unavailable } from "../crypto/fault.js";
import type { SecurityProfile } from "../crypto/security-profile.js";
import { hashTuple } from "../crypto/transcript.js";
import {
  decodeKeyShare,
  decodePublicKeyPackage,
  encodePublicKeyPackage,
  keyDigest,
  type PublicKeyPackage,
} from "../protocols/key-share.js";
import { eraseHeld, type HeldWallet, type KeyStore, type StoredWallet } from "../storage/key-store.js";
import type { OneUseLedger } from "../storage/one-use-ledger.js";
import { SecretBytes } from "../storage/secret-bytes.js";
import type { BanRegister } from "./ban-register.js";
import { runSession } from "./banning-session.js";
import type { Logger } from "./log.js";
import type { PrimeSource } from "./prime-pool.js";
import type { SessionExchange } from "./session-exchange.js";
import type { SessionResult } from "./session-job.js";
import {
  type Attempt,
  isSwitchedTo,
  lastSwitch,
  preparedFor,
  requireBase,
  requireCertifiedPackage,
  requireFree,
  requirePreparable,
  switched,
  withAbandoned,
  withPrepared,
  withPromise,
} from "./share-rules.js";
import type { WalletShares } from "./wallet-shares.js";

/**
 * A node's side of refresh and reshare: it makes a new share beside the current one, says so under its signature, and
 * puts it in the current one's place when all parties have said so. Until then it signs with the current one.
 *
 * The key store decides in one write; the rest of a switch (presignatures and nonces of older epochs, the change index,
 * what is remembered of the wallet) follows it, and is made up for at the next start. In between, the ledger's items of
 * the old epoch are refused by their epoch.
 */

export interface ShareChangesOptions {
  readonly nodeId: string;
  readonly rules: Omit<RequestRules, "nowMs">;
  readonly security: SecurityProfile["name"];
  /** How far the change index of an order may be from what this node knows. */
  readonly changeGap: number;
}

export interface ShareChangesDependencies {
  readonly store: KeyStore;
  readonly shares: WalletShares;
  /** Every node with its Ed25519 identity key. */
  readonly roster: ReadonlyMap<string, Uint8Array>;
  readonly exchange: SessionExchange;
  readonly bans: BanRegister;
  readonly primes: PrimeSource;
  readonly ledger: Pick<OneUseLedger, "burnAll">;
  readonly votes: {
    highestChangeIndex(walletId: string): Promise<number>;
    raiseChangeIndex(walletId: string, index: number): Promise<void>;
  };
  /** Ed25519 with this node's identity key. */
  readonly sign: SignMessage;
  readonly verify: VerifySignature;
  readonly clock: Clock;
  readonly log: Logger;
}

/** The key that is replaced. */
interface Base {
  readonly key: PublicKeyPackage;
  /** Node ids in party order. */
  readonly parties: readonly string[];
}

/** What the sessions of a change leave at a party that holds afterwards. */
interface NewShare {
  readonly keyShare: Uint8Array;
  /** Empty for FROST. */
  readonly auxInfo: Uint8Array;
  readonly epochId: Uint8Array;
}

export interface PreparedAnswer {
  /** Undefined at a party that only dealt. */
  readonly statement: PreparedStatement | undefined;
  readonly publicKeyPackage: Uint8Array;
}

const WALLET_ID = /^[0-9a-z-]{1,64}$/;
const NOTHING = new Uint8Array();

export class ShareChanges {
  readonly #options: ShareChangesOptions;
  readonly #parts: ShareChangesDependencies;
  /** Wallets whose sessions of a change run here. */
  readonly #running = new Set<string>();

  constructor(options: ShareChangesOptions, dependencies: ShareChangesDependencies) {
    this.#options = options;
    this.#parts = dependencies;
  }

  /** Makes up for what a crash left undone after a switch. Call before the node answers anybody. */
  async recover(): Promise<void> {
    for (const walletId of this.#parts.store.heldIds()) await this.#settle(walletId);
  }

  /** Where the wallet's shares stand here. */
  status(walletId: string) {
    const { store } = this.#parts;
    const held = store.held(walletId);
    const last = held.prepared.at(-1);
    const signed = last && parseSignedWalletChange(last.change);
    const change = signed && readWalletChange(signed);
    const { wallet } = held;
    try {
      return {
        holds: wallet !== undefined,
        epoch: wallet?.epoch ?? 0,
        keyDigest: wallet === undefined ? NOTHING : keyDigest(decodeKeyShare(wallet.keyShare.reveal())),
        switched: lastSwitch(held),
        pending: last &&
          change && {
            change: signed,
            attempt: last.attempt,
            statement: last.next && this.#statement(change, last.attempt, last.next),
            publicKeyPackage: last.next?.publicKeyPackage ?? NOTHING,
            abandoned: last.abandoned,
          },
      };
    } finally {
      eraseHeld(held);
    }
  }

  /**
   * Whether this node would take part, with primes at hand if it needs some.
   *
   * @throws InvalidInput the order's refusal code, `change-expired`, `change-other-base`, `change-pending`,
   *   `change-base-differs`, `refresh-differs`, `party-unknown`, `not-a-party`, `aux-info-missing`
   */
  async check({ change: signed, base }: Pick<CheckWalletChangeRequest, "change" | "base">): Promise<void> {
    const change = this.#live(signed);
    const held = this.#parts.store.held(change.walletId);
    try {
      const { key } = this.#base(change, held, base);
      requireFree(held, { change });
      if (key.scheme === "cggmp24" && this.#joins(change)) await this.#parts.primes.prepare();
    } finally {
      eraseHeld(held);
    }
  }

  /**
   * Takes part in the sessions that make new shares, keeps the new one durably beside the current one, and only then
   * states it. The same attempt again answers the same.
   *
   * @throws InvalidInput as `check` does, `attempt-out-of-range`, `dealers`, `change-superseded`, `change-count-far`
   * @throws Unavailable `change-running`; and what sessions throw
   */
  async prepare(request: PrepareWalletChangeRequest): Promise<PreparedAnswer> {
    const { nodeId } = this.#options;
    const { store } = this.#parts;
    const change = this.#live(request.change);
    const attempt: Attempt = { change, attempt: requireAttempt(request.attempt), nodeId };
    const { walletId } = change;
    if (this.#running.has(walletId)) {
      throw new Unavailable("change-running", "this node is preparing a change of the wallet", { walletId });
    }
    this.#running.add(walletId);
    let held = store.held(walletId);
    try {
      const base = this.#base(change, held, request.base);
      const known = preparedFor(held, attempt);
      if (known !== undefined) return this.#answer(attempt, known.next);
      requirePreparable(held, attempt);
      const dealers = requireDealers(base, request.dealers);
      const deals = dealers.some((dealer) => base.parties[dealer - 1] === nodeId);
      if (!this.#joins(change)) {
        if (!deals) throw new InvalidInput("not-a-party", "a node that leaves takes part as a dealer only");
        // Before it deals: from here on it takes part in no other change of this epoch.
        await store.updateHeld(walletId, (now) => withPrepared(now, attempt, undefined));
      }
      if (deals && change.kind === "reshare") await this.#requireChangeCount(change);
      const made = await this.#makeShare(request.sessionId, { change, base, dealers, held });
      if (made === undefined) return this.#answer(attempt, undefined);
      const next = this.#nextWallet(change, base, { made, current: held.wallet });
      eraseHeld(held);
      held = await store.updateHeld(walletId, (now) => withPrepared(now, attempt, next));
      next.keyShare.erase();
      next.auxInfo.erase();
      const { threshold, parties } = change;
      this.#parts.log.info({ event: "change-prepared", walletId, kind: change.kind, threshold, parties }, "prepared");
      return this.#answer(attempt, next);
    } finally {
      eraseHeld(held);
      this.#running.delete(walletId);
    }
  }

  /** @throws InvalidInput `change-prepared`, `change-over`, `not-a-party`, the order's refusal code */
  async abandon(signed: SignedWalletChange | undefined, number: number): Promise<AbandonedStatement> {
    const { nodeId } = this.#options;
    const change = this.#verified(signed);
    const attempt: Attempt = { change, attempt: requireAttempt(number), nodeId };
    if (!this.#joins(change)) {
      throw new InvalidInput("not-a-party", "only a party of the new epoch can abandon it", { nodeId });
    }
    eraseHeld(await this.#parts.store.updateHeld(change.walletId, (held) => withPromise(held, attempt)));
    const { walletId, digest: requestDigest } = change;
    this.#parts.log.warn({ event: "change-abandoned", walletId, attempt: number }, "will not prepare this attempt");
    return signAbandoned({ walletId, requestDigest, attempt: number, party: nodeId }, this.#parts.sign);
  }

  /** @throws InvalidInput `statement-forged`, the order's refusal code */
  async drop(signed: SignedWalletChange | undefined, statement: AbandonedStatement | undefined): Promise<void> {
    const { store, roster, verify } = this.#parts;
    const change = this.#verified(signed);
    const number = requireAttempt(statement?.attempt ?? 0);
    if (statement === undefined || !verifyAbandoned(statement, { change, attempt: number, roster }, verify)) {
      throw new InvalidInput("statement-forged", "no party of the change has abandoned this attempt");
    }
    const attempt: Attempt = { change, attempt: number, nodeId: this.#options.nodeId };
    eraseHeld(await store.updateHeld(change.walletId, (held) => withAbandoned(held, attempt)));
  }

  /**
   * Switches upon a certificate. The same certificate again answers the same.
   *
   * @returns digest of the key whose share signs from now on; empty at a party that has left
   * @throws InvalidInput the refusal codes of order and certificate, `certificate-key`, and those of `switched`
   */
  async switch(certificate: SwitchCertificate | undefined): Promise<Uint8Array> {
    const { store, roster, verify, log } = this.#parts;
    const change = this.#verified(certificate?.change);
    if (certificate === undefined) throw new Bug("an order without its certificate");
    const verdict = verifySwitch(certificate, change, roster, verify);
    if (!verdict.valid) throw refused(verdict.refusal);
    const { certified } = verdict;
    const { walletId } = change;
    const attempt: Attempt = { change, attempt: certified.attempt, nodeId: this.#options.nodeId };
    const held = await store.updateHeld(walletId, (now) => {
      if (isSwitchedTo(now, attempt)) return now;
      requireCertifiedPackage(now, { certified, certificate });
      return switched(now, attempt, { certified, certificate });
    });
    try {
      await this.#settle(walletId);
      const { wallet } = held;
      log.info({ event: "wallet-switched", walletId, epoch: certified.epoch, holds: wallet !== undefined }, "switched");
      return wallet === undefined ? NOTHING : certified.keyDigest;
    } finally {
      eraseHeld(held);
    }
  }

  /** What follows the key store's switch; harmless to do again. */
  async #settle(walletId: string): Promise<void> {
    const { store, ledger, votes, shares } = this.#parts;
    const held = store.held(walletId);
    const certificate = lastSwitch(held);
    const holds = held.wallet !== undefined;
    eraseHeld(held);
    shares.changed(walletId);
    const [statement] = certificate?.statements ?? [];
    if (certificate?.change === undefined || statement === undefined) return;
    await ledger.burnAll({ walletId, belowEpoch: statement.epoch }, "the wallet's shares changed");
    const change = readWalletChange(certificate.change);
    if (!holds || change?.kind !== "reshare" || change.changeCount === 0) return;
    await votes.raiseChangeIndex(walletId, change.changeCount - 1);
  }

  #verified(signed: SignedWalletChange | undefined): VerifiedWalletChange {
    if (signed === undefined) throw new InvalidInput("change-malformed", "the call has no order");
    const { rules } = this.#options;
    const verdict = verifyWalletChange(signed, { ...rules, nowMs: this.#parts.clock.nowMs() }, this.#parts.verify);
    if (!verdict.valid) throw refused(verdict.refusal);
    const { change } = verdict;
    if (!WALLET_ID.test(change.walletId)) {
      throw new InvalidInput("wallet-id-invalid", "a wallet id is 1 to 64 of a-z, 0-9, '-'");
    }
    return change;
  }

  #live(signed: SignedWalletChange | undefined): VerifiedWalletChange {
    const change = this.#verified(signed);
    const { requestId, expiresAtMs } = change;
    if (isExpired(change, this.#parts.clock.nowMs())) {
      throw new InvalidInput("change-expired", "the order has expired; order again", { requestId, expiresAtMs });
    }
    return change;
  }

  #joins({ parties }: VerifiedWalletChange): boolean {
    return parties.includes(this.#options.nodeId);
  }

  /** What this node holds itself, or what it is told and the order's digest confirms. */
  #base(change: VerifiedWalletChange, held: HeldWallet, told: WalletChangeBase | undefined): Base {
    const { roster } = this.#parts;
    const { walletId } = change;
    requireBase(held, { change });
    const { wallet } = held;
    if (wallet === undefined && !this.#joins(change)) {
      throw new InvalidInput("not-a-party", "this node holds no share and is to get none", { walletId });
    }
    if (wallet?.scheme === "cggmp24" && wallet.auxInfo.length === 0) {
      throw new InvalidInput("aux-info-missing", "the wallet was never finished; create another", { walletId });
    }
    const { parties = [], publicKeyPackage = NOTHING } = wallet ?? told ?? {};
    const key =
      wallet === undefined ? decodePublicKeyPackage(publicKeyPackage) : decodeKeyShare(wallet.keyShare.reveal());
    if (!equalBytes(keyDigest(key), change.baseKeyDigest) || key.publicShares.size !== parties.length) {
      throw new InvalidInput("change-base-differs", "the key that is shown is not the one that the order replaces", {
        walletId,
      });
    }
    const stranger = [...parties, ...change.parties].find((nodeId) => !roster.has(nodeId));
    if (stranger !== undefined) {
      throw new InvalidInput("party-unknown", "a party is no node of this node's roster", { nodeId: stranger });
    }
    const same = change.threshold === key.threshold && change.parties.join() === parties.join();
    if (change.kind === "refresh" && !same) {
      throw new InvalidInput("refresh-differs", "a refresh keeps threshold and parties; this is a reshare", {
        walletId,
      });
    }
    return { key, parties };
  }

  /** A wrong one would hide change from those who look for it. Dealers know: one of them at least is honest. */
  async #requireChangeCount({ walletId, changeCount }: VerifiedWalletChange): Promise<void> {
    const highest = await this.#parts.votes.highestChangeIndex(walletId);
    if (Math.abs(changeCount - (highest + 1)) <= this.#options.changeGap) return;
    throw new InvalidInput(
      "change-count-far",
      "the order names another number of change addresses than this node knows",
      {
        walletId,
        changeCount,
        known: highest + 1,
      },
    );
  }

  /** Undefined at a party that only deals. */
  async #makeShare(
    sessionId: Uint8Array,
    order: {
      readonly change: VerifiedWalletChange;
      readonly base: Base;
      readonly dealers: readonly number[];
      readonly held: HeldWallet;
    },
  ): Promise<NewShare | undefined> {
    const { change, base, dealers, held } = order;
    const { shares, primes } = this.#parts;
    const { nodeId, security: profile } = this.#options;
    const own = held.wallet && Uint8Array.from(held.wallet.keyShare.reveal());
    if (base.key.scheme === "cggmp24" && change.kind === "refresh") {
      if (own === undefined) throw new Bug("a refresh needs the old share");
      const seat = shares.seat({ sessionId, parties: change.parties }, nodeId);
      const job = { kind: "refresh" as const, keyShare: own, profile, primes: await primes.take() };
      return requireKind(await runSession(this.#parts, job, seat), "refresh");
    }
    const dealing = dealers.map((index) => base.parties[index - 1] ?? "");
    const parties = [...change.parties, ...dealing.filter((dealer) => !change.parties.includes(dealer))];
    const deals = dealing.includes(nodeId);
    const job = {
      kind: "reshare" as const,
      keyShare: deals ? own : undefined,
      publicKeyPackage: encodePublicKeyPackage(base.key),
      dealers: dealing
        .map((dealer, place) => ({ id: parties.indexOf(dealer) + 1, oldIndex: dealers[place] ?? 0 }))
        .sort((a, b) => a.id - b.id),
      holders: change.parties.map((_, place) => place + 1),
      threshold: change.threshold,
    };
    const result = await runSession(this.#parts, job, shares.seat({ sessionId, parties }, nodeId));
    const { keyShare } = requireKind(result, "reshare");
    if (keyShare === undefined) return undefined;
    if (base.key.scheme === "frost") return { keyShare, auxInfo: NOTHING, epochId: NOTHING };
    const seat = shares.seat({ sessionId: auxSession(sessionId), parties: change.parties }, nodeId);
    const auxJob = {
      kind: "aux-info" as const,
      keyShare: Uint8Array.from(keyShare),
      profile,
      primes: await primes.take(),
    };
    const { auxInfo, epochId } = requireKind(await runSession(this.#parts, auxJob, seat), "aux-info");
    return { keyShare, auxInfo, epochId };
  }

  #nextWallet(
    change: VerifiedWalletChange,
    base: Base,
    { made, current }: { readonly made: NewShare; readonly current: StoredWallet | undefined },
  ): StoredWallet {
    const share = decodeKeyShare(made.keyShare);
    const { scheme, threshold, chainCode, groupKey, publicShares } = share;
    const kept =
      groupKey.equals(base.key.groupKey) &&
      equalBytes(chainCode, base.key.chainCode) &&
      scheme === base.key.scheme &&
      threshold === change.threshold &&
      publicShares.size === change.parties.length;
    if (!kept) throw new Bug("a change of shares changed the key or its terms");
    return {
      walletId: change.walletId,
      scheme,
      threshold,
      parties: change.parties,
      epoch: change.baseEpoch + 1,
      keyShare: SecretBytes.adopt(made.keyShare),
      publicKeyPackage: encodePublicKeyPackage(share),
      chainCode,
      auxInfo: SecretBytes.adopt(made.auxInfo),
      epochId: made.epochId,
      nextExternalIndex: current?.nextExternalIndex ?? 0,
      nextChangeIndex: current?.nextChangeIndex ?? 0,
      createdAtMs: current?.createdAtMs ?? Math.floor(this.#parts.clock.nowMs()),
    };
  }

  #answer({ change, attempt }: Attempt, next: StoredWallet | undefined): PreparedAnswer {
    return {
      statement: next && this.#statement(change, attempt, next),
      publicKeyPackage: next?.publicKeyPackage ?? NOTHING,
    };
  }

  /** Ed25519 is deterministic: what is on disk makes the same statement at any time. */
  #statement(
    change: Pick<VerifiedWalletChange, "walletId" | "digest">,
    attempt: number,
    next: StoredWallet,
  ): PreparedStatement {
    const { walletId, digest: requestDigest } = change;
    const { epoch, epochId } = next;
    const digest = keyDigest(decodePublicKeyPackage(next.publicKeyPackage));
    const content = {
      walletId,
      requestDigest,
      attempt,
      epoch,
      keyDigest: digest,
      epochId,
      party: this.#options.nodeId,
    };
    return signPrepared(content, this.#parts.sign);
  }
}

const auxSession = (sessionId: Uint8Array): Uint8Array => hashTuple("change/aux-session", [sessionId]).slice(0, 16);

function requireAttempt(attempt: number): number {
  if (attempt >= 1 && attempt <= ATTEMPTS_MAX) return attempt;
  throw new InvalidInput("attempt-out-of-range", `an order is tried 1 to ${ATTEMPTS_MAX} times; order again`, {
    attempt,
  });
}

function requireDealers({ key, parties }: Base, dealers: readonly number[]): readonly number[] {
  const ascending = dealers.every((dealer, place) => place === 0 || dealer > (dealers[place - 1] ?? 0));
  const known = dealers.every((dealer) => dealer >= 1 && dealer <= parties.length);
  if (ascending && known && dealers.length === key.threshold) return dealers;
  throw new InvalidInput("dealers", "dealers are ascending indices of old parties, exactly the old threshold", {
    threshold: key.threshold,
  });
}

function requireKind<Kind extends SessionResult["kind"]>(
  result: SessionResult,
  kind: Kind,
): Extract<SessionResult, { kind: Kind }> {
  if (result.kind !== kind) throw new Bug("a session has the result of another kind", { wanted: kind });
  return result as Extract<SessionResult, { kind: Kind }>;
}
