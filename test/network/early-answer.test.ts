import assert from "node:assert/strict";
import { after, describe, it } from "node:test";
import { createClient } from "@connectrpc/connect";
import { SessionService } from "../../gen/mpcwallet/peer/v1/peer_pb.js";
import { closeAll, startPair } from "./test-mesh.js";

after(closeAll);

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
});
