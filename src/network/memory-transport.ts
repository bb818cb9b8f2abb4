import { createRouterTransport, type Transport } from "@connectrpc/connect";
import { peerNodeId } from "./call-context.js";
import type { RouterSetup } from "./method-table.js";

/**
 * The same handlers without a network: calls arrive at `setup`'s handlers as if `from` had made them over a verified
 * connection. For tests and simulations.
 */
export function memoryTransport(options: { from: string; setup: RouterSetup }): Transport {
  return createRouterTransport(options.setup, {
    router: {
      interceptors: [
        (next) => (request) => {
          request.contextValues.set(peerNodeId, options.from);
          return next(request);
        },
      ],
    },
  });
}
