import { BlockList, isIPv6 } from "node:net";
import type { NetworkLimits } from "./network-limits.js";

/** quiche 0.18 makes no larger packet, and never searches a path for what it takes. */
export const MAX_DATAGRAM_BYTES = 16_383;

const LOOPBACK = new BlockList();
LOOPBACK.addSubnet("127.0.0.0", 8, "ipv4");
LOOPBACK.addAddress("::1", "ipv6");

/**
 * Bytes that one datagram to `address` may have. Every datagram costs a system call and a call into the binding at both ends,
 * so processes of one machine use what its loopback interface takes.
 */
export function datagramBytes(
  address: string,
  limits: Pick<NetworkLimits, "pathDatagramBytes" | "loopbackDatagramBytes">,
): number {
  const loopback = LOOPBACK.check(address, isIPv6(address) ? "ipv6" : "ipv4");
  return loopback ? limits.loopbackDatagramBytes : limits.pathDatagramBytes;
}
