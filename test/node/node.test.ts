import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import type { PeerCalls } from "../../src/coordinator/peer-calls.js";
import { InvalidInput } from "../../src/crypto/fault.js";
import { systemRandom } from "../../src/node/ambient.js";
import type { ChainSource } from "../../src/wallet/chain-source.js";
import type { KeyGenerationOrder } from "../../src/wallet/key-generation.js";
import { TestCluster } from "./cluster.js";

/** No call of these tests reaches the chain. */
const noChain = {} as ChainSource;

describe("five nodes over QUIC", () => {
  let cluster: TestCluster;
  let calls: PeerCalls;
  before(async () => {
    cluster = await TestCluster.start({ nodes: 5, chain: noChain });
    calls = await cluster.connect();
  });
  after(async () => {
    await cluster.close();
  });

  const order = (walletId: string, change: Partial<KeyGenerationOrder> = {}): KeyGenerationOrder => ({
    sessionId: systemRandom.bytes(16),
    walletId,
    name: "test",
    scheme: "frost",
    threshold: 3,
    parties: cluster.roster.nodes.map(({ nodeId }) => nodeId),
    network: "regtest",
    ...change,
  });
  const generate = (request: KeyGenerationOrder) =>
    Promise.all(request.parties.map((nodeId) => calls.generate(nodeId, request, AbortSignal.timeout(20_000))));

  it("generate one key on which all agree", async () => {
    const startedMs = performance.now();
    const keys = await generate(order("wallet-a"));
    const took = performance.now() - startedMs;
    assert.equal(new Set(keys.map(({ keyDigest }) => Buffer.from(keyDigest).toString("hex"))).size, 1);
    assert.equal(keys[0]?.groupKey.length, 33);
    assert.ok(keys[0]?.chainCode.some((byte) => byte !== 0));
    assert.ok(took > 0);
    console.log(`# 3-of-5 key generation over QUIC: ${took.toFixed(0)} ms`);
  });

  it("refuse a wallet that exists, another network, a stranger as party, and a session id twice", async () => {
    const code = (wanted: string) => (fault: unknown) => fault instanceof InvalidInput && fault.code === wanted;
    const ask = (request: KeyGenerationOrder) => calls.generate("node-1", request, AbortSignal.timeout(10_000));
    await assert.rejects(ask(order("wallet-a")), code("wallet-exists"));
    await assert.rejects(ask(order("wallet-b", { network: "mainnet" })), code("network-mismatch"));
    await assert.rejects(ask(order("wallet-b", { parties: ["node-1", "node-9"] })), code("party-unknown"));
    await assert.rejects(ask(order("wallet-b", { parties: ["node-1", "coordinator-1"] })), code("party-unknown"));
    await assert.rejects(ask(order("wallet-b", { threshold: 6 })), code("threshold-out-of-range"));
    await assert.rejects(ask(order("Wallet B")), code("wallet-id-invalid"));
    await assert.rejects(ask(order("wallet-b", { sessionId: new Uint8Array(3) })), code("session-id"));
  });
});
