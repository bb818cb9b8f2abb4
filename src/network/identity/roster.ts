import { z } from "zod";
import { isEd25519PublicKey } from "../../crypto/ed25519.js";
import { InvalidInput } from "../../crypto/fault.js";
import { isNodeId } from "./node-id.js";

export type PeerRole = "node" | "coordinator";

/** One member: who it is, where it listens, and the key that signs its messages (not its TLS key). */
export interface Peer {
  readonly nodeId: string;
  readonly role: PeerRole;
  readonly host: string;
  readonly port: number;
  /** Ed25519, 32 bytes. */
  readonly identityKey: Uint8Array;
}

export const MAX_ROSTER_PEERS = 64;

const peerSchema = z.strictObject({
  nodeId: z.string().refine(isNodeId, "a node id is one DNS label: 1 to 63 of a-z, 0-9 and '-'"),
  role: z.enum(["node", "coordinator"]),
  host: z.string().min(1).max(253),
  port: z.int().min(1).max(65535),
  identityKey: z
    .string()
    .regex(/^[0-9a-f]{64}$/, "32 bytes as lower-case hexadecimal")
    .transform((text) => new Uint8Array(Buffer.from(text, "hex")))
    .refine(isEd25519PublicKey, "not a usable Ed25519 public key"),
});

const rosterSchema = z.array(peerSchema).min(1).max(MAX_ROSTER_PEERS);

/**
 * Who takes part. Immutable: a change of members is a new roster. Ids, identity keys and addresses are unique, so that
 * no member can be counted twice.
 */
export class Roster {
  readonly peers: readonly Peer[];
  readonly #byId: ReadonlyMap<string, Peer>;

  /** @throws InvalidInput `bad-roster` */
  constructor(peers: readonly Peer[]) {
    if (peers.length === 0 || peers.length > MAX_ROSTER_PEERS) {
      throw new InvalidInput("bad-roster", `a roster has 1 to ${MAX_ROSTER_PEERS} peers`, { peers: peers.length });
    }
    for (const peer of peers) {
      if (!isNodeId(peer.nodeId) || !isEd25519PublicKey(peer.identityKey)) {
        throw new InvalidInput("bad-roster", "a peer has a bad id or a bad identity key", {
          nodeId: peer.nodeId.slice(0, 80),
        });
      }
    }
    assertUnique(peers, "nodeId", (peer) => peer.nodeId);
    assertUnique(peers, "identityKey", (peer) => Buffer.from(peer.identityKey).toString("hex"));
    assertUnique(peers, "address", (peer) => `${peer.host}:${peer.port}`);
    this.peers = Object.freeze(peers.map((peer) => Object.freeze({ ...peer })));
    this.#byId = new Map(this.peers.map((peer) => [peer.nodeId, peer]));
  }

  has(nodeId: string): boolean {
    return this.#byId.has(nodeId);
  }

  get(nodeId: string): Peer | undefined {
    return this.#byId.get(nodeId);
  }

  /** Members that hold key shares, in roster order. */
  get nodes(): readonly Peer[] {
    return this.peers.filter((peer) => peer.role === "node");
  }

  get coordinators(): readonly Peer[] {
    return this.peers.filter((peer) => peer.role === "coordinator");
  }
}

/**
 * Reads a roster from a configuration: an array of `{ nodeId, role, host, port, identityKey }`, the key as 64
 * lower-case hexadecimal digits.
 * @throws InvalidInput `bad-roster`, naming the first field that is wrong
 */
export function parseRoster(value: unknown): Roster {
  const parsed = rosterSchema.safeParse(value);
  if (parsed.success) return new Roster(parsed.data);
  const issue = parsed.error.issues[0];
  const path = issue?.path.map(String).join(".") ?? "";
  throw new InvalidInput("bad-roster", `roster: ${path}: ${issue?.message ?? "invalid"}`, { path });
}

/** The inverse of `parseRoster`, for writing a configuration. */
export function rosterEntries(roster: Roster): readonly Record<string, string | number>[] {
  return roster.peers.map(({ identityKey, ...peer }) => ({
    ...peer,
    identityKey: Buffer.from(identityKey).toString("hex"),
  }));
}

function assertUnique(peers: readonly Peer[], fact: string, key: (peer: Peer) => string): void {
  const seen = new Set<string>();
  for (const peer of peers) {
    if (seen.has(key(peer))) {
      throw new InvalidInput("bad-roster", `two peers share one ${fact}`, { nodeId: peer.nodeId, fact });
    }
    seen.add(key(peer));
  }
}
