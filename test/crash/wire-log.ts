// What passed between the processes of a crash test, and the one question that is asked of it: was anything that signs
// once used twice? A log is kept where bytes leave a node and where they reach its peers; envelopes are signed by their
// senders, so a peer's log proves what the sender did even when the sender's own log is lost with it.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";

const hex = z.string().regex(/^[0-9a-f]*$/);

/** A line of a node's log: one envelope of a signing session. */
const passage = z.strictObject({
  type: z.literal("envelope"),
  at: z.string(),
  direction: z.enum(["sent", "received"]),
  /** Session digest; binds messages, tweaks, presignatures, certificate. */
  ssid: hex.length(64),
  round: z.string(),
  /** Node id. */
  sender: z.string(),
  /** SHA-256 of the payload. */
  payload: hex.length(64),
  /**
   * What the sender's share of this session is made from: presignature ids, which bind all signers' nonces, or the
   * nonce commitments that this envelope itself announces.
   */
  uses: z.array(z.string()),
  /** The messages of the session, hex. */
  messages: z.array(hex),
  /** Digest of the key whose share signs at the node that wrote this line; another one after every refresh. */
  key: hex.length(64),
});

/** A line of a coordinator's log: an attack that it made. */
const attack = z.strictObject({
  type: z.literal("attack"),
  node: z.string(),
  /** "accepted", or the fault's code. */
  outcome: z.string(),
});

/** A line that a process wrote just before it was killed at a named step. */
const kill = z.strictObject({ type: z.literal("kill"), at: z.string(), point: z.string() });

export const wireLine = z.discriminatedUnion("type", [passage, attack, kill]);
export type WireLine = z.output<typeof wireLine>;

/** All lines of a folder of logs. A last line that a kill cut off is no line. */
export function readWireLogs(folder: string): readonly WireLine[] {
  return readdirSync(folder)
    .filter((name) => name.endsWith(".jsonl"))
    .sort()
    .flatMap((name) => {
      const lines = readFileSync(join(folder, name), "utf8").split("\n");
      return lines.slice(0, -1).map((line) => wireLine.parse(JSON.parse(line)));
    });
}

export interface Reuse {
  readonly sender: string;
  /** Presignature id or nonce commitment. */
  readonly used: string;
  /** The sessions whose shares it is in. */
  readonly sessions: readonly string[];
}

export interface WireVerdict {
  /** Pairs of a sender and a session in which a share of the sender's was seen. */
  readonly shares: number;
  /** Pairs of a sender and what its share was made from. */
  readonly used: number;
  readonly reuses: readonly Reuse[];
  /** Shares whose presignature or nonces are not in the log; must be none, else the check would see less than all. */
  readonly unexplained: readonly string[];
  /** Keys whose shares signed: one for each wallet, and one more for each change of its shares that was signed after. */
  readonly keys: number;
  /** What was made under one key and was used under another, too: it should have been burned. */
  readonly strayed: readonly string[];
}

const SHARES = "shares";

/**
 * Finds every presignature and every nonce that is in the shares of two sessions of one sender, in one epoch or in two.
 * Two sessions differ in their messages, keys, signers or the coordinator's randomness; a second share is one too many in
 * every case, whether its message differs or not.
 */
export function checkOneUse(lines: readonly WireLine[]): WireVerdict {
  const names = new Map<string, Set<string>>();
  const shared = new Map<string, { readonly sender: string; readonly ssid: string }>();
  for (const line of lines) {
    if (line.type !== "envelope") continue;
    const { sender, ssid } = line;
    const key = `${sender}/${ssid}`;
    const known = names.get(key) ?? new Set();
    names.set(key, known);
    for (const used of line.uses) known.add(used);
    if (line.round === SHARES) shared.set(key, { sender, ssid });
  }
  const sessions = new Map<string, { readonly sender: string; readonly used: string; readonly in: Set<string> }>();
  const unexplained: string[] = [];
  for (const [key, { sender, ssid }] of shared) {
    const uses = names.get(key) ?? new Set();
    if (uses.size === 0) unexplained.push(key);
    for (const used of uses) {
      const place = `${sender}/${used}`;
      const entry = sessions.get(place) ?? { sender, used, in: new Set<string>() };
      sessions.set(place, entry);
      entry.in.add(ssid);
    }
  }
  const reuses = [...sessions.values()]
    .filter((entry) => entry.in.size > 1)
    .map(({ sender, used, in: where }) => ({ sender, used, sessions: [...where] }));
  return { shares: shared.size, used: sessions.size, reuses, unexplained, ...checkKeys(lines) };
}

function checkKeys(lines: readonly WireLine[]): Pick<WireVerdict, "keys" | "strayed"> {
  const keys = new Set<string>();
  const keyOf = new Map<string, string>();
  const strayed = new Set<string>();
  for (const line of lines) {
    if (line.type !== "envelope") continue;
    keys.add(line.key);
    for (const used of line.uses) {
      if ((keyOf.get(used) ?? line.key) !== line.key) strayed.add(used);
      keyOf.set(used, line.key);
    }
  }
  return { keys: keys.size, strayed: [...strayed] };
}
