import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { describe, it } from "node:test";
import type { PreparedStatement, SwitchCertificate } from "../../gen/mpcwallet/consensus/v1/wallet_change_pb.js";
import { assembleSwitch, signPrepared, verifySwitch } from "../../src/consensus/switch-certificate.js";
import {
  comparePlaces,
  placeOf,
  signWalletChange,
  type VerifiedWalletChange,
  verifyWalletChange,
} from "../../src/consensus/wallet-change.js";
import { Point, Scalar } from "../../src/crypto/curve.js";
import { ed25519PublicKey, signEd25519, verifyEd25519 } from "../../src/crypto/ed25519.js";
import { InvalidInput } from "../../src/crypto/fault.js";
import { randomPolynomial, share } from "../../src/crypto/feldman.js";
import {
  type Attempt,
  isSwitchedTo,
  switched,
  withAbandoned,
  withPrepared,
  withPromise,
} from "../../src/node/share-rules.js";
import { encodeKeyShare, encodePublicKeyPackage, type KeyShare, keyDigest } from "../../src/protocols/key-share.js";
import { partyId } from "../../src/session/party.js";
import type { HeldWallet, StoredWallet } from "../../src/storage/key-store.js";
import { SecretBytes } from "../../src/storage/secret-bytes.js";
import { seededRandom } from "../fixtures/parties.js";
import { TEST_AUTHORITY } from "./test-node.js";

const WALLET = "modelled";
const SECRET = Scalar.plus(Scalar.one, Scalar.one);

/** Fresh shares of the one key for these nodes, as a session would leave them. */
function sharing(parties: readonly string[], threshold: number, seed: string): ReadonlyMap<string, KeyShare> {
  const polynomial = randomPolynomial(threshold, seededRandom(seed), SECRET);
  const secrets = parties.map((_, place) => share(polynomial, partyId(place + 1)));
  const publicShares = new Map(secrets.map((secret, place) => [partyId(place + 1), Point.base.times(secret)]));
  const key = {
    scheme: "frost" as const,
    threshold,
    publicShares,
    groupKey: Point.base.times(SECRET),
    chainCode: new Uint8Array(32).fill(1),
  };
  return new Map(
    secrets.map((secretShare, place) => [parties[place] ?? "", { ...key, self: partyId(place + 1), secretShare }]),
  );
}

function stored(keyShare: KeyShare, parties: readonly string[], epoch: number): StoredWallet {
  const { scheme, threshold, chainCode } = keyShare;
  const wallet: StoredWallet = {
    walletId: WALLET,
    scheme,
    threshold,
    parties,
    epoch,
    keyShare: SecretBytes.adopt(encodeKeyShare(keyShare)),
    publicKeyPackage: encodePublicKeyPackage(keyShare),
    chainCode,
    auxInfo: SecretBytes.adopt(new Uint8Array()),
    epochId: new Uint8Array(),
    nextExternalIndex: 0,
    nextChangeIndex: 0,
    createdAtMs: 1,
  };
  digests.set(wallet, hex(keyDigest(keyShare)));
  return wallet;
}

const NODES = ["a", "b", "c", "d", "e", "liar"];
const seedOf = (nodeId: string): Uint8Array => new Uint8Array(32).fill(NODES.indexOf(nodeId) + 20);
const ROSTER = new Map(NODES.map((nodeId) => [nodeId, ed25519PublicKey(seedOf(nodeId))]));
const NOTHING: HeldWallet = { wallet: undefined, prepared: [], certificate: new Uint8Array(), closed: undefined };

/** Nodes that follow the rules, a party that signs whatever helps, and a coordinator that does anything in any order. */
class Model {
  readonly held = new Map<string, HeldWallet>(NODES.map((nodeId) => [nodeId, NOTHING]));
  readonly statements = new Map<string, Map<string, PreparedStatement>>();
  readonly certificates: { readonly attempt: Attempt; readonly certificate: SwitchCertificate }[] = [];
  /** Digest and holders of every epoch that may sign: the first, and every certified one. */
  readonly epochs: { readonly digest: string; readonly parties: readonly string[]; readonly threshold: number }[] = [];
  readonly orders: VerifiedWalletChange[] = [];
  #nowMs = 1_000;
  readonly #seed: string;

  constructor(seed: string, parties: readonly string[], threshold: number) {
    this.#seed = seed;
    const first = sharing(parties, threshold, `${seed}/first`);
    for (const [nodeId, keyShare] of first) {
      this.held.set(nodeId, { ...NOTHING, wallet: stored(keyShare, parties, 0) });
    }
    this.#certify([...first.values()][0], parties);
  }

  #certify(key: KeyShare | undefined, parties: readonly string[]): void {
    if (key === undefined) throw new Error("no key");
    this.epochs.push({ digest: hex(keyDigest(key)), parties, threshold: key.threshold });
  }

  /** The authority orders a change of some epoch that some node holds. */
  order(baseAt: string, parties: readonly string[], threshold: number): void {
    const base = this.held.get(baseAt)?.wallet;
    if (base === undefined) return;
    this.#nowMs += 10;
    const order = {
      requestId: randomUUID(),
      walletId: WALLET,
      kind: "reshare" as const,
      baseEpoch: base.epoch,
      baseKeyDigest: new Uint8Array(Buffer.from(digestOf(base), "hex")),
      threshold,
      parties,
      changeCount: 0,
      supersedes: false,
      createdAtMs: this.#nowMs,
      expiresAtMs: this.#nowMs + 1_000,
    };
    const { name, seed } = TEST_AUTHORITY;
    const signed = signWalletChange(order, { authority: name, sign: (message) => signEd25519(seed, message) });
    const rules = {
      authorities: new Map([[name, ed25519PublicKey(seed)]]),
      nowMs: this.#nowMs,
      maxWindowMs: 1e6,
      clockSkewMs: 0,
    };
    const verdict = verifyWalletChange(signed, rules, verifyEd25519);
    assert.ok(verdict.valid);
    this.orders.push(verdict.change);
  }

  /** A session of an attempt; some nodes crash before they have written their share. */
  session(change: VerifiedWalletChange, attempt: number, crashed: ReadonlySet<string>): void {
    const name = `${hex(change.digest)}/${attempt}`;
    if (this.statements.has(name)) return; // a session's result exists once
    const shares = sharing(change.parties, change.threshold, `${this.#seed}/${name}`);
    const made = new Map<string, PreparedStatement>();
    this.statements.set(name, made);
    for (const [nodeId, keyShare] of shares) {
      if (crashed.has(nodeId) && nodeId !== "liar") continue;
      const wallet = stored(keyShare, change.parties, change.baseEpoch + 1);
      if (nodeId !== "liar" && !this.#try(nodeId, (held) => withPrepared(held, { change, attempt, nodeId }, wallet)))
        continue;
      const content = {
        walletId: WALLET,
        requestDigest: change.digest,
        attempt,
        epoch: wallet.epoch,
        keyDigest: keyDigest(keyShare),
        epochId: wallet.epochId,
        party: nodeId,
      };
      made.set(
        nodeId,
        signPrepared(content, (message) => signEd25519(seedOf(nodeId), message)),
      );
    }
    if (made.size < change.parties.length) return;
    const [first] = shares.values();
    if (first === undefined) return;
    const certificate = assembleSwitch(change, encodePublicKeyPackage(first), made);
    assert.ok(verifySwitch(certificate, change, ROSTER, verifyEd25519).valid);
    this.certificates.push({ attempt: { change, attempt, nodeId: "" }, certificate });
    this.#certify(first, change.parties);
  }

  /** One more than the tries of this order so far, less `back`. */
  nextAttempt(change: VerifiedWalletChange | undefined, back: number): number {
    const tries = [...this.statements.keys()].filter((name) => change && name.startsWith(hex(change.digest))).length;
    return Math.min(8, Math.max(1, tries + 1 - back));
  }

  /** The session that ran last. */
  lastAttempt(): readonly [VerifiedWalletChange | undefined, number] {
    const [digest, attempt] = ([...this.statements.keys()].at(-1) ?? "/1").split("/");
    return [this.orders.find((change) => hex(change.digest) === digest), Number(attempt)];
  }

  /** Somebody abandons an attempt, and somebody hears of it. The liar abandons what it prepared, too. */
  abandon(
    change: VerifiedWalletChange,
    attempt: number,
    { by, at }: { readonly by: string; readonly at: string },
  ): void {
    if (!change.parties.includes(by)) return;
    if (by !== "liar" && !this.#try(by, (held) => withPromise(held, { change, attempt, nodeId: by }))) return;
    if (at !== "liar") this.#try(at, (held) => withAbandoned(held, { change, attempt, nodeId: at }));
  }

  switch(index: number, nodeId: string): boolean {
    const known = this.certificates[index];
    if (known === undefined || nodeId === "liar") return false;
    const attempt = { ...known.attempt, nodeId };
    const verdict = verifySwitch(known.certificate, attempt.change, ROSTER, verifyEd25519);
    assert.ok(verdict.valid);
    const to = { certified: verdict.certified, certificate: known.certificate };
    return this.#try(nodeId, (held) => (isSwitchedTo(held, attempt) ? held : switched(held, attempt, to)));
  }

  #try(nodeId: string, edit: (held: HeldWallet) => HeldWallet): boolean {
    try {
      this.held.set(nodeId, edit(this.held.get(nodeId) ?? NOTHING));
      return true;
    } catch (error) {
      if (error instanceof InvalidInput) return false;
      throw error;
    }
  }

  /** Digests of all epochs of which a node has a share on its disk. */
  disk(nodeId: string): ReadonlySet<string> {
    const { wallet, prepared } = this.held.get(nodeId) ?? NOTHING;
    const all = [wallet, ...prepared.map(({ next }) => next)].flatMap((one) => one ?? []);
    return new Set(all.map(digestOf));
  }

  /** Of two certified attempts upon one epoch, honest parties of both are never at the earlier one. */
  assertTogether(): void {
    for (const earlier of this.certificates) {
      for (const later of this.certificates) {
        const [one, other] = [earlier.attempt.change, later.attempt.change];
        if (hex(one.baseKeyDigest) !== hex(other.baseKeyDigest)) continue;
        if (comparePlaces(placeOf(one, earlier.attempt.attempt), placeOf(other, later.attempt.attempt)) >= 0) continue;
        const digest = hex(earlier.certificate.statements[0]?.keyDigest ?? new Uint8Array());
        for (const nodeId of one.parties.filter((party) => party !== "liar" && other.parties.includes(party))) {
          const { wallet } = this.held.get(nodeId) ?? NOTHING;
          assert.ok(wallet === undefined || digestOf(wallet) !== digest, `seed ${this.#seed}: a fork`);
        }
      }
    }
  }

  /** There is an epoch of which every honest party has its share, so the key is there whatever the liar does. */
  assertKeyLives(): void {
    const whole = this.epochs.filter(({ digest, parties }) =>
      parties.every((nodeId) => nodeId === "liar" || this.disk(nodeId).has(digest)),
    );
    assert.ok(whole.length > 0, `seed ${this.#seed}: no epoch is whole`);
  }
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

const digests = new WeakMap<StoredWallet, string>();

/** Of a wallet that `stored` made; the rules hand such objects on as they are. */
function digestOf(wallet: StoredWallet): string {
  const digest = digests.get(wallet);
  if (digest === undefined) throw new Error("a wallet of nowhere");
  return digest;
}

describe("rules of a change of shares", () => {
  it("keep one epoch whole and honest nodes together, whatever coordinator and liar do in whatever order", () => {
    const totals = { certified: 0, switches: 0, lies: 0 };
    for (let seed = 0; seed < SEEDS; seed++) {
      const { certified, switches, lies } = play(`model ${seed}`);
      totals.certified += certified;
      totals.switches += switches;
      totals.lies += lies;
    }
    console.log(`# ${SEEDS} games: ${JSON.stringify(totals)}`);
    assert.ok(totals.certified > SEEDS && totals.switches > 2 * SEEDS && totals.lies > SEEDS, JSON.stringify(totals));
  });
});

const SEEDS = 8;
const STEPS = 120;

function play(seed: string) {
  const random = seededRandom(`${seed}/moves`);
  const below = (limit: number): number => Buffer.from(random.bytes(4)).readUInt32BE() % limit;
  const oneOf = <T>(items: readonly T[]): T => items[below(items.length)] as T;
  const some = (items: readonly string[], atLeast: number): string[] => {
    const chosen = [...items].sort(() => below(3) - 1);
    return chosen.slice(0, atLeast + below(items.length - atLeast + 1));
  };
  const model = new Model(seed, ["a", "b", "c", "d", "liar"], 3);
  const counts = { certified: 0, switches: 0, lies: 0 };
  for (let step = 0; step < STEPS; step++) {
    const recent = model.orders.slice(-3);
    const move = below(10);
    if ((move < 2 && below(3) === 0) || recent.length === 0) {
      const parties = below(2) === 0 ? ["a", "b", "c", "d", "liar"] : some(NODES, 4);
      model.order(oneOf(NODES.slice(0, 5)), parties, 2 + below(parties.length - 1));
    } else if (move < 5) {
      const crashed = new Set(below(4) === 0 ? [oneOf(NODES)] : []);
      model.session(oneOf([...recent, ...recent.slice(-1)]), model.nextAttempt(recent.at(-1), below(2)), crashed);
    } else if (move < 7) {
      const by = below(2) === 0 ? "liar" : oneOf(NODES);
      const [change, attempt] = below(3) === 0 ? [oneOf(recent), 1 + below(3)] : model.lastAttempt();
      if (change === undefined) continue;
      if (by === "liar") counts.lies++;
      for (const at of below(2) === 0 ? NODES : [oneOf(NODES)]) model.abandon(change, attempt, { by, at });
    } else {
      const index = model.certificates.length - 1 - below(3);
      for (const at of below(2) === 0 ? NODES : [oneOf(NODES)]) if (model.switch(index, at)) counts.switches++;
    }
    model.assertKeyLives();
    model.assertTogether();
  }
  return { ...counts, certified: model.certificates.length };
}
