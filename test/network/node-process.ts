// A node in its own process, for tests that kill or block one. Started by `fork`; told what to be by the first message.

import { ControlService } from "../../gen/mpcwallet/peer/v1/peer_pb.js";
import { PeerMesh, type PeerMeshOptions } from "../../src/network/peer-mesh.js";
import { systemClock, systemRandom } from "../../src/node/ambient.js";
import { testVerifier } from "./test-certificates.js";

/** First message to the process. */
export interface NodeProcessSetup {
  readonly mesh: PeerMeshOptions;
  readonly rootDerBase64: string;
}

/** A payload that starts with this word and a number blocks the event loop for so many milliseconds. */
export const BUSY = "busy ";
/** A payload of this word is never answered. */
export const NEVER = "never";
/** A payload of this word closes the mesh; the process must then end by itself. */
export const LEAVE = "leave";

/** Blocks the event loop. */
export function blockMs(durationMs: number): void {
  const endMs = performance.now() + durationMs;
  while (performance.now() < endMs);
}

async function run({ mesh: options, rootDerBase64 }: NodeProcessSetup): Promise<void> {
  const mesh: PeerMesh = await PeerMesh.start(options, {
    clock: systemClock,
    random: systemRandom,
    verifier: testVerifier(Buffer.from(rootDerBase64, "base64")),
    log: () => {},
    router: (router) =>
      router.service(ControlService, {
        ping({ payload }) {
          const word = Buffer.from(payload.subarray(0, 32)).toString();
          if (word.startsWith(BUSY)) blockMs(Number(word.slice(BUSY.length)));
          if (word === NEVER) return new Promise<never>(() => {});
          if (word === LEAVE) setImmediate(() => void mesh.close().then(() => process.disconnect?.()));
          return { payload, timeMs: 1n };
        },
      }),
  });
  process.send?.({ port: mesh.port });
}

if (process.argv.includes("--node-process")) process.once("message", (setup) => void run(setup as NodeProcessSetup));
