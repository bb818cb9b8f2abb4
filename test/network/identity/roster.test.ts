import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { describe, it } from "node:test";
import { inspect } from "node:util";
import fc from "fast-check";
import { InvalidInput } from "../../../src/crypto/fault.js";
import { MessageIdentity, verifyPeerSignature } from "../../../src/network/identity/message-identity.js";
import { isNodeId } from "../../../src/network/identity/node-id.js";
import {
  MAX_ROSTER_PEERS,
  type Peer,
  parseRoster,
  Roster,
  rosterEntries,
} from "../../../src/network/identity/roster.js";
import { testRandom } from "./forged-chain.js";

const isCode = (code: string) => (error: unknown) => error instanceof InvalidInput && error.code === code;

function entry(index: number, changes: Record<string, unknown> = {}): Record<string, unknown> {
  const { publicKey } = MessageIdentity.generate(`node-${index}`, testRandom).toJSON();
  const address = { host: "10.0.0.1", port: 9000 + index };
  return { nodeId: `node-${index}`, role: "node", ...address, identityKey: publicKey, ...changes };
}

describe("roster", () => {
  it("round trip, lookup and roles", () => {
    const entries = [entry(1), entry(2), entry(3, { nodeId: "coordinator-1", role: "coordinator" })];
    const roster = parseRoster(entries);
    assert.deepEqual(rosterEntries(roster), entries);
    assert.deepEqual([roster.has("node-1"), roster.has("node-9"), roster.has("__proto__")], [true, false, false]);
    assert.equal(roster.get("node-2")?.port, 9002);
    assert.deepEqual([roster.nodes.length, roster.coordinators.length], [2, 1]);
    assert.ok(Object.isFrozen(roster.peers) && Object.isFrozen(roster.peers[0]));
  });

  it("holds 64 peers and refuses one more, and none", () => {
    const entries = Array.from({ length: MAX_ROSTER_PEERS + 1 }, (_, index) => entry(index));
    assert.equal(parseRoster(entries.slice(1)).peers.length, MAX_ROSTER_PEERS);
    assert.throws(() => parseRoster(entries), isCode("bad-roster"));
    assert.throws(() => parseRoster([]), isCode("bad-roster"));
    assert.throws(() => new Roster([]), isCode("bad-roster"));
  });

  it("refuses two peers with one id, one identity key or one address", () => {
    const first = entry(1);
    for (const shared of ["nodeId", "identityKey"]) {
      assert.throws(() => parseRoster([first, entry(2, { [shared]: first[shared] })]), isCode("bad-roster"));
    }
    assert.throws(() => parseRoster([first, entry(2, { port: first["port"] })]), isCode("bad-roster"));
  });

  it("refuses each wrong field by its path", () => {
    const wrong = {
      nodeId: ["", "Node-1", "-a", "a-", "a.b", "*", "ä", "a".repeat(64), 5],
      role: ["admin", undefined],
      host: ["", "h".repeat(254), 1],
      port: [0, 65536, 1.5, "9000"],
      identityKey: ["", "0".repeat(64), `01${"0".repeat(62)}`, "f".repeat(64), "A".repeat(64), "ab"],
      extra: [1],
    };
    for (const [field, values] of Object.entries(wrong)) {
      for (const value of values) {
        assert.throws(() => parseRoster([entry(1, { [field]: value })]), isCode("bad-roster"), `${field} = ${value}`);
      }
    }
    for (const value of [undefined, null, {}, "node-1", [null]])
      assert.throws(() => parseRoster(value), isCode("bad-roster"));
    fc.assert(fc.property(fc.jsonValue(), (value) => assert.throws(() => parseRoster([value]), isCode("bad-roster"))));
  });

  it("a roster made in code is checked too", () => {
    const good: Peer = { ...parseRoster([entry(1)]).peers[0], role: "node" } as Peer;
    assert.equal(new Roster([good]).peers.length, 1);
    assert.throws(() => new Roster([{ ...good, nodeId: "NODE" }]), isCode("bad-roster"));
    assert.throws(() => new Roster([{ ...good, identityKey: new Uint8Array(32) }]), isCode("bad-roster"));
  });

  it("node ids are one DNS label of 1 to 63 characters", () => {
    for (const id of ["a", "1", "node-1", "a".repeat(63)]) assert.equal(isNodeId(id), true, id);
    for (const id of ["", "a".repeat(64), "-", "a-", "-a", "a_b", "a b", "a\n", "A", "é"])
      assert.equal(isNodeId(id), false, id);
  });
});

describe("message identity", () => {
  it("signs what the roster's key verifies, and nothing that a stranger signs", () => {
    const [one, two] = ["node-1", "node-2"].map((nodeId) => MessageIdentity.generate(nodeId, testRandom));
    assert.ok(one && two);
    const address = { role: "node" as const, host: "10.0.0.1" };
    const roster = new Roster([
      { nodeId: "node-1", port: 1, identityKey: one.publicKey, ...address },
      { nodeId: "node-2", port: 2, identityKey: two.publicKey, ...address },
    ]);
    const bytes = new Uint8Array(randomBytes(50));
    const signature = one.sign(bytes);
    assert.equal(verifyPeerSignature(roster, { nodeId: "node-1", bytes, signature }), true);
    assert.equal(verifyPeerSignature(roster, { nodeId: "node-2", bytes, signature }), false);
    assert.equal(verifyPeerSignature(roster, { nodeId: "node-3", bytes, signature }), false);
    assert.equal(verifyPeerSignature(roster, { nodeId: "node-1", bytes: bytes.slice(1), signature }), false);
  });

  it("survives its file, is the same for the same seed, and refuses other keys", () => {
    const identity = MessageIdentity.generate("node-1", testRandom);
    const again = MessageIdentity.fromPem("node-1", identity.toPem());
    assert.deepEqual(again.publicKey, identity.publicKey);
    const seed = new Uint8Array(32).fill(7);
    assert.deepEqual(
      MessageIdentity.fromSeed("node-1", seed).publicKey,
      MessageIdentity.fromSeed("node-2", seed).publicKey,
    );
    assert.throws(() => MessageIdentity.fromPem("node-1", "nothing"), isCode("bad-identity-key"));
    assert.throws(() => MessageIdentity.generate("Node 1", testRandom), isCode("bad-node-id"));
  });

  it("shows no secret to a log", () => {
    const seed = new Uint8Array(randomBytes(32));
    const identity = MessageIdentity.fromSeed("node-1", seed);
    const shown = inspect(identity, { depth: 9, showHidden: true }) + JSON.stringify(identity);
    assert.ok(!shown.includes(Buffer.from(seed).toString("hex")) && !shown.includes("PRIVATE"));
  });
});
