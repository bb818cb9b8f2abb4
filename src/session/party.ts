import { InvalidInput } from "../crypto/fault.js";

declare const partyBrand: unique symbol;

/** Index of a party in its group, 1 to 65535. It is also the party's point of evaluation in secret sharing. */
export type PartyId = number & { readonly [partyBrand]: "PartyId" };

/** Largest group that a session accepts. */
export const MAX_PARTIES = 64;

/** Checks and brands an index. @throws InvalidInput `party-index` */
export function partyId(index: number): PartyId {
  if (!Number.isInteger(index) || index < 1 || index > 65535) {
    throw new InvalidInput("party-index", "a party index is an integer from 1 to 65535", { index });
  }
  return index as PartyId;
}

/** One member of a group: its index and the Ed25519 key that signs its envelopes. */
export interface Party {
  readonly id: PartyId;
  /** Name in the roster. */
  readonly nodeId: string;
  /** Ed25519 public key, 32 bytes. */
  readonly identityKey: Uint8Array;
}

/** The parties of one session in ascending order of index; for signing, the signing set. */
export class Group {
  readonly parties: readonly Party[];
  readonly ids: readonly PartyId[];
  readonly #byId: ReadonlyMap<PartyId, Party>;

  /** @throws InvalidInput `group` when indices or node ids repeat, or the group is empty or too large */
  constructor(parties: readonly Party[]) {
    this.parties = [...parties].sort((a, b) => a.id - b.id);
    this.ids = this.parties.map((party) => party.id);
    this.#byId = new Map(this.parties.map((party) => [party.id, party]));
    const names = new Set(this.parties.map((party) => party.nodeId));
    if (this.#byId.size !== parties.length || names.size !== parties.length) {
      throw new InvalidInput("group", "a party stands twice in the group", { parties: this.ids });
    }
    if (parties.length === 0 || parties.length > MAX_PARTIES) {
      throw new InvalidInput("group", `a group has 1 to ${MAX_PARTIES} parties`, { count: parties.length });
    }
    for (const party of parties) {
      if (party.identityKey.length !== 32) {
        throw new InvalidInput("group", "an identity key is 32 bytes", { party: party.id });
      }
    }
  }

  party(id: number): Party | undefined {
    return this.#byId.get(id as PartyId);
  }

  has(id: number): boolean {
    return this.#byId.has(id as PartyId);
  }

  others(self: PartyId): readonly PartyId[] {
    return this.ids.filter((id) => id !== self);
  }

  idOf(nodeId: string): PartyId | undefined {
    return this.parties.find((party) => party.nodeId === nodeId)?.id;
  }
}
