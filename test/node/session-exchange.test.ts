import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { createClient, createRouterTransport } from "@connectrpc/connect";
import { schnorr } from "@noble/curves/secp256k1.js";
import { SessionService } from "../../gen/mpcwallet/peer/v1/peer_pb.js";
import type { Scalar } from "../../src/crypto/curve.js";
import { ed25519PrivateKey, ed25519PublicKey } from "../../src/crypto/ed25519.js";
import { Bug, InvalidInput, PeerSilent, Unavailable } from "../../src/crypto/fault.js";
import { systemClock, systemRandom } from "../../src/node/ambient.js";
import { SessionExchange } from "../../src/node/session-exchange.js";
import type { SessionJob, SessionSeat } from "../../src/node/session-job.js";
import { SessionPool } from "../../src/node/session-pool.js";
import { outputKey } from "../../src/protocols/frost/taproot.js";
import { decodeKeyShare } from "../../src/protocols/key-share.js";
import { identitySeed } from "../session/simulation.js";

interface TestNode {
  readonly id: number;
  readonly pool: SessionPool;
  readonly exchange: SessionExchange;
}

const nodeId = (id: number): string => `node-${id}`;
const keygenJob: SessionJob = { kind: "keygen", scheme: "frost", threshold: 2, walletId: "wallet" };

describe("sessions between nodes, in worker threads", () => {
  const nodes = new Map<string, TestNode>();
  const offline = new Set<string>();
  /** Ids of nodes that sent an envelope over a stream that they opened. */
  const sendersOfEnvelopes = new Set<number>();
  const parties = [1, 2, 3].map((id) => ({ id, nodeId: nodeId(id), identityKey: ed25519PublicKey(identitySeed(id)) }));
  const seat = (self: number, sessionId: Uint8Array, ids = [1, 2, 3]): SessionSeat => ({
    sessionId,
    self,
    parties: parties.filter(({ id }) => ids.includes(id)),
  });

  before(async () => {
    for (const { id } of parties) {
      const pool = await SessionPool.start(
        {
          workers: 1,
          identity: ed25519PrivateKey(identitySeed(id)),
          maxSessions: 4,
          patience: () => ({ roundTimeoutMs: 1_500, sessionTimeoutMs: 5_000 }),
        },
        { clock: systemClock },
      );
      const exchange = new SessionExchange(
        { patienceMs: 1_000, maxWaiting: 8, linkCapacity: 64, rememberedSessions: 100, takePatienceMs: 1_000 },
        {
          pool,
          clock: systemClock,
          open({ peer }, requests, signal) {
            const observed = async function* () {
              for await (const request of requests) {
                if (request.frame?.kind?.case === "envelope") sendersOfEnvelopes.add(id);
                yield request;
              }
            };
            const transport = createRouterTransport(({ rpc }) => {
              rpc(SessionService.method.exchange, (incoming, context) => {
                const node = nodes.get(peer);
                if (node === undefined || offline.has(peer)) throw new Unavailable("offline", "this node is offline");
                return node.exchange.accept(nodeId(id), incoming, context.signal);
              });
            });
            return createClient(SessionService, transport).exchange(observed(), { signal });
          },
        },
      );
      nodes.set(nodeId(id), { id, pool, exchange });
    }
  });
  after(async () => {
    await Promise.all([...nodes.values()].map(({ pool }) => pool.close()));
  });

  const runOn = (id: number, job: SessionJob, place: SessionSeat) => {
    const node = nodes.get(nodeId(id));
    assert.ok(node !== undefined);
    return node.exchange.run(job, place);
  };

  it("generate a key and sign, whichever node starts first", async () => {
    const sessionId = systemRandom.bytes(16);
    const results = await Promise.all([3, 1, 2].map((id) => runOn(id, keygenJob, seat(id, sessionId))));
    const shares = new Map(
      results.map((result) => {
        assert.ok(result.kind === "keygen");
        return [decodeKeyShare(result.keyShare).self as number, result.keyShare];
      }),
    );
    const message = systemRandom.bytes(32);
    const signing = systemRandom.bytes(16);
    const signed = await Promise.all(
      [1, 3].map((id) => {
        const keyShare = shares.get(id) ?? new Uint8Array();
        const items = [{ message, bip32Tweak: 5n }];
        return runOn(
          id,
          { kind: "frost-sign", keyShare, items, authorization: new Uint8Array(32) },
          seat(id, signing, [1, 3]),
        );
      }),
    );
    const key = decodeKeyShare(shares.get(1) ?? new Uint8Array());
    for (const result of signed) {
      assert.ok(result.kind === "frost-sign");
      const [signature] = result.signatures;
      assert.ok(schnorr.verify(signature ?? new Uint8Array(), message, outputKey(key, 5n as Scalar).xOnly));
    }
  });

  it("a session id runs once", async () => {
    const sessionId = systemRandom.bytes(16);
    await Promise.all([1, 2, 3].map((id) => runOn(id, keygenJob, seat(id, sessionId))));
    await assert.rejects(
      runOn(1, keygenJob, seat(1, sessionId)),
      (fault) => fault instanceof InvalidInput && fault.code === "session-reused",
    );
  });

  it("a node that is away is named as silent", async () => {
    offline.add("node-3");
    const sessionId = systemRandom.bytes(16);
    const outcomes = await Promise.allSettled([1, 2].map((id) => runOn(id, keygenJob, seat(id, sessionId))));
    offline.clear();
    for (const outcome of outcomes) {
      assert.ok(outcome.status === "rejected" && outcome.reason instanceof PeerSilent);
      assert.deepEqual(outcome.reason.silent, ["node-3"]);
    }
  });

  describe("that sign with what was made ahead", () => {
    const item = (fill: number): Uint8Array => new Uint8Array(32).fill(fill);
    const join = (id: number, sessionId: Uint8Array, takes: readonly Uint8Array[]) => {
      const node = nodes.get(nodeId(id));
      assert.ok(node !== undefined);
      return node.exchange.join("keygen", seat(id, sessionId), takes);
    };

    it("begin when all have said that they used the same up, however far apart", async () => {
      const sessionId = systemRandom.bytes(16);
      const places = [1, 2, 3].map((id) => join(id, sessionId, [item(7), item(8)]));
      let begun = 0;
      const results = places.map(async (place, index) => {
        await new Promise((resolve) => setTimeout(resolve, 150 * index));
        if (index === 2) assert.equal(begun, 0, "the last one has not said it yet");
        const release = async (): Promise<void> => {
          await place.takeTogether();
          begun++;
          // Those that are ahead send envelopes to those that have not begun.
          await new Promise((resolve) => setTimeout(resolve, 100 * index));
        };
        return await place.run(keygenJob, { release }).finally(() => place.leave());
      });
      assert.deepEqual(
        (await Promise.all(results)).map(({ kind }) => kind),
        ["keygen", "keygen", "keygen"],
      );
    });

    it("do not begin when one says nothing: it is named", async () => {
      const sessionId = systemRandom.bytes(16);
      const places = [1, 2, 3].map((id) => join(id, sessionId, [item(7)]));
      const outcomes = await Promise.allSettled(places.slice(0, 2).map((place) => place.takeTogether()));
      for (const place of places) place.leave();
      for (const outcome of outcomes) {
        assert.ok(outcome.status === "rejected" && outcome.reason instanceof PeerSilent);
        assert.deepEqual([outcome.reason.code, outcome.reason.silent], ["take-unconfirmed", ["node-3"]]);
      }
    });

    it("do not begin when one has left, which is known before the time is over", async () => {
      const sessionId = systemRandom.bytes(16);
      const [first, second, third] = [1, 2, 3].map((id) => join(id, sessionId, [item(7)]));
      assert.ok(first !== undefined && second !== undefined && third !== undefined);
      const startedMs = performance.now();
      const outcomes = Promise.allSettled([first.takeTogether(), second.takeTogether()]);
      third.leave();
      for (const outcome of await outcomes) {
        assert.ok(outcome.status === "rejected" && outcome.reason instanceof PeerSilent);
        assert.deepEqual(outcome.reason.silent, ["node-3"]);
      }
      assert.ok(performance.now() - startedMs < 950);
      for (const place of [first, second]) place.leave();
    });

    for (const [what, takes] of [
      ["another item", [item(9)]],
      ["one more", [item(7), item(9)]],
      ["none", []],
      ["a truncated id", [item(7).subarray(1)]],
    ] as const) {
      it(`do not begin when one was told to use ${what}`, async () => {
        const sessionId = systemRandom.bytes(16);
        const places = [join(1, sessionId, [item(7)]), join(2, sessionId, [item(7)]), join(3, sessionId, takes)];
        const outcomes = await Promise.allSettled(places.map((place) => place.takeTogether()));
        for (const place of places) place.leave();
        for (const outcome of outcomes) {
          assert.ok(outcome.status === "rejected" && outcome.reason instanceof InvalidInput, String(outcome.status));
          assert.equal(outcome.reason.code, "take-differs");
        }
      });
    }

    it("say nothing before their release, and nothing at all when it fails", async () => {
      // More often than a pool has room for sessions: what was dropped is gone.
      for (let round = 0; round < 6; round++) {
        const place = join(1, systemRandom.bytes(16), [item(7)]);
        sendersOfEnvelopes.clear();
        const release = async (): Promise<void> => {
          await new Promise((resolve) => setTimeout(resolve, 200));
          assert.equal(sendersOfEnvelopes.size, 0, "before the release");
          throw new InvalidInput("not-released", "nothing may leave");
        };
        await assert.rejects(place.run(keygenJob, { release }), { code: "not-released" });
        await new Promise((resolve) => setTimeout(resolve, 50));
        assert.equal(sendersOfEnvelopes.size, 0, "after the release has failed");
        place.leave();
      }
    });

    it("say what they have computed meanwhile when they are released, and no earlier", async () => {
      const sessionId = systemRandom.bytes(16);
      sendersOfEnvelopes.clear();
      const places = [1, 2, 3].map((id) => join(id, sessionId, [item(7)]));
      const results = places.map((place, index) =>
        place.run(keygenJob, {
          release: async () => {
            await place.takeTogether();
            if (index > 0) return;
            await new Promise((resolve) => setTimeout(resolve, 200));
            assert.equal(sendersOfEnvelopes.has(1), false);
          },
        }),
      );
      await Promise.all(results);
      for (const place of places) place.leave();
      assert.ok(sendersOfEnvelopes.has(1));
    });

    it("give the others a round's whole time from their release on", async () => {
      const sessionId = systemRandom.bytes(16);
      const places = [1, 2, 3].map((id) => join(id, sessionId, [item(7)]));
      const results = places.map(async (place, index) => {
        const release = async (): Promise<void> => {
          await place.takeTogether();
          // Of the 1.5 s that a round may take.
          await new Promise((resolve) => setTimeout(resolve, index === 2 ? 1_900 : 900));
        };
        return await place.run(keygenJob, { release });
      });
      assert.equal((await Promise.all(results)).length, 3);
      for (const place of places) place.leave();
    });

    it("cannot run without a release", async () => {
      const place = join(1, systemRandom.bytes(16), [item(7)]);
      await assert.rejects(place.run(keygenJob), Bug);
      place.leave();
    });

    it("run once: what was said in a session that was left counts in no other", async () => {
      const sessionId = systemRandom.bytes(16);
      const places = [1, 2, 3].map((id) => join(id, sessionId, [item(7)]));
      await Promise.all(places.map((place) => place.takeTogether()));
      places[0]?.leave();
      assert.throws(
        () => join(1, sessionId, [item(7)]),
        (fault) => fault instanceof InvalidInput && fault.code === "session-reused",
      );
      for (const place of places) place.leave();
    });
  });

  it("refuses a threshold out of range, a signer too few, and a stream for an unknown session", async () => {
    const sessionId = systemRandom.bytes(16);
    const code = (wanted: string) => (fault: unknown) => fault instanceof InvalidInput && fault.code === wanted;
    await assert.rejects(runOn(1, { ...keygenJob, threshold: 4 }, seat(1, sessionId)), code("threshold-out-of-range"));
    const node = nodes.get("node-2");
    assert.ok(node !== undefined);
    const opening = async function* () {
      yield { frame: { kind: { case: "opening", value: { sessionId: systemRandom.bytes(16) } } } };
    };
    const stream = node.exchange.accept("node-1", opening() as never, new AbortController().signal);
    await assert.rejects(stream.next(), (fault) => fault instanceof Unavailable && fault.code === "session-unknown");
    const nothing = async function* () {};
    await assert.rejects(
      node.exchange.accept("node-1", nothing() as never, new AbortController().signal).next(),
      code("session-opening"),
    );
  });
});
