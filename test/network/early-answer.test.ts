import assert from "node:assert/strict";
import { after, describe, it } from "node:test";
import { createClient } from "@connectrpc/connect";
import { SessionService } from "../../gen/mpcwallet/peer/v1/peer_pb.js";
import type { RouterSetup } from "../../src/network/method-table.js";
import { TestAuthority } from "./test-certificates.js";
import { closeAll, startNode, startPair } from "./test-mesh.js";
import { UdpProxy } from "./udp-proxy.js";

after(closeAll);
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

describe("a server that ends a call before the request is over", () => {
  it("300 times, three times what a connection allows at once: every stream is given back", async () => {
    const pair = await startPair({
      router: (router) =>
        router.service(SessionService, {
          async *exchange(requests) {
            for await (const { frame } of requests) {
              if (frame !== undefined) yield { frame };
              return;
            }
          },
        }),
    });
    const session = createClient(SessionService, pair.a.mesh.transport("node-b"));
    for (let call = 0; call < 300; call++) {
      let leave: (() => void) | undefined;
      async function* requests() {
        yield { frame: { kind: { case: "envelope" as const, value: new Uint8Array(100) } } };
        await new Promise<void>((resolve) => (leave = resolve));
      }
      let answers = 0;
      for await (const _ of session.exchange(requests(), { timeoutMs: 10_000 })) answers += 1;
      assert.equal(answers, 1, `call ${call}`);
      leave?.();
    }
    await pair.close();
  });

  it("while the client ends its request, unaware: every stream is given back", async () => {
    const authority = await TestAuthority.create("early");
    const router: RouterSetup = (routes) =>
      void routes.service(SessionService, {
        async *exchange(requests) {
          for await (const { frame } of requests) {
            await pause(25); // past the acknowledgement, so that the answer begins the burst
            if (frame !== undefined) yield { frame };
            await pause(5);
            return;
          }
        },
      });
    const b = await startNode({ nodeId: "node-b", authority, router, peers: [{ nodeId: "node-a" }] });
    // The answer's data, in the first datagram of a burst, makes the client end its request; the answer's end is in the
    // next datagram, and quiche has forgotten the stream before the client's end is sent.
    const wire = await UdpProxy.start(b.mesh.port);
    const peers = [{ nodeId: "node-b", host: "127.0.0.1", port: wire.port }];
    const a = await startNode({ nodeId: "node-a", authority, router, peers });
    await a.mesh.ready(["node-b"], 5_000);
    wire.burstMs = 15;
    const session = createClient(SessionService, a.mesh.transport("node-b", "presign"));
    const call = async (): Promise<void> => {
      let leave = (): void => {};
      const answered = new Promise<void>((resolve) => (leave = resolve));
      async function* requests() {
        yield { frame: { kind: { case: "envelope" as const, value: new Uint8Array(100) } } };
        await answered;
      }
      let answers = 0;
      for await (const _ of session.exchange(requests(), { timeoutMs: 5_000 })) {
        answers += 1;
        leave();
      }
      assert.equal(answers, 1);
    };
    // Ten streams of the class and no more.
    for (let round = 0; round < 20; round++) await Promise.all(Array.from({ length: 5 }, call));
    await Promise.all([a.mesh.close(), b.mesh.close()]);
    wire.close();
  });
});
