import { InvalidInput } from "../../crypto/fault.js";

/**
 * A node id is one DNS label, because it is also the certificate's SAN and the TLS server name. One label leaves no
 * room for a wildcard, a dot, upper case or a look-alike alphabet.
 */
const NODE_ID = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;

export function isNodeId(text: string): boolean {
  return NODE_ID.test(text);
}

/** @throws InvalidInput `bad-node-id` */
export function assertNodeId(text: string): void {
  if (isNodeId(text)) return;
  throw new InvalidInput("bad-node-id", "a node id is 1 to 63 of a-z, 0-9 and '-', with no '-' at either end", {
    nodeId: text.slice(0, 80),
  });
}
